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
    names: dict[str, str] = {}
    for column in dict.fromkeys([*inputs, *(labels if is_multilabel else ())]):
        if _is_taken(column, id_column, labels if is_multilabel else (), image_column, is_multilabel, files):
            names[column] = _free_name(column, {*files, *names.values()})
        else:
            names[column] = column
    return names


def _is_taken(
    column: str,
    id_column: str,
    columns_of_labels: Sequence[str],
    image_column: str | None,
    is_multilabel: bool,
    files: set[str],
) -> bool:
    """Whether the frame has something else under this name."""
    if column == "id":
        # The id column itself may be an input: it holds the same text, but for places of images.
        return id_column != "id" or image_column == "id"
    if column in columns_of_labels:
        is_a_truth = column.startswith("true_") and column.removeprefix("true_") in files
        return column == "fold" or is_a_truth
    return column == "label" and not is_multilabel


def _free_name(column: str, taken: set[str]) -> str:
    name = f"column {column}"
    while name in taken:
        name += "_"
    return name


def restore_names(row: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """A row of a canonical frame with the files' names where they differ, for prompts."""
    renamed = {column: row[name] for column, name in names.items() if name != column and name in row}
    return {**row, **renamed}
