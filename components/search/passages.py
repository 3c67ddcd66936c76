"""The part of an article that answers a query best, and which of its characters match."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.search.terms import HAN_GRAMS, find_runs, is_han
from components.search.text_folding import TextFolder

WIDTH = 180
# A passage begins at the start of a sentence where one lies so near.
REACH = 40
_SENTENCE_END = re.compile(r"[.!?。！？…\n][\"'”’」』)）]*\s*")


@dataclass(frozen=True)
class Piece:
    """A stretch of text, and whether it matches the query."""

    text: str
    is_match: bool


def mark_matches(text: str, query: str, folder: TextFolder) -> list[Piece]:
    """The whole text in pieces, those of the query's words (and pairs of Chinese characters) marked."""
    return _split(text, _matching(text, find_needles(query, folder), folder))


def best_passage(
    text: str, query: str, folder: TextFolder, *, rarity: Callable[[str], float], width: int = WIDTH
) -> list[Piece]:
    """About `width` characters around the densest rare matches, marked; the text's start where nothing matches."""
    text = re.sub(r"\s+", " ", text).strip()
    needles = find_needles(query, folder)
    weights = np.zeros(len(text))
    for needle, start, end in _occurrences(text, needles, folder):
        weights[start:end] = np.maximum(weights[start:end], rarity(needle) / len(needle))
    start = _best_start(weights, width, text)
    end = min(len(text), start + width)
    pieces = _split(text[start:end], weights[start:end] > 0)
    before, after = start > 0, end < len(text)
    return [*([Piece("…", False)] if before else []), *pieces, *([Piece("…", False)] if after else [])]


def find_needles(query: str, folder: TextFolder) -> list[str]:
    """What is marked: the words of a query, pairs of its Chinese characters, and a character that stands alone."""
    needles: dict[str, None] = {}
    for run in find_runs(folder.fold(query)):
        size = max(HAN_GRAMS)
        if is_han(run) and len(run) >= size:
            needles |= dict.fromkeys(run[start : start + size] for start in range(len(run) - size + 1))
        else:
            needles[run] = None
    return list(needles)


def _occurrences(text: str, needles: Iterable[str], folder: TextFolder) -> list[tuple[str, int, int]]:
    """(needle, start, end) in the text's own positions; a word counts where it begins a word."""
    folded, origins = folder.fold_with_origins(text)
    found = []
    for needle in needles:
        pattern = re.escape(needle) if is_han(needle) else rf"(?<![^\W_]){re.escape(needle)}"
        for match in re.finditer(pattern, folded):
            found.append((needle, origins[match.start()], origins[match.end() - 1] + 1))
    return found


def _matching(text: str, needles: Iterable[str], folder: TextFolder) -> NDArray[np.bool_]:
    matching = np.zeros(len(text), bool)
    for _, start, end in _occurrences(text, needles, folder):
        matching[start:end] = True
    return matching


def _best_start(weights: NDArray[np.float64], width: int, text: str) -> int:
    if len(text) <= width or not weights.any():
        return 0
    sums = np.cumsum(np.r_[0.0, weights])
    best = int(np.argmax(sums[width:] - sums[:-width]))
    first_match = best + int(np.argmax(weights[best:] > 0))
    # A little context before the first match, from a sentence's start if one is near.
    start = max(0, first_match - width // 6)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, max(0, start - REACH), first_match)]
    return min([end for end in ends if end <= first_match][-1] if ends else start, len(text) - width // 2)


def _split(text: str, matching: NDArray[np.bool_]) -> list[Piece]:
    edges = [0, *(np.flatnonzero(np.diff(matching.astype(np.int8))) + 1).tolist(), len(text)]
    return [Piece(text[start:end], bool(matching[start])) for start, end in pairwise(edges) if end > start]
