"""The mistake this app began with, a model loaded in the script's body, beside the app: seconds per click and memory.

    python benchmarks/search_app_mistake.py            # 8 clicks each, in processes of their own, one after the other

Streamlit runs a page's script anew at every click. Whoever loads his encoder at the top of the script, as is natural,
loads it at every click; so did the author whose app this one is, who had to allocate 1 GB for it. Rows:

    torch in the body       the encoder on torch and the index opened by the script, the mistake as it was made
    export in the body      the same mistake with the encoder exported to ONNX Runtime
    the app                 `pipelines/search/page/app.py`
    the app, no model       the same, asking `podium search serve`

All answer the same questions about english_news (`podium search index english_news` first). The pages are run by
Streamlit's own test driver, so that a click costs what the script costs, without a browser.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pipelines.errors import PodiumError
from pipelines.search.remote import RemoteEncoder

QUESTIONS = (
    "interest rates", "film awards", "election campaign", "online music piracy", "Six Nations injury", "house prices",
    "mobile phone viruses", "doping scandal", "budget deficit", "video games", "oil price", "asylum seekers",
)  # fmt: skip
MISTAKE = """
from pathlib import Path
import streamlit as st
from components.search.searching import search
from components.search.index import open_index
from pipelines.workspace import Workspace
from pipelines.search.encoders import open_sentence_encoder

workspace = Workspace(Path({root!r}))
encoder = open_sentence_encoder(workspace, "minilm", runtime={runtime!r})
index = open_index(workspace.search_index("english_news"), encoder=encoder)
query = st.text_input("Query", key="q")
if query:
    for hit in search(index, encoder, query).hits:
        st.write(hit.article.title)
"""
CLICKS = """
import json, os, sys, threading, time
import psutil
from streamlit.testing.v1 import AppTest

script, questions = sys.argv[1], json.loads(sys.argv[2])
process, peak, over = psutil.Process(), [0], threading.Event()

def watch():
    while not over.wait(0.02):
        peak[0] = max(peak[0], process.memory_info().rss)

threading.Thread(target=watch, daemon=True).start()
page = AppTest.from_file(script, default_timeout=120)
page.query_params["corpus"] = "english_news"
started = time.perf_counter()
page.run()
first, seconds = time.perf_counter() - started, []
assert not page.exception and not page.error, [element.value for element in (*page.exception, *page.error)]
for question in questions:
    started = time.perf_counter()
    page.text_input(key="q").set_value(question).run()
    seconds.append(time.perf_counter() - started)
    assert not page.exception, page.exception
over.set()
report = {"first": first, "seconds": seconds, "rss": process.memory_info().rss, "peak": peak[0]}
print(json.dumps(report | {"torch": "torch" in sys.modules}))
"""


def click(script: Path, questions: list[str], environment: dict[str, str]) -> dict[str, object]:
    """Run a page in a process of its own and click through the questions."""
    command = [sys.executable, "-c", CLICKS, str(script), json.dumps(questions)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return report


def start_service(root: Path, port: int) -> subprocess.Popen[bytes]:
    """The encoder's service, once it answers."""
    podium = str(Path(sys.executable).with_name("podium"))
    service = subprocess.Popen([podium, "--root", str(root), "search", "serve", "minilm", "--port", str(port)])
    while service.poll() is None:
        try:
            RemoteEncoder(f"http://127.0.0.1:{port}")
        except PodiumError:
            time.sleep(0.1)
        else:
            return service
    sys.exit("the service ended before it answered")


def show(name: str, report: dict[str, object], base: float) -> None:
    seconds = sorted(report["seconds"])  # type: ignore[call-overload]
    median = seconds[len(seconds) // 2]
    rss, peak = (int(str(report[key])) / 1e6 for key in ("rss", "peak"))
    first = float(str(report["first"]))
    print(f"{name:<22}{first:>9.2f}{median:>9.3f}{base / median:>8.1f}x{rss:>9.0f}{peak:>9.0f}{report['torch']!s:>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--clicks", type=int, default=8)
    parser.add_argument("--port", type=int, default=8699)
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    questions = [QUESTIONS[number % len(QUESTIONS)] for number in range(arguments.clicks)]
    app = Path(__file__).parents[1] / "pipelines/search/page/app.py"
    told = {"PODIUM_SEARCH_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        reports = {}
        for name, runtime in (("torch in the body", "torch"), ("export in the body", "onnx")):
            script = Path(folder) / f"page_on_{runtime}.py"  # streamlit puts its folder on the path
            script.write_text(MISTAKE.format(root=str(root), runtime=runtime), encoding="utf-8")
            reports[name] = click(script, questions, told)
    reports["the app"] = click(app, questions, told)
    service = start_service(root, arguments.port)
    try:
        url = f"http://127.0.0.1:{arguments.port}"
        reports["the app, no model"] = click(app, questions, told | {"PODIUM_ENCODER_URLS": url})
        service_rss = psutil.Process(service.pid).memory_info().rss / 1e6
    finally:
        service.terminate()
    seconds = sorted(reports["torch in the body"]["seconds"])  # type: ignore[call-overload]
    print(f"{'':<22}{'first s':>9}{'click s':>9}{'faster':>9}{'RSS MB':>9}{'peak MB':>9}{'torch':>8}")
    for name, report in reports.items():
        show(name, report, seconds[len(seconds) // 2])
    print(f"the service of the last row: {service_rss:.0f} MB")


if __name__ == "__main__":
    main()
