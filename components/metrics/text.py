"""Scores of generated text: exact match, edit-distance error rates and chrF, in plain Python and fast enough to run
at every evaluation.

Everywhere a target is one reference or several, the nearest of which counts; every score is a fraction. Text is
compared as it stands, by Unicode code points: normalise it (NFC) beforehand where sources differ.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence

CHRF_ORDER = 6
CHRF_BETA = 2.0


def exact_match(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> float:
    """Share of predictions that equal one of their references, character by character."""
    pairs = list(_pairs(targets, predictions))
    return sum(prediction in references for references, prediction in pairs) / len(pairs)


def word_accuracy(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> float:
    """Share of predictions whose whitespace-separated symbols are those of a reference: pronunciations all right."""
    pairs = list(_pairs(targets, predictions))
    hits = sum(prediction.split() in [text.split() for text in references] for references, prediction in pairs)
    return hits / len(pairs)


def reciprocal_rank(targets: Sequence[str | Sequence[str]], predictions: Sequence[str], *, depth: int) -> float:
    """Mean of 1 / rank of the first right answer among those a prediction lists, best first, between whitespace.

    What stands at no rank up to `depth` counts 0.
    """
    total = 0.0
    for references, prediction in (pairs := list(_pairs(targets, predictions))):
        ranked = prediction.split()[:depth]
        total += next((1 / rank for rank, answer in enumerate(ranked, 1) if answer in references), 0.0)
    return total / len(pairs)


def character_error_rate(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> float:
    """Edits needed to turn all predictions into their nearest references, per reference character; may exceed 1."""
    return _error_rate(targets, predictions, tuple)


def phoneme_error_rate(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> float:
    """As `character_error_rate`, over the symbols that whitespace separates (phonemes, or words: then it is WER)."""
    return _error_rate(targets, predictions, str.split)


def chrf(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> float:
    """Character n-gram F-score with n up to 6 and beta 2 (Popović 2015), over the corpus, whitespace left out.

    Precision and recall are averaged over the orders that occur on both sides, and of several references the one
    with the best score for its sentence counts, as in sacrebleu's default; sacrebleu prints 100 times this value.
    """
    totals = [[0, 0, 0] for _ in range(CHRF_ORDER)]
    for references, prediction in _pairs(targets, predictions):
        packed = "".join(prediction.split())
        ours = _ngram_counts(packed)
        candidates = [_ngram_overlap(len(packed), ours, "".join(text.split())) for text in references]
        best = max(candidates, key=_chrf_score) if len(candidates) > 1 else candidates[0]
        totals = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(totals, best, strict=True)]
    return _chrf_score(totals)


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein)."""
    return _edit_distance(_positions(first), len(first), second)


def _positions(pattern: Sequence[Hashable]) -> dict[Hashable, int]:
    """For each symbol, a bit mask of where it stands in the pattern."""
    positions: dict[Hashable, int] = {}
    for index, symbol in enumerate(pattern):
        positions[symbol] = positions.get(symbol, 0) | (1 << index)
    return positions


def _edit_distance(positions: dict[Hashable, int], length: int, text: Sequence[Hashable]) -> int:
    """Myers 1999 in Hyyrö's form: one column of the distance table is two integers, the rows at which the distance
    rises and those at which it falls; one step per symbol, whatever the pattern's length."""
    all_rows = (1 << length) - 1
    rises, falls = all_rows, 0
    for symbol in text:
        equal = positions.get(symbol, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
        right_rises = ((falls | ~(diagonal | rises)) << 1) | 1
        right_falls = (diagonal & rises) << 1
        rises = (right_falls | ~(diagonal | right_rises)) & all_rows
        falls = right_rises & diagonal & all_rows
    return len(text) + rises.bit_count() - falls.bit_count()


def _error_rate(
    targets: Sequence[str | Sequence[str]], predictions: Sequence[str], split: Callable[[str], Sequence[str]]
) -> float:
    """Total edits over total reference length; among references equally near the longest counts, in any order."""
    num_edits = num_symbols = 0
    for references, prediction in _pairs(targets, predictions):
        ours = split(prediction)
        positions = _positions(ours)
        edits, minus_length = min(
            (_edit_distance(positions, len(ours), theirs), -len(theirs)) for theirs in map(split, references)
        )
        num_edits += edits
        num_symbols -= minus_length
    if num_symbols == 0:
        raise ValueError("targets: every nearest reference is empty, so an error rate per symbol has no meaning")
    return num_edits / num_symbols


def _ngram_counts(text: str) -> Counter[str]:
    """How often each character n-gram up to CHRF_ORDER occurs; a key's length is its order."""
    starts = range(len(text))
    return Counter([text[i : i + order] for order in range(1, CHRF_ORDER + 1) for i in starts[: 1 - order or None]])


def _ngram_overlap(length: int, ours: Counter[str], reference: str) -> list[list[int]]:
    """Per order: n-grams of a prediction of so many characters, of the reference, and common ones."""
    theirs = _ngram_counts(reference)
    common = [0] * CHRF_ORDER
    for ngram in ours.keys() & theirs.keys():
        common[len(ngram) - 1] += min(ours[ngram], theirs[ngram])
    totals = [(max(length - n, 0), max(len(reference) - n, 0)) for n in range(CHRF_ORDER)]
    # An order too long for its reference must not cost the prediction precision elsewhere in the corpus.
    return [[a if b else 0, b, both] for (a, b), both in zip(totals, common, strict=True)]


def _chrf_score(statistics: Sequence[Sequence[int]]) -> float:
    rows = [row for row in statistics if row[0] and row[1]]
    if not rows:
        return 0.0
    precision = sum(common / ours for ours, _, common in rows) / len(rows)
    recall = sum(common / theirs for _, theirs, common in rows) / len(rows)
    if precision + recall == 0.0:
        return 0.0
    return (1 + CHRF_BETA**2) * precision * recall / (CHRF_BETA**2 * precision + recall)


def _pairs(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(references, prediction) of each row.

    Raises:
        ValueError: nothing to score, unequal lengths, or a cell that is not text, by name and row.
    """
    if isinstance(targets, str) or isinstance(predictions, str):
        raise ValueError("text metrics score lists of texts, one row each; got a single text")
    if len(targets) != len(predictions):
        raise ValueError(
            f"targets have {len(targets)} rows, predictions {len(predictions)}; both must be the same rows"
        )
    if len(targets) == 0:
        raise ValueError("targets: no rows to score")
    for row, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
        yield _references(target, row), _text("predictions", prediction, row)


def _references(target: object, row: int) -> tuple[str, ...]:
    """The references of one row; a data frame's cell may hold anything."""
    if isinstance(target, str):
        return (target,)
    if not isinstance(target, Collection) or isinstance(target, Mapping | bytes):
        raise ValueError(f"targets: row {row} is {target!r}, neither a text nor a list of texts")
    if len(target) == 0:
        raise ValueError(f"targets: row {row} has no reference")
    return tuple(_text("targets", text, row) for text in target)


def _text(name: str, value: object, row: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: row {row} is {value!r}, not a text; read CSV files with keep_default_na=False")
    return value
