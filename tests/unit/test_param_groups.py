"""Parameter groups on real models: every trainable parameter once, and decay only where it is meant."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from components.optim.adafactor import Adafactor
from components.optim.param_groups import build_param_groups, freeze_embeddings


class Tower(nn.Module):
    """One parameter of each kind that the rules tell apart."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.temperature = nn.Parameter(torch.ones(()))
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm((2, 4))
        self.head = nn.Linear(4, 3)
        self.head_scale = nn.Parameter(torch.ones(2, 2))

    def no_weight_decay(self):
        return {"cls_token"}


def build_t5():
    config = T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5ForConditionalGeneration(config)


def names_by_group(model, groups):
    names = {id(param): name for name, param in model.named_parameters()}
    return {group["name"]: [names[id(param)] for param in group["params"]] for group in groups}


def test_every_kind_of_parameter_is_in_its_group():
    model = Tower()
    groups = build_param_groups(model, weight_decay=0.1, head_prefixes=["head"])
    assert names_by_group(model, groups) == {
        "body_decay": ["head_scale", "embedding.weight", "linear.weight"],
        "body_no_decay": ["cls_token", "temperature", "linear.bias", "norm.weight", "norm.bias"],
        "head_decay": ["head.weight"],
        "head_no_decay": ["head.bias"],
    }
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    assert all("lr" not in group for group in groups)


def test_embeddings_can_be_left_undecayed():
    model = Tower()
    groups = build_param_groups(model, weight_decay=0.1, decay_embeddings=False)
    assert names_by_group(model, groups)["body_decay"] == ["head_scale", "linear.weight", "head.weight"]


def test_head_has_its_own_rate():
    model = Tower()
    groups = build_param_groups(model, weight_decay=0.0, lr=1e-3, head_lr=1e-2, head_prefixes=["head", "head_scale"])
    assert {group["name"]: group["lr"] for group in groups} == {
        "body_decay": 1e-3,
        "body_no_decay": 1e-3,
        "head_decay": 1e-2,
        "head_no_decay": 1e-2,
    }
    assert names_by_group(model, groups)["head_decay"] == ["head_scale", "head.weight"]


def test_head_without_a_rate_of_its_own_has_the_bodys():
    groups = build_param_groups(Tower(), weight_decay=0.0, lr=1e-3, head_prefixes=["head"])
    assert [group["lr"] for group in groups] == [1e-3] * 4


def test_names_of_a_wrapped_models_own_exemptions_are_found():
    model = nn.ModuleDict({"backbone": Tower()})
    undecayed = names_by_group(model, build_param_groups(model, weight_decay=0.1))["body_no_decay"]
    assert undecayed[0] == "backbone.cls_token"


def test_shared_and_frozen_parameters():
    model = build_t5()
    assert model.lm_head.weight is model.shared.weight
    trainable = {name for name, _ in model.named_parameters()}
    groups = names_by_group(model, build_param_groups(model, weight_decay=0.01))
    assert sorted(groups["body_decay"] + groups["body_no_decay"]) == sorted(trainable)
    assert all(name.endswith("layer_norm.weight") for name in groups["body_no_decay"])
    assert len(groups["body_no_decay"]) == 7

    assert freeze_embeddings(model) == ["shared.weight"]
    groups = names_by_group(model, build_param_groups(model, weight_decay=0.01))
    assert sorted(groups["body_decay"] + groups["body_no_decay"]) == sorted(trainable - {"shared.weight"})


def test_freezing_embeddings_leaves_position_biases_trainable():
    """T5 keeps its relative position biases in nn.Embedding too; a wrapper around the model changes nothing."""
    model = nn.ModuleDict({"wrapped": build_t5()})
    assert freeze_embeddings(model) == ["wrapped.shared.weight"]
    biases = [param for name, param in model.named_parameters() if "relative_attention_bias" in name]
    assert [param.requires_grad for param in biases] == [True, True]


def test_freezing_embeddings_of_bert_and_of_a_plain_module():
    config = BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    assert freeze_embeddings(BertForSequenceClassification(config)) == ["bert.embeddings.word_embeddings.weight"]
    assert freeze_embeddings(Tower()) == ["embedding.weight"]


def test_groups_train_what_they_name_and_nothing_else():
    model = Tower()
    freeze_embeddings(model)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    groups = build_param_groups(model, weight_decay=0.5, lr=1e-2)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    Adafactor(groups, relative_step=False).step()
    changed = [name for name, param in model.named_parameters() if not torch.equal(param, before[name])]
    assert changed == ["head_scale", "linear.weight", "head.weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head_lr": 1e-3}, "head_lr=0.001 needs head_prefixes"),
        ({"head_prefixes": ["classifier"]}, "'classifier' matches no parameter; the model's parts are cls_token, "),
        ({"head_prefixes": ["hea"]}, "'hea' matches no parameter"),
    ],
)
def test_wrong_heads_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_param_groups(Tower(), weight_decay=0.0, **arguments)


def test_nothing_to_train_or_to_freeze_is_refused():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="none of the 2 parameters of Linear is trainable; freeze fewer"):
        build_param_groups(model, weight_decay=0.0)
    with pytest.raises(ValueError, match="Linear has no embeddings to freeze"):
        freeze_embeddings(model)
