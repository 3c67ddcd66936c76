"""Columns of the files that are called as canonical frames call their own: nothing takes the place of another."""

import numpy as np
import pandas as pd
import pytest
from tiny_competition import make_competition

from components.tables.model import TabularBaseline
from pipelines.competitions.competition import FoldDefaults, ImagePlaces
from pipelines.config.sections.bert import Segments
from pipelines.errors import PodiumError
from pipelines.learners.prompts import build_prompts, build_segments
from pipelines.runs.scoring import encode_labels, frame_probabilities, score_predictions

NAMES = ["id", "label", "prediction", "score", "fold", "true_label", "column label"]


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")


def rules(**changes):
    fields = {"id_column": "row", "input_columns": ("x",), "label_columns": ("target",), "extra_metrics": ()}
    return make_competition(**(fields | changes))


@pytest.mark.parametrize("name", NAMES)
def test_an_input_of_any_name_stays_an_input(tmp_path, name):
    write(tmp_path, train=f"row,{name},target\n1,red,0\n2,green,1\n", test=f"row,{name}\n3,blue\n")
    competition = rules(input_columns=(name,))
    train, test = competition.load_train(tmp_path), competition.load_test(tmp_path)
    assert train["id"].tolist() == ["1", "2"]
    assert train["label"].tolist() == [0, 1]
    assert test["id"].tolist() == ["3"]
    for frame, cells in ((train, ["red", "green"]), (test, ["blue"])):
        assert competition.inputs(frame).to_dict("list") == {name: cells}
        assert build_prompts(competition, frame) == [f"{name}: {cell}" for cell in cells]
    segments = Segments(max_length=8, first_column=name)
    assert build_segments(competition, test, segments) == (["blue"], None)
    assert len(set(train.columns)) == len(train.columns) == 3


def test_both_at_once_and_the_name_that_would_be_given_instead(tmp_path):
    columns = ("label", "id", "column label")
    write(tmp_path, train="row,label,id,column label,target\n1,a,b,c,1\n", test="row,label,id,column label\n2,d,e,f\n")
    competition = rules(input_columns=columns)
    frame = competition.load_train(tmp_path)
    assert list(frame.columns) == ["id", "column label_", "column id", "column label", "label"]
    assert frame.iloc[0].tolist() == ["1", "a", "b", "c", 1]
    assert competition.inputs(frame).to_dict("list") == {"label": ["a"], "id": ["b"], "column label": ["c"]}
    assert build_prompts(competition, competition.load_test(tmp_path)) == ["label: d id: e column label: f"]


def test_frames_without_such_columns_are_what_they_were(tmp_path):
    write(tmp_path, train="id,text,site,label\n1,a,s,1\n", test="id,text\n2,b\n")
    competition = make_competition(folds=FoldDefaults("group", group_column="site"))
    assert list(competition.load_train(tmp_path).columns) == ["id", "text", "site", "label"]
    assert list(competition.load_test(tmp_path).columns) == ["id", "text"]
    own_id = make_competition(input_columns=("id", "text"))
    assert list(own_id.load_test(tmp_path).columns) == ["id", "text"]


@pytest.mark.parametrize("name", ["label", "id", "fold"])
def test_columns_to_group_by_keep_their_values(tmp_path, name):
    write(tmp_path, train=f"row,x,{name},target\n1,p,north,0\n2,q,north,1\n3,p,south,0\n4,q,south,1\n")
    competition = rules(metric_group=name)
    truth = competition.load_train(tmp_path)
    solution = competition.to_solution(truth)
    assert solution[name].tolist() == ["north", "north", "south", "south"]
    assert solution["target"].tolist() == [0, 1, 0, 1]
    predictions = pd.DataFrame({"id": ["1", "2", "3", "4"], "prediction": [0.1, 0.9, 0.8, 0.2]})
    submission = competition.to_submission(predictions, solution)
    assert competition.score_by_group(solution, submission) == {"north": 1.0, "south": 0.0}


@pytest.mark.parametrize("names", [("id", "red"), ("fold", "label"), ("red", "true_red")])
def test_labels_of_a_multilabel_row_of_any_name(tmp_path, names):
    header = ",".join(names)
    write(tmp_path, train=f"row,x,{header}\n7,p,0,1\n8,q,1,0\n", test="row,x\n9,p\n")
    competition = rules(task="multilabel", label_columns=names)
    truth = competition.load_train(tmp_path)
    assert truth["id"].tolist() == ["7", "8"]
    assert encode_labels(competition, truth).tolist() == [[0, 1], [1, 0]]
    predictions = frame_probabilities(competition, truth, np.array([[0.1, 0.9], [0.8, 0.2]]))
    assert predictions["id"].tolist() == ["7", "8"]
    oof = pd.concat([predictions, truth[competition.frame_labels].add_prefix("true_")], axis=1).assign(fold="fold0")
    assert len(set(oof.columns)) == len(oof.columns) == 6
    assert score_predictions(competition, truth, oof) == {"auc": 1.0}
    sample = pd.DataFrame({"row": ["8"], names[0]: [0.5], names[1]: [0.5]})
    assert competition.to_submission(oof, sample).to_dict("list") == {"row": ["8"], names[0]: [0.8], names[1]: [0.2]}


def test_a_label_that_is_called_id(tmp_path):
    write(tmp_path, train="row,x,id\n1,p,0\n2,q,1\n", sample_submission="row,id\n3,0.5\n")
    competition = rules(label_columns=("id",))
    truth = competition.load_train(tmp_path)
    assert truth.to_dict("list") == {"id": ["1", "2"], "x": ["p", "q"], "label": [0, 1]}
    submission = competition.to_submission(
        pd.DataFrame({"id": ["3"], "prediction": [0.25]}), competition.load_sample(tmp_path)
    )
    assert submission.to_dict("list") == {"row": ["3"], "id": [0.25]}


@pytest.mark.parametrize("changes", [{"input_columns": ("x", "target")}, {"label_columns": ("row",)}])
def test_a_label_is_neither_an_input_nor_the_id(changes):
    with pytest.raises(PodiumError, match=r"label_columns: (target|row) is an input or the id as well, and a model"):
        rules(**changes)


def test_a_class_that_is_called_as_the_label_column(tmp_path):
    write(tmp_path, train="row,x,y\n1,p,y\n2,q,n\n", sample_submission="row,n,y\n3,0.5,0.5\n")
    competition = rules(task="multiclass", label_columns=("y",), class_names=("n", "y"), metric="log_loss")
    truth = competition.load_train(tmp_path)
    predictions = frame_probabilities(competition, truth, np.array([[0.2, 0.8], [0.5, 0.5]]))
    assert score_predictions(competition, truth, predictions) == {"log_loss": pytest.approx(-np.log([0.8, 0.5]).mean())}
    sample = competition.load_sample(tmp_path).assign(row=["1"])
    assert competition.to_submission(predictions, sample).to_dict("list") == {"row": ["1"], "n": [0.2], "y": [0.8]}


@pytest.mark.parametrize("id_column", ["id", "image"])
def test_the_id_may_name_the_image(tmp_path, id_column):
    write(
        tmp_path, train=f"{id_column},target\na.jpg,0\nb.jpg,1\n", sample_submission=f"{id_column},target\nc.jpg,0.5\n"
    )
    places = ImagePlaces(column=id_column, train="train/{}", test="test/{}")
    competition = rules(id_column=id_column, input_columns=(id_column,), images=places, test_role="sample")
    train, test = competition.load_train(tmp_path), competition.load_test(tmp_path)
    assert train["id"].tolist() == ["a.jpg", "b.jpg"]
    column = competition.frame_column(id_column)
    assert train[column].tolist() == [f"{tmp_path}/train/a.jpg", f"{tmp_path}/train/b.jpg"]
    assert (test["id"].tolist(), test[column].tolist()) == (["c.jpg"], [f"{tmp_path}/test/c.jpg"])


def test_a_column_of_noise_called_label_teaches_nothing(tmp_path):
    """Once the answers took its place among the training rows: a perfect score of noise."""
    noise = np.random.default_rng(0).choice(["red", "green"], 80)
    lines = [f"{row},{colour},{row % 2}" for row, colour in enumerate(noise)]
    write(tmp_path, train="\n".join(["row,label,target", *lines]) + "\n")
    competition = rules(input_columns=("label",))
    train = competition.load_train(tmp_path)
    model = TabularBaseline(task="binary").fit(competition.inputs(train[:60]), encode_labels(competition, train[:60]))
    guesses = frame_probabilities(competition, train[60:], model.predict(competition.inputs(train[60:])))
    assert score_predictions(competition, train[60:], guesses)["auc"] < 0.9
