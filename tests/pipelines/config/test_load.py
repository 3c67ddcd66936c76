from dataclasses import MISSING, FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from small_experiment import BASE

from pipelines.competitions.loading import load_competition
from pipelines.config.describe import annotate, describe_schema, field_sentences
from pipelines.config.experiment_file import experiment_names
from pipelines.config.load import flatten, load_experiment, load_run_config, resolve_yaml
from pipelines.config.schema import SECTIONS, Experiment
from pipelines.config.sections.folds import Holdout, KFold, StratifiedGroup
from pipelines.config.sections.optimizer import Adafactor, AdamW
from pipelines.config.sections.schedule import Cosine
from pipelines.config.sections.t5 import T5FromScratch
from pipelines.config.sections.tables import LinearBaseline
from pipelines.config.sections.tracking import MLflow, NoTracking
from pipelines.config.values import checked_value, field_types, unpack
from pipelines.errors import ConfigError
from pipelines.workspace import Workspace

BASELINE = "name: linear\ncompetition: letters\nmodel: {name: linear_baseline}\ndata: {name: table}\n"


def folds_of(competition):
    if competition != "letters":
        raise ConfigError(f"{competition}: no such competition; there are: letters")
    return {"name": "stratified", "num_folds": 4, "valid_fraction": 0.1, "group_column": None}


def workspace_of(root: Path, **files: str) -> Workspace:
    workspace = Workspace(root)
    for name, text in files.items():
        path = workspace.experiments / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return workspace


def load(root: Path, name: str = "base", *overrides: str, **files: str) -> Experiment:
    return load_experiment(workspace_of(root, **{"base": BASE, **files}), name, overrides, folds_of=folds_of)


def refusal(root: Path, name: str = "base", *overrides: str, **files: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(root, name, *overrides, **files)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- what an experiment comes to -----------------------------------------------------------------------------------


def test_a_file_is_typed_filled_with_defaults_and_frozen(tmp_path):
    experiment = load(tmp_path)
    assert experiment.model == T5FromScratch(d_model=32)
    assert experiment.optimizer == Adafactor(lr=0.03)
    assert experiment.schedule == Cosine(num_warmup_steps=10)
    assert (experiment.loop.num_steps, experiment.loop.batch_size) == (100, 32)
    assert experiment.tracking == MLflow(flush_seconds=10.0, system_metrics=True)
    assert (experiment.seed, experiment.fold, experiment.parent) == (0, "each", None)
    with pytest.raises(FrozenInstanceError):
        experiment.optimizer.lr = 1.0


def test_folds_come_from_the_competition_field_by_field(tmp_path):
    assert (load(tmp_path).folds.name, load(tmp_path).folds.num_folds) == ("stratified", 4)
    overridden = load(tmp_path, "base", "folds.seed=3").folds
    assert (overridden.name, overridden.num_folds, overridden.seed) == ("stratified", 4, 3)
    assert load(tmp_path, "base", "folds.name=holdout").folds == Holdout(valid_fraction=0.05)
    assert load(tmp_path, "base", "folds.name=stratified_group").folds == StratifiedGroup(num_folds=5)
    assert load(tmp_path, "base", "folds.name=kfold", "folds.num_folds=2", "fold=1").folds == KFold(num_folds=2)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=5e-4", 5e-4),
        ("optimizer.lr=1", 1.0),
        ("training.max_grad_norm=null", None),
        ("training.mixed_precision=no", "no"),
        ("training.mixed_precision=bf16", "bf16"),
        ("model.tie_embeddings=false", False),
        ("fold=0", "0"),
        ("seed=7", 7),
    ],
)
def test_overrides_arrive_as_the_fields_type(tmp_path, override, value):
    key = override.partition("=")[0]
    found = flatten(load(tmp_path, "base", override))[key]
    assert found == value
    assert type(found) is type(value)


def test_a_child_states_only_what_differs(tmp_path):
    child = "name: child\nparent: base\nseed: 5\ntraining: {batch_size: 8, max_grad_norm: null}\n"
    base, experiment = load(tmp_path), load(tmp_path, "child", child=child)
    assert experiment.parent == "base"
    assert experiment == replace(
        base, name="child", seed=5, training=replace(base.training, batch_size=8, max_grad_norm=None)
    )


@pytest.mark.parametrize("where", ["file", "override"])
def test_another_choice_starts_its_section_afresh(tmp_path, where):
    child = "name: child\nparent: base\n" + ("optimizer: {name: adamw, eps: 1e-6}\n" if where == "file" else "")
    overrides = [] if where == "file" else ["optimizer.eps=1e-6", "optimizer.name=adamw"]
    assert load(tmp_path, "child", *overrides, child=child).optimizer == AdamW(lr=1e-4, eps=1e-6)


def test_naming_the_same_choice_again_keeps_the_parents_fields(tmp_path):
    child = "name: child\nparent: base\noptimizer: {name: adafactor, beta1: 0.9}\n"
    assert load(tmp_path, "child", child=child).optimizer == Adafactor(lr=0.03, beta1=0.9)


def test_a_linear_baseline_has_no_steps_even_under_a_parent_that_has(tmp_path):
    child = "name: child\nparent: base\nmodel: {name: linear_baseline}\ndata: {name: table}\n"
    for experiment in (load(tmp_path, "linear", linear=BASELINE), load(tmp_path, "child", child=child)):
        assert (experiment.optimizer, experiment.schedule, experiment.training) == (None, None, None)
        assert experiment.model == LinearBaseline()
        assert not {"optimizer", "schedule", "training"} & {key.split(".")[0] for key in flatten(experiment)}
        assert "training" not in resolve_yaml(experiment)
    message = refusal(tmp_path, "linear", "training.num_steps=3", linear=BASELINE)
    assert message == "override: training: linear_baseline is fitted in one piece and has none; remove the section"


def test_an_experiment_in_a_folder_has_an_address_and_a_one_word_name(tmp_path):
    smoke = "name: base\nparent: base\ntraining: {num_steps: 10}\ntracking: {name: none}\n"
    by_address = load(tmp_path, "smoke/base", smoke__base=smoke)
    assert (by_address.name, by_address.tracking) == ("smoke_base", NoTracking())
    assert load(tmp_path, "smoke_base", smoke__base=smoke) == by_address
    assert experiment_names(Workspace(tmp_path)) == ["base", "smoke/base"]
    message = refusal(tmp_path, "smoke_base", smoke_base=BASE.replace("base", "smoke_base"))
    assert message == "smoke_base names two experiments, smoke_base and smoke/base; rename one of them"


def test_the_resolved_file_is_complete_and_loads_back(tmp_path):
    experiment = load(tmp_path, "base", "training.mixed_precision=no", "fold=2")
    text = resolve_yaml(experiment)
    assert text == resolve_yaml(load(tmp_path, "base", "fold=2", "training.mixed_precision=no"))
    assert OmegaConf.to_container(OmegaConf.create(text)) == experiment.raw
    assert list(experiment.raw) == ["name", "competition", "seed", "fold", *SECTIONS]
    for kind, choices in SECTIONS.items():
        choice = choices[experiment.raw[kind]["name"]]
        assert list(experiment.raw[kind]) == ["name", *(field.name for field in fields(choice))]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text, encoding="utf-8")
    again = load_run_config(tmp_path / "run")
    assert again == experiment
    assert resolve_yaml(again) == text
    assert (again.fold, again.loop.mixed_precision) == ("2", "no")


def test_flatten_gives_dotted_keys(tmp_path):
    flat = flatten(load(tmp_path))
    assert flat["optimizer.name"] == "adafactor"
    assert flat["optimizer.lr"] == 0.03
    assert flat["optimizer.beta1"] is None
    assert flat["competition"] == "letters"
    assert len(flat) == 4 + sum(len(section) for section in load(tmp_path).raw.values() if isinstance(section, dict))


def test_a_broken_run_config_names_its_path(tmp_path):
    (tmp_path / "config.yaml").write_text(BASE.replace("num_steps", "num_step"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml: training\.num_step: no such key; did you mean num_steps\?"):
        load_run_config(tmp_path)
    with pytest.raises(ConfigError, match=r"gone/config\.yaml: No such file or directory"):
        load_run_config(tmp_path / "gone")


# -- mistakes ------------------------------------------------------------------------------------------------------

FILE = "experiments/base.yaml: "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_steps: 100", "num_epoch: 3"), "training.num_epoch: no such key; did you mean num_epochs?"),
        (("num_steps: 100", "wheels: 4"), "training.wheels: no such key; loop has num_steps, num_epochs, batch_size, "),
        (("training:", "trainings:"), "trainings: no such key; did you mean training?"),
        (("training:", "batch_size: 3\ntraining:"), "batch_size: no such key; did you mean training.batch_size?"),
        (("training:", "12: 3\ntraining:"), "12: no such key; known are name, competition, seed, fold, parent, "),
        (("lr: 3e-2", "lr: high"), "optimizer.lr: 'high' is text; needs a number or null"),
        (("lr: 3e-2", "lr: true"), "optimizer.lr: true is true or false; needs a number or null"),
        (("lr: 3e-2", "lr: [1]"), "optimizer.lr: [1] is a list; needs a number or null"),
        (("lr: 3e-2", "lr: '3e-2'"), "optimizer.lr: '3e-2' is text; needs a number or null"),
        (("lr: 3e-2", "lr: None"), "optimizer.lr: 'None' is text; needs a number or null, written null"),
        (("lr: 3e-2", "lr: -1"), "optimizer.lr: -1.0 is out of range; needs a finite number above 0"),
        (("lr: 3e-2", "lr: .nan"), "optimizer.lr: nan is out of range; needs a finite number above 0"),
        (("lr: 3e-2", "lr: .inf"), "optimizer.lr: inf is out of range; needs a finite number above 0"),
        (("lr: 3e-2", "lr: '???'"), "optimizer.lr: '???' stands for a missing value; write the value itself"),
        (("lr: 3e-2", "lr: '${seed}'"), "optimizer.lr: '${seed}' is an interpolation; write the value itself"),
        (("lr: 3e-2", "relative_step: true"), "optimizer.lr: 0.001 with relative_step: true; set lr: null"),
        (("lr: 3e-2", "betas: 1"), "optimizer.betas: no such key; did you mean beta1?"),
        (("lr: 3e-2", "beta2: 0.9"), "optimizer.beta2: adafactor has no such key (adamw has)"),
        (("lr: 3e-2", "decay_rate: 0.8"), "optimizer.decay_rate: 0.8 is out of range; needs a negative number"),
        (("name: adafactor", "name: adafacter"), "optimizer.name: 'adafacter' is not known; did you mean adafactor?"),
        (("name: adafactor", "name: [a]"), "optimizer.name: ['a'] is not known; needs one of adafactor, adamw"),
        (("name: adafactor,", ""), "optimizer.name: missing; needs one of adafactor, adamw"),
        (("num_steps: 100", "num_steps: 3e3"), "training.num_steps: 3000.0 is a fraction; needs a whole number or"),
        (("num_steps: 100", "num_steps: true"), "training.num_steps: true is true or false; needs a whole number or"),
        (("num_steps: 100", "num_steps: 0"), "training.num_steps: 0 is too small; needs 1 or more"),
        (("num_steps: 100", "batch_size: 8"), "training.num_steps: null with num_epochs: null; needs a number for"),
        (("num_steps: 100", "num_steps: 1, num_epochs: 2"), "training.num_steps: 1 with num_epochs: 2; needs a"),
        (("num_steps: 100", "num_steps: 5"), "schedule.num_warmup_steps: 10 is more than training.num_steps: 5; the"),
        (("num_steps: 100", "num_epochs: 1, mixed_precision: bf61"), "training.mixed_precision: 'bf61' is not"),
        (("num_steps: 100", "num_epochs: 1, mixed_precision: fp16, device: cpu"), "training.mixed_precision: 'fp16'"),
        (("training: {num_steps: 100}", "training:"), "training: null where fields belong; write training.name and"),
        (("training: {num_steps: 100}", "training: {}"), "training.num_steps: null with num_epochs: null; needs"),
        (("model: {name: t5_from_scratch, d_model: 32}\n", ""), "model: missing; needs model.name, one of"),
        (("name: t5_from_scratch, d_model: 32", "name: t5_pretrained"), "model.checkpoint: missing; t5_pretrained"),
        (("t5_from_scratch, d_model: 32", "t5_pretrained, checkpoint: x"), "data.vocabulary: 'unigram' does not"),
        (("d_model: 32", "dropout: 1"), "model.dropout: 1.0 is out of range; needs 0 or more and less than 1"),
        (("d_model: 32", "head: classifier, num_beams: 4"), "model.num_beams: 4 with head classifier, which generates"),
        (("name: text, max_source_length: 16", "name: table"), "data.name: 'table' does not suit model"),
        (("competition: letters\n", ""), "competition: missing; needs the name of a file in pipelines/competitions/"),
        (("letters", "digits"), "competition: digits: no such competition; there are: letters"),
        (("name: base", "name: bases"), "name: 'bases' is not the file's stem; needs base"),
        (("name: base\n", ""), "name: missing; needs the file's stem, name: base"),
        (("name: base\n", "name: base\nseed: -1\n"), "seed: -1 is too small; needs 0 or more"),
        (("name: base\n", "name: base\nfold: 4\n"), "fold: '4' is not a fold; stratified has fold 0 to 3, or say"),
        (("name: base\n", "name: base\nparent: basis\n"), "parent: basis: no such experiment; did you mean base?"),
        (("name: base\n", "name: base\nparent: base\n"), "parent: base is this file itself; name another, or none"),
        (("name: base\n", "name: base\nparent: [base]\n"), "parent: ['base'] is not text; needs the name of an"),
        (("name: base\n", "name: base\nname: base\n"), "line 2: found duplicate key name"),
        (("training: {", "training:\n\tnum_steps: 3\nx: {"), "line 8: found character "),
        (("training: {", "training: }"), "line 7: "),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line_with_file_key_value_and_cure(tmp_path, change, message):
    text = BASE.replace(*change)
    assert text != BASE
    found = refusal(tmp_path, base=text)
    assert found.startswith(FILE + message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "override optimizer.lr: no value; write optimizer.lr=VALUE"),
        ("optimizer.lr=", "override optimizer.lr=: no value; write optimizer.lr=null for none"),
        ("=3", "override =3: '' is not a key; write section.field=value or seed=1"),
        ("a.b.c=3", "override a.b.c=3: 'a.b.c' is not a key; write section.field=value or seed=1"),
        ("lr=3", "override: lr: no such key; did you mean optimizer.lr?"),
        ("optimizer.lr=high", "override: optimizer.lr: 'high' is text; needs a number or null"),
        ("optimizer.lr=-1", "override: optimizer.lr: -1.0 is out of range; needs a finite number above 0"),
        ("optimizer=adamw", "override: optimizer: 'adamw' where fields belong; write optimizer.name and what differs"),
        ("optimizer.name=adam", "override: optimizer.name: 'adam' is not known; did you mean adamw?"),
        ("optimizer.lr=@x", "override optimizer.lr=@x: line 1: found character "),
        ("optimizer.lr=${", "override optimizer.lr=${: cannot be read: "),
        ("name=other", "override: name: only the file says this; copy the experiment to change it"),
        ("parent=other", "override: parent: only the file says this; copy the experiment to change it"),
        ("fold=nine", "override: fold: 'nine' is not a fold; stratified has fold 0 to 3, or say each or all"),
        ("training.num_steps=5", FILE + "schedule.num_warmup_steps: 10 is more than training.num_steps: 5;"),
    ],
)
def test_a_mistake_in_an_override(tmp_path, override, message):
    assert refusal(tmp_path, "base", override).startswith(message)


def test_a_field_beside_its_own_section_is_refused(tmp_path):
    message = refusal(tmp_path, "base", "optimizer=adamw", "optimizer.lr=1")
    assert message == "override optimizer: is a section and has no value of its own; write optimizer.name=..."


def test_training_on_everything_cannot_stop_early(tmp_path):
    message = refusal(tmp_path, "base", "fold=all", "training.early_stopping_patience=3")
    assert (
        message == "override: training.early_stopping_patience: 3 with fold all, which validates on nothing; needs null"
    )
    assert load(tmp_path, "base", "fold=all").fold == "all"


def test_a_relative_step_needs_a_schedule_that_does_nothing(tmp_path):
    relative = ["optimizer.relative_step=true", "optimizer.lr=null"]
    assert "schedule.name: 'cosine' with optimizer.relative_step: true" in refusal(tmp_path, "base", *relative)
    assert load(tmp_path, "base", *relative, "schedule.name=constant").optimizer.lr is None


def test_a_mistake_of_the_parent_is_the_parents(tmp_path):
    files = {"base": BASE.replace("lr: 3e-2", "lr: high"), "child": "name: child\nparent: base\n"}
    assert refusal(tmp_path, "child", **files).startswith("experiments/base.yaml: optimizer.lr: 'high'")


def test_parents_do_not_chain(tmp_path):
    files = {"child": "name: child\nparent: base\n", "grandchild": "name: grandchild\nparent: child\n"}
    assert refusal(tmp_path, "grandchild", **files) == (
        "experiments/grandchild.yaml: parent: child has a parent of its own, base; name that one and state what differs"
    )


def test_an_unknown_experiment_lists_what_exists(tmp_path):
    assert (
        refusal(tmp_path, "bse", linear=BASELINE)
        == "bse: no such experiment; did you mean base? there are: base, linear"
    )
    assert refusal(tmp_path, "experiments/base.yaml").startswith(
        "experiments/base.yaml: no such experiment; did you mean base?"
    )
    assert refusal(tmp_path, "../x") == "../x: no such experiment; there are: base, linear"
    with pytest.raises(ConfigError, match=r"x: no such experiment; .*empty/experiments holds no \.yaml file"):
        load_experiment(Workspace(tmp_path / "empty"), "x", folds_of=folds_of)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; needs at least name: and competition:, or parent:"),
        (b"# only words\n", "empty; needs at least name: and competition:, or parent:"),
        (b"- name: base\n", "holds a list; needs keys such as name: and model:"),
        (b"base", "name: missing; needs the file's stem, name: base"),
        (b"name: base\ncompetition: \xff\n", "byte 24 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_experiment(tmp_path, content, message):
    workspace = workspace_of(tmp_path, base=BASE)
    (workspace.experiments / "base.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_experiment(workspace, "base", folds_of=folds_of)
    assert str(caught.value) == FILE + message


def test_an_unreadable_file(tmp_path):
    (workspace_of(tmp_path).experiments / "base.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"^experiments/base\.yaml: Is a directory$"):
        load_experiment(Workspace(tmp_path), "base", folds_of=folds_of)


# -- the table and its words -----------------------------------------------------------------------------

CHOICES = [(kind, name, choice) for kind, choices in SECTIONS.items() for name, choice in choices.items()]


@pytest.mark.parametrize(("kind", "name", "choice"), CHOICES, ids=[f"{kind}-{name}" for kind, name, _ in CHOICES])
def test_every_choice_knows_its_name_and_documents_its_fields(kind, name, choice):
    assert choice.name == name
    sentences = field_sentences(choice)
    assert list(sentences) == [field.name for field in fields(choice)]
    assert all(sentence.endswith(".") and sentence == sentence.strip() for sentence in sentences.values())
    assert choice.__doc__.endswith(".")
    for field in fields(choice):
        annotation = field_types(choice)[field.name]
        assert unpack(annotation)[0] in (str, int, float, bool)
        if field.default is not MISSING:
            assert type(checked_value(field.default, annotation)) is type(field.default)


def test_the_schema_names_every_field_with_its_sentence():
    text = " ".join(describe_schema().split())
    for _, name, choice in CHOICES:
        assert f"name: {name}" in text
        for sentence in field_sentences(choice).values():
            assert sentence in text
    assert "checkpoint str required A hub name, a folder" in text
    assert "max_grad_norm float | null 1.0 Norm" in text
    assert max(map(len, describe_schema().splitlines())) <= 118


def test_annotations_tell_where_values_come_from_and_leave_valid_yaml(tmp_path):
    child = "name: child\nparent: base\nseed: 5\n"
    experiment = load(tmp_path, "child", "optimizer.beta1=0.9", child=child)
    text = annotate(experiment)
    assert OmegaConf.to_container(OmegaConf.create(text)) == experiment.raw
    lines = [line for line in text.splitlines() if not line.startswith("  seed")]
    origins = {line.split(":")[0].strip(): line.partition(" # ")[2] for line in lines}
    assert origins["seed"] == "file"
    assert origins["d_model"] == "parent base"
    assert origins["beta1"] == "override"
    assert origins["num_folds"] == "competition"
    assert origins["d_ff"] == ""


def test_the_competitions_in_the_house_give_their_folds(tmp_path):
    text = BASE.replace("letters", "place_names")
    experiment = load_experiment(workspace_of(tmp_path, base=text), "base")
    assert experiment.folds == Holdout(valid_fraction=load_competition("place_names").folds.valid_fraction)
    with pytest.raises(ConfigError, match=r"experiments/base\.yaml: competition: .*did you mean place_names\?"):
        load_experiment(workspace_of(tmp_path, base=text.replace("place_names", "place_name")), "base")


def test_a_fold_scheme_that_nobody_knows_is_the_competitions_mistake(tmp_path):
    with pytest.raises(
        ConfigError, match=r"base\.yaml: competition: letters: folds 'kfolds' are not known; did you mean"
    ):
        load_experiment(workspace_of(tmp_path, base=BASE), "base", folds_of=lambda _: {"name": "kfolds"})
