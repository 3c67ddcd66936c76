"""Clicks through the search page in a real browser, holds it to one load of its model, and takes docs/search.md's
pictures. Not part of the package.

    python docs/screenshot_search.py OUTPUT_FOLDER [--url http://127.0.0.1:8501] [--mistakes FOLDER]

Needs Debian's chromium and chromium-driver, a font with Chinese characters (fonts-noto-cjk), and selenium in an
environment of its own; `podium search app` must have been started just before, with both news corpora indexed.
--mistakes takes pictures of what visitors do wrong, too, for looking at.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-background-networking --no-first-run --hide-scrollbars"
WIDTH = 1280
CHINESE = ("地震救援", "大学生就业", "高铁", "空气污染", "春节返乡", "人工智能", "暴雨", "食品安全", "共享单车", "房价")
ENGLISH = ("interest rates", "film awards", "election", "online music", "injury", "house prices", "virus", "doping",
           "budget", "games")  # fmt: skip

MISTAKES = {
    "blank": "   ",
    "long": "interest rates and the housing market " * 264,
    "html": "<img src=x onerror='window.podiumWasHacked = 1'><script>window.podiumWasHacked = 1</script>",
    "sql": "'; drop table articles; -- \" or 1=1",
    "emoji": "😀🏆👩‍🚀",
}
STRANGE_ADDRESSES = {
    "no_corpus": {"lang": "en", "corpus": "<b>none</b>"},
    "no_article": {"lang": "zh", "corpus": "chinese_news", "article": "../../etc/passwd"},
}


def open_browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--window-size={WIDTH},900"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def wait_until(condition: Callable[[], object], seconds: float = 90) -> float:
    """Seconds until a condition holds. Raises TimeoutError."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        try:
            if condition():
                return time.perf_counter() - started
        except Exception:  # the page is being drawn anew
            pass
        time.sleep(0.05)
    raise TimeoutError("the page never showed what was waited for")


def text_of(browser: webdriver.Chrome, selector: str) -> str:
    return str(browser.find_element(By.CSS_SELECTOR, selector).text)


def visit(browser: webdriver.Chrome, url: str, **parameters: str) -> float:
    """Open a state of the page; seconds until it is all there."""
    browser.get(f"{url}/?{urlencode(parameters)}")
    wanted = ".pod-card" if "q" in parameters else ".pod-article" if "article" in parameters else ".pod-health"
    seconds = wait_until(lambda: browser.find_element(By.CSS_SELECTOR, wanted))
    wait_until(lambda: browser.find_element(By.CSS_SELECTOR, ".pod-health").text)
    return seconds


def ask(browser: webdriver.Chrome, query: str) -> float:
    """Type a query; seconds until the health line has counted it."""
    before = count_of(browser, "searches")
    box = browser.find_element(By.CSS_SELECTOR, "[data-testid=stTextInput] input")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(query, Keys.ENTER)
    return wait_until(
        lambda: count_of(browser, "searches") > before and browser.find_elements(By.CLASS_NAME, "pod-card")
    )


def count_of(browser: webdriver.Chrome, name: str) -> int:
    """A number of the English health line."""
    line = text_of(browser, ".pod-health")
    found = re.search(rf"{name} ([\d,]+)", line)
    assert found is not None, line
    return int(found[1].replace(",", ""))


def picture(browser: webdriver.Chrome, file: Path, height: int = 900) -> None:
    browser.set_window_size(WIDTH, height)
    time.sleep(1.5)
    browser.save_screenshot(str(file))
    browser.set_window_size(WIDTH, 900)


def click_through(browser: webdriver.Chrome, url: str) -> None:
    """Twenty questions, ten in each corpus; every encoder and index is loaded once."""
    first = visit(browser, url, lang="en", corpus="chinese_news")
    print(f"first load {first:.2f} s, {text_of(browser, '.pod-health')}")
    seconds = [ask(browser, query) for query in CHINESE]
    loads = count_of(browser, "model loads"), count_of(browser, "index loads")
    assert loads == (1, 1), loads
    visit(browser, url, lang="en", corpus="english_news")
    seconds += [ask(browser, query) for query in ENGLISH]
    loads = count_of(browser, "model loads"), count_of(browser, "index loads")
    assert loads == (2, 2), loads
    ordered = sorted(seconds)
    print(
        f"20 questions, 2 corpora: loads {loads}, click to cards {ordered[10]:.2f} s median, {ordered[-1]:.2f} s worst"
    )
    print(text_of(browser, ".pod-health"))


def open_at_once(browser: webdriver.Chrome, url: str, sessions: int) -> None:
    """Sessions in tabs of their own, all opened before any has loaded."""
    first = browser.current_window_handle
    address = f"{url}/?{urlencode({'lang': 'en', 'corpus': 'chinese_news', 'q': '春节'})}"
    known = set(browser.window_handles)
    for _ in range(sessions):
        browser.execute_script(f"window.open({address!r})")
    for handle in set(browser.window_handles) - known:
        browser.switch_to.window(handle)
        wait_until(lambda: browser.find_elements(By.CLASS_NAME, "pod-card") and text_of(browser, ".pod-health"))
        line = text_of(browser, ".pod-health")
        browser.close()
    browser.switch_to.window(first)
    print(f"{sessions} sessions at once: {line}")
    assert "model loads 1 · index loads 1 " in line, line


def take_pictures(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    visit(browser, url, lang="zh", corpus="chinese_news")
    picture(browser, folder / "search_start.png", 620)
    visit(browser, url, lang="zh", corpus="chinese_news", q="地震救援")
    picture(browser, folder / "search_chinese.png", 860)
    visit(browser, url, lang="en", corpus="english_news", q="interest rates and the housing market")
    picture(browser, folder / "search_english.png", 760)
    visit(browser, url, lang="en", corpus="english_news", q="virus", topics="tech")
    picture(browser, folder / "search_filtered.png", 680)
    browser.find_element(By.CSS_SELECTOR, ".pod-card a").click()
    wait_until(lambda: browser.find_element(By.CSS_SELECTOR, ".pod-article mark"))


def filter_dates(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    """A range of dates in the address, and the permalink that it leads to."""
    dates = {"from": "2018-01-01", "to": "2018-06-30"}
    visit(browser, url, lang="en", corpus="chinese_news", q="会议", **dates)
    shown = [found.text for found in browser.find_elements(By.CSS_SELECTOR, ".pod-facts")]
    assert shown
    assert all(re.search(r"2018-0[1-6]-", facts) for facts in shown), shown
    assert all(f"{name}={value}" in browser.current_url for name, value in dates.items()), browser.current_url
    picture(browser, folder / "dates.png")
    browser.find_element(By.CSS_SELECTOR, ".pod-card a").click()
    wait_until(lambda: browser.find_element(By.CSS_SELECTOR, ".pod-article"))
    article = browser.current_url
    browser.get("about:blank")
    browser.get(article)
    wait_until(lambda: browser.find_element(By.CSS_SELECTOR, ".pod-article"))
    picture(browser, folder / "permalink.png")


def make_mistakes(browser: webdriver.Chrome, url: str, folder: Path) -> None:
    """Odd questions typed into the box: no traceback, nothing executed, a sentence or cards."""
    folder.mkdir(parents=True, exist_ok=True)
    filter_dates(browser, url, folder)
    for name, query in MISTAKES.items():
        visit(browser, url, lang="en", corpus="english_news")
        box = browser.find_element(By.CSS_SELECTOR, "[data-testid=stTextInput] input")
        browser.execute_script(
            "arguments[0].focus(); document.execCommand('insertText', false, arguments[1])", box, query
        )
        box.send_keys(Keys.ENTER)
        wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, ".pod-card, [data-testid=stAlert], .pod-count"))
        time.sleep(2)
        assert not browser.find_elements(By.CSS_SELECTOR, "[data-testid=stException]"), name
        assert browser.execute_script("return window.podiumWasHacked") is None, name
        picture(browser, folder / f"{name}.png")
    for name, parameters in STRANGE_ADDRESSES.items():
        browser.get(f"{url}/?{urlencode(parameters)}")
        wait_until(lambda: browser.find_element(By.CSS_SELECTOR, "[data-testid=stAlert]"))
        picture(browser, folder / f"{name}.png", 500)
    print(f"{len(MISTAKES) + len(STRANGE_ADDRESSES)} mistakes: no traceback, nothing executed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8501")
    parser.add_argument("--mistakes", type=Path)
    arguments = parser.parse_args()
    browser = open_browser()
    try:
        browser.get("about:blank")
        open_at_once(browser, arguments.url, 8)
        click_through(browser, arguments.url)
        take_pictures(browser, arguments.url, arguments.folder)
        if arguments.mistakes:
            make_mistakes(browser, arguments.url, arguments.mistakes)
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
