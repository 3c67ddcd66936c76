"""What lexical search counts: words and their letter quadruples, Chinese characters and their pairs."""

import re
from collections.abc import Iterator

LETTER_GRAM = 4
HAN_GRAMS = (1, 2)

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af\u3005\u3007"
_RUNS = re.compile(f"[{_HAN}]+|(?:(?![{_HAN}])[^\\W_])+(?:['’](?:(?![{_HAN}])[^\\W_])+)*")
_IS_HAN = re.compile(f"[{_HAN}]")


def list_terms(folded: str) -> list[str]:
    """The terms of a folded text, in its order and with repeats.

    "elections" gives itself and "#<ele", "#elec", … "#ons>", so that a word's other forms still share most of it;
    搜索引擎 gives its four characters and 搜索, 索引, 引擎. Punctuation, underscores and emoji give nothing.
    """
    return [term for run in find_runs(folded) for term in _terms_of(run)]


def find_runs(folded: str) -> list[str]:
    """Words and unbroken stretches of Chinese characters."""
    return [match.group() for match in _RUNS.finditer(folded)]


def is_han(run: str) -> bool:
    """Whether a run (or a character) is Chinese."""
    return _IS_HAN.match(run) is not None


def _terms_of(run: str) -> Iterator[str]:
    if is_han(run):
        for size in HAN_GRAMS:
            yield from (run[start : start + size] for start in range(len(run) - size + 1))
        return
    word = run.removesuffix("'s").removesuffix("’s")
    yield word
    marked = f"<{word}>"
    yield from (f"#{marked[start : start + LETTER_GRAM]}" for start in range(max(1, len(marked) - LETTER_GRAM + 1)))
