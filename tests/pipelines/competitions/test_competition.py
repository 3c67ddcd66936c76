"""Competitions: what is loaded, what is refused and how, and submissions and scores of all five tasks by hand."""

import pickle

import numpy as np
import pandas as pd
import pytest

import pipelines.competitions
from pipelines.competitions import catalogue
from pipelines.competitions.competition import Competition, FoldDefaults
from pipelines.competitions.loading import competition_names, load_competition
from pipelines.errors import PodiumError

TASKS = {
    "binary": {"metric": "auc", "extra_metrics": ("log_loss", "accuracy")},
    "multiclass": {"metric": "accuracy", "class_names": ("cat", "dog", "cow")},
    "multilabel": {"metric": "log_loss", "label_columns": ("red", "green")},
    "regression": {"metric": "rmse", "extra_metrics": ("mae",)},
    "text_to_text": {"metric": "exact_match", "extra_metrics": ("cer",)},
}


def competition(task, **changes):
    fields = {
        "name": "tiny", "title": "Tiny", "task": task, "kaggle_slug": "tiny-task", "host": "kaggle",
        "id_column": "key", "input_columns": ("a", "b"), "label_columns": ("y",), "folds": FoldDefaults("kfold"),
    }  # fmt: skip
    return Competition(**{**fields, **TASKS[task], **changes})


def frame(text):
    """A table written as "name name | cell cell | cell cell", all text."""
    header, *rows = [line.split() for line in text.split("|")]
    return pd.DataFrame(rows, columns=header, dtype=object)


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")


# -- the folder is the table ----------------------------------------------------------------------------------------


def test_the_folder_holds_these_competitions():
    assert {"cmudict_g2p", "contradictory_my_dear_watson", "place_names"} <= set(competition_names())
    assert not {"competition", "answers", "tables", "embedded", "kaggle_files", "sniffing"} & set(competition_names())
    for name in competition_names():
        assert load_competition(name).name == name


def test_an_unknown_competition_is_answered_with_the_nearest():
    with pytest.raises(PodiumError, match=r"^place-name: no such competition; did you mean place_names\?; there are "):
        load_competition("place-name")


@pytest.mark.parametrize("package", [pipelines.competitions, catalogue])
def test_a_users_file_is_found_and_its_mistakes_are_named(package, tmp_path, monkeypatch):
    """In the catalogue, and where the version before looked for it."""
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    (tmp_path / "not_one.py").write_text("TEXT = 'COMPETITION = 1'\n")
    (tmp_path / "broken_one.py").write_text("COMPETITION = 1 / 0\n")
    (tmp_path / "renamed.py").write_text(
        "from pipelines.competitions.catalogue.place_names import COMPETITION\nCOMPETITION\n"
    )
    assert {"broken_one", "renamed"} == set(competition_names()) & {"not_one", "broken_one", "renamed"}
    place = package.__name__.replace(".", "/")
    with pytest.raises(PodiumError, match=rf"^{place}/broken_one\.py: ZeroDivisionError: division by zero"):
        load_competition("broken_one")
    with pytest.raises(PodiumError, match=rf"^{place}/renamed\.py: COMPETITION must be a Competition with name="):
        load_competition("renamed")


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("regression", {"metric": "", "extra_metrics": ()}, "metric: '' is unknown; use one of accuracy, "),
        ("regression", {"host": "laptop"}, "host: 'laptop' is unknown; use one of local, kaggle"),
        ("regression", {"metric": "rsme"}, "metric: 'rsme' is unknown; did you mean rmse"),
        ("regression", {"metric": "auc", "extra_metrics": ()}, "metric: auc does not score regression; use one of"),
        ("multiclass", {"extra_metrics": ("log_loss",)}, "extra_metrics: log_loss needs probabilities, but accuracy"),
        ("multiclass", {"class_names": ()}, "class_names: needed for multiclass, and for no other task"),
        ("binary", {"class_names": ("no", "yes")}, "class_names: needed for multiclass, and for no other task"),
        ("binary", {"label_columns": ("y", "z")}, r"label_columns: binary takes one column, not \('y', 'z'\)"),
    ],
)
def test_a_contradiction_between_fields_is_refused(task, changes, message):
    with pytest.raises(PodiumError, match=f"^tiny: {message}"):
        competition(task, **changes)


def test_an_unknown_task_is_refused():
    with pytest.raises(
        PodiumError, match=r"^tiny: task: 'regresion' is unknown; did you mean regression\?; use one of"
    ):
        Competition(**{**vars(competition("regression")), "task": "regresion"})


# -- loading ---------------------------------------------------------------------------------------------------------


def test_text_stays_text_whatever_it_looks_like(tmp_path):
    write(tmp_path, train='key,b,a,y\n007,NA,null,None\n1e5,"x, y",,nan\n', test="key,a,b\n08,NA,1.0\n")
    rules = competition("text_to_text")
    train = rules.load_train(tmp_path)
    assert list(train.columns) == ["id", "a", "b", "label"]
    assert train.to_numpy().tolist() == [["007", "null", "NA", "None"], ["1e5", "", "x, y", "nan"]]
    assert rules.load_test(tmp_path).to_dict("list") == {"id": ["08"], "a": ["NA"], "b": ["1.0"]}


def test_labels_are_typed_by_the_task(tmp_path):
    write(tmp_path, train="key,a,b,y,red,green\n1,p,q,1.0,0,1\n2,r,s,0,1,0.5\n")
    binary = competition("binary").load_train(tmp_path)["label"]
    assert (binary.tolist(), binary.dtype.kind) == ([1, 0], "i")
    values = competition("regression").load_train(tmp_path)["label"]
    assert (values.tolist(), values.dtype.kind) == ([1.0, 0.0], "f")
    assert competition("multiclass", class_names=("0", "1.0")).load_train(tmp_path)["label"].tolist() == ["1.0", "0"]
    many = competition("multilabel").load_train(tmp_path)
    assert list(many.columns) == ["id", "a", "b", "red", "green"]
    assert many[["red", "green"]].to_numpy().tolist() == [[0, 1], [1, 0.5]]


def test_columns_that_folds_or_metric_group_by_come_along(tmp_path):
    write(tmp_path, train="key,a,b,y,site,day\n1,p,q,1,north,2020\n2,r,s,2,south,2021\n")
    folds = FoldDefaults("time", group_column="site", time_column="day")
    train = competition("regression", folds=folds, metric_group="a").load_train(tmp_path)
    assert list(train.columns) == ["id", "a", "b", "site", "day", "label"]
    assert train["day"].tolist() == ["2020", "2021"]


def test_usual_names_and_a_byte_order_mark_are_understood(tmp_path):
    (tmp_path / "Training_Data.csv").write_text("key,a,b,y\n1,p,q,3\n", encoding="utf-8-sig")
    assert competition("regression").load_train(tmp_path)["label"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("task", "train", "message"),
    [
        ("regression", None, r"no such file; get it with: podium data download tiny-task$"),
        ("regression", "", r"the file is empty; get it again with: podium data download tiny-task$"),
        ("regression", "key,a,b,y\n", r"no rows under the header"),
        ("regression", "key,a,b,Y\n1,p,q,1\n", r"no column y \(there are key, a, b, Y\)$"),
        ("text_to_text", "key,a,b,target\n1,p,q,1\n", r"no column y "),
        ("regression", "kye,a,b,y\n1,p,q,1\n", r"no column key; did you mean kye\? \(there are kye, a, b, y\)$"),
        ("regression", "key,a,b,y\n1,p,q,1\n2,p,q,1\n1,p,q,1\n", r"column key: 1 stands in lines 2 and 4 \(1 such"),
        ("regression", "key,a,b,y\n1,p,q,1\n2,p,q,\n", r"column y, line 3: '' is not a finite number$"),
        ("regression", "key,a,b,y\n1,p,q,inf\n2,p,q,x\n", r"line 2: 'inf' is not a finite number \(2 such rows\)"),
        ("binary", "key,a,b,y\n1,p,q,1\n2,p,q,2\n", r"column y, line 3: '2' is neither 0 nor 1$"),
        ("multiclass", "key,a,b,y\n1,p,q,cat\n2,p,q,cta\n", r"line 3: 'cta' is no class; use one of cat, dog, cow$"),
        ("multilabel", "key,a,b,red,green\n1,p,q,0,2\n", r"column green, line 2: '2' is not 0, 1 or a share"),
        (
            "regression",
            "key,a,b,y\n1,p,q,1\n2,p,q,1,9,9\n",
            r"line 3, beginning with '2': 6 cells, .* header has 4",
        ),
    ],
)
def test_broken_files_are_refused_in_one_line(task, train, message, tmp_path):
    if train is not None:
        write(tmp_path, train=train)
    with pytest.raises(PodiumError, match=message) as refusal:
        competition(task).load_train(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path}/train.csv: ")
    assert "\n" not in str(refusal.value)


def test_an_embedded_competition_says_how_to_prepare_it(tmp_path):
    with pytest.raises(PodiumError, match=r"test\.csv: no such file; get it with: podium data prepare place_names$"):
        load_competition("place_names").load_test(tmp_path)


def test_the_sample_is_typed_by_its_cells_but_ids_are_not(tmp_path):
    write(tmp_path, sample_submission="key,y\n007,0.5\n008,0\n")
    sample = competition("regression").load_sample(tmp_path)
    assert (sample["key"].tolist(), sample["y"].tolist()) == (["007", "008"], [0.5, 0.0])
    assert competition("text_to_text").load_sample(tmp_path)["y"].tolist() == ["0.5", "0"]


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_prompts_of_the_three_competitions_and_the_usual_one():
    row = {"id": "1", "language": "uk", "english": "Mdina", "word": "mdina", "premise": "P.", "hypothesis": "H?"}
    assert load_competition("place_names").build_prompt(row) == ">>uk<< Mdina"
    assert load_competition("place_names").reserved_pieces[0] == ">>uk<<"
    assert load_competition("cmudict_g2p").build_prompt(row) == "m d i n a"
    watson = load_competition("contradictory_my_dear_watson")
    assert watson.build_prompt(row) == "xnli: premise: P. hypothesis: H?"
    usual = pickle.loads(pickle.dumps(competition("binary")))
    assert usual.build_prompt({"id": "1", "a": "x", "b": "y", "c": "z"}) == "a: x b: y"


# -- submissions and scores ------------------------------------------------------------------------------------------


def test_binary_probabilities_or_labels_as_the_metric_asks():
    predictions = pd.DataFrame({"id": ["1", "2", "3"], "prediction": [0.9, 0.4, 0.6]})
    sample, solution = frame("key y | 3 0 | 1 0 | 2 0"), frame("key y | 1 1 | 2 0 | 3 0")
    rules = competition("binary")
    submission = rules.to_submission(predictions, sample)
    assert submission.to_dict("list") == {"key": ["3", "1", "2"], "y": [0.6, 0.9, 0.4]}
    scores = rules.score(solution, submission)
    assert list(scores) == ["auc", "log_loss", "accuracy"]
    assert scores["auc"] == 1.0
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.4]).mean())
    assert scores["accuracy"] == pytest.approx(2 / 3)
    labels = competition("binary", metric="f1", extra_metrics=())
    assert labels.to_submission(predictions, sample)["y"].tolist() == [1, 1, 0]
    assert labels.to_submission(predictions, sample, thresholds=[0.7])["y"].tolist() == [0, 1, 0]
    assert labels.score(solution, labels.to_submission(predictions, sample)) == {"f1": pytest.approx(2 / 3)}


MULTICLASS = pd.DataFrame(
    {"id": ["1", "2"], "prediction": ["cow", "cat"], "proba_cat": [0.3, 0.6], "proba_dog": [0.1, 0.2],
     "proba_cow": [0.6, 0.2]}
)  # fmt: skip


def test_multiclass_labels():
    rules = competition("multiclass", extra_metrics=("macro_f1",))
    submission = rules.to_submission(MULTICLASS, frame("key y | 2 cat | 1 cat"))
    assert submission.to_dict("list") == {"key": ["2", "1"], "y": ["cat", "cow"]}
    scores = rules.score(frame("key y | 1 cow | 2 dog"), submission)
    assert scores == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}


def test_numbered_classes_survive_a_float_column():
    watson = load_competition("contradictory_my_dear_watson")
    solution = pd.DataFrame({"id": ["x", "y", "z"], "label": [2.0, 0.0, 1.0]})
    submission = pd.DataFrame({"id": ["z", "y", "x"], "label": ["1", "1", "2"]})
    assert watson.score(solution, submission) == {"accuracy": pytest.approx(2 / 3)}


def test_multiclass_probabilities_against_names_or_columns_of_zeros_and_ones():
    rules = competition("multiclass", metric="log_loss", extra_metrics=("accuracy",))
    submission = rules.to_submission(MULTICLASS, frame("key cow cat dog | 1 0 0 0 | 2 0 0 0"))
    assert list(submission.columns) == ["key", "cow", "cat", "dog"]
    assert submission.loc[0, ["cow", "cat", "dog"]].tolist() == [0.6, 0.3, 0.1]
    by_name = rules.score(frame("key y | 1 cow | 2 dog"), submission)
    assert by_name == {"log_loss": pytest.approx(-np.log([0.6, 0.2]).mean()), "accuracy": 0.5}
    assert rules.score(frame("key cat dog cow | 1 0 0 1 | 2 0 1 0"), submission) == by_name


def test_ranked_guesses_stand_in_one_cell():
    rules = competition("multiclass", metric="map_at_3", extra_metrics=("accuracy",))
    submission = rules.to_submission(MULTICLASS, frame("key y | 1 cat | 2 cat"))
    assert submission["y"].tolist() == ["cow cat dog", "cat dog cow"]
    assert rules.score(frame("key y | 1 cow | 2 cow"), submission) == {
        "map_at_3": pytest.approx((1 + 1 / 3) / 2),
        "accuracy": 0.5,
    }


def test_multilabel():
    predictions = pd.DataFrame({"id": ["1", "2"], "red": [0.9, 0.2], "green": [0.5, 0.4]})
    solution = frame("key red green | 1 1 1 | 2 0 1")
    rules = competition("multilabel")
    submission = rules.to_submission(predictions, frame("key green red | 2 0 0 | 1 0 0"))
    assert submission.to_dict("list") == {"key": ["2", "1"], "green": [0.4, 0.5], "red": [0.2, 0.9]}
    assert rules.score(solution, submission) == {"log_loss": pytest.approx(-np.log([0.9, 0.5, 0.8, 0.4]).mean())}
    labels = competition("multilabel", metric="f1").to_submission(predictions, solution)
    assert labels[["red", "green"]].to_numpy().tolist() == [[1, 1], [0, 0]]
    assert competition("multilabel", metric="f1").score(solution, labels) == {"f1": pytest.approx(0.8)}


def test_regression():
    rules = competition("regression")
    submission = rules.to_submission(
        pd.DataFrame({"id": ["1", "2"], "prediction": [1.5, 4.0]}), frame("key y | 2 0 | 1 0")
    )
    assert submission.to_dict("list") == {"key": ["2", "1"], "y": [4.0, 1.5]}
    scores = rules.score(frame("key y | 1 1 | 2 3"), submission)
    assert scores == {"rmse": pytest.approx(np.sqrt((0.25 + 1) / 2)), "mae": pytest.approx(0.75)}


def test_texts_by_group_and_by_the_nearest_reference():
    rules = competition("text_to_text", metric_group="language", reference_separator=" | ")
    solution = pd.DataFrame(
        {"key": ["1", "2", "3"], "language": ["uk", "uk", "ru"], "y": ["Мдіна | Мдина", "Лау", "Лау"]}
    )
    predictions = pd.DataFrame({"id": ["3", "2", "1"], "prediction": ["Лау", "Рау", "Мдина"], "score": [0.0, 0.0, 0.0]})
    submission = rules.to_submission(predictions, solution)
    assert list(submission.columns) == ["key", "y"]
    # uk: one of two right, 1 edit in 8 characters; ru: right. Rows alone would say 2/3.
    assert rules.score(solution, submission) == {"exact_match": 0.75, "cer": pytest.approx(1 / 16)}
    assert rules.score_by_group(solution, submission) == {"ru": 1.0, "uk": 0.5}
    assert rules.score_by_group(solution, submission, metric="cer") == {"ru": 0.0, "uk": pytest.approx(1 / 8)}
    assert competition("text_to_text").score_by_group(solution, submission) == {"all": pytest.approx(1 / 3)}


@pytest.mark.parametrize("task", TASKS)
def test_labelled_rows_are_scored_as_their_own_solution(task, tmp_path):
    write(tmp_path, train="key,a,b,y,c,red,green\n1,p,q,1,cat,0,1\n2,r,s,0,dog,1,0\n")
    label = {"multiclass": {"label_columns": ("c",)}}.get(task, {})
    rules = competition(task, **label)
    solution = rules.to_solution(rules.load_train(tmp_path))
    assert solution["key"].tolist() == ["1", "2"]
    best = {name: rules.score(solution, solution)[name] for name in (rules.metric, *rules.extra_metrics)}
    perfect = {"auc": 1, "log_loss": pytest.approx(0, abs=1e-9), "accuracy": 1, "rmse": 0, "mae": 0, "cer": 0}
    assert best == {name: perfect.get(name, 1) for name in best}


def test_to_solution_carries_the_group_and_one_column_per_class_of_probabilities():
    truth = pd.DataFrame({"id": ["1", "2"], "a": ["x", "y"], "label": ["dog", "cow"]})
    rules = competition("multiclass", metric="log_loss", metric_group="a")
    assert rules.to_solution(truth).to_dict("list") == {
        "key": ["1", "2"], "cat": [0, 0], "dog": [1, 0], "cow": [0, 1], "a": ["x", "y"],
    }  # fmt: skip


def test_ids_must_agree():
    rules = competition("regression")
    solution = frame("key y | 1 1 | 2 3 | 3 1")
    with pytest.raises(PodiumError, match=r"^the submission: 2 of 3 ids are missing, the first is 2$"):
        rules.score(solution, frame("key y | 1 1"))
    with pytest.raises(PodiumError, match=r"^the submission: id 2 stands there twice; keep one row per id$"):
        rules.score(solution, frame("key y | 1 1 | 2 2 | 2 2 | 3 3"))
    with pytest.raises(PodiumError, match=r"^the predictions: 1 of 3 ids are missing, the first is 3$"):
        rules.to_submission(pd.DataFrame({"id": ["1", "2"], "prediction": [1.0, 2.0]}), solution)


def test_what_cannot_be_scored_says_why():
    with pytest.raises(PodiumError, match=r"column y, row 2: 'x' is not a number"):
        competition("regression").score(frame("key y | 1 1 | 2 3"), frame("key y | 1 1 | 2 x"))
    with pytest.raises(PodiumError, match=r"tiny: auc cannot be computed \(a p\): targets: all 2 rows are 1"):
        competition("binary", metric_group="a").score(frame("key y a | 1 1 p | 2 1 p"), frame("key y | 1 1 | 2 0"))
    with pytest.raises(PodiumError, match=r"tiny: no column y for the answers among key, z, w; correct label_col"):
        competition("regression").score(frame("key y | 1 1"), frame("key z w | 1 1 1"))


def test_the_only_answer_may_have_another_name_in_the_sample():
    """As in Kaggle's Watson competition, whose train says label and whose sample says prediction."""
    rules = competition("multiclass")
    predictions = pd.DataFrame({"id": ["1", "2"], "prediction": ["cow", "cat"]})
    submission = rules.to_submission(predictions, frame("key prediction | 2 cat | 1 cat"))
    assert submission.to_dict("list") == {"key": ["2", "1"], "prediction": ["cat", "cow"]}
    solution = rules.to_solution(pd.DataFrame({"id": ["1", "2"], "label": ["cow", "dog"]}))
    assert rules.score(solution, submission)["accuracy"] == 0.5
