"""Spelling to sounds without a neural network: aligned letters, and a table of what each says in its surroundings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.baselines.alignment import ChunkTable, align

Ids = NDArray[np.int64]

OUTSIDE = 0  # what stands before the first and after the last letter


@dataclass(frozen=True)
class ContextLevel:
    """All contexts of one width seen in training, as sorted keys, and what their letter said most often there."""

    keys: Ids  # (contexts,)
    chunks: Ids  # (contexts,)


class LetterToSound:
    """Longest-context back-off: each letter says what it most often said in the widest window seen in training.

    Windows are `radius` letters to each side, then one less, down to the letter alone. Letters are aligned with
    symbols by EM (`components.baselines.alignment`). On CMUdict (107,493 training words) radius 4 takes about 12 s.
    """

    def __init__(self, *, radius: int = 4, num_iterations: int = 6) -> None:
        self.radius = radius
        self.num_iterations = num_iterations
        self._letters: dict[str, int] = {}
        self._symbols: list[str] = []
        self._table = ChunkTable(0, 0)
        self._levels: list[ContextLevel] = []

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> "LetterToSound":
        """Learn from words and their symbols ("mdina", "M D IY N AH").

        Pairs with more than two symbols a letter ("w", D AH B AH L Y UW) teach nothing and are passed over.
        """
        self._letters = {letter: number for number, letter in enumerate(sorted(set("".join(sources))), start=1)}
        self._symbols = sorted({symbol for target in targets for symbol in target.split()})
        self._table = ChunkTable(len(self._letters) + 1, len(self._symbols))
        numbers = {symbol: number for number, symbol in enumerate(self._symbols)}
        aligned = align(
            [[self._letters[letter] for letter in source] for source in sources],
            [[numbers[symbol] for symbol in target.split()] for target in targets],
            self._table,
            num_iterations=self.num_iterations,
        )
        known = [(source, chunks) for source, chunks in zip(sources, aligned, strict=True) if chunks is not None]
        if not known:
            raise ValueError("no pair could be aligned: every target has more than two symbols a letter")
        windows = self._windows([source for source, _ in known])
        self._levels = _build_levels(windows, np.concatenate([chunks for _, chunks in known]), self._base)
        return self

    def predict(self, sources: Sequence[str], *, radius: int | None = None) -> list[str]:
        """Symbols of each word; a smaller `radius` than the fitted one looks less far (0: the letter alone)."""
        levels = self._levels if radius is None else self._levels[: radius + 1]
        chunks = _look_up(levels, self._windows(sources), self._base)
        spoken = {
            int(chunk): [self._symbols[symbol] for symbol in self._table.symbols_of(int(chunk))]
            for chunk in np.unique(chunks)
        }
        said, start = [], 0
        for source in sources:
            own = chunks[start : start + len(source)]
            start += len(source)
            said.append(" ".join(symbol for chunk in own.tolist() for symbol in spoken[chunk]))
        return said

    @property
    def _base(self) -> int:
        """How many values a place of a window can take: outside, the letters, and one for letters never seen."""
        return len(self._letters) + 2

    def _windows(self, sources: Sequence[str]) -> Ids:
        """The letters around every letter of every word, (letters in all, 2 * radius + 1)."""
        margin = [OUTSIDE] * self.radius
        unseen = len(self._letters) + 1
        running = list(margin)
        centres: list[int] = []
        for source in sources:
            centres.extend(range(len(running), len(running) + len(source)))
            running.extend(self._letters.get(letter, unseen) for letter in source)
            running.extend(margin)
        offsets = np.arange(-self.radius, self.radius + 1)
        places = np.array(centres, np.int64)[:, None] + offsets
        windows: Ids = np.array(running, np.int64)[places]
        return windows


def _build_levels(windows: Ids, chunks: Ids, base: int) -> list[ContextLevel]:
    levels = []
    contexts = np.zeros(len(windows), np.int64)
    for radius in range(windows.shape[1] // 2 + 1):
        keys, contexts = np.unique(_widen(contexts, windows, radius, base), return_inverse=True)
        levels.append(ContextLevel(keys, _most_frequent(contexts, chunks)))
    return levels


def _widen(contexts: Ids, windows: Ids, radius: int, base: int) -> Ids:
    """Keys of contexts one letter wider on both sides than those numbered by `contexts`.

    Numbering each width anew keeps keys small for any alphabet: below letters in all * base ** 2.
    """
    centre = windows.shape[1] // 2
    return (contexts * base + windows[:, centre - radius]) * base + windows[:, centre + radius]


def _most_frequent(contexts: Ids, chunks: Ids) -> Ids:
    """The commonest chunk of each context, of equally common ones the smallest id: (contexts,)."""
    num_chunks = int(chunks.max()) + 1
    pairs, counts = np.unique(contexts * num_chunks + chunks, return_counts=True)
    owners, candidates = np.divmod(pairs, num_chunks)
    order = np.lexsort((candidates, -counts, owners))
    first = np.unique(owners[order], return_index=True)[1]
    commonest: Ids = candidates[order][first]
    return commonest


def _look_up(levels: Sequence[ContextLevel], windows: Ids, base: int) -> Ids:
    """The chunk of each letter by the widest known context; 0 (silence) for a letter never seen."""
    contexts = np.zeros(len(windows), np.int64)
    known = np.ones(len(windows), bool)
    chunks = np.zeros(len(windows), np.int64)
    for radius, level in enumerate(levels):
        keys = _widen(contexts, windows, radius, base)
        contexts = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
        known &= level.keys[contexts] == keys
        chunks[known] = level.chunks[contexts[known]]
    return chunks
