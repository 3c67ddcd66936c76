"""The known word that a wrong one was meant for."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean X?` for the nearest known word; else what to do otherwise, after a semicolon too, or nothing."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    words = f"did you mean {nearest[0]}?" if nearest else otherwise
    return f"; {words}" if words else ""
