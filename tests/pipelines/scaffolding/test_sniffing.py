"""`podium new competition` where the files leave a doubt: it asks, says it, or has read the form off the sample."""

import io

import pandas as pd
import pytest
from rich.console import Console

from pipelines.errors import PodiumError
from pipelines.scaffolding.new import new_competition
from pipelines.scaffolding.sniffing import sniff_competition
from pipelines.workspace import Workspace

SLUG = "house-of-doubts"
NUM_ROWS = 40


def tables(folder, labels, sample, **inputs):
    """Train, test and sample of 40 rows each: `labels` beside the inputs in train, `sample` cells in all rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame({"row": range(NUM_ROWS), "x": [0.5 * row for row in range(NUM_ROWS)], **inputs})
    rows.assign(**{name: (list(cells) * NUM_ROWS)[:NUM_ROWS] for name, cells in labels.items()}).to_csv(
        folder / "train.csv", index=False
    )
    rows.to_csv(folder / "test.csv", index=False)
    asked = {name: rows.get(name, cell) for name, cell in sample.items()}
    pd.DataFrame({**({} if "row" in sample else {"row": rows["row"]}), **asked}).to_csv(
        folder / "sample_submission.csv", index=False
    )
    return folder


def made(tmp_path, labels, sample, inputs=None, **given):
    """The text of the competition's file, or the error."""
    workspace = Workspace(tmp_path)
    tables(workspace.data_dir(SLUG), labels, sample, **(inputs or {}))
    console = Console(file=io.StringIO(), width=200)
    path, _ = new_competition(workspace, SLUG, competitions_dir=tmp_path / "made", console=console, **given)
    return path.read_text()


def refusal(tmp_path, *arguments, **given):
    with pytest.raises(PodiumError) as error:
        made(tmp_path, *arguments, **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("labels", "sample", "inputs"),
    [
        ({"target": [0, 1]}, {"target": 0.5, "row": 0}, {}),
        ({"target": [0, 1]}, {"x": 0, "target": 0.5}, {}),
        ({"target": [0, 1]}, {"label": 0, "id": 0, "target": 0.5, "row": 0},
         {"label": ["red", "green"] * 20, "id": ["a"] * NUM_ROWS}),
    ],
)  # fmt: skip
def test_answers_are_what_test_lacks_wherever_they_stand(tmp_path, labels, sample, inputs):
    text = made(tmp_path, labels, sample, inputs, id_column="row")
    assert 'label_columns=("target",)' in text
    assert 'metric="auc"' in text
    copied = [name for name in sample if name not in ("row", "target")]
    assert (f"submissions repeat what the sample submission has in {', '.join(copied)}" in text) == bool(copied)


def test_what_neither_table_has_is_copied_when_the_label_is_named(tmp_path):
    sample = {"target": 0.5, "Usage": "Public"}
    assert "asks for 'Usage', which is neither" in refusal(tmp_path, {"target": [0, 1]}, sample)
    assert 'task="binary"' in made(tmp_path, {"target": [0, 1]}, sample, label="target")


def test_half_of_the_answers_is_refused(tmp_path):
    labels = {"energy": [0.25, 1.5, 3.0], "gap": [1.25, 0.5]}
    message = refusal(tmp_path, labels, {"energy": 0, "gap": 0}, label="energy")
    assert "asks for 'gap' beside energy, and train has it as well" in message
    assert message.endswith("name all the columns with --label energy,gap")


def test_columns_that_are_no_values_of_the_label_are_no_classes(tmp_path):
    message = refusal(tmp_path, {"kind": ["a", "b", "z"]}, {"a": 0.5, "b": 0.5}, label="kind")
    assert "asks for 'a', which is neither the label in train nor one of its classes" in message


@pytest.mark.parametrize("given", [{}, {"label": "kind", "task": "multiclass"}])
def test_a_class_that_only_the_sample_knows(tmp_path, given):
    text = made(tmp_path, {"kind": ["a", "b", "c"]}, dict.fromkeys("dcba", 0.25), **given)
    assert 'class_names=("d", "c", "b", "a")' in text
    assert 'metric="log_loss"' in text
    assert given or "no row has d" in text


def test_columns_of_classes_with_a_prefix(tmp_path):
    text = made(tmp_path, {"Status": ["C", "CL", "D"]}, dict.fromkeys(["Status_C", "Status_CL", "Status_D"], 1 / 3))
    assert 'class_names=("C", "CL", "D")' in text
    assert 'class_columns=("Status_C", "Status_CL", "Status_D")' in text
    text = made(tmp_path / "n", {"y": [1, 11, 2]}, dict.fromkeys(["c_1", "c_11", "c_2"], 1 / 3))
    assert 'class_names=("1", "11", "2")' in text


@pytest.mark.parametrize(
    ("words", "answer"), [(["no", "yes"], 0.5), (["no", "yes"], 0), ([True, False], 0.5), ([True, False], 0)]
)
def test_words_where_the_sample_has_numbers_are_asked_about(tmp_path, words, answer):
    message = refusal(tmp_path, {"target": words}, {"target": answer})
    assert f"answers with {answer} in target, but target in train.csv holds words such as '{words[0]}'" in message
    if answer == 0.5:
        assert "a probability and no class" in refusal(tmp_path, {"target": words}, {"target": 0.5}, task="multiclass")
    else:
        text = made(tmp_path, {"target": words}, {"target": 0}, task="multiclass")
        assert "the sample submission answers with 0, which is none of the classes of target" in text


def test_words_where_the_sample_has_words_are_taken(tmp_path):
    assert 'class_names=("False", "True")' in made(tmp_path, {"target": [True, False]}, {"target": False})


def test_zeros_may_be_labels_or_probabilities(tmp_path):
    draft = sniff_competition(tables(tmp_path, {"target": [0, 1]}, {"target": 0}), SLUG)
    assert draft.metric == "accuracy"
    assert draft.reasons["metric"] == (
        "the sample submission answers 0, which may be a label or a probability; where the Evaluation page says AUC or "
        "log loss, give --metric auc or --metric log_loss, for accuracy submits 0 and 1 alone"
    )


def test_one_hot_columns_are_pointed_out(tmp_path):
    one_hot, sample = {"a": [1, 0, 0], "b": [0, 1, 0], "tie": [0, 0, 1]}, dict.fromkeys(["a", "b", "tie"], 0.3)
    draft = sniff_competition(tables(tmp_path, one_hot, sample), SLUG)
    assert draft.task == "multilabel"
    assert draft.hints[0].startswith("exactly one of a, b, tie is 1 in every row: if they are the classes of one label")
    free = sniff_competition(tables(tmp_path, {**one_hot, "a": [1, 1, 0]}, sample), SLUG)
    assert free.hints == ()


@pytest.mark.parametrize(
    ("labels", "sample", "given", "words"),
    [
        ({"y": ["a b", "c"]}, {"y": "c"}, {"metric": "map_at_3"}, "class 'a b' holds a blank"),
        ({"y": [0, 1, 2]}, {"y": 0}, {"metric": "auc"}, "--metric auc: does not score a multiclass task; accuracy"),
        ({"y": [0, 1]}, {"y": 0}, {"metric": "map_at_5"}, "--metric map_at_5: does not score a binary task"),
        ({"y": [0, 1], "z": [1, 1]}, {"y": 0, "z": 0}, {"metric": "qwk"}, "--metric qwk: does not score a multilabel"),
        ({"y": [0.5, 1, 2]}, {"y": 0}, {"task": "regression", "metric": "qwk"}, "the label of id 0 is 0.5"),
        ({"y": ["low", "high"]}, {"y": "low"}, {"metric": "qwk"}, "qwk cannot be computed"),
        ({"y": ["a", "b"]}, {"y": "a"}, {"metric": "log_loss"}, "log_loss scores a probability per class"),
        ({"y": [1]}, {"y": 0.5}, {"metric": "auc"}, "auc cannot be computed: targets: all 40 rows are 1"),
        ({"y": [0.7, 0], "z": [0, 1]}, {"y": 0.5, "z": 0.5}, {}, "the labels y, z are not all 0 or 1"),
    ],
)  # fmt: skip
def test_contracts_that_no_run_could_keep_are_not_written(tmp_path, labels, sample, given, words):
    assert words in refusal(tmp_path, labels, sample, **given)


def test_images_are_named_where_the_tables_hold_nothing_but_ids(tmp_path):
    folder = tables(tmp_path, {"y": [0, 1]}, {"y": 0.5})
    for name in ("train", "test"):
        pd.read_csv(folder / f"{name}.csv").drop(columns="x").to_csv(folder / f"{name}.csv", index=False)
    with pytest.raises(PodiumError, match=r"nothing to predict from; .* images=ImagePlaces\(...\)"):
        sniff_competition(folder, SLUG)


@pytest.mark.parametrize("codes", [["007", "010", "7"], ["9007199254740992", "9007199254740993"], ["01", "1"]])
def test_codes_of_digits_are_names_and_not_numbers(tmp_path, codes):
    draft = sniff_competition(tables(tmp_path, {"y": codes}, {"y": codes[0]}), SLUG)
    assert draft.task == "multiclass"
    assert sorted(draft.class_names) == sorted(codes)


def test_many_codes_are_not_taken_for_values(tmp_path):
    codes = [f"{code:06d}" for code in range(7, 7 + 3 * NUM_ROWS, 3)]
    draft = sniff_competition(tables(tmp_path, {"y": codes}, {"y": codes[0]}), SLUG)
    assert draft.task == "text_to_text"
    assert sniff_competition(tables(tmp_path, {"y": [str(int(code)) for code in codes]}, {"y": 0}), SLUG).task == (
        "regression"
    )


def test_an_input_before_the_id_is_not_taken_for_it(tmp_path):
    draft = sniff_competition(tables(tmp_path, {"y": [0, 1]}, {"x": 0, "y": 0.5, "row": 0}), SLUG)
    assert (draft.id_column, draft.input_columns, draft.label_columns) == ("row", ("x",), ("y",))
    assert draft.reasons["id_column"] == "the first column of test, which the sample submission has as well"


def test_an_answer_that_is_called_as_an_input(tmp_path):
    inputs = {"label": ["red", "green"] * (NUM_ROWS // 2)}
    assert "test already has 'label'" in refusal(tmp_path, {"target": [0, 1]}, {"label": 0.5}, inputs)
    text = made(tmp_path, {"target": [0, 1]}, {"label": 0.5}, inputs, label="target")
    assert 'input_columns=("x", "label")' in text
    assert 'label_columns=("target",)' in text
