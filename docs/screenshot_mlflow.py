"""Pictures of MLflow's pages in a headless browser, for docs/tracking.md. Not part of the package.

    python docs/screenshot_mlflow.py OUTPUT_FOLDER --experiment place-names [--url http://127.0.0.1:5000] [--runs 2]

Needs Debian's chromium and chromium-driver, and selenium in an environment of its own; MLflow's UI must be running.
Takes the newest finished runs of the experiment.
"""

import argparse
import json
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --hide-scrollbars"
)


@dataclass(frozen=True)
class Page:
    """An address, a text by which to know that it is there, and what to click on before the picture."""

    address: str
    expected: str
    height: int
    clicks: tuple[str, ...] = ()


def open_browser(profile: str, url: str) -> webdriver.Chrome:
    """A browser that shows MLflow's training pages without the assistant that opens itself at the first visit."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    browser.get(url + "/health")
    for key, value in (
        ("workflowType_v1", '"machine_learning"'),
        ("assistant.fab.autoOpenedOnFirstLoad_v1", "true"),
        ("assistant.panelOpen_v1", "false"),
    ):
        browser.execute_script(f"localStorage.setItem('mlflow.{key}', '{value}')")
    return browser


def ask(url: str, path: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to MLflow's REST interface."""
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def find_runs(url: str, experiment: str, number: int) -> tuple[str, list[str]]:
    """The experiment's id and the ids of its newest finished runs, folds left out."""
    query = urllib.parse.urlencode({"experiment_name": experiment})
    experiment_id = ask(url, f"experiments/get-by-name?{query}")["experiment"]["experiment_id"]
    question = {"experiment_ids": [experiment_id], "filter": "attributes.status = 'FINISHED'", "max_results": 200}
    runs = ask(url, "runs/search", question).get("runs", [])
    parents = [run for run in runs if all(tag["key"] != "mlflow.parentRunId" for tag in run["data"]["tags"])]
    return experiment_id, [run["info"]["run_id"] for run in parents[:number]]


def take(browser: webdriver.Chrome, page: Page, url: str, target: Path) -> None:
    browser.set_window_size(1600, page.height)
    browser.get("about:blank")  # addresses that differ behind the # alone do not load anew
    browser.get(url + page.address)
    waiting = WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException])
    waiting.until(lambda browser: page.expected in browser.find_element(By.TAG_NAME, "body").text)
    for text in page.clicks:
        browser.find_element(By.XPATH, f"//*[text()='{text}']").click()
    time.sleep(8)  # charts draw themselves after their text is there
    browser.save_screenshot(str(target))
    print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    parser.add_argument("--curve", default="train/loss/fold0", help="the metric whose curves are drawn over each other")
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    experiment_id, run_ids = find_runs(arguments.url, arguments.experiment, arguments.runs)
    chosen = urllib.parse.urlencode({"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])})
    curve = urllib.parse.urlencode({"metric": f'"{arguments.curve}"', "plot_metric_keys": f'["{arguments.curve}"]'})
    runs_page = f"/#/experiments/{experiment_id}/runs?"
    pages = {
        "runs": Page(f"{runs_page}viewStateShareKey=scores", "Run Name", height=700),
        "charts": Page(f"{runs_page}compareRunsMode=CHART", "train/loss", height=2600),
        "compare": Page(f"/#/compare-runs?{chosen}", "Parameters", height=2600, clicks=("Show diff only",)),
        "curves": Page(f"/#/metric?{chosen}&{curve}", arguments.curve, height=1000, clicks=("Step",)),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = open_browser(profile, arguments.url)
        for name, page in pages.items():
            take(browser, page, arguments.url, arguments.output / f"mlflow_{name}.png")
        browser.quit()


if __name__ == "__main__":
    main()
