"""A kernel's rehearsal room: what a kernel sees there, what it cannot do, and what is known of it afterwards."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.errors import PodiumError
from pipelines.kernels.rehearsal import walls as sandbox_walls
from pipelines.kernels.rehearsal.sandbox import run_kernel

GIB = 2**30


def make_kernel(folder, *cells, script=None):
    """A kernel folder with a notebook of the given code cells, or a script."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "tiny.ipynb" if script is None else "tiny.py"
    notebook = {"cells": [{"cell_type": "markdown", "source": ["# words"]}]}
    # Notebooks keep a source as one string or as a list of lines.
    notebook["cells"] += [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    (folder / name).write_text(json.dumps(notebook) if script is None else script, encoding="utf-8")
    (folder / "kernel-metadata.json").write_text(json.dumps({"code_file": name}), encoding="utf-8")
    return folder


def run(tmp_path, *cells, inputs=None, timeout_s=60.0, memory_bytes=4 * GIB, **options):
    kernel = make_kernel(tmp_path / "kernel", *cells, script=options.pop("script", None))
    return run_kernel(
        kernel, inputs or {}, tmp_path / "working", timeout_s=timeout_s, memory_bytes=memory_bytes, **options
    )


@pytest.fixture(params=["namespaces", "plain"])
def walls(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(sandbox_walls, "_permitted", lambda: None)
    elif sandbox_walls._permitted() is None:
        pytest.skip("this system permits no namespaces")
    return request.param


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.csv").write_text("id\n1\n")
    return tmp_path / "data"


FIND = "import os\nfrom pathlib import Path\nROOT = Path(os.environ.get('PODIUM_KAGGLE', '/kaggle'))\n"


@pytest.mark.parametrize(("layout", "mount"), [("new", "datasets/me/tiny"), ("old", "tiny")])
def test_a_kernel_finds_its_inputs_and_leaves_its_outputs(tmp_path, data, walls, layout, mount):
    report = run(
        tmp_path,
        FIND + f"text = (ROOT / 'input/{mount}/test.csv').read_text()",
        "Path('submission.csv').write_text(text)\nprint('written', os.environ['KAGGLE_KERNEL_RUN_TYPE'])\n1 + 1",
        inputs={"datasets/me/tiny": data},
        layout=layout,
        environment={"KAGGLE_KERNEL_RUN_TYPE": "Batch"},
    )
    assert report.ok, report.text
    assert (report.working / "submission.csv").read_text() == "id\n1\n"
    assert [path.name for path in report.working.iterdir()] == ["submission.csv"]
    assert report.text == "written Batch\n2\n"
    assert json.loads(report.log)[0].keys() == {"stream_name", "time", "data"}
    assert report.notebook["cells"][2]["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "written Batch\n2\n"}
    ]
    assert (report.not_isolated == ()) == (walls == "namespaces")
    assert report.peak_bytes > 2**20


def test_within_walls_nothing_of_this_machine_can_be_reached(tmp_path, data):
    if sandbox_walls._permitted() is None:
        pytest.skip("this system permits no namespaces")
    here = str(Path(__file__).parent)
    # An interpreter below /tmp, as in a clone there, is all that /tmp then shows
    seen = [path.name for path in Path(sys.prefix).parents if path.parent == Path("/tmp")]
    report = run(
        tmp_path,
        "import importlib.util, os, socket\n"
        f"assert not os.path.exists({here!r})\n"
        "assert importlib.util.find_spec('pipelines') is None or not os.path.exists('pipelines')\n"
        "for path in ('/kaggle/input/x', '/kaggle/input/datasets/me/tiny/x', '/usr/x', '/x'):\n"
        "    try:\n        open(path, 'w')\n    except OSError as error:\n        print(error.strerror)\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError as error:\n    print(error.strerror)\n"
        "print(sorted(name for name in os.environ if 'KAGGLE' in name), os.listdir('/tmp'), os.getpid() < 10)",
        inputs={"datasets/me/tiny": data},
    )
    assert report.ok, report.text
    assert report.text.splitlines() == [*["Read-only file system"] * 4, "Network is unreachable", f"[] {seen} True"]
    assert [path.name for path in data.iterdir()] == ["test.csv"]


def test_an_interpreter_below_tmp_is_shown_within_walls(tmp_path):
    """A checkout may lie there, with its environment; the kernel's own /tmp is empty but for that."""
    if sandbox_walls._permitted() is None:
        pytest.skip("this system permits no namespaces")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", name], check=True)
        report = run(
            tmp_path, "import os, sys\nprint(sys.prefix, os.listdir('/tmp'))", python=Path(name, "bin", "python")
        )
    assert report.ok, report.text
    assert report.not_isolated == ()
    assert report.text == f"{name} {[Path(name).name]}\n"


def test_a_failing_cell_ends_the_kernel_and_is_named(tmp_path, walls):
    report = run(tmp_path, "print('before')", "raise ValueError('no such column')", "print('after')")
    assert not report.ok
    assert not report.stopped_for
    assert "before" in report.text
    assert "after" not in report.text
    assert "<cell 2>" in report.text
    assert "ValueError: no such column" in report.text
    assert report.notebook["cells"][2]["outputs"][-1]["evalue"] == "no such column"


def test_a_kernel_that_leaves_early_has_failed(tmp_path):
    assert not run(tmp_path, "import sys\nsys.exit(0)").ok


def test_time_and_memory_have_limits(tmp_path, walls):
    slow = run(tmp_path, "print('on my way', flush=True)\nimport time\ntime.sleep(60)", timeout_s=1.5)
    assert (slow.ok, slow.stopped_for, slow.text) == (False, "timeout", "on my way\n")
    assert slow.seconds < 30
    fat = run(tmp_path, "block = bytearray(400 * 2**20)\nimport time\ntime.sleep(60)", memory_bytes=200 * 2**20)
    assert (fat.ok, fat.stopped_for) == (False, "memory")
    assert fat.peak_bytes > 200 * 2**20


def test_a_script_runs_as_well(tmp_path):
    report = run(tmp_path, script="print(__name__)\n")
    assert (report.ok, report.text) == (True, "__main__\n")


def test_what_is_no_kernel_is_refused(tmp_path):
    with pytest.raises(PodiumError, match=r"kernel-metadata.json: unreadable .*; no kernel to run"):
        run_kernel(tmp_path, {}, tmp_path / "working", timeout_s=1, memory_bytes=GIB)
    kernel = make_kernel(tmp_path / "kernel", "1")
    (kernel / "tiny.ipynb").unlink()
    with pytest.raises(PodiumError, match=r"code_file tiny.ipynb is not there"):
        run_kernel(kernel, {}, tmp_path / "working", timeout_s=1, memory_bytes=GIB)
