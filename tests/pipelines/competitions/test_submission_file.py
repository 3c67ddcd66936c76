"""Every way in which a submission can be wrong, and the one line that says so."""

import io

import numpy as np
import pandas as pd
import pytest
from tiny_competition import make_competition

from pipelines.competitions.submission_file import check_submission, load_submission, write_submission
from pipelines.errors import PodiumError

BINARY = make_competition()
MULTICLASS = make_competition(task="multiclass", class_names=("0", "1", "2"), metric="accuracy", extra_metrics=())
NAMED = make_competition(task="multiclass", class_names=("cat", "dog"), metric="accuracy", extra_metrics=())
PER_CLASS = make_competition(task="multiclass", class_names=("a", "b", "c"), metric="log_loss", extra_metrics=())
MULTILABEL = make_competition(task="multilabel", label_columns=("toxic", "rude"), extra_metrics=())
REGRESSION = make_competition(task="regression", metric="rmse", extra_metrics=())
TEXT = make_competition(task="text_to_text", metric="exact_match", extra_metrics=())


def frame(text: str) -> pd.DataFrame:
    """A frame from CSV lines separated by blanks, ids as text, as competitions load a sample."""
    return pd.read_csv(io.StringIO("\n".join(text.split())), dtype={"id": str}, keep_default_na=False)


def error_of(submission: pd.DataFrame, sample: pd.DataFrame, competition=BINARY, source="submission.csv") -> str:
    with pytest.raises(PodiumError) as error:
        check_submission(submission, sample, competition, source=source)
    assert "\n" not in str(error.value)
    return str(error.value)


SAMPLE = frame("id,label a,0 b,0 c,0 d,0 e,0")


@pytest.mark.parametrize(
    ("competition", "sample", "submission"),
    [
        (BINARY, "id,label a,0 b,0", "id,label a,0.25 b,1"),
        (MULTICLASS, "id,label a,0 b,0", "id,label a,2 b,1"),
        (MULTICLASS, "id,label a,0 b,0", "id,label a,2.0 b,1.0"),
        (NAMED, "id,label a,cat b,cat", "id,label a,dog b,cat"),
        (PER_CLASS, "id,a,b,c x,0,0,0", "id,a,b,c x,0.333,0.333,0.333"),
        (MULTILABEL, "id,toxic,rude x,0.5,0.5", "id,toxic,rude x,1,0.9"),
        (REGRESSION, "id,label a,0 b,0", "id,label a,-7.5 b,1e9"),
        (TEXT, "id,label a,x b,x", "id,label a,NA b,nan"),
    ],
)
def test_good_submissions_pass(competition, sample, submission):
    check_submission(frame(submission), frame(sample), competition, source="runs/x/submission.csv")


def test_a_code_competition_finds_one_file_name_only():
    assert error_of(SAMPLE, SAMPLE, source="out/sub.csv") == (
        "out/sub.csv: Kaggle looks for submission.csv: rename the file"
    )
    check_submission(SAMPLE, SAMPLE, BINARY, source="the predictions")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("id", "column label is missing (found id; sample_submission.csv has id,label): add it"),
        (
            "id,label,score",
            "column score is not in sample_submission.csv (found id,label,score; sample_submission.csv has id,label): "
            "drop it",
        ),
        (
            "label,id",
            "the columns stand in another order (found label,id; sample_submission.csv has id,label): reorder them",
        ),
    ],
)
def test_columns(columns, said):
    submission = frame("id,label,score a,0,0 b,0,0 c,0,0 d,0,0 e,0,0")[columns.split(",")]
    assert error_of(submission, SAMPLE) == f"submission.csv: {said}"


def test_a_column_twice():
    twice = pd.concat([SAMPLE, SAMPLE[["label"]]], axis=1)
    assert error_of(twice, SAMPLE) == (
        "submission.csv: column label stands twice (found id,label,label; sample_submission.csv has id,label): drop one"
    )


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ("a b c d", "1 id is missing (e): predict every row of sample_submission.csv"),
        ("a", "4 ids are missing (b, c, d, ...): predict every row of sample_submission.csv"),
        (
            "a b c d e f g",
            "2 ids are not in sample_submission.csv (f, g): predict the test set of this competition only",
        ),
        ("a b a d e c b a", "2 ids are more than once (a, b): keep one row per id"),
        (
            "a c b d e",
            "row 2 has id c where sample_submission.csv has b: put the rows in the order of sample_submission.csv",
        ),
    ],
)
def test_ids(ids, said):
    submission = frame("id,label " + " ".join(f"{name},0" for name in ids.split()))
    assert error_of(submission, SAMPLE) == f"submission.csv: column id: {said}"


def test_ids_that_are_numbers_in_one_of_the_two():
    numbers = frame("id,label 7,0 8,0").assign(id=[7, 8])
    check_submission(numbers, frame("id,label 7,0 8,0"), BINARY, source="submission.csv")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            [0, 1, np.nan, 0, np.nan],
            "row 3 (id c) and 1 more: the cell is empty: Kaggle refuses a file with empty cells",
        ),
        (["0", "1", "", "0", "0"], "row 3 (id c): the cell is empty: Kaggle refuses a file with empty cells"),
        (["0", "1", "0", " ", "0"], "row 4 (id d): the cell is empty: Kaggle refuses a file with empty cells"),
    ],
)
def test_empty_cells(cells, said):
    assert error_of(SAMPLE.assign(label=cells), SAMPLE) == f"submission.csv: column label, {said}, so write a guess"


def test_empty_text():
    sample = frame("id,label a,x b,x")
    assert error_of(sample.assign(label=["ok", ""]), sample, TEXT) == (
        "submission.csv: column label, row 2 (id b): the cell is empty: Kaggle refuses a file with empty cells, "
        "so write a guess"
    )


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["0", "high", "0", "low", "0"], "row 2 (id b) and 1 more: high is not a number: write a number"),
        ([0.0, 0.0, 0.0, np.inf, 0.0], "row 4 (id d): inf is infinite: clip the predictions"),
        ([0.5, -0.25, 0.5, 1.5, 0.5], "row 2 (id b) and 1 more: -0.25 is no probability: write values from 0 to 1"),
    ],
)
def test_numbers(cells, said):
    assert error_of(SAMPLE.assign(label=cells), SAMPLE) == f"submission.csv: column label, {said}"


def test_classes():
    sample = frame("id,label a,0 b,0")
    assert error_of(sample.assign(label=[2, 3]), sample, MULTICLASS) == (
        "submission.csv: column label, row 2 (id b): 3 is no class: write one of 0, 1, 2"
    )
    assert error_of(sample.assign(label=[0.5, 1]), sample, MULTICLASS) == (
        "submission.csv: column label, row 1 (id a): 0.5 is no class: write one of 0, 1, 2"
    )
    sample = frame("id,label a,cat b,cat")
    assert error_of(sample.assign(label=["cat", "cow"]), sample, NAMED) == (
        "submission.csv: column label, row 2 (id b): cow is no class: write one of cat, dog"
    )


def test_true_and_false_are_classes():
    competition = make_competition(
        task="multiclass", class_names=("False", "True"), metric="accuracy", extra_metrics=()
    )
    sample = frame("id,label a,False b,False")
    assert sample["label"].dtype == bool
    check_submission(sample.assign(label=["True", "False"]), sample, competition, source="submission.csv")
    check_submission(sample.assign(label=[True, False]), sample, competition, source="submission.csv")
    assert error_of(sample.assign(label=["True", "yes"]), sample, competition) == (
        "submission.csv: column label, row 2 (id b): yes is no class: write one of False, True"
    )


def test_ranked_guesses():
    """MAP@3 wants several classes in one cell, even where the sample holds a lone number."""
    competition = make_competition(task="multiclass", class_names=("0", "1", "2"), metric="map_at_3", extra_metrics=())
    sample = frame("id,label a,0 b,0")
    check_submission(sample.assign(label=["2 0 1", "1"]), sample, competition, source="submission.csv")
    assert error_of(sample.assign(label=["2 0 1", "1 7"]), sample, competition) == (
        "submission.csv: column label, row 2 (id b): 7 is no class: write one of 0, 1, 2"
    )


def test_rows_of_class_probabilities_sum_to_one():
    sample = frame("id,a,b,c x,0,0,0 y,0,0,0")
    assert error_of(frame("id,a,b,c x,0.5,0.3,0.2 y,0.5,0.5,0.5"), sample, PER_CLASS) == (
        "submission.csv: row 2 (id y): the class probabilities sum to 1.5, not 1: divide each row by its sum"
    )
    assert error_of(frame("id,a,b,c x,0.5,0.3,0.2 y,1.5,-0.5,0"), sample, PER_CLASS) == (
        "submission.csv: column a, row 2 (id y): 1.5 is no probability: write values from 0 to 1"
    )


def test_labels_of_a_multilabel_row_need_not_sum_to_one():
    sample = frame("id,toxic,rude x,0,0")
    check_submission(frame("id,toxic,rude x,1,1"), sample, MULTILABEL, source="submission.csv")
    assert error_of(frame("id,toxic,rude x,1,1.01"), sample, MULTILABEL) == (
        "submission.csv: column rude, row 1 (id x): 1.01 is no probability: write values from 0 to 1"
    )


def test_written_bytes_are_the_same_and_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(500), 10.0 ** rng.integers(-300, 300, 500), [0.1, 1.0, 1 / 3, 5e-324]])
    ids = [str(number) for number in range(len(values))]
    path = tmp_path / "new" / "submission.csv"
    write_submission(pd.DataFrame({"id": ids, "label": values}), path)
    content = path.read_bytes()
    assert content.startswith(b"id,label\n0,0.6369616873214543\n")
    assert b"\r" not in content
    back = pd.read_csv(path, dtype={"id": str}, float_precision="round_trip")
    assert back["label"].tolist() == values.tolist()
    write_submission(pd.DataFrame({"id": ids, "label": values}), path)
    assert path.read_bytes() == content
    assert [item.name for item in path.parent.iterdir()] == ["submission.csv"]


def test_float32_and_integers_and_text_are_written_as_they_are(tmp_path):
    path = tmp_path / "submission.csv"
    columns = {"id": ["1", "2"], "p": np.array([0.1, 1], np.float32), "n": [1, 2], "t": ["Ünï, ok", 'say "NA"']}
    write_submission(pd.DataFrame(columns), path)
    assert path.read_text(encoding="utf-8") == ('id,p,n,t\n1,0.10000000149011612,1,"Ünï, ok"\n2,1.0,2,"say ""NA"""\n')


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "submission.csv"
    write_submission(SAMPLE, path)
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_submission(SAMPLE.assign(label=["\ud800"] * 5), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["submission.csv"]


def test_load_keeps_text_and_leaves_odd_cells_for_the_check(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("id,label\n007,NA\n1e3,null\n", encoding="utf-8")
    loaded = load_submission(path, frame("id,label a,x"))
    assert loaded.to_dict("list") == {"id": ["007", "1e3"], "label": ["NA", "null"]}
    path.write_text("id,label\na,0.5\nb,1\n", encoding="utf-8")
    assert load_submission(path, SAMPLE)["label"].tolist() == [0.5, 1.0]
    path.write_text("id,label\na,0.5\nb,\nc,0\nd,0\ne,0\n", encoding="utf-8")
    assert error_of(load_submission(path, SAMPLE), SAMPLE).startswith(
        "submission.csv: column label, row 2 (id b): the cell is empty"
    )


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "submission.csv"
    with pytest.raises(PodiumError) as error:
        load_submission(path, SAMPLE)
    assert str(error.value) == f"{path}: no such file; `make predict` writes it"
    for content in (b"", b"id,label\n\xff\xfe,1\n", b'id,label\n"a,1\n'):
        path.write_bytes(content)
        with pytest.raises(PodiumError, match=r"not a CSV file \(.*\); write it again with `make predict`"):
            load_submission(path, SAMPLE)
