"""The part of an article that answers a query best, and which of its characters match."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.search.terms import HAN_GRAMS, find_runs, is_han
from components.search.text_folding import TextFolder

WIDTH = 180
# Of a very long article the first part is looked through.
MAX_SCANNED = 20_000
# The inverse document frequency of a term that a third of the articles have, ln(1 + 2).
COMMON = 1.1
LEAST_STEM = 4
# How far a passage may be moved to begin with a sentence.
REACH = 40
_SENTENCE_END = re.compile(r"[.!?。！？…\n][\"'”’」』)）]*\s*")
_WORD_REST = re.compile(r"[a-zA-Z0-9]{1,20}\W+")


@dataclass(frozen=True)
class Piece:
    """A stretch of text, and whether it matches the query."""

    text: str
    is_match: bool


class Highlighter:
    """Marks one query in any number of texts; `rarity` is a term's inverse document frequency."""

    def __init__(self, query: str, folder: TextFolder, *, rarity: Callable[[str], float]) -> None:
        self._folder = folder
        self._needles = _telling({needle: rarity(needle) for needle in find_needles(query, folder)})

    def mark(self, text: str) -> list[Piece]:
        """The whole text in pieces, those of the query's telling words (and pairs of Chinese characters) marked."""
        return _split(text, self._weights(text) > 0)

    def best_passage(self, text: str, *, width: int = WIDTH) -> list[Piece]:
        """About `width` characters around the densest rare matches; the text's start where nothing matches."""
        text = re.sub(r"\s+", " ", text[:MAX_SCANNED]).strip()
        weights = self._weights(text)
        start = _best_start(weights, width, text)
        end = min(len(text), start + width)
        pieces = _split(text[start:end], weights[start:end] > 0)
        before, after = start > 0, end < len(text)
        return [*([Piece("…", False)] if before else []), *pieces, *([Piece("…", False)] if after else [])]

    def _weights(self, text: str) -> NDArray[np.float64]:
        """(characters,); 0 outside of matches. Rarity is squared: one rare word outweighs a crowd of frequent ones."""
        weights = np.zeros(len(text))
        folded, origins = self._folder.fold_with_origins(text)
        for needle, rarity in self._needles.items():
            for match in re.finditer(_pattern(needle), folded):
                start, end = origins[match.start()], origins[match.end() - 1] + 1
                weights[start:end] = np.maximum(weights[start:end], rarity**2 / len(needle))
        return weights


def find_needles(query: str, folder: TextFolder) -> list[str]:
    """What may be marked: the words of a query, pairs of its Chinese characters, and a character that stands alone."""
    needles: dict[str, None] = {}
    for run in find_runs(folder.fold(query)):
        size = max(HAN_GRAMS)
        if is_han(run) and len(run) >= size:
            needles |= dict.fromkeys(run[start : start + size] for start in range(len(run) - size + 1))
        else:
            needles[run] = None
    return list(needles)


def _telling(rarities: dict[str, float]) -> dict[str, float]:
    """Without the needles that stand in every third article or more, unless there are no others."""
    known = {needle: rarity for needle, rarity in rarities.items() if rarity > 0}
    return {needle: rarity for needle, rarity in known.items() if rarity > COMMON} or known


def _pattern(needle: str) -> str:
    """A Chinese needle anywhere; a word where a word begins, and a short one only whole ("the" is not in "their")."""
    if is_han(needle):
        return re.escape(needle)
    ending = "" if len(needle) >= LEAST_STEM else r"(?![^\W_])"
    return rf"(?<![^\W_]){re.escape(needle)}{ending}"


def _best_start(weights: NDArray[np.float64], width: int, text: str) -> int:
    if len(text) <= width or not weights.any():
        return 0
    sums = np.cumsum(np.r_[0.0, weights])
    best = int(np.argmax(sums[width:] - sums[:-width]))
    matched = best + np.flatnonzero(weights[best : best + width])
    heaviest = best + int(np.argmax(weights[best : best + width]))
    # Context on both sides of the matches; it begins with a sentence where one begins near and before the best match.
    start = max(0, (int(matched[0]) + int(matched[-1]) - width) // 2)
    begun = _SENTENCE_END.search(text, start, min(heaviest, start + REACH)) if start else None
    start = begun.end() if begun and begun.end() <= heaviest else start
    # No passage begins in the middle of a word, except in scripts that have no spaces.
    cut = _WORD_REST.match(text, start) if start and text[start - 1].isalnum() else None
    return cut.end() if cut and cut.end() <= heaviest else start


def _split(text: str, matching: NDArray[np.bool_]) -> list[Piece]:
    edges = [0, *(np.flatnonzero(np.diff(matching.astype(np.int8))) + 1).tolist(), len(text)]
    return [Piece(text[start:end], bool(matching[start])) for start, end in pairwise(edges) if end > start]
