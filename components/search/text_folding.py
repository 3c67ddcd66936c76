"""Text as a searcher means it: traditional characters as simplified, full width as half, capitals as small letters.

Chinese needs no segmenter here; terms are characters and pairs of them (`components.search.terms`). Folding characters
one by one is enough for that: where a traditional form has several simplified ones, query and article take the same.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class TextFolder:
    """Folds by NFKC, lower case and a table of characters (traditional -> simplified)."""

    def __init__(self, simplified: Mapping[str, str]) -> None:
        self.simplified = dict(simplified)
        self._table = str.maketrans(self.simplified)
        self._characters = _FoldedCharacters(self.fold)

    def fold(self, text: str) -> str:
        """The folded text; folding twice changes nothing more."""
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(self._table)

    def fold_with_origins(self, text: str) -> tuple[str, Sequence[int]]:
        """The text folded character by character, and for each folded character the position it comes from."""
        folded = text.translate(self._characters)
        if self._characters.unequal.isdisjoint(text):
            return folded, range(len(text))
        lengths = (len(self._characters[ord(character)]) for character in text)
        return folded, [position for position, length in enumerate(lengths) for _ in range(length)]


class _FoldedCharacters(dict[int, str]):
    """Each character's fold by its code, as `str.translate` asks for it; `unequal` become none or several."""

    def __init__(self, fold: Callable[[str], str]) -> None:
        super().__init__()
        self._fold = fold
        self.unequal: set[str] = set()

    def __missing__(self, code: int) -> str:
        folded = self._fold(chr(code))
        if len(folded) != 1:
            self.unequal.add(chr(code))
        self[code] = folded
        return folded


def load_simplified(file: Path) -> dict[str, str]:
    """Traditional -> simplified, from OpenCC's table of characters: one, a tab, its forms, the likelier first.

    Raises ValueError for a file that holds no such line.
    """
    table: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        traditional, _, forms = line.partition("\t")
        if len(traditional) == 1 and forms.strip() and traditional != "#":
            simplified = forms.split()[0]
            if len(simplified) == 1 and simplified != traditional:
                table[traditional] = simplified
    if not table:
        raise ValueError(f"{file}: no line of a character table (a character, a tab, its simplified forms)")
    # A form that is itself traditional for another would make a second folding differ from the first.
    return {key: table.get(value, value) for key, value in table.items() if table.get(value, value) != key}
