"""What the columns of a competition's files are called in its canonical frames.

Canonical frames have columns of their own: `id`, `label`, and `fold` and `true_<column>` beside OOF predictions. A file
may use these words for something else, so that a column that would take the place of one of them has another name in
the frame. Every other column keeps the name that it has in the file.
"""

from collections.abc import Mapping, Sequence


def name_frame_columns(
    *,
    id_column: str,
    inputs: Sequence[str],
    labels: Sequence[str],
    is_multilabel: bool,
    image_column: str | None = None,
) -> dict[str, str]:
    """File column -> frame column, for inputs (columns that folds and metric group by included) and labels.

    The labels of a multilabel task are columns of the frame; the one label of any other task is always `label`.
    """
    files = {id_column, *inputs, *labels}
    label_columns = labels if is_multilabel else ()
    taken = set() if is_multilabel else {"label"}
    if id_column != "id" or image_column == "id":  # else an input called id holds the same text
        taken.add("id")
    taken_from_labels = {name for name in label_columns if _is_a_truth(name, files)} | {"fold"}
    names: dict[str, str] = {}
    for column in dict.fromkeys([*inputs, *label_columns]):
        is_taken = column in taken or (column in label_columns and column in taken_from_labels)
        names[column] = _free_name(column, {*files, *names.values()}) if is_taken else column
    return names


def _is_a_truth(name: str, files: set[str]) -> bool:
    """Whether OOF predictions have the truth of another column under this name."""
    return name.startswith("true_") and name.removeprefix("true_") in files


def _free_name(column: str, taken: set[str]) -> str:
    name = f"column {column}"
    while name in taken:
        name += "_"
    return name


def restore_names(row: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """A row of a canonical frame with the files' names where they differ, for prompts."""
    renamed = {column: row[name] for column, name in names.items() if name != column and name in row}
    return {**row, **renamed}
