"""Pickles of plain lists and texts, read so that nothing in them can run."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

from pipelines.errors import PodiumError


class _PlainUnpickler(pickle.Unpickler):
    """Admits no class and no function: what a pickle executes, it first finds by name."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only plain lists, texts and numbers are read")

    def persistent_load(self, _: object) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object outside itself")


def read_plain_pickle(file: Path) -> Any:  # noqa: ANN401 - whatever plain value it holds
    """The content of a pickle of plain values. Raises `PodiumError` that names a file that holds more or is damaged."""
    try:
        with file.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise PodiumError(f"{file}: not read ({error})") from error
