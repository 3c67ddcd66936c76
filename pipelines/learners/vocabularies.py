"""The vocabulary a run reads and writes with: built from its texts, published, or a published one cut to its texts."""

from collections.abc import Sequence
from pathlib import Path

from components.data.text.trimming import KEPT_IDS_FILE, read_kept_ids, trim_vocabulary
from components.data.text.vocabulary import Vocabulary, build_vocabulary, load_vocabulary
from components.models.shared.pretrained import resolve_checkpoint
from pipelines.config.checkpoints import PACKAGE_PREFIX
from pipelines.config.sections.t5 import T5FromScratch, T5Pretrained, Text
from pipelines.errors import ConfigError
from pipelines.packages import find_package
from pipelines.runs.record import Prepared, VocabularyFacts


def obtain_vocabulary(
    model: T5FromScratch | T5Pretrained,
    data: Text,
    texts: Sequence[str],
    folder: Path,
    *,
    also: Sequence[str],
    reserved: Sequence[str],
) -> Prepared:
    """Write the vocabulary of an experiment into `folder`, and return what run.json shall say of it.

    `texts` are the competition's own, `also` those of another one whose pieces must stay. Raises ConfigError for a file
    that is not there, ValueError for one that cannot serve.
    """
    if data.vocabulary not in ("checkpoint", "file"):
        built = build_vocabulary(texts, folder, kind=data.vocabulary, size=data.vocabulary_size, reserved=reserved)
        return {"vocabulary": VocabularyFacts(num_pieces=built.size)}
    if isinstance(model, T5Pretrained):
        source = resolve_checkpoint(model.checkpoint)
    else:
        assert data.vocabulary_file is not None
        source = find_file(data.vocabulary_file)
    if not data.trim_vocabulary:
        vocabulary = _load_whole(source)
        vocabulary.save(folder)
        return {"vocabulary": VocabularyFacts(num_pieces=vocabulary.size)}
    # Weights that start anew have no byte rows worth keeping: a new character gets a row of its own.
    is_new = isinstance(model, T5FromScratch)
    report = trim_vocabulary(source, [*texts, *also], folder, add_characters=is_new).report
    sizes = VocabularyFacts(num_pieces=report.num_pieces_after, num_pieces_untrimmed=report.num_pieces_before)
    return {"vocabulary": sizes}


def _load_whole(source: Path) -> Vocabulary:
    try:
        return load_vocabulary(source)
    except ValueError as error:
        raise ConfigError(f"data.vocabulary: {error}; trim_vocabulary: true writes T5's layout from others") from error


def rows_to_keep(folder: Path) -> tuple[int, ...] | None:
    """For a trimmed vocabulary the row of the published weights that each piece stands for; else None."""
    return read_kept_ids(folder) if (folder / KEPT_IDS_FILE).is_file() else None


def find_file(name: str) -> Path:
    """The file of `data.vocabulary_file`: a path, or "package:NAME/PATH" in an installed package."""
    if not name.startswith(PACKAGE_PREFIX):
        path = Path(name).expanduser()
    else:
        package, _, inner = name.removeprefix(PACKAGE_PREFIX).partition("/")
        path = find_package(package)[0] / inner
    if not path.exists():
        raise ConfigError(f"data.vocabulary_file: {name}: no file {path}; needs a sentencepiece model")
    return path
