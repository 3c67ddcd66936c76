"""What the kernels room writes down is read again, also as the version before wrote it; a wrong entry is named."""

import json
from pathlib import Path

import pytest
from built_kernels import make_kernel

from pipelines.addresses import KernelName, KernelVersion
from pipelines.errors import PodiumError
from pipelines.kaggle.kernels import KernelState, KernelStatus
from pipelines.kaggle.metadata import DatasetMetadata, KernelMetadata
from pipelines.kernels.built_kernel import load_built_kernel
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.kernels.manifest import Manifest
from pipelines.kernels.plan import Plan
from pipelines.kernels.pushes import OutputRecord, PushEntry, PushLog, running_pushes
from pipelines.kernels.rehearsal.report import RehearsalReport
from pipelines.kernels.submitted_kernel import SubmittedKernel
from pipelines.records import DamagedRecord
from pipelines.workspace import Workspace

A, B = "a" * 64, "b" * 64
KERNEL = KernelName("alice", "tiny-kernel")
# As the version before wrote them.
MANIFEST = {
    "format": 1, "kernel": "alice/tiny-kernel", "mode": "predict", "built_with": {"resume": False, "mode": None},
    "competition": "tiny_task", "kaggle_slug": "tiny-task", "experiment": "first_try", "run": "20261121-100000-bbbb",
    "run_mode": "real", "commit": None, "config_sha256": A, "folds_sha256": A, "source_sha256": A,
    "timeout_seconds": 32400, "bundle_sha256": B, "files": {"kernel-metadata.json": A, "tiny-kernel.ipynb": B},
    "datasets": [
        {"slug": "tiny-weights", "kind": "weights", "files": {"fold0__x": A}, "paths": {"fold0__x": "fold0/x"}},
    ],
}  # fmt: skip
KERNEL_METADATA = {
    "id": "alice/tiny-kernel", "id_no": None, "title": "Tiny kernel", "code_file": "tiny-kernel.ipynb",
    "language": "python", "kernel_type": "notebook", "is_private": True, "enable_gpu": False, "enable_tpu": False,
    "enable_internet": False, "machine_shape": None, "dataset_sources": ["alice/tiny-weights"],
    "competition_sources": ["tiny-task"], "kernel_sources": [], "model_sources": [], "keywords": [],
    "docker_image": None, "docker_image_pinning_type": "original",
}  # fmt: skip
DATASET_METADATA = {"id": "alice/tiny-weights", "licenses": [{"name": "other"}], "title": "tiny-weights"}
PLAN = {
    "format": 1, "kernel": "alice/tiny-kernel", "mode": "predict", "competition": "tiny_task",
    "experiment": "first_try", "run": "20261121-100000-bbbb", "data": "competitions/tiny-task",
    "weights": {"mount": "datasets/alice/tiny-weights", "files": {"fold0__x": {"path": "fold0/x", "sha256": A}}},
    "wheels": {"mount": "datasets/alice/tiny-wheels", "files": ["tool-1.0-py3-none-any.whl"]},
    "resume_from": ["notebooks/alice/tiny-kernel"], "folds_sha256": A, "source_sha256": A, "accelerator": "none",
    "accelerator_kind": "cpu", "train_seconds": 31200.0, "run_mode": None,
}  # fmt: skip
CASE = {
    "name": "public", "data": "public", "layout": "new", "rows": 100, "seconds": 12.5, "peak_bytes": 10**9,
    "outputs": {"submission.csv": 1000, "runs/a/b.json": 3}, "submission": "checked", "agreement": "equal bytes",
    "problem": "", "log": "/x/build/rehearsals/tiny-kernel/here/public/tiny-kernel.log",
}  # fmt: skip
REHEARSAL = {
    "kernel": "alice/tiny-kernel", "bundle_sha256": B, "image": "here", "ok": True, "not_isolated": [],
    "startup_seconds": None, "seconds_per_row": None, "peak_bytes": 10**9, "cases": [CASE],
}  # fmt: skip
PUSH = {
    "version": 1, "kernel": "alice/tiny-kernel", "time": "2026-11-21T10:00:00+00:00", "digest": A, "bundle_sha256": B,
    "experiment": "first_try", "run": "", "mode": "train", "machine": "gpu", "datasets": {"alice/tiny-weights": 2},
    "status": "QUEUED",
}  # fmt: skip
NOTE = {"version": 1, "status": "ERROR", "message": "Out of memory"}
OUTPUT = {
    "kernel": "alice/tiny-kernel", "version": 1, "files": {"submission.csv": {"sha256": A, "num_bytes": 3}},
}  # fmt: skip
SUBMITTED = {
    "kernel": "alice/tiny-kernel", "version": 1, "mode": "predict", "built_with": {"resume": False, "mode": None},
    "source_sha256": A, "bundle_sha256": B, "files": MANIFEST["files"], "datasets": MANIFEST["datasets"],
    "dataset_versions": {"alice/tiny-weights": 2}, "docker_image": None, "commit": None, "diff": None,
    "files_sha256": {"folds.csv": A},
}  # fmt: skip
RECORDS = [
    (Manifest, MANIFEST),
    (KernelMetadata, KERNEL_METADATA),
    (DatasetMetadata, DATASET_METADATA),
    (Plan, PLAN),
    (RehearsalReport, REHEARSAL),
    (PushEntry, PUSH),
    (OutputRecord, OUTPUT),
    (SubmittedKernel, SUBMITTED),
]


@pytest.mark.parametrize(("kind", "content"), RECORDS)
def test_a_record_of_the_version_before_is_read_and_written_with_the_same_keys_in_their_order(kind, content):
    entries = kind.of(content, "x.json").entries()
    said = {key: value for key, value in content.items() if key in entries}
    assert json.dumps(entries) == json.dumps(said)
    assert not any(value for key, value in content.items() if key not in entries), "but for what says nothing"


@pytest.mark.parametrize(
    ("kind", "content", "change", "line"),
    [
        (Manifest, MANIFEST, {"mode": "test"}, "mode: 'test' is not 'predict' or 'train'"),
        (Manifest, MANIFEST, {"built_with": {"mode": None}}, "built_with.resume: missing"),
        (Manifest, MANIFEST, {"files": {"../x": A}}, "files.../x: '../x' is no name"),
        (Manifest, MANIFEST, {"timeout_seconds": "9"}, "timeout_seconds: '9' is not a whole number"),
        (KernelMetadata, KERNEL_METADATA, {"enable_gpu": "yes"}, "enable_gpu: 'yes' is not true or false"),
        (KernelMetadata, KERNEL_METADATA, {"code_file": "../x"}, "code_file: '../x' is no name"),
        (DatasetMetadata, DATASET_METADATA, {"id": "tiny"}, "id: 'tiny' is no address on Kaggle; needs owner/slug"),
        (DatasetMetadata, DATASET_METADATA, {"licenses": [{}]}, "licenses.0.name: missing"),
        (Plan, PLAN, {"accelerator_kind": "npu"}, "accelerator_kind: 'npu' is not 'cpu', 'gpu' or 'tpu'"),
        (Plan, PLAN, {"resume_from": ["../x"]}, "resume_from.0: '../x' does not stay in its folder"),
        (RehearsalReport, REHEARSAL, {"image": "mine"}, "image: 'mine' is not 'here' or 'kaggle'"),
        (RehearsalReport, REHEARSAL, {"cases": [CASE | {"rows": 1.5}]}, "cases.0.rows: 1.5 is not a whole number"),
        (PushEntry, PUSH, {"status": "LOST"}, "status: 'LOST' is not 'NEW_SCRIPT', "),
        (PushEntry, PUSH, {"datasets": {"tiny": 1}}, "datasets.tiny: 'tiny' is no address on Kaggle"),
        (PushEntry, PUSH, {"run": "../x"}, "run: '../x' is no name"),
        (OutputRecord, OUTPUT, {"files": {"a": {"sha256": "0", "num_bytes": 1}}}, "files.a.sha256: '0' is no sha256"),
        (SubmittedKernel, SUBMITTED, {"commit": "HEAD"}, "commit: 'HEAD' is no commit"),
    ],
)
def test_an_entry_edited_by_hand_is_one_line_that_names_file_and_field(kind, content, change, line):
    with pytest.raises(DamagedRecord) as error:
        kind.of(content | change, "x.json")
    assert str(error.value).startswith(f"x.json: {line}")
    assert "\n" not in str(error.value)


def test_a_manifest_without_what_former_builds_did_not_write():
    former = {key: MANIFEST[key] for key in MANIFEST if key not in ("built_with", "run_mode", "timeout_seconds")}
    manifest = Manifest.of(former, "MANIFEST.json")
    assert (manifest.built_with, manifest.run_mode, manifest.timeout_seconds) == (None, None, None)


def write_pushes(workspace: Workspace, *lines: object, torn: str = "") -> PushLog:
    log = PushLog(workspace, "tiny-kernel")
    log.path.parent.mkdir(parents=True, exist_ok=True)
    log.path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + torn)
    return log


def test_later_lines_say_how_a_push_fared(tmp_path: Path) -> None:
    log = write_pushes(Workspace(tmp_path), PUSH, PUSH | {"version": 2}, NOTE)
    first, second = log.pushes()
    assert (first.version, first.status, first.entry.message) == (
        KernelVersion(KERNEL, 1),
        KernelStatus.ERROR,
        "Out of memory",
    )
    assert (second.version, second.status) == (KernelVersion(KERNEL, 2), KernelStatus.QUEUED)
    assert (second.run, second.entry.mode, second.entry.machine) == ("", KernelMode.TRAIN, Machine.GPU)
    assert second.datasets == {KernelName("alice", "tiny-weights"): 2}
    log.note(2, KernelState(KernelStatus.COMPLETE))
    assert log.path.read_text().splitlines()[-1] == '{"version": 2, "status": "COMPLETE"}'
    assert log.find() == log.find(version=2)
    assert [push.status for push in log.pushes()] == [KernelStatus.ERROR, KernelStatus.COMPLETE]


def test_a_note_about_a_version_that_was_pushed_from_elsewhere_is_no_push(tmp_path: Path) -> None:
    log = write_pushes(Workspace(tmp_path), PUSH, NOTE | {"version": 7})
    assert [push.entry.version for push in log.pushes()] == [1]
    assert log.find(version=7) is None


def test_a_version_that_was_begun_anew_is_what_its_last_push_says(tmp_path: Path) -> None:
    log = write_pushes(Workspace(tmp_path), PUSH, NOTE, PUSH | {"digest": B})
    (push,) = log.pushes()
    assert (push.entry.digest, push.status, push.entry.message) == (B, KernelStatus.QUEUED, "")


def test_a_torn_last_line_counts_as_not_written_and_the_next_one_mends_the_file(tmp_path: Path) -> None:
    log = write_pushes(Workspace(tmp_path), PUSH, torn='{"version": 1, "sta')
    assert [push.status for push in log.pushes()] == [KernelStatus.QUEUED]
    log.note(1, KernelState(KernelStatus.RUNNING))
    assert [push.status for push in log.pushes()] == [KernelStatus.RUNNING]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"version": "1"}, "version: '1' is not a whole number"),
        ({"version": 1, "status": "LOST"}, "status: 'LOST' is not "),
        (PUSH | {"machine": "npu"}, "machine: 'npu' is not 'cpu', 'gpu' or 'tpu'"),
        ([], "damaged (holds no JSON object: [])"),
    ],
)
def test_a_damaged_line_is_named_with_its_field(tmp_path: Path, line: object, words: str) -> None:
    log = write_pushes(Workspace(tmp_path), PUSH, line)
    with pytest.raises(PodiumError) as error:
        log.pushes()
    assert str(error.value).startswith(f"{log.path}: line 2: {words}")
    assert str(error.value).endswith("; take that line out: a push asks Kaggle which versions there are")
    assert "\n" not in str(error.value)


def test_sessions_are_counted_by_machine_until_they_are_over(tmp_path: Path) -> None:
    soon = "9999-01-01T00:00:00+00:00"
    write_pushes(Workspace(tmp_path), PUSH | {"time": soon}, PUSH | {"version": 2, "time": soon}, NOTE)
    assert [push.entry.version for push in running_pushes(Workspace(tmp_path), Machine.GPU)] == [2]
    assert running_pushes(Workspace(tmp_path), Machine.CPU) == []


def test_a_push_keeps_the_manifest_of_then(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    make_kernel(workspace, datasets={"alice/tiny-weights": {"model.bin": b"1"}})
    built = load_built_kernel(workspace, "tiny-kernel")
    push = PushLog(workspace, "tiny-kernel").add(built, 3, {KernelName("alice", "tiny-weights"): 2})
    make_kernel(workspace, "print('built anew')")
    assert push.manifest == built.manifest
    kernel = SubmittedKernel.pushed(push)
    assert (kernel.kernel, kernel.version, kernel.mode) == (KERNEL, 3, KernelMode.PREDICT)
    assert (kernel.bundle_sha256, kernel.files) == (built.manifest.bundle_sha256, built.manifest.files)
    assert kernel.dataset_versions == {KernelName("alice", "tiny-weights"): 2}
    assert SubmittedKernel.parse(kernel.line(), "ledger") == kernel
