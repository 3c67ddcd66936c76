"""The preflight: every rule of Kaggle's that a built kernel can break, in one line with its cure; no secret leaves."""

import io
import json
import re

import pytest
from rich.console import Console
from tiny_competition import write_lines

from pipelines.addresses import KernelName
from pipelines.errors import PodiumError
from pipelines.kernels import source_bundle
from pipelines.kernels.built_kernel import BuiltKernel, DatasetFolder, find_owner
from pipelines.kernels.checking import check as check_stage
from pipelines.kernels.checking import rules as kaggle_rules
from pipelines.kernels.checking.rules import RULES, FindingState
from pipelines.kernels.kernel_file import KernelFile
from pipelines.kernels.manifest import Manifest
from pipelines.kernels.notebook import EMBEDDED, render_metadata, render_notebook

LISTS = ("overrides", "wheels", "dataset_sources", "competition_sources", "kernel_sources", "model_sources", "keywords")
BUILD = "b" * 64
PLANTED = "KGAT_" + "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def make_file(**changes):
    fields = {"title": "Tiny task", "mode": "predict", "experiment": "first_try", **{name: [] for name in LISTS}}
    return KernelFile(**(fields | changes))


def make_kernel(
    tmp_path, file=None, *, kernel="me/tiny-task", slug_dataset="tiny-task-weights", inner=None, words="# W"
):
    """A built kernel with one dataset, as far as the rules read it."""
    file = file or make_file()
    folder, dataset = tmp_path / kernel.split("/")[1], tmp_path / "datasets" / slug_dataset
    packed = source_bundle.pack(inner or {"pipelines/x.py": b"x = 1\n"})
    text = source_bundle.encode(source_bundle.compress(packed))
    notebook = render_notebook(words, {}, EMBEDDED.format(text=text, sha256=source_bundle.digest(packed)))
    write_lines(folder / "tiny.ipynb", notebook)
    name, datasets = KernelName.parse(kernel), [KernelName("me", slug_dataset)]
    metadata = render_metadata(
        file, kernel=name, code_file="tiny.ipynb", datasets=datasets, competitions=[], kernels=[]
    )
    write_lines(folder / "kernel-metadata.json", metadata.line())
    write_lines(dataset / "model.bin", "weights")
    write_lines(dataset / "dataset-metadata.json", "{}")
    described = DatasetFolder(KernelName("me", slug_dataset), "weights", dataset, "0")
    manifest = Manifest(
        format=1, kernel=name, mode=file.mode, competition="tiny_task", kaggle_slug="tiny-task",
        experiment="first_try", run="r", commit=None, config_sha256="0" * 64, folds_sha256="0" * 64,
        source_sha256="0" * 64, bundle_sha256=BUILD, files={}, datasets=(),
    )  # fmt: skip
    return BuiltKernel(folder, manifest, metadata, (described,))


def findings(kernel, file=None):
    return [finding for rule in RULES for finding in rule(kernel, file or make_file())]


def bad(kernel, file=None):
    return [
        f"{finding.rule}: {finding.words}" for finding in findings(kernel, file) if finding.state is FindingState.WRONG
    ]


def write_report(kernel, **changes):
    went = {"layout": "new", "seconds": 20.0, "peak_bytes": 10**9, "outputs": {}, "submission": "checked"}
    went |= {"agreement": "equal bytes", "problem": "", "log": "x.log"}
    cases = [{"name": "public", "rows": 100, "data": "public"}, {"name": "hidden", "rows": 125, "data": "larger"}]
    report = {
        "kernel": "me/tiny-task", "image": "here", "ok": True, "bundle_sha256": BUILD, "not_isolated": [],
        "cases": [case | went for case in cases], "startup_seconds": 10.0, "seconds_per_row": 0.1, "peak_bytes": 10**9,
    }  # fmt: skip
    write_lines(kernel.folder / "rehearsal.json", json.dumps(report | changes))


def test_a_sound_kernel_passes_every_rule(tmp_path):
    kernel = make_kernel(tmp_path)
    assert {finding.state for finding in findings(kernel)} == {FindingState.OK, FindingState.NOT_CHECKED}
    assert [finding.rule for finding in findings(kernel) if finding.state is FindingState.NOT_CHECKED] == ["rehearsal"]
    write_report(kernel)
    assert {finding.state for finding in findings(kernel)} == {FindingState.OK}
    assert len(findings(kernel)) == 12


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"title": "Tiny"}, {}, "title: 'Tiny' has 4 characters; Kaggle takes 5 to 50"),
        ({"title": "Tiny task " * 6}, {}, "title: .* has 60 characters"),
        ({"title": "Tinier task"}, {}, "title: 'Tinier task' makes the slug tinier-task, not tiny-task; rename"),
        ({}, {"kernel": "local/tiny-task"}, "owner: nobody's yet: write owner: into kernel.yaml"),
        ({"internet": True, "competition_sources": ["titanic"]}, {}, "internet: on, which an offline"),
        ({"competition_sources": ["a", "b"]}, {}, "competitions: a, b: two can change the GPU you get"),
        ({"keywords": ["utility script"], "competition_sources": ["a"]}, {}, "keywords: a utility script"),
        ({"model_sources": ["google/mt5/pytorch/base"]}, {}, "models: google/mt5/pytorch/base: needs owner/model"),
        ({"dataset_sources": ["weights"]}, {}, "sources: weights: needs owner/slug"),
        ({}, {"slug_dataset": "tiny"}, "dataset tiny: 4 characters; Kaggle takes 6 to 50"),
        ({"time_limit_hours": 13.0}, {}, "limits: time_limit_hours: 13, but a session ends after 12"),
        ({"time_limit_hours": 10.0, "accelerator": "TpuV5E8"}, {}, "but a session ends after 9"),
        ({"memory_gb": 30.0, "accelerator": "NvidiaTeslaT4"}, {}, "limits: memory_gb: 30, but the machine has 29"),
    ],
)
def test_each_rule_is_caught_with_its_cure(tmp_path, changes, place, message):
    file = make_file(**changes)
    (found,) = bad(make_kernel(tmp_path, file, **place), file)
    assert re.search(message, found), found


def test_sizes_and_numbers_of_files(tmp_path):
    kernel = make_kernel(tmp_path, words="# " + "w" * 1_000_000)
    assert "source: 1.0 MB; Kaggle takes less than 1 MB" in bad(kernel)[0]
    kernel = make_kernel(tmp_path / "many")
    (dataset,) = kernel.datasets
    for number in range(50):
        write_lines(dataset.folder / f"{number}.bin", "x")
    assert "51 files; Kaggle takes 50" in bad(kernel)[0]
    kernel = make_kernel(tmp_path / "archive")
    write_lines(kernel.datasets[0].folder / "vocabulary.zip", "x")
    assert "vocabulary.zip: Kaggle unpacks archives" in bad(kernel)[0]
    write_lines(kernel.datasets[0].folder / "solution.csv", "x")
    assert "looks like the answers" in bad(kernel)[1]


def test_a_notebook_without_kernelspec_is_refused(tmp_path):
    kernel = make_kernel(tmp_path)
    notebook = json.loads(kernel.code_file.read_text())
    del notebook["metadata"]["kernelspec"]
    write_lines(kernel.code_file, json.dumps(notebook))
    assert bad(kernel) == ["source: no kernelspec in the notebook's metadata; build the kernel again"]


def test_the_forecast_multiplies_what_the_rehearsal_measured(tmp_path):
    kernel, file = make_kernel(tmp_path), make_file(hidden_rows=200_000, memory_gb=2.0)
    write_report(kernel)
    words = {finding.rule: finding.words for finding in findings(kernel, file)}
    # 10 s + 1.5 × 0.1 s × 200,000 rows
    assert words["time"] == "8h20m for 200,000 rows (0.1 s each × 1.5) of 9h00m"
    assert words["memory"] == "1.0 GB × 1.5 of 2.0 GB"
    (found,) = bad(kernel, make_file(hidden_rows=300_000))
    assert found.startswith("time: 12h30m for 300,000 rows")
    (found,) = bad(kernel, make_file(memory_gb=1.2))
    assert found.startswith("memory: 1.0 GB × 1.5 of 1.2 GB: smaller batches")
    write_report(kernel, startup_seconds=None, seconds_per_row=None)
    assert [(f.rule, f.words) for f in findings(kernel) if f.state is FindingState.NOT_CHECKED] == [
        ("time", "no rerun was rehearsed, so nothing forecasts it")
    ]
    write_report(kernel, peak_bytes="much")
    with pytest.raises(PodiumError, match=r"rehearsal.json: peak_bytes: 'much' is not a whole number"):
        findings(kernel)
    write_report(kernel, bundle_sha256="f" * 64)
    assert bad(kernel) == ["rehearsal: of another build; run: podium kernel rehearse tiny-task"]
    write_report(kernel, ok=False)
    assert bad(kernel) == ["rehearsal: failed; run: podium kernel rehearse tiny-task"]
    (kernel.folder / "rehearsal.json").rename(kernel.folder / "rehearsal-kaggle.json")
    write_report(kernel)
    cure = "run: podium kernel rehearse tiny-task --image kaggle"
    assert bad(kernel) == [f"rehearsal: failed with Kaggle's libraries; {cure}"]


@pytest.mark.parametrize("place", ["words", "source", "config", "dataset", "key of the environment", "kaggle.json"])
def test_a_planted_token_is_found_and_never_shown(tmp_path, monkeypatch, place):
    secret, options = PLANTED, {}
    if place == "words":
        options["words"] = f"# Mine\n\nuse {secret}"
    elif place in ("source", "config"):
        name = {"source": "pipelines/x.py", "config": "kernel/run/config.yaml"}[place]
        options["inner"] = {name: f"a: 1\ntoken: {secret}\n".encode()}
    elif place != "dataset":
        secret = "no pattern knows this word"
        options["inner"] = {"pipelines/x.py": f"y = '{secret}'".encode()}
    if place == "key of the environment":
        monkeypatch.setenv("WANDB_API_KEY", secret)
    if place == "kaggle.json":
        write_lines(tmp_path / "home/.kaggle/kaggle.json", json.dumps({"username": "me", "key": secret}))
    kernel = make_kernel(tmp_path, **options)
    if place == "dataset":
        (kernel.datasets[0].folder / "blob.bin").write_bytes(b"\xff\x00\n" + secret.encode() + b"\xfe")
    found = bad(kernel)
    assert len(found) == 1
    assert found[0].startswith("secrets: ")
    assert secret not in found[0]
    output = io.StringIO()
    monkeypatch.setattr(check_stage, "load_built_kernel", lambda *_: kernel)
    monkeypatch.setattr(check_stage, "load_kernel_file", lambda *_: make_file())
    with pytest.raises(PodiumError, match=r"tiny-task: 1 of 11 checks failed") as caught:
        check_stage.check(None, "tiny-task", is_offline=True, console=Console(file=output, soft_wrap=True))
    assert secret not in output.getvalue() + str(caught.value)


def test_without_credentials_a_line_says_what_was_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(check_stage, "load_built_kernel", lambda *_: make_kernel(tmp_path))
    monkeypatch.setattr(check_stage, "load_kernel_file", lambda *_: make_file())
    found = check_stage.check(None, "tiny-task", console=Console(file=io.StringIO()))
    assert (found[-1].rule, found[-1].state) == ("account", FindingState.NOT_CHECKED)
    assert "no credentials found" in found[-1].words


def test_the_owner_is_whom_the_credentials_name(tmp_path):
    environment = {"HOME": str(tmp_path)}
    assert find_owner(None, environment) == "local"
    write_lines(tmp_path / ".kaggle/kaggle.json", json.dumps({"username": "alice", "key": "x"}))
    assert find_owner(None, environment) == "alice"
    assert find_owner(None, environment | {"KAGGLE_USERNAME": "bob"}) == "bob"
    assert find_owner("team", environment | {"KAGGLE_USERNAME": "bob"}) == "team"
    write_lines(tmp_path / ".kaggle/kaggle.json", "[]")
    with pytest.raises(PodiumError, match=r"kaggle.json: names no user"):
        find_owner(None, environment)


def test_every_rule_is_in_the_table():
    rules = [name for name in dir(kaggle_rules) if name.startswith("check_")]
    assert sorted(rule.__name__ for rule in RULES) == rules
