"""What a teacher says of training rows: its vectors of their titles, beginnings and windows, embedded once.

Vectors stand in the run directory under the hash of teacher and texts; another run of the same texts links them.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.files.atomic import atomic_file
from components.files.linking import link_or_copy
from components.search.encoders import SentenceEncoder, encode_in_batches
from components.search.usem3_encoder import Usem3Encoder
from pipelines.competitions.embedded import hash_share
from pipelines.errors import ConfigError
from pipelines.runs.run import Run

FOLDER = "teacher"
BEGINNING = 100
"""Characters of a body's beginning; the teacher's time grows with them."""
WINDOW_LENGTHS = (12, 80)


def open_teacher(name: str, *, num_threads: int) -> SentenceEncoder:
    """The teacher of a name. Raises ConfigError where its package is missing."""
    assert name == "usem3", name
    try:
        return Usem3Encoder(name=name, num_threads=num_threads)
    except ValueError as error:
        raise ConfigError(f"data.teacher: {error}") from error


def taught_texts(
    ids: Sequence[str], titles: Sequence[str], bodies: Sequence[str], *, num_windows: int
) -> list[list[str]]:
    """The texts of each row: its title, its body's beginning, and windows whose places depend on the row's id alone."""
    return [
        [title, body[:BEGINNING], *(_window(body, f"{row_id} {number}") for number in range(num_windows))]
        for row_id, title, body in zip(ids, titles, bodies, strict=True)
    ]


def obtain_vectors(teacher: SentenceEncoder, texts: Sequence[Sequence[str]], run: Run) -> NDArray[np.float16]:
    """(N, K, T) of N rows of K texts: embedded into the run directory, unless this or another run has them.

    About a minute for 20,000 texts on one core.
    """
    flat = [text for group in texts for text in group]
    digest = sha256("\0".join((teacher.fingerprint, *flat)).encode("utf-8", "surrogatepass")).hexdigest()
    file = run.path / FOLDER / f"{digest}.npy"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        earlier = next(run.path.parents[1].glob(f"*/*/{FOLDER}/{file.name}"), None)
        if earlier is not None:
            link_or_copy(str(earlier), str(file))
        else:
            _embed(teacher, flat, len(texts), file)
    vectors: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
    return vectors


def _embed(teacher: SentenceEncoder, texts: Sequence[str], num_rows: int, file: Path) -> None:
    vectors = encode_in_batches(teacher, texts).astype(np.float16)
    with atomic_file(file) as partial, partial.open("wb") as stream:
        np.save(stream, vectors.reshape(num_rows, -1, teacher.dimension))


def _window(body: str, place: str) -> str:
    shortest, longest = WINDOW_LENGTHS
    length = min(len(body), shortest + int(hash_share(place, "length") * (longest - shortest + 1)))
    start = int(hash_share(place, "start") * (len(body) - length + 1))
    return body[start : start + length]
