"""Parameter groups on real models: every trainable parameter once, and decay only where it is meant."""

import math

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from components.models.t5.checkpoint import T5Architecture, create_t5
from components.optim.adafactor.optimizer import Adafactor
from components.optim.layer_decay import measure_depths
from components.optim.param_groups import build_param_groups, freeze_embeddings
from components.optim.schedules import apply_schedule, build_cosine


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


# -- layer-wise decay ------------------------------------------------------------------------------------------------


def build_our_t5(**changes):
    """Two encoder blocks beside one decoder block: what is written out below tells series from side by side."""
    sizes = {"vocab_size": 32, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_decoder_layers": 1}
    return create_t5(T5Architecture(**sizes, num_heads=2, **changes), head="seq2seq")


def build_bert():
    config = BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    return BertForSequenceClassification(config)


def rates_by_name(model, groups):
    names = {id(param): name for name, param in model.named_parameters()}
    return {names[id(param)]: group["lr"] for group in groups for param in group["params"]}


def t5_block(prefix, rate, *, is_first, is_decoder):
    """Rate by name of one T5 block."""
    attentions = ["SelfAttention", "EncDecAttention"] if is_decoder else ["SelfAttention"]
    rates = {}
    for index, attention in enumerate(attentions):
        rates |= {f"{prefix}.layer.{index}.{attention}.{matrix}.weight": rate for matrix in "qkvo"}
        if is_first and index == 0:
            rates[f"{prefix}.layer.0.SelfAttention.relative_attention_bias.weight"] = rate
        rates[f"{prefix}.layer.{index}.layer_norm.weight"] = rate
    last = len(attentions)
    rates |= {f"{prefix}.layer.{last}.DenseReluDense.{matrix}.weight": rate for matrix in ("wi_0", "wi_1", "wo")}
    return rates | {f"{prefix}.layer.{last}.layer_norm.weight": rate}


T5_RATES = {
    "shared.weight": 0.125,
    **t5_block("encoder.block.0", 0.25, is_first=True, is_decoder=False),
    **t5_block("encoder.block.1", 0.5, is_first=False, is_decoder=False),
    "encoder.final_layer_norm.weight": 0.5,
    **t5_block("decoder.block.0", 0.5, is_first=True, is_decoder=True),
    "decoder.final_layer_norm.weight": 0.5,
    "lm_head.weight": 1.0,
}
BERT_LAYER = (
    *(
        f"attention.{matrix}.{kind}"
        for matrix in ("self.query", "self.key", "self.value")
        for kind in ("weight", "bias")
    ),
    *(f"attention.output.{part}.{kind}" for part in ("dense", "LayerNorm") for kind in ("weight", "bias")),
    *(f"{part}.{kind}" for part in ("intermediate.dense", "output.dense") for kind in ("weight", "bias")),
    *(f"output.LayerNorm.{kind}" for kind in ("weight", "bias")),
)
BERT_RATES = {
    **{f"bert.embeddings.{kind}_embeddings.weight": 0.125 for kind in ("word", "position", "token_type")},
    **{f"bert.embeddings.LayerNorm.{kind}": 0.125 for kind in ("weight", "bias")},
    **{f"bert.encoder.layer.0.{name}": 0.25 for name in BERT_LAYER},
    **{f"bert.encoder.layer.1.{name}": 0.5 for name in BERT_LAYER},
    **{f"bert.pooler.dense.{kind}": 1.0 for kind in ("weight", "bias")},
    **{f"classifier.{kind}": 1.0 for kind in ("weight", "bias")},
}


def test_rate_of_every_parameter_of_a_t5():
    """The short decoder ends where the long encoder ends; untied, so that the head is a matrix of its own."""
    model = build_our_t5()
    groups = build_param_groups(model, weight_decay=0.1, lr=1.0, layer_decay=0.5)
    assert rates_by_name(model, groups) == T5_RATES


def test_our_t5_and_transformers_have_the_same_depths():
    """Theirs is tied: the head is the embedding, and stays at the bottom; the rest does not move for that."""
    config = T5Config(
        vocab_size=32, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_decoder_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    groups = build_param_groups(model, weight_decay=0.1, lr=1.0, layer_decay=0.5)
    assert rates_by_name(model, groups) == {name: T5_RATES[name] for name in T5_RATES if name != "lm_head.weight"}


def test_rate_of_every_parameter_of_a_bert():
    model = build_bert()
    groups = build_param_groups(model, weight_decay=0.1, lr=1.0, layer_decay=0.5)
    assert rates_by_name(model, groups) == BERT_RATES


def test_layers_decay_head_rate_and_frozen_parts_combine():
    """Ten groups, from the bottom up, decayed before undecayed; the frozen word embedding is in none."""
    model = build_bert()
    freeze_embeddings(model)
    groups = build_param_groups(
        model, weight_decay=0.1, lr=2.0, head_lr=30.0, head_prefixes=["classifier"], layer_decay=0.5
    )
    described = [(group["name"], group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    assert described == [
        ("body_0_decay", 0.25, 0.1, 2),
        ("body_0_no_decay", 0.25, 0.0, 2),
        ("body_1_decay", 0.5, 0.1, 6),
        ("body_1_no_decay", 0.5, 0.0, 10),
        ("body_2_decay", 1.0, 0.1, 6),
        ("body_2_no_decay", 1.0, 0.0, 10),
        ("body_3_decay", 2.0, 0.1, 1),
        ("body_3_no_decay", 2.0, 0.0, 1),
        ("head_decay", 30.0, 0.1, 1),
        ("head_no_decay", 30.0, 0.0, 1),
    ]


def test_a_decay_of_one_leaves_every_rate_alike():
    model = build_bert()
    groups = build_param_groups(model, weight_decay=0.1, lr=3e-4, layer_decay=1.0)
    assert set(rates_by_name(model, groups).values()) == {3e-4}


@pytest.mark.parametrize("scale_parameter", [True, False])
def test_ratios_outlive_schedule_and_parameter_scale(scale_parameter):
    """alpha_t = factor of the schedule * rate of the layer * max(eps2, RMS(parameter)), by Adafactor's own account."""
    model = build_our_t5().double()
    optimizer = Adafactor(
        build_param_groups(model, weight_decay=0.0, lr=1e-2, layer_decay=0.5),
        relative_step=False,
        scale_parameter=scale_parameter,
    )
    schedule = build_cosine(num_steps=4, num_warmup_steps=2, final_factor=0.0)
    names = {id(param): name for name, param in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        scales = {name: max(1e-3, float(p.detach().square().mean().sqrt())) for name, p in model.named_parameters()}
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        apply_schedule(optimizer, schedule(step))
        optimizer.step()
        applied = {
            names[id(optimizer.param_groups[group]["params"][index])]: rate
            for group, index, rate in optimizer.effective_lrs()
        }
        expected = {
            name: 1e-2 * T5_RATES[name] * schedule(step) * (scales[name] if scale_parameter else 1.0)
            for name in T5_RATES
        }
        assert applied == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "depths", "of_head"),
    [
        # 12 blocks, then 2 blocks of class attention in series; the norm goes with the last of them.
        (
            "xcit_nano_12_p16_224",
            {"cls_token": 0, "blocks.11.norm1.weight": 12, "cls_attn_blocks.0.mlp.fc1.bias": 13},
            15,
        ),
        ("vit_tiny_patch16_224", {"pos_embed": 0, "patch_embed.proj.bias": 0, "blocks.0.attn.qkv.bias": 1}, 13),
    ],
)
def test_a_timm_model_tells_its_own_depths(name, depths, of_head):
    """Here `timm.optim.param_groups_layer_decay` is the reference, parameter by parameter."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3)
    reference = param_groups_layer_decay(model, layer_decay=0.75)
    names = {id(param): name for name, param in model.named_parameters()}
    scales = {names[id(param)]: group["lr_scale"] for group in reference for param in group["params"]}
    groups = build_param_groups(model, weight_decay=0.05, lr=1.0, layer_decay=0.75)
    assert rates_by_name(model, groups) == pytest.approx(scales, rel=1e-12)
    found = measure_depths(model)
    assert {key: found.by_name[key] for key in depths} == depths
    assert found.by_name["norm.weight"] == of_head - 1
    assert found.by_name["head.weight"] == found.of_head == of_head


def test_a_head_around_a_timm_model_is_the_head():
    with torch.device("meta"):
        backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
        found = measure_depths(nn.ModuleDict({"backbone": backbone, "pairs": nn.Linear(192, 2)}))
    assert (found.of_head, found.by_name["pairs.bias"], found.by_name["backbone.norm.bias"]) == (13, 13, 12)


def test_what_stands_around_the_blocks_of_bart():
    """It registers the norm of its embeddings after its blocks, and a decoder's positions after the encoder."""
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = BartConfig(vocab_size=16, d_model=8, encoder_attention_heads=2, decoder_attention_heads=2, **sizes)
    found = measure_depths(nn.ModuleDict({"embedder": BartModel(config), "pooler": nn.Linear(8, 8)}))
    outer = {name: depth for name, depth in found.by_name.items() if ".layers." not in name}
    stacks = ("encoder", "decoder")
    assert outer == {
        "embedder.shared.weight": 0,
        **{f"embedder.{stack}.embed_positions.weight": 0 for stack in stacks},
        **{f"embedder.{stack}.layernorm_embedding.{kind}": 0 for stack in stacks for kind in ("weight", "bias")},
        "pooler.weight": 3,
        "pooler.bias": 3,
    }
    firsts = ("encoder.layers.0", "decoder.layers.0", "decoder.layers.1")
    assert [found.by_name[f"embedder.{block}.fc1.weight"] for block in firsts] == [2, 1, 2]


class Mixer(nn.Module):
    """Blocks in a Sequential, with a module between and a norm at the end."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.low = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2)))
        self.bridge = nn.Linear(4, 4)
        self.high = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
        self.final_norm = nn.LayerNorm(4)
        self.head = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])


def test_stacks_can_be_named_where_they_cannot_be_found():
    model = Mixer()
    with pytest.raises(ValueError, match=r"found no stack of blocks in Mixer .*name the module that holds the blocks"):
        measure_depths(model)
    assert measure_depths(model, stacks=["low", "high"]).by_name == {
        "cls_token": 0,
        **{f"low.{block}.0.{kind}": block + 1 for block in range(2) for kind in ("weight", "bias")},
        **{f"bridge.{kind}": 2 for kind in ("weight", "bias")},
        **{f"high.0.0.{kind}": 3 for kind in ("weight", "bias")},
        **{f"final_norm.{kind}": 3 for kind in ("weight", "bias")},
        **{f"head.{part}.{kind}": 4 for part in range(2) for kind in ("weight", "bias")},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_decay": 0.5}, r"layer_decay=0.5 needs the lr that it scales; .*relative_step=True"),
        ({"layer_decay": 0.0, "lr": 1.0}, r"layer_decay=0.0 must lie in \(0, 1\]"),
        ({"layer_decay": 1.5, "lr": 1.0}, r"layer_decay=1.5 must lie in"),
        ({"layer_decay": math.nan, "lr": 1.0}, "layer_decay=nan must lie in"),
        ({"layer_decay": 0.5, "lr": 1.0, "stacks": ["low.0.0"]}, "'low.0.0' is no module of Mixer that holds blocks"),
        ({"stacks": ["low"]}, "serve layer_decay only"),
    ],
)
def test_wrong_layer_decays_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_param_groups(Mixer(), weight_decay=0.0, **arguments)


def test_freezing_our_t5s_embedding_leaves_its_position_biases_trainable():
    """Both are nn.Embedding, and ours names no input embedding as transformers' models do."""
    for tie_embeddings in (False, True):
        assert freeze_embeddings(build_our_t5(tie_embeddings=tie_embeddings)) == ["shared.weight"]
