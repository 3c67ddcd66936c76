"""Activation-checkpointing plans: exact gradients, statistics and random states; bytes kept; every way of training."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import timm
import torch
from activation_stacks import Counting, Residual, build_bert, build_stack
from torch import nn
from torch.distributed import HashStore
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertModel

from components.memory.checkpointing import apply_plan, apply_to_model
from components.memory.measuring import saved_bytes
from components.memory.plans import SegmentPlan, Treatment, UniformPlan, parse_plan
from components.models.bert.checkpoint import BertArchitecture, create_bert
from components.models.t5.checkpoint import T5Architecture, create_t5
from components.models.xcit.model import create_xcit

RECOMPUTING = ["recompute", "recompute/2", "segments", "segments/3", "segments@0,1", "recompute_offload"]
SELECTIVE = ["save_matmuls", "save_attention", "offload"]
REBUILDING = [str(treatment) for treatment in Treatment if treatment.startswith("rebuild")]
MIXED = [
    "keep rebuild recompute save_matmuls",
    "rebuild_all rebuild_sums rebuild_all keep",
    "rebuild_sums recompute rebuild_all*2",
    "keep rebuild_all rebuild rebuild_attention",
]
PLANS = [*RECOMPUTING, *SELECTIVE, *REBUILDING, *MIXED]


@pytest.fixture(scope="module")
def bert():
    return build_bert()


@pytest.fixture(scope="module")
def bert_with_attention_dropout(bert):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**bert[0].config.to_dict() | {"attention_probs_dropout_prob": 0.1})).train()
    return model, [model.encoder.layer], bert[2]


@pytest.fixture(scope="module")
def own_bert():
    """With padding enough to be packed, and masks that the model draws itself."""
    torch.manual_seed(0)
    architecture = BertArchitecture(
        vocab_size=90, hidden_size=64, num_layers=4, num_heads=2, intermediate_size=256, embedding_size=64
    )
    model = create_bert(architecture, num_outputs=3).train()
    ids, labels = torch.randint(1, 90, (6, 40)), torch.arange(6) % 3
    mask = (torch.arange(40) < torch.tensor([40, 30, 20, 10, 10, 5])[:, None]).long()
    layers = nn.ModuleList([model.encoder.embeddings])
    return (
        model,
        [layers, *model.layer_stacks],
        lambda model: model(input_ids=ids, attention_mask=mask, labels=labels).loss,
    )


@pytest.fixture(scope="module")
def t5():
    return build_t5("relu")


@pytest.fixture(scope="module")
def gated_t5():
    return build_t5("gated-gelu")


def build_t5(feed_forward, dropout=0.1):
    torch.manual_seed(0)
    architecture = T5Architecture(90, 64, 16, 96, 4, 4, 4, dropout=dropout, feed_forward=feed_forward)
    model = create_t5(architecture, head="seq2seq").train()
    input_ids, labels = torch.randint(3, 90, (6, 20)), torch.randint(3, 90, (6, 14))
    mask = (torch.arange(20) < torch.tensor([20, 8, 7, 6, 5, 4])[:, None]).long()  # much padding: packed rows
    return (
        model,
        [model.encoder.block, model.decoder.block],
        lambda model: model(input_ids=input_ids, attention_mask=mask, labels=labels).loss,
    )


def build_xcit():
    torch.manual_seed(0)
    model = timm.create_model("xcit_nano_12_p16_224", img_size=64, drop_path_rate=0.3, num_classes=7, drop_rate=0.1)
    model.blocks = nn.ModuleList(model.blocks[:4])
    return model.train()


@pytest.fixture(scope="module")
def xcit():
    model = build_xcit()
    images = torch.randn(4, 3, 64, 64)
    return model, [model.blocks], lambda model: model(images).square().sum()


def build_own_xcit(*, fast):
    """Our own: two blocks of each kind, dropped paths, dropout on attention and before the head."""
    torch.manual_seed(0)
    rates = {"drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.3}
    model = create_xcit("xcit_nano_12_p16_224", num_classes=7, embed_dim=32, num_heads=4, depth=4, fast=fast, **rates)
    images, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    return model.train(), list(model.layer_stacks), lambda model: model(pixel_values=images, labels=labels).loss


@pytest.fixture(scope="module")
def own_xcit():
    return build_own_xcit(fast=True)


@pytest.fixture(scope="module")
def own_plain_xcit():
    return build_own_xcit(fast=False)


def one_step(model, loss, *, seed=1):
    """Loss, gradients, buffers and the random state after a forward and a backward pass."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    value = loss(model)
    value.backward()
    state = {"loss": value.detach(), "random state": torch.get_rng_state()}
    state |= {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return state | {f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


@pytest.mark.parametrize(
    "family",
    ["bert", "bert_with_attention_dropout", "own_bert", "t5", "gated_t5", "xcit", "own_xcit", "own_plain_xcit"],
)
@pytest.mark.filterwarnings("ignore:.*saved_tensors_hooks")
def test_a_step_is_equal_to_the_bit_under_every_plan(family, request):
    model, stacks, loss = request.getfixturevalue(family)
    start = copy.deepcopy(model.state_dict())
    expected = one_step(model, loss)
    assert not torch.equal(one_step(model, loss, seed=2)["loss"], expected["loss"])  # dropout is on
    for plan in PLANS:
        model.load_state_dict(start)
        applied = [apply_plan(stack, parse_plan(plan)) for stack in stacks if len(stack) > 1]
        applied += [apply_plan(stack, parse_plan("rebuild_all")) for stack in stacks if len(stack) == 1]
        try:
            assert_equal(one_step(model, loss), expected)
        finally:
            for handle in applied:
                handle.remove()
    model.load_state_dict(start)


@pytest.mark.parametrize("plan", ["recompute", "segments", "save_matmuls", "rebuild", "rebuild_sums"])
@pytest.mark.filterwarnings("ignore:.*saved_tensors_hooks")
def test_t5_without_dropout_is_equal_to_the_bit_too(plan):
    model, stacks, loss = build_t5("gated-gelu", dropout=0.0)
    expected = one_step(model, loss)
    for stack in stacks:
        apply_plan(stack, parse_plan(plan))
    assert_equal(one_step(model, loss), expected)


@pytest.mark.parametrize("plan", ["recompute", "segments/3", "save_matmuls", "rebuild"])
def test_batch_norm_sees_each_batch_once(plan):
    plain, planned = build_xcit(), build_xcit()
    apply_plan(planned.blocks, parse_plan(plan))
    outcomes = []
    for model in (plain, planned):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in range(5):
            one_step(model, lambda model: model(torch.randn(2, 3, 64, 64)).square().sum(), seed=step)
            optimizer.step()
        outcomes.append(model.state_dict() | {"logits": model.eval()(torch.ones(1, 3, 64, 64)).detach()})
    counts = {int(value) for name, value in outcomes[1].items() if name.endswith("num_batches_tracked")}
    assert counts == {5}
    assert_equal(outcomes[1], outcomes[0])


@pytest.mark.parametrize("plan", ["recompute", "segments", "save_matmuls", "rebuild_linear", "rebuild_sums"])
def test_autocast_is_restored(plan, bert):
    model, (stack,), loss = bert

    def narrow(model):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(model)

    expected, kept = one_step(model, narrow), saved_bytes(lambda: narrow(model))
    with apply_plan(stack, parse_plan(plan)):
        assert_equal(one_step(model, narrow), expected)
        assert saved_bytes(lambda: narrow(model)) < 0.75 * kept


def test_gradients_accumulate(bert):
    model, (stack,), loss = bert
    both = lambda model: loss(model) + loss(model)  # noqa: E731
    expected = one_step(model, both)
    for plan in ("recompute", "segments", "rebuild_linear"):
        with apply_plan(stack, parse_plan(plan)):
            assert_equal(one_step(model, both), expected)


def test_a_kept_graph_is_walked_twice(bert):
    model, (stack,), loss = bert
    inputs = [model.embeddings.word_embeddings.weight, stack[0].output.dense.weight]
    for plan in ("recompute", "segments", "rebuild_wide"):
        with apply_plan(stack, parse_plan(plan)):
            value = loss(model)
            first = torch.autograd.grad(value, inputs, retain_graph=True)
            second = torch.autograd.grad(value, inputs)
        assert all(map(torch.equal, first, second))


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("find_unused_parameters", [False, True])
def test_under_ddp(find_unused_parameters, t5, process_group):
    model, stacks, loss = t5
    expected = one_step(model, loss)
    for plan in ("recompute", "segments", "save_matmuls", "rebuild"):
        handles = [apply_plan(stack, parse_plan(plan)) for stack in stacks]
        wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused_parameters)
        try:
            actual = one_step(wrapped, loss)
        finally:
            for handle in handles:
                handle.remove()
        assert_equal({name.replace("module.", ""): value for name, value in actual.items()}, expected)


def compiled_step(plan):
    model, loss = build_stack(Residual)
    with apply_plan(model.layers, parse_plan(plan)):
        outcome = one_step(torch.compile(model, backend="aot_eager", fullgraph=True), loss)
    torch._dynamo.reset()
    return outcome


@pytest.mark.parametrize("plan", ["segments/2", "keep recompute save_matmuls rebuild_sums"])
def test_compiled(plan):
    planned, plain = compiled_step(plan), compiled_step("none")
    assert planned.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(planned[name], value, rtol=1e-6, atol=1e-6)


# -- what is called how often ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "calls"),
    [
        ("none", [1, 1, 1, 1]),
        ("recompute", [2, 2, 2, 2]),
        ("recompute/3", [2, 1, 1, 2]),
        ("segments/3", [2, 2, 2, 2]),
        ("rebuild_linear", [1, 1, 1, 1]),
        ("keep recompute save_matmuls offload", [1, 2, 2, 1]),
    ],
)
def test_only_the_layers_of_the_plan_run_twice_and_only_in_training(plan, calls):
    model, loss = build_stack()
    with apply_plan(model.layers, parse_plan(plan)):
        loss(model).backward()
        assert [layer.num_calls for layer in model.layers] == calls
        with torch.no_grad():
            loss(model)
        loss(model.eval()).backward()
    model.train()
    loss(model).backward()
    assert [layer.num_calls for layer in model.layers] == [count + 3 for count in calls]


def test_the_model_stays_as_it_was():
    model, loss = build_stack()
    names = list(model.state_dict())
    expected = one_step(copy.deepcopy(model), loss)
    handle = apply_plan(model.layers, parse_plan("segments"))
    assert list(model.state_dict()) == names
    assert all(type(layer) is Counting for layer in model.layers)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.layers[0].narrow.weight.requires_grad_(False)
        assert one_step(twin, loss).keys() == expected.keys() - {"gradient of layers.0.narrow.weight"}
        assert [layer.num_calls for layer in twin.layers] == [2] * 4
    assert [layer.num_calls for layer in model.layers] == [0] * 4
    with pytest.raises(ValueError, match=r"layer 0 already has a plan; remove\(\)"):
        apply_plan(model.layers, UniformPlan())
    handle.remove()
    handle.remove()
    assert all("forward" not in vars(layer) for layer in model.layers)
    assert_equal(one_step(model, loss), expected)


def test_embeddings_are_had_again_from_the_ids(own_bert):
    model, _, loss = own_bert
    expected, bytes_of = one_step(model, loss), {}
    for plan in ("rebuild_sums", "embeddings+rebuild_sums"):
        applied = apply_to_model(model, parse_plan(plan))
        assert_equal(one_step(model, loss), expected)
        bytes_of[plan] = saved_bytes(lambda: loss(model))
        for one in applied:
            one.remove()
    real_tokens, width = 111, 64
    saved = bytes_of["rebuild_sums"] - bytes_of["embeddings+rebuild_sums"]
    assert saved >= real_tokens * width * 4  # the argument of the embeddings' norm, at least
    assert_equal(one_step(model, loss), expected)


def test_a_model_without_embeddings_or_layers_is_refused(own_xcit):
    with pytest.raises(ValueError, match=r"embeddings\+none: XCiT has no embeddings .*; write none"):
        apply_to_model(own_xcit[0], parse_plan("embeddings+none"))
    with pytest.raises(ValueError, match="activation plan rebuild: Linear has no layers that a plan could treat"):
        apply_to_model(nn.Linear(2, 2), parse_plan("rebuild"))


def test_a_layer_given_twice_is_refused():
    layer = Residual()
    with pytest.raises(ValueError, match="twice"):
        apply_plan([layer, layer], UniformPlan(Treatment.RECOMPUTE))


# -- segments --------------------------------------------------------------------------------------------------------


def test_segments_refuse_layers_called_with_different_arguments():
    model, loss = build_stack()
    model.scales = [1.0, 1.0, 1.0, 0.5]
    with apply_plan(model.layers, SegmentPlan(2)), pytest.raises(RuntimeError, match="layer 3 was called with other"):
        loss(model)
    planned = []
    for plan in (SegmentPlan(2), UniformPlan()):
        model, loss = build_stack()
        model.scales = [1.0, 1.0, 0.5, 0.5]  # alike within each segment
        with apply_plan(model.layers, plan):
            planned.append(one_step(model, loss))
    assert_equal(*planned)


def test_segments_refuse_hidden_states_changed_between_layers():
    model, loss = build_stack()
    model.layers[1].register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))
    with (
        apply_plan(model.layers, SegmentPlan(2)),
        pytest.raises(RuntimeError, match=r"layer 1 .* use a plan per layer"),
    ):
        loss(model)


def test_segments_pass_on_what_every_layer_returned(bert):
    model, (stack,), _ = bert
    ids = torch.arange(1, 81).view(2, 40)
    torch.manual_seed(3)
    expected = model(input_ids=ids, output_hidden_states=True).hidden_states
    with apply_plan(stack, SegmentPlan(4)):
        torch.manual_seed(3)
        actual = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(expected) == 5
    assert all(map(torch.equal, actual, expected))


class Pair(Residual):
    def forward(self, *, hidden, scale):
        return super().forward(hidden, scale), hidden.mean()


def test_segments_of_layers_with_named_arguments_and_several_results():
    def run(plan):
        torch.manual_seed(0)
        layers = nn.ModuleList(Pair() for _ in range(3)).train()
        with apply_plan(layers, plan) if plan else nullcontext():
            hidden, means = torch.linspace(-1, 1, 96 * 64).view(96, 64), []
            for layer in layers:
                hidden, mean = layer(hidden=hidden, scale=0.5)
                means.append(mean)
            (hidden.square().sum() + sum(means)).backward()
        return [torch.stack(means).detach(), *(p.grad for p in layers.parameters())]

    assert all(map(torch.equal, run(SegmentPlan(3)), run(None)))


def test_a_segment_whose_first_layer_is_dropped():
    model, loss = build_stack()
    with apply_plan(model.layers, SegmentPlan(2)):
        loss(model).backward()
        hidden = torch.ones(96, 64, requires_grad=True)
        model.layers[3](model.layers[1](hidden)).sum().backward()
    assert [layer.num_calls for layer in model.layers] == [2, 4, 2, 4]
    assert hidden.grad is not None
