import inspect
import math
from dataclasses import fields, replace

import pytest
import torch

from components.data.folds import FOLD_SCHEMES
from components.models.t5.checkpoint import T5Architecture, T5Classifier, T5Seq2Seq, save_t5
from components.optim.adafactor.optimizer import Adafactor
from components.tables.model import TabularBaseline
from pipelines.config.build import (
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    build_baseline,
    build_model,
    build_optimizer,
    build_schedule,
)
from pipelines.config.load import load_experiment
from pipelines.config.schema import SECTIONS, Experiment
from pipelines.errors import ConfigError
from pipelines.tracking.opening import BACKENDS
from pipelines.workspace import Workspace

TABLES = {"model": MODELS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
ROWS = [(kind, name) for kind, table in TABLES.items() for name in table]

SMALL = """\
name: small
competition: letters
seed: 3
model: {name: t5_from_scratch, d_model: 16, d_kv: 4, d_ff: 24, num_layers: 1, num_decoder_layers: 2, num_heads: 3}
data: {name: text}
optimizer: {name: adafactor, lr: 3e-2}
schedule: {name: cosine, num_warmup_steps: 2}
training: {num_steps: 10}
"""


@pytest.fixture
def load(tmp_path):
    def load_small(*overrides: str, text: str = SMALL) -> Experiment:
        (tmp_path / "experiments").mkdir(exist_ok=True)
        (tmp_path / "experiments" / "small.yaml").write_text(text)
        return load_experiment(Workspace(tmp_path), "small", overrides, folds_of=lambda _: {"name": "holdout"})

    return load_small


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[f"{kind}-{name}" for kind, name in ROWS])
def test_a_builder_takes_the_fields_of_its_config_class_and_no_defaults(kind, name):
    choice = TABLES[kind][name]
    assert choice.config_class is SECTIONS[kind][name]
    parameters = inspect.signature(choice.builder).parameters.values()
    named = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    assert [parameter.name for parameter in named] == [field.name for field in fields(choice.config_class)]
    assert [parameter.annotation for parameter in named] == [field.type for field in fields(choice.config_class)]
    assert all(parameter.default is inspect.Parameter.empty for parameter in parameters)
    assert sum(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters) == 1


def test_every_name_of_the_schema_can_be_built():
    assert {kind: list(table) for kind, table in TABLES.items()} == {kind: list(SECTIONS[kind]) for kind in TABLES}
    assert set(SECTIONS["folds"]) == set(FOLD_SCHEMES)
    assert set(SECTIONS["tracking"]) == set(BACKENDS)
    assert set(SECTIONS) == {*TABLES, "data", "training", "folds", "tracking"}


def test_a_model_from_scratch_has_the_shape_asked_for(load):
    model = build_model(load("training.label_smoothing=0.1"), vocab_size=50, num_classes=None, task="text_to_text")
    assert isinstance(model, T5Seq2Seq)
    shape = T5Architecture(
        vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_decoder_layers=2, num_heads=3, tie_embeddings=True
    )
    assert (model.architecture, model.label_smoothing) == (shape, 0.1)
    assert all(param.requires_grad for param in model.parameters())
    overrides = ["dropout=0.2", "feed_forward=relu", "tie_embeddings=false", "freeze_embeddings=true"]
    experiment = load(*(f"model.{override}" for override in overrides))
    other = build_model(experiment, vocab_size=50, num_classes=None, task="text_to_text")
    assert other.architecture == replace(
        shape, dropout=0.2, feed_forward="relu", tie_embeddings=False, scale_decoder_outputs=False
    )
    assert [name for name, param in other.named_parameters() if not param.requires_grad] == ["shared.weight"]


@pytest.mark.parametrize(
    ("task", "num_classes", "loss"),
    [
        ("binary", 2, "cross_entropy"),
        ("multiclass", 5, "cross_entropy"),
        ("multilabel", 3, "binary_cross_entropy"),
        ("regression", 1, "mse"),
    ],
)
def test_a_classifier_has_the_loss_of_its_task(load, task, num_classes, loss):
    model = build_model(load("model.head=classifier"), vocab_size=50, num_classes=num_classes, task=task)
    assert isinstance(model, T5Classifier)
    assert (model.num_classes, model.loss) == (num_classes, loss)


def test_a_head_that_does_not_suit_the_task_is_named(load):
    with pytest.raises(
        ConfigError, match=r"model\.head: 'seq2seq' does not suit letters, a binary task; needs classifier"
    ):
        build_model(load(), vocab_size=50, num_classes=2, task="binary")


def test_published_weights_come_from_a_folder(load, tmp_path):
    written = build_model(load(), vocab_size=50, num_classes=None, task="text_to_text")
    save_t5(written, tmp_path / "weights")
    lines = [line for line in SMALL.splitlines() if not line.startswith(("model:", "data:"))]
    lines += ["data: {name: text, vocabulary: checkpoint}"]
    lines += [f"model: {{name: t5_pretrained, checkpoint: {tmp_path / 'weights'}}}"]
    text = "\n".join(lines)
    model = build_model(load(text=text), vocab_size=50, num_classes=None, task="text_to_text")
    assert model.architecture == written.architecture
    for name, tensor in written.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    frozen = load("model.freeze_embeddings=true", "model.dropout=0.3", "model.head=classifier", text=text)
    classifier = build_model(frozen, vocab_size=50, num_classes=4, task="multiclass")
    assert (classifier.num_classes, classifier.architecture.dropout) == (4, 0.3)
    assert not classifier.shared.weight.requires_grad
    with pytest.raises(ConfigError, match=r"small: model\.name: t5_pretrained: .*nowhere"):
        build_model(load("model.checkpoint=./nowhere", text=text), vocab_size=50, num_classes=None, task="text_to_text")


def model_of_two_groups() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))


def test_adafactor_receives_every_field(load):
    overrides = ["eps1=1e-20", "eps2=1e-2", "clip_threshold=2", "decay_rate=-0.5", "beta1=0.8", "weight_decay=0.1"]
    experiment = load(*(f"optimizer.{override}" for override in overrides), "optimizer.scale_parameter=false")
    optimizer = build_optimizer(experiment, model_of_two_groups())
    assert isinstance(optimizer, Adafactor)
    decayed, undecayed = optimizer.param_groups
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    assert [tuple(param.shape) for param in decayed["params"]] == [(2, 3)]
    for group in (decayed, undecayed):
        expected = {"lr": 0.03, "eps": (1e-20, 1e-2), "clip_threshold": 2.0, "decay_rate": -0.5, "beta1": 0.8}
        assert {key: group[key] for key in expected} == expected
        assert (group["scale_parameter"], group["relative_step"], group["warmup_init"]) == (False, False, False)


def test_adafactor_with_its_own_rate(load):
    overrides = ["relative_step=true", "warmup_init=true", "lr=null"]
    experiment = load(*(f"optimizer.{override}" for override in overrides), "schedule.name=constant")
    (group, _) = build_optimizer(experiment, model_of_two_groups()).param_groups
    assert (group["lr"], group["relative_step"], group["warmup_init"]) == (None, True, True)


def test_adamw_is_torchs_and_its_fused_step_is_the_plain_one(load):
    experiment = load("optimizer.name=adamw", "optimizer.lr=1e-2", "optimizer.beta1=0.8", "optimizer.beta2=0.9")
    # In float64: where a gradient is near zero, Adam divides rounding errors by rounding errors.
    models = [model_of_two_groups().double(), model_of_two_groups().double()]
    models[1].load_state_dict(models[0].state_dict())
    fused = build_optimizer(experiment, models[0])
    assert (fused.defaults["betas"], fused.defaults["eps"], fused.defaults["lr"]) == ((0.8, 0.9), 1e-8, 1e-2)
    groups = [{"params": list(models[1][0].parameters())[:1]}]
    groups.append({"params": [models[1][0].bias, *models[1][1].parameters()], "weight_decay": 0.0})
    plain = torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.01, foreach=False)
    for step in range(5):
        for model, optimizer in zip(models, (fused, plain), strict=True):
            optimizer.zero_grad()
            inputs = torch.full((2, 3), step + 1.0, dtype=torch.float64) + torch.arange(3)
            model(inputs).square().sum().backward()
            optimizer.step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["schedule.name=constant"], [1.0, 1.0, 1.0, 1.0]),
        (["schedule.name=constant", "schedule.num_warmup_steps=2"], [0.5, 1.0, 1.0, 1.0]),
        (["schedule.name=linear"], [1.0, 0.75, 0.5, 0.25]),
        (["schedule.name=linear", "schedule.final_factor=0.5"], [1.0, 0.875, 0.75, 0.625]),
        (["schedule.num_warmup_steps=0"], [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]),
        (["schedule.num_warmup_steps=0", "schedule.final_factor=1"], [1.0, 1.0, 1.0, 1.0]),
        (["schedule.name=inverse_sqrt", "schedule.time_scale=1"], [(1 + i) ** -0.5 for i in range(4)]),
    ],
)
def test_schedules_over_a_run_of_four_steps(load, overrides, expected):
    schedule = build_schedule(load(*overrides), num_steps=4)
    assert [schedule(step) for step in range(4)] == pytest.approx(expected, rel=1e-12)


def test_the_baseline_receives_every_field_and_the_experiments_seed(load):
    text = "name: small\ncompetition: letters\nseed: 3\nmodel: {name: linear_baseline}\ndata: {name: table}\n"
    overrides = ["model.estimator=linear", "model.max_features=7", "model.char_ngrams=false", "model.strength=2"]
    baseline = build_baseline(load(*overrides, text=text), "multiclass", 4)
    assert isinstance(baseline, TabularBaseline)
    found = (baseline.task, baseline.num_classes, baseline.estimator, baseline.max_features)
    assert found == ("multiclass", 4, "linear", 7)
    assert (baseline.char_ngrams, baseline.strength, baseline.seed) == (False, 2.0, 3)


def test_layer_decay_and_the_heads_own_rate_reach_the_groups(load):
    experiment = load(
        "optimizer.layer_decay=0.5", "optimizer.head_lr=0.1", "optimizer.lr=0.04", "model.tie_embeddings=false"
    )
    model = build_model(experiment, vocab_size=30, num_classes=None, task="text_to_text")
    optimizer = build_optimizer(experiment, model)
    names = {id(param): name for name, param in model.named_parameters()}
    rates = {names[id(param)]: group["lr"] for group in optimizer.param_groups for param in group["params"]}
    assert len(rates) == len(names)
    assert rates["lm_head.weight"] == 0.1
    # One encoder block against two of the decoder: both stacks end at the same depth, and the embedding is lowest.
    assert rates["encoder.block.0.layer.1.DenseReluDense.wo.weight"] == pytest.approx(0.02)
    assert rates["decoder.block.1.layer.2.DenseReluDense.wo.weight"] == pytest.approx(0.02)
    assert rates["decoder.block.0.layer.2.DenseReluDense.wo.weight"] == pytest.approx(0.01)
    assert rates["shared.weight"] == pytest.approx(0.005)


def test_a_tied_head_has_no_rate_of_its_own(load):
    tied = build_model(load(), vocab_size=30, num_classes=None, task="text_to_text")
    experiment = load("optimizer.head_lr=0.1", "model.tie_embeddings=false")
    with pytest.raises(ConfigError, match=r"optimizer.head_lr: 0.1, but the weights' head is the embedding"):
        build_optimizer(experiment, tied)


def test_a_trimmed_checkpoint_is_built_from_its_kept_rows_and_a_runs_own_weights_as_they_are(load, tmp_path):
    source = load("model.tie_embeddings=false")
    published = build_model(source, vocab_size=30, num_classes=None, task="text_to_text")
    save_t5(published, tmp_path / "published")
    text = SMALL.replace(
        SMALL[SMALL.index("model:") : SMALL.index("optimizer:")],
        f"model: {{name: t5_pretrained, checkpoint: {tmp_path / 'published'}, freeze_embeddings: true}}\n"
        "data: {name: text, vocabulary: checkpoint, trim_vocabulary: true}\n",
    )
    experiment = load(text=text)
    kept = (0, 1, 2, 7, 9, 21, 22, 29)
    build = {"vocab_size": 8, "num_classes": None, "task": "text_to_text"}
    model = build_model(experiment, **build, kept_ids=kept)
    assert model.shared.weight.equal(published.shared.weight[list(kept)])
    assert model.lm_head.weight.equal(published.lm_head.weight[list(kept)])
    assert not model.shared.weight.requires_grad
    assert model.lm_head.weight.requires_grad
    save_t5(model, tmp_path / "own")
    again = build_model(experiment, **build, kept_ids=kept, weights=tmp_path / "own")
    assert again.shared.weight.equal(model.shared.weight)
