"""A submission has the form of the sample: its columns in their order, its copies, its way of writing classes."""

import numpy as np
import pandas as pd
import pytest
from tiny_competition import make_competition

from pipelines.competitions.competition import Competition
from pipelines.competitions.local_host import LocalHost
from pipelines.competitions.submission_file import check_frame, check_submission, load_submission, write_submission
from pipelines.errors import PodiumError
from pipelines.kernels.rehearsal.hidden_rerun import lay_out_data


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.csv").write_bytes(text.encode())


def rules(task="binary", **changes):
    metrics = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse", "text_to_text": "exact_match"}
    fields = {"task": task, "metric": metrics.get(task, "auc"), "input_columns": ("x",), "label_columns": ("y",)}
    return make_competition(**({"id_column": "row", "extra_metrics": ()} | fields | changes))


def submitted(competition, folder, predictions):
    """A submission's lines as they are written, once they have passed every check, read from the file as well."""
    sample = competition.load_sample(folder)
    submission = competition.to_submission(predictions, sample)
    check_frame(submission, sample, competition, source="the answers")
    path = folder / "out" / "submission.csv"
    write_submission(submission, path)
    check_submission(load_submission(path, sample), sample, competition, source=str(path))
    return path.read_text(encoding="utf-8").splitlines()


CHANCES = pd.DataFrame({"id": ["1", "2", "3"], "prediction": [0.1, 0.2, 0.3]})


@pytest.mark.parametrize(
    ("sample", "lines"),
    [
        ("y,row\n0.5,2\n0.5,1\n", ["y,row", "0.2,2", "0.1,1"]),
        ("row,x,y\n2,007,0.5\n1,NA,0.5\n", ["row,x,y", "2,007,0.2", "1,NA,0.1"]),
        ("x,answer,row\n1.50,0,3\n,0,1\n", ["x,answer,row", "1.50,0.3,3", ",0.1,1"]),
        ('y,row,Usage\n0,1,"a, b"\n', ["y,row,Usage", '0.1,1,"a, b"']),
        ("Usage,row,x,y\n9007199254740993,1,True,0\n", ["Usage,row,x,y", "9007199254740993,1,True,0.1"]),
    ],
)
def test_the_columns_of_the_sample_in_its_order(tmp_path, sample, lines):
    write(tmp_path, sample_submission=sample)
    assert submitted(rules(), tmp_path, CHANCES) == lines


def test_what_is_copied_must_be_a_copy(tmp_path):
    write(tmp_path, sample_submission="row,x,y\n1,007,0.5\n2,008,0.5\n")
    competition = rules()
    sample = competition.load_sample(tmp_path)
    submission = competition.to_submission(CHANCES, sample)
    check_frame(submission, sample, competition, source="submission.csv")
    with pytest.raises(PodiumError) as refusal:
        check_frame(submission.assign(x=["007", "8"]), sample, competition, source="submission.csv")
    assert str(refusal.value) == (
        "submission.csv: column x, row 2 (id 2): 8 where sample_submission.csv has 008: copy what is no answer"
    )
    with pytest.raises(PodiumError, match="column x is missing"):
        check_frame(submission.drop(columns="x"), sample, competition, source="submission.csv")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.zip"])
def test_a_hidden_rerun_has_copies_of_its_own(tmp_path, suffix):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", test='x,row\n1 a,7\n"1\r2",8\n', sample_submission='y,x,row\n0,1 a,7\n0,"1\r2",8\n')
    for name in ("test", "sample_submission"):
        table = pd.read_csv(tmp_path / "data" / f"{name}.csv", dtype=str)
        (tmp_path / "data" / f"{name}.csv").unlink()
        table.to_csv(tmp_path / "data" / f"{name}{suffix}", index=False, lineterminator="\r\n")
    competition = rules()
    rows = lay_out_data(competition, tmp_path / "data", tmp_path / "hidden", "larger")
    test, sample = competition.load_test(tmp_path / "hidden"), competition.load_sample(tmp_path / "hidden")
    assert rows == len(test) == len(sample) == 2
    assert set(test["x"]) <= {"1 a", "1\r2"}
    guesses = pd.DataFrame({"id": test["id"], "prediction": 0.5})
    submission = competition.to_submission(guesses, sample)
    check_frame(submission, sample, competition, source="submission.csv")
    assert list(submission.columns) == ["y", "x", "row"]
    assert submission["x"].tolist() == test["x"].tolist()


def test_the_local_host_takes_the_samples_form(tmp_path):
    write(tmp_path, solution="y,x,row,usage\n1,007,a,public\n0,008,b,public\n1,007,c,private\n0,1,d,private\n")
    write(tmp_path, submission="y,x,row\n0.9,007,a\n0.1,008,b\n0.2,007,c\n0.8,1,d\n")
    host = LocalHost(tmp_path, rules())
    receipt = host.submit(tmp_path / "submission.csv", run="r", experiment="e", description="", reveal=True)
    assert (receipt.public, receipt.private) == ({"auc": 1.0}, {"auc": 0.0})
    write(tmp_path, submission="y,x,row\n0.9,7,a\n0.1,008,b\n0.2,007,c\n0.8,1,d\n")
    with pytest.raises(PodiumError, match=r"column x, row 1 \(id a\): 7 where .* has 007"):
        host.submit(tmp_path / "submission.csv", run="r", experiment="e", description="")


def test_a_metric_that_decides_since_a_submission_scores_its_copy(tmp_path):
    write(tmp_path, solution="row,y,usage\na,1,public\nb,0,public\nc,1,private\nd,0,private\n")
    write(tmp_path, submission="row,y\na,1\nb,0\nc,1\nd,0\n")
    before = LocalHost(tmp_path, rules(metric="accuracy"))
    before.submit(tmp_path / "submission.csv", run="old", experiment="e", description="")
    after = LocalHost(tmp_path, rules(metric="auc"))
    after.submit(tmp_path / "submission.csv", run="new", experiment="e", description="", again=True)
    assert [(row.run, dict(row.public)) for row in after.leaderboard()] == [
        ("old", {"auc": 1.0}), ("new", {"auc": 1.0}),
    ]  # fmt: skip


# -- grades ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["qwk", "accuracy", "macro_f1"])
def test_grades_are_whole_and_within_those_of_train(tmp_path, metric):
    write(tmp_path, sample_submission="row,y\n1,0\n2,0\n3,0\n4,0\n5,0\n")
    values = pd.DataFrame({"id": list("12345"), "prediction": [2.8064777851104736, 0.5, 1.5, -3.2, 7.9]})
    graded = rules("regression", metric=metric, grades=(0, 4))
    assert submitted(graded, tmp_path, values) == ["row,y", "1,3", "2,0", "3,2", "4,0", "5,4"]
    free = rules("regression", metric=metric)
    assert submitted(free, tmp_path, values) == ["row,y", "1,3", "2,0", "3,2", "4,-3", "5,8"]


def test_values_of_a_metric_of_values_stay_values(tmp_path):
    write(tmp_path, sample_submission="row,y\n1,0\n")
    values = pd.DataFrame({"id": ["1"], "prediction": [2.8064777851104736]})
    assert submitted(rules("regression"), tmp_path, values) == ["row,y", "1,2.8064777851104736"]


def test_a_grade_that_is_not_whole_is_refused():
    sample = pd.DataFrame({"row": ["1"], "y": [0]})
    with pytest.raises(
        PodiumError, match=r"column y, row 1 \(id 1\): 2.81 is no whole grade, which qwk compares: round"
    ):
        check_frame(sample.assign(y=["2.81"]), sample, rules("regression", metric="qwk"), source="submission.csv")
    for values in ([np.nan], [np.inf]):
        made = rules("regression", metric="qwk").to_submission(
            pd.DataFrame({"id": ["1"], "prediction": values}), sample
        )
        with pytest.raises(PodiumError, match=r"the cell is empty|is infinite"):
            check_frame(made, sample, rules("regression", metric="qwk"), source="submission.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "rmse", "grades": (0, 4)}, "grades: only for a regression that a metric of labels scores"),
        ({"metric": "qwk", "grades": (4, 0)}, r"grades: \(4, 0\) must be the lowest and the highest, as in \(0, 4\)"),
    ],
)
def test_grades_that_contradict_the_rest_are_refused(changes, message):
    with pytest.raises(PodiumError, match=message):
        rules("regression", **changes)


# -- classes ---------------------------------------------------------------------------------------------------------


def classes(names, **changes):
    return rules("multiclass", class_names=tuple(names), **changes)


@pytest.mark.parametrize(
    "names",
    [("01", "1"), ("1", "1.0"), ("1e5", "100000"), ("9007199254740992", "9007199254740993"), ("0", "-0"), ("NA", "1")],
)
def test_classes_that_look_like_one_number_stay_apart(tmp_path, names):
    competition = classes(names)
    write(tmp_path, sample_submission=f"row,y\n1,{names[0]}\n2,{names[0]}\n")
    guesses = pd.DataFrame({"id": ["1", "2"], "prediction": list(names)})
    assert submitted(competition, tmp_path, guesses) == ["row,y", f"1,{names[0]}", f"2,{names[1]}"]
    solution = pd.DataFrame({"row": ["1", "2"], "y": list(names)})
    path = tmp_path / "out" / "submission.csv"
    frame = load_submission(path, competition.load_sample(tmp_path))
    assert competition.score(solution, frame) == {"accuracy": 1.0}
    assert competition.score(solution, frame.assign(y=list(names)[::-1])) == {"accuracy": 0.0}


def test_a_number_that_several_classes_have_names_none_of_them(tmp_path):
    competition, sample = classes(("01", "1", "2")), pd.DataFrame({"row": ["1"], "y": ["2"]})
    check_frame(sample.assign(y=["2.0"]), sample, competition, source="submission.csv")
    with pytest.raises(PodiumError, match=r"1\.0 is no class"):
        check_frame(sample.assign(y=["1.0"]), sample, competition, source="submission.csv")


def test_the_local_host_tells_such_classes_apart(tmp_path):
    write(tmp_path, solution="row,y,usage\na,01,public\nb,1,public\nc,01,private\nd,1,private\n")
    write(tmp_path, submission="row,y\na,01\nb,1\nc,1\nd,01\n")
    receipt = LocalHost(tmp_path, classes(("01", "1"))).submit(
        tmp_path / "submission.csv", run="r", experiment="e", description="", reveal=True
    )
    assert (receipt.public, receipt.private) == ({"accuracy": 1.0}, {"accuracy": 0.0})


def test_whole_numbers_where_the_sample_has_them(tmp_path):
    """Labels with gaps elsewhere in the column are read as 0.0 and 1.0 by many a tool; the sample says 0."""
    write(tmp_path, sample_submission="row,y\n1,0\n2,0\n")
    guesses = pd.DataFrame({"id": ["1", "2"], "prediction": ["2.0", "0.0"]})
    assert submitted(classes(("0.0", "1.0", "2.0")), tmp_path, guesses) == ["row,y", "1,2", "2,0"]
    write(tmp_path, sample_submission="row,y\n1,1.0\n2,1.0\n")
    assert submitted(classes(("0.0", "1.0", "2.0")), tmp_path, guesses) == ["row,y", "1,2.0", "2,0.0"]
    write(tmp_path, sample_submission="row,y\n1,0\n2,0\n")
    codes = pd.DataFrame({"id": ["1", "2"], "prediction": ["01", "00"]})
    assert submitted(classes(("00", "01")), tmp_path, codes) == ["row,y", "1,01", "2,00"]
    labels = pd.DataFrame({"id": ["1", "2"], "prediction": [0.9, 0.1]})
    write(tmp_path, sample_submission="row,y\n1,0\n2,0\n")
    assert submitted(rules(metric="accuracy"), tmp_path, labels) == ["row,y", "1,1", "2,0"]


def test_columns_of_classes_behind_a_prefix(tmp_path):
    competition = classes(("C", "D"), class_columns=("Status_C", "Status_D"), metric="log_loss")
    write(tmp_path, sample_submission="row,Status_D,Status_C\n1,0.5,0.5\n")
    guesses = pd.DataFrame({"id": ["1"], "prediction": ["C"], "proba_C": [0.75], "proba_D": [0.25]})
    assert submitted(competition, tmp_path, guesses) == ["row,Status_D,Status_C", "1,0.25,0.75"]
    truth = pd.DataFrame({"id": ["1"], "label": ["D"]})
    solution = competition.to_solution(truth)
    assert solution.to_dict("list") == {"row": ["1"], "Status_C": [0], "Status_D": [1]}
    scores = competition.score(solution, competition.to_submission(guesses, solution))
    assert scores == {"log_loss": pytest.approx(-np.log(0.25))}
    with pytest.raises(PodiumError, match="class_columns: 1 columns for 2 class_names; name one for each"):
        classes(("C", "D"), class_columns=("Status_C",), metric="log_loss")


@pytest.mark.parametrize(
    ("competition", "sample", "message"),
    [
        (classes(("hot dog", "ice"), metric="map_at_3"), "row,y\n1,ice\n", "class 'hot dog' holds a blank, which"),
        (classes(("a\tb", "c"), metric="map_at_5"), "row,y\n1,c\n", r"class 'a\\tb' holds a blank"),
        (classes(("no", "yes")), "row,y\n1,0.5\n", "answers with 0.5 in y, a probability and no class"),
        (classes(("a", "b"), metric="log_loss"), "row,y\n1,a\n", "per class, but the sample has one column"),
    ],
)  # fmt: skip
def test_answers_that_the_sample_cannot_hold_are_refused(tmp_path, competition: Competition, sample, message):
    write(tmp_path, sample_submission=sample)
    names = competition.class_names
    guesses = pd.DataFrame({"id": ["1"], "prediction": [names[0]], **{f"proba_{name}": [0.5] for name in names}})
    with pytest.raises(PodiumError, match=message) as refusal:
        competition.to_submission(guesses, competition.load_sample(tmp_path))
    assert "\n" not in str(refusal.value)


def test_a_sample_of_other_columns_is_refused_when_it_is_read(tmp_path):
    write(tmp_path, sample_submission="row,a,b,d\n1,0.3,0.3,0.4\n")
    with pytest.raises(
        PodiumError, match=r"sample_submission.csv: tiny_task: no column c for the answers among row, a, b"
    ):
        classes(("a", "b", "c"), metric="log_loss").load_sample(tmp_path)


# -- line ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\rb", "\r", "a\r\nb", "a\nb", "\ra\r", 'say "\r"', "\ue000\r", "a\r,b\r\r"])
def test_line_ends_within_a_cell_are_read_back(tmp_path, text):
    frame = pd.DataFrame({"row": [f"{index}" for index in range(10)], "y": [text, "plain"] * 5})
    path = tmp_path / "submission.csv"
    write_submission(frame, path)
    sample = frame.assign(y="x")
    back = load_submission(path, sample)
    assert back.to_dict("list") == frame.to_dict("list")
    assert path.read_bytes().count(b"plain\n") == 5


def test_a_carriage_return_in_a_header_or_an_id(tmp_path):
    frame = pd.DataFrame({"row": ["1\r2", "3"], "y\rz": [0.5, 1.0]})
    path = tmp_path / "submission.csv"
    write_submission(frame, path)
    assert path.read_bytes() == b'row,"y\rz"\n"1\r2",0.5\n3,1.0\n'
