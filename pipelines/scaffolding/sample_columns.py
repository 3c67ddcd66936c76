"""What the columns of a Kaggle sample submission are: the id, answers, a probability per class, or copies of test."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.competitions.kaggle_files import KaggleFiles


@dataclass(frozen=True)
class SampleClasses:
    """The classes that a sample has one column each for; their names may lack what all these columns begin with."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    reason: str


def asked_columns(files: KaggleFiles, id_column: str, labels: Sequence[str] = ()) -> list[str]:
    """The sample's columns of answers: those that are neither the id nor columns of test, which it repeats at times.

    A column that is named as a label is one whatever test has, and one of text beside several of numbers is none.
    """
    others = [name for name in files.columns["sample"] if name != id_column]
    asked = [name for name in others if name in labels or name not in files.columns["test"]]
    if not asked:
        return others
    named = [name for name in asked if name in labels]
    if len(named) == len(labels) > 0:
        return [name for name in asked if name in labels or name in files.columns["train"]]
    numbers = [name for name in asked if _holds_numbers(files, name)]
    return numbers if len(numbers) > 1 else asked


def find_classes(files: KaggleFiles, asked: Sequence[str], label: str) -> SampleClasses | None:
    """The classes where the sample has a column for each value of a training column, perhaps behind a common prefix.

    The sample may know classes that no training row has. None where its columns are something else.
    """
    values = set(files.column("train", label))
    if len(asked) < 2 or len(values) < 2:
        return None
    first = min(values)
    prefixes = {column.removesuffix(first) for column in asked if column.endswith(first)}
    fitting = [prefix for prefix in sorted(prefixes) if _spell(values, asked, prefix)]
    if not fitting or (len(fitting) > 1 and fitting[0] != ""):
        return None
    names = tuple(column.removeprefix(fitting[0]) for column in asked)
    unseen = [name for name in names if name not in values]
    reason = f"its values are the {len(asked)} columns of the sample submission"
    if unseen:
        reason = f"its values are among the {len(asked)} columns of the sample submission; no row has {unseen[0]}"
    return SampleClasses(names, tuple(asked), reason)


def _spell(values: set[str], asked: Sequence[str], prefix: str) -> bool:
    """Whether every asked column is a class behind `prefix`, and every value has its column."""
    has_prefix = all(column.startswith(prefix) and column != prefix for column in asked)
    return has_prefix and {prefix + value for value in values} <= set(asked)


def _holds_numbers(files: KaggleFiles, name: str) -> bool:
    return bool(pd.to_numeric(files.column("sample", name), errors="coerce").notna().all())
