"""What would be refused at the end of a run is found before anything is trained, and what would not be is not."""

import numpy as np
import pandas as pd
import pytest
from tiny_competition import install_competition, make_competition, write_lines

from pipelines.competitions.competition import FoldDefaults
from pipelines.competitions.grades import find_grades, with_grades
from pipelines.competitions.submission_file import check_frame
from pipelines.config.load import load_experiment
from pipelines.errors import PodiumError
from pipelines.runs.fold_file import obtain_folds
from pipelines.training.answer_check import check_labels_can_be_scored, check_sample, check_scores, guess_blindly
from pipelines.training.execution import start_run
from pipelines.workspace import Workspace

EXPERIMENT = """\
name: tiny_baseline
competition: tiny_task
model: {name: linear_baseline}
data: {name: table}
folds: {name: stratified, num_folds: 3}
"""
USUAL = {
    "binary": {"metric": "auc"},
    "multiclass": {"metric": "accuracy", "class_names": ("a", "b")},
    "multilabel": {"metric": "auc", "label_columns": ("label", "rude")},
    "regression": {"metric": "rmse"},
    "text_to_text": {"metric": "exact_match"},
}


@pytest.fixture
def workspace(tmp_path):
    write_lines(tmp_path / "experiments" / "tiny_baseline.yaml", *EXPERIMENT.splitlines())
    return Workspace(tmp_path)


def begin(workspace, monkeypatch, train, test, sample, *overrides, **changes):
    """`start_run` on a competition of these tables, given as lines."""
    competition = install_competition(monkeypatch, workspace.root / "made", **({"extra_metrics": ()} | changes))
    data_dir = workspace.data_dir("tiny-task")
    for name, lines in (("train", train), ("test", test), ("sample_submission", sample)):
        write_lines(data_dir / f"{name}.csv", *lines)
    experiment = load_experiment(workspace, "tiny_baseline", overrides)
    return start_run(
        workspace.runs,
        experiment,
        competition,
        data_dir,
        obtain_folds=lambda rows: obtain_folds(experiment, competition, rows, data_dir),
    )


def refused(workspace, *arguments, **changes):
    with pytest.raises(PodiumError) as refusal:
        begin(workspace, *arguments, **changes)
    assert "\n" not in str(refusal.value)
    assert list(workspace.runs.rglob("*")) == []
    return str(refusal.value)


TRAIN = ["id,text,label", *(f"{row},word {row},{row % 2}" for row in range(12))]
TEST = ["id,text", "100,a", "101,b"]
SAMPLE = ["id,label", "100,0.5", "101,0.5"]


def relabelled(labels):
    return ["id,text,label", *(f"{row},word {row},{label}" for row, label in enumerate(labels))]


def test_a_sound_competition_starts(workspace, monkeypatch):
    run = begin(workspace, monkeypatch, TRAIN, TEST, SAMPLE)
    assert run.read_record().grades is None


def test_an_id_of_the_sample_that_test_lacks(workspace, monkeypatch):
    message = refused(workspace, monkeypatch, TRAIN, TEST, [*SAMPLE, "7,0.5"])
    assert message == (
        "tiny_task: sample_submission.csv: id '7' is not in the test table (1 such rows), so that nothing predicts it; "
        "get both files again"
    )


@pytest.mark.parametrize(
    ("train", "sample", "changes", "words"),
    [
        (relabelled(["a", "b"] * 6), ["id,a,b,d", "100,0,0,1"],
         {"task": "multiclass", "class_names": ("a", "b", "c"), "metric": "log_loss"},
         "no column c for the answers among id, a, b, d"),
        (relabelled(["hot dog", "ice"] * 6), ["id,label", "100,ice"],
         {"task": "multiclass", "class_names": ("hot dog", "ice"), "metric": "map_at_3"},
         "class 'hot dog' holds a blank"),
        (relabelled(["no", "yes"] * 6), SAMPLE,
         {"task": "multiclass", "class_names": ("no", "yes"), "metric": "accuracy"},
         "answers with 0.5 in label, a probability and no class"),
        (relabelled(["a", "b"] * 6), ["id,label", "100,a"],
         {"task": "multiclass", "class_names": ("a", "b"), "metric": "log_loss"}, "scores a probability per class"),
        (relabelled(range(12)), ["id,other,strange", "100,0,0"], {"task": "regression", "metric": "rmse"},
         "no column label for the answers among id, other, strange"),
        (relabelled([0, 1, 2.5] * 4), ["id,label", "100,0"], {"task": "regression", "metric": "qwk"},
         "qwk compares whole grades, but the label of id 2 is 2.5 (4 such rows)"),
        (relabelled(["low", "high"] * 6), ["id,label", "100,low"],
         {"task": "multiclass", "class_names": ("low", "high"), "metric": "qwk"}, "kappa needs grades"),
    ],
)  # fmt: skip
def test_what_the_end_would_refuse_is_refused_at_the_start(workspace, monkeypatch, train, sample, changes, words):
    assert words in refused(workspace, monkeypatch, train, TEST, sample, **changes)


def test_soft_labels_that_no_metric_takes(workspace, monkeypatch):
    train = ["id,text,label,rude", *(f"{row},w {row},{row % 2},{0.7 * (row % 3 == 0)}" for row in range(12))]
    sample = ["id,label,rude", "100,0.5,0.5"]
    for metric in ("auc", "log_loss", "f1"):
        changes = {"task": "multilabel", "label_columns": ("label", "rude"), "metric": metric}
        message = refused(workspace, monkeypatch, train, TEST, sample, "folds.name=kfold", **changes)
        assert message.startswith(f"fold0: tiny_task: {metric} cannot be computed: targets: row")
        assert "0.7; expected 0 or 1; nothing was trained" in message


@pytest.mark.parametrize("extra", [(), ("log_loss",)])
def test_a_fold_of_one_class_has_no_auc(workspace, monkeypatch, extra):
    train = ["id,text,site,label", *(f"{row},w {row},s{row % 3},{int(row % 3 == 0)}" for row in range(12))]
    changes = {"folds": FoldDefaults("group", group_column="site"), "extra_metrics": extra}
    message = refused(workspace, monkeypatch, train, TEST, SAMPLE, "folds.name=group", "folds.num_folds=3", **changes)
    assert message.startswith("fold0: tiny_task: auc cannot be computed: targets: all 4 rows are ")
    assert message.endswith("nothing was trained: choose other folds (folds.name) or another metric")
    begin(workspace, monkeypatch, train, TEST, SAMPLE, "folds.name=group", "folds.num_folds=3", "fold=all", **changes)


def test_a_group_of_the_metric_that_has_one_class_in_a_fold(workspace, monkeypatch):
    train = ["id,text,site,label", *(f"{row},w {row},s{row // 6},{row % 2}" for row in range(12))]
    train[-5:] = [line[:-1] + "1" for line in train[-5:]]
    message = refused(workspace, monkeypatch, train, TEST, SAMPLE, metric_group="site")
    assert "auc cannot be computed (site s1): targets: all" in message


def test_folds_stratify_by_the_labels_and_not_by_a_column_called_label(workspace, monkeypatch):
    """A multilabel task with an input called label was stratified by the input, one with such a label by it alone."""
    rows = [f"{row},w {row},{row % 3},{int(row < 6)},{row % 2}" for row in range(12)]
    header, asked = "id,text,label,target,rude", ["id,target,rude", "100,0.5,0.5"]
    fields = {"task": "multilabel", "input_columns": ("text", "label"), "label_columns": ("target", "rude")}
    run = begin(workspace, monkeypatch, [header, *rows], ["id,text,label", "100,a,1"], asked, **fields)
    folds = pd.read_csv(run.folds_file)["fold"].to_numpy()
    target = np.array([int(row < 6) for row in range(12)])
    assert [int(target[folds == fold].sum()) for fold in range(3)] == [2, 2, 2]
    assert [int((np.arange(12) % 2)[folds == fold].sum()) for fold in range(3)] == [2, 2, 2]


def test_grades_are_those_of_train_and_stay_in_the_run(workspace, monkeypatch):
    changes = {"task": "regression", "metric": "qwk"}
    run = begin(workspace, monkeypatch, relabelled([1, 2, 5] * 4), TEST, ["id,label", "100,0"], **changes)
    assert run.read_record().grades == (1, 5)
    competition = with_grades(make_competition(extra_metrics=(), **changes), run.read_record().grades)
    assert competition.grades == (1, 5)
    stated = make_competition(extra_metrics=(), grades=(0, 6), **changes)
    assert find_grades(stated, pd.DataFrame({"id": ["1"], "label": [3.0]})) == (0, 6)
    assert with_grades(stated, None) is stated
    assert find_grades(make_competition(), pd.DataFrame({"id": ["1"], "label": [1]})) is None


@pytest.mark.parametrize("task", USUAL)
def test_a_model_that_knows_nothing_can_be_submitted_and_scored(task):
    competition = make_competition(task=task, extra_metrics=(), **USUAL[task])
    labels = {"multiclass": ["a", "b"], "text_to_text": ["x", "y"]}.get(task, [0, 1])
    sample = truth = pd.DataFrame({"id": ["1", "2"], "label": labels})
    if task == "multilabel":
        sample = truth = sample.assign(rude=[1, 0])
    check_sample(competition, sample, sample["id"])
    check_sample(competition, sample.head(0), sample["id"].head(0))
    check_labels_can_be_scored(competition, truth)
    guesses = guess_blindly(competition, truth)
    check_frame(competition.to_submission(guesses, sample), sample, competition, source="the guesses")


def test_rows_between_epochs_are_scored_as_well(workspace, monkeypatch):
    """A share of the validation rows may have one class where all of them have two."""
    competition = install_competition(monkeypatch, workspace.root / "made")
    train = pd.DataFrame({"id": [f"{row}" for row in range(60)], "label": [int(row < 4) for row in range(60)]})
    write_lines(
        workspace.experiments / "limited.yaml",
        "name: limited", "competition: tiny_task", "model: {name: bert, checkpoint: tiny}",
        "data: {name: segments, max_length: 8, max_valid_rows: 2}", "training: {num_epochs: 1}",
        "optimizer: {name: adamw, lr: 1e-3}", "schedule: {name: constant}", "folds: {name: kfold, num_folds: 2}",
    )  # fmt: skip
    experiment, folds = load_experiment(workspace, "limited"), np.arange(60) % 2
    with pytest.raises(PodiumError, match=r"^fold0, data.max_valid_rows=2: tiny_task: auc cannot be computed"):
        check_scores(competition, experiment, train, folds, [0, 1])
