"""Which symbols each letter of a word stands for, learnt from pairs alone.

Expectation maximisation over monotone alignments in which every letter takes none, one or two symbols (the model of
Black, Lenzo and Pagel 1998, "Issues in building general letter to sound rules", section 3, with all alignments
counted instead of allowed ones listed by hand). Words of one length are aligned together as arrays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_SYMBOLS_PER_LETTER = 2
# Where EM starts: a letter says mostly one symbol. From a flat start it learns to pair silence with doubled symbols.
START = (0.2, 0.7, 0.1)


@dataclass(frozen=True)
class Batch:
    """Pairs whose sources are equally long, and where they stood."""

    rows: Ids  # (B,)
    letters: Ids  # (B, N)
    symbols: Ids  # (B, M), num_symbols where a target is shorter than the longest
    num_symbols: Ids  # (B,) length of each target


class ChunkTable:
    """Ids for what one letter can say: 0 nothing, then every single symbol, then every ordered pair of symbols."""

    def __init__(self, num_letters: int, num_symbols: int) -> None:
        self.num_letters = num_letters
        self.num_symbols = num_symbols
        # One symbol more than there are stands for padding; its chunks never gain probability.
        self.base = num_symbols + 1
        self.size = 1 + self.base + self.base**2

    def start(self) -> Floats:
        """Probability of each chunk given the letter, before anything is known: (letters, chunks)."""
        none, one, two = START
        row = np.zeros(self.size)
        row[0] = none
        row[1 : 1 + self.num_symbols] = one / self.num_symbols
        pairs = row[1 + self.base :].reshape(self.base, self.base)  # (chunks,) -> (first, second)
        pairs[: self.num_symbols, : self.num_symbols] = two / self.num_symbols**2
        return np.tile(row, (self.num_letters, 1))

    def chunks_ending(self, symbols: Ids) -> list[Ids]:
        """Per width 1 and 2, the chunk that starts at each place: (B, M) and (B, M - 1)."""
        return [1 + symbols, 1 + self.base + symbols[:, :-1] * self.base + symbols[:, 1:]]

    def symbols_of(self, chunk: int) -> tuple[int, ...]:
        if chunk == 0:
            return ()
        if chunk <= self.base:
            return (chunk - 1,)
        return divmod(chunk - 1 - self.base, self.base)


def align(
    letters: Sequence[Sequence[int]], symbols: Sequence[Sequence[int]], table: ChunkTable, *, num_iterations: int = 6
) -> list[Ids | None]:
    """The likeliest chunk of each letter, per pair; None where a target is longer than two symbols a letter."""
    batches = list(_batches(letters, symbols, table.num_symbols))
    probabilities = table.start()
    for _ in range(num_iterations):
        counts = np.zeros_like(probabilities)
        for batch in batches:
            counts += _expected_counts(batch, probabilities, table)
        probabilities = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)
    aligned: list[Ids | None] = [None] * len(letters)
    for batch in batches:
        for row, chunks in zip(batch.rows.tolist(), _best_chunks(batch, probabilities, table), strict=True):
            aligned[row] = chunks
    return aligned


def _batches(letters: Sequence[Sequence[int]], symbols: Sequence[Sequence[int]], padding: int) -> Iterator[Batch]:
    by_length: dict[int, list[int]] = {}
    for row, (word, target) in enumerate(zip(letters, symbols, strict=True)):
        if word and len(target) <= MAX_SYMBOLS_PER_LETTER * len(word):
            by_length.setdefault(len(word), []).append(row)
    for rows in by_length.values():
        lengths = np.array([len(symbols[row]) for row in rows])
        padded = np.full((len(rows), max(2, lengths.max())), padding)
        for place, row in enumerate(rows):
            padded[place, : len(symbols[row])] = symbols[row]
        yield Batch(np.array(rows), np.array([letters[row] for row in rows]), padded, lengths)


def _steps(batch: Batch, probabilities: Floats, table: ChunkTable) -> Iterator[list[tuple[Ids, Floats]]]:
    """Per letter, for widths 0, 1, 2: chunk ids and probabilities by the place they start at, (B, M + 1 - width)."""
    chunks = [np.zeros((len(batch.rows), batch.symbols.shape[1] + 1), np.int64), *table.chunks_ending(batch.symbols)]
    for letter in batch.letters.T:
        flat = letter[:, None] * table.size
        yield [(flat + chunk, probabilities.ravel()[flat + chunk]) for chunk in chunks]


def _expected_counts(batch: Batch, probabilities: Floats, table: ChunkTable) -> Floats:
    """How often each letter says each chunk, over all alignments by their probability: (letters, chunks)."""
    steps = list(_steps(batch, probabilities, table))
    num_places = batch.symbols.shape[1] + 1
    forward = np.zeros((len(steps) + 1, len(batch.rows), num_places))
    forward[0, :, 0] = 1.0
    for i, step in enumerate(steps):
        for width, (_, probability) in enumerate(step):
            forward[i + 1, :, width:] += forward[i, :, : num_places - width] * probability
    ends = (np.arange(len(batch.rows)), batch.num_symbols)
    backward = np.zeros((len(batch.rows), num_places))
    # Dividing here, once, makes every product below a posterior.
    backward[ends] = 1.0 / np.maximum(forward[-1][ends], 1e-300)
    counts = np.zeros(probabilities.size)
    for i in range(len(steps) - 1, -1, -1):
        before = np.zeros_like(backward)
        for width, (flat, probability) in enumerate(steps[i]):
            after = probability * backward[:, width:]
            before[:, : num_places - width] += after
            posterior = forward[i, :, : num_places - width] * after
            counts += np.bincount(flat.ravel(), posterior.ravel(), minlength=counts.size)
        backward = before
    return counts.reshape(probabilities.shape)  # (letters * chunks,) -> (letters, chunks)


def _best_chunks(batch: Batch, probabilities: Floats, table: ChunkTable) -> Ids:
    """Viterbi: the chunk of each letter in the likeliest alignment, (B, N)."""
    num_places = batch.symbols.shape[1] + 1
    best = np.zeros((len(batch.rows), num_places))
    best[:, 0] = 1.0
    widths = []
    for step in _steps(batch, probabilities, table):
        arrivals = np.zeros((len(step), *best.shape))
        for width, (_, probability) in enumerate(step):
            arrivals[width, :, width:] = best[:, : num_places - width] * probability
        widths.append(arrivals.argmax(axis=0))
        best = arrivals.max(axis=0)
    chunks = [np.zeros((len(batch.rows), num_places), np.int64), *table.chunks_ending(batch.symbols)]
    rows, places = np.arange(len(batch.rows)), batch.num_symbols.copy()
    chosen = np.zeros_like(batch.letters)
    for i in range(len(widths) - 1, -1, -1):
        width = widths[i][rows, places]
        places = places - width
        for value, chunk in enumerate(chunks):
            here = width == value
            chosen[here, i] = chunk[here, places[here]]
    return chosen
