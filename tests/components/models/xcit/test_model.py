"""XCiT against timm's, on both of its paths."""

import copy

import pytest
import timm
import torch
from torch.nn import functional

from components.memory.checkpointing import apply_plan
from components.memory.plans import parse_plan
from components.models.xcit.architecture import read_name
from components.models.xcit.fast.attention import is_gram
from components.models.xcit.folding import fold_for_inference
from components.models.xcit.layers import XCA
from components.models.xcit.model import PUBLISHED, create_xcit
from components.optim.param_groups import build_param_groups

NANO = "xcit_nano_12_p16_224"


def build_twins(name, *, size, batch=2, **settings):
    """timm's model, ours with its weights moved off their first values, and images, all in float64."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, **settings)
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours = create_xcit(name, **settings)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(batch, settings.get("in_chans", 3), *size, dtype=torch.float64)
    return theirs.double(), ours.double(), images


def assert_same_gradients(ours, theirs, tolerance=1e-10):
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert {name for name, _ in ours.named_parameters()} == set(expected)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=tolerance, atol=tolerance, msg=name)


def train_once(model, images, seed=0):
    torch.manual_seed(seed)
    output = model(images)
    logits = getattr(output, "logits", output)
    torch.sin(logits * 3.0).sum().backward()
    return logits.detach()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("name", "size"),
    [(NANO, (64, 96)), ("xcit_tiny_12_p8_224", (32, 56)), ("xcit_nano_12_p8_224", (128, 120)), (NANO, (65, 40))],
    ids=["p16", "norm on tokens", "gram form", "no multiple of the patch"],
)
def test_logits_gradients_and_statistics_are_timms(name, size, fast):
    theirs, ours, images = build_twins(name, size=size, num_classes=5)
    ours.set_fast(fast)
    torch.testing.assert_close(train_once(ours, images), train_once(theirs, images), rtol=1e-10, atol=1e-10)
    assert_same_gradients(ours, theirs)
    buffers = dict(ours.named_buffers())
    for key, expected in theirs.named_buffers():
        torch.testing.assert_close(buffers[key], expected, rtol=1e-10, atol=1e-10, msg=key)
    torch.testing.assert_close(ours.eval()(images).logits, theirs.eval()(images), rtol=1e-10, atol=1e-10)
    features = ours.forward_features(images)
    torch.testing.assert_close(features, theirs.forward_features(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.endswith("_224")])
def test_every_width_computes_timms_numbers(name):
    theirs, _, images = build_twins(name, size=(64, 96), num_classes=3, depth=1)
    ours = create_xcit(name, num_classes=3, depth=1).double()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(train_once(ours, images), train_once(theirs, images), rtol=1e-10, atol=1e-10)
    assert_same_gradients(ours, theirs)


def test_the_gram_case_above_is_one():
    assert is_gram(16 * 15, 128, torch.float64)
    assert not is_gram(4 * 6, 128, torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_size_has_timms_tensors(name):
    with torch.device("meta"):
        model, peer = create_xcit(name), timm.create_model(name)
    ours, theirs = model.state_dict(), peer.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert read_name(name).tokens_norm == peer.cls_attn_blocks[0].tokens_norm
    assert read_name(name).img_size == timm.get_pretrained_cfg(name).input_size[1]


def test_the_published_names_are_timms():
    assert sorted(PUBLISHED) == sorted(timm.list_models("xcit_*"))
    assert len(PUBLISHED) == 28


def test_first_scales_are_as_published():
    assert {read_name(name).eta for name in PUBLISHED if "_24_" in name} == {1e-5}
    assert {read_name(name).eta for name in PUBLISHED if "_12_" in name} == {1.0}
    theirs = timm.create_model("xcit_tiny_24_p16_224").blocks[0].gamma1.detach()
    assert torch.equal(theirs, torch.full((192,), 1e-5))


@pytest.mark.parametrize("size", [(32, 32), (96, 144)], ids=["standard", "gram"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_both_paths_are_one_with_every_rate_on(norm, size):
    torch.manual_seed(3)
    rates = {"attn_drop_rate": 0.2, "drop_path_rate": 0.3, "drop_rate": 0.1}
    plain = create_xcit(
        "xcit_tiny_12_p4_32", num_classes=3, in_chans=1, embed_dim=32, depth=3, norm=norm, **rates, fast=False
    ).double()
    for parameter in plain.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    fast = copy.deepcopy(plain)
    fast.set_fast(True)
    images = torch.randn(4, 1, *size, dtype=torch.float64)
    for seed in (1, 2):
        expected = train_once(plain, images, seed)
        torch.testing.assert_close(train_once(fast, images, seed), expected, rtol=1e-11, atol=1e-11)
    assert_same_gradients(fast, plain)
    for (key, value), (_, expected) in zip(fast.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12, msg=key)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_pixels_and_frozen_norms_have_the_plain_gradients(norm):
    torch.manual_seed(4)
    plain = create_xcit("xcit_nano_12_p8_64", num_classes=3, embed_dim=32, depth=2, norm=norm, fast=False).double()
    plain.train()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    fast = copy.deepcopy(plain)
    fast.set_fast(True)
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64)
    grads = []
    for model in (plain, fast):
        pixels = images.clone().requires_grad_()
        train_once(model, pixels)
        grads.append(pixels.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-10, atol=1e-10)
    assert_same_gradients(fast, plain)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("size", [64, 320], ids=["standard", "gram"])
def test_attention_dropout_is_honoured(fast, size):
    """timm's fused attention computes the same for every seed."""
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=1, attn_drop_rate=0.5, fast=fast).train()
    images = torch.randn(2, 3, size, size)
    for block in model.cls_attn_blocks:
        block.attn.attn_drop.p = 0.0
    first, again, other = (train_once(model, images, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    for layer in model.modules():
        if isinstance(layer, XCA):
            layer.attn_drop.p = 0.0
    assert torch.equal(train_once(model, images, 1), train_once(model, images, 2))


def test_positions_first_asked_for_in_inference_mode_serve_training():
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=1)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        model(images)
    model(images).logits.sum().backward()
    assert model.pos_embed.token_projection.weight.grad.abs().sum() > 0


def test_exempt_from_weight_decay():
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=1)
    decayed, kept = build_param_groups(model, weight_decay=0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    exempt = {names[id(parameter)] for parameter in kept["params"]}
    assert {"cls_token", "blocks.0.attn.temperature", "blocks.0.gamma1", "pos_embed.token_projection.weight"} <= exempt
    assert "blocks.0.attn.qkv.weight" not in exempt


def test_incoming_gradients_are_left_alone():
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=1).train()
    tokens = torch.randn(2, 16, 32, requires_grad=True)
    out = model.blocks[0](tokens, 4, 4)
    incoming = torch.randn_like(out)
    kept = incoming.clone()
    out.backward(incoming)
    assert torch.equal(incoming, kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [64, 272], ids=["standard", "gram"])
def test_autocast_is_as_near_to_float32_as_the_plain_path(dtype, size):
    torch.manual_seed(5)
    images, labels = torch.randn(2, 3, size, size), torch.tensor([0, 2])
    model = create_xcit("xcit_nano_12_p16_224", num_classes=3, embed_dim=32, depth=2)

    def gradient(fast, *, enabled):
        model.set_fast(fast)
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = model(images, labels).loss
        loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    exact = gradient(False, enabled=False)
    errors = [float((gradient(fast, enabled=True) - exact).norm() / exact.norm()) for fast in (False, True)]
    assert errors[1] < max(1.5 * errors[0], 2e-3)


def test_a_model_in_bfloat16_trains():
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=2).bfloat16()
    model(torch.randn(2, 3, 64, 64).bfloat16(), torch.tensor([0, 1])).loss.backward()
    assert all(p.grad.dtype == torch.bfloat16 and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_compiles_as_one_graph_for_all_sizes():
    torch._dynamo.reset()
    model = create_xcit("xcit_nano_12_p2_8", num_classes=3, embed_dim=16, depth=1).eval()
    graphs = []
    compiled = torch.compile(
        model, backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True, dynamic=True
    )
    for shape in ((2, 3, 8, 12), (3, 3, 16, 10), (4, 3, 6, 18)):
        images = torch.randn(shape)
        torch.testing.assert_close(compiled(images).logits, model(images).logits, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1


def test_a_compiled_step_has_the_gradients():
    torch._dynamo.reset()
    torch.manual_seed(9)
    model = create_xcit("xcit_nano_12_p2_8", num_classes=3, embed_dim=16, depth=1)
    images, labels = torch.randn(2, 3, 8, 12), torch.tensor([0, 2])
    model(images, labels).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    torch.compile(model, backend="aot_eager", fullgraph=True)(images, labels).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("plan", ["recompute", "recompute/2", "rebuild", "offload"])
def test_checkpointed_steps_leave_every_number_as_it_is(plan):
    torch.manual_seed(6)
    plain = create_xcit(NANO, num_classes=3, embed_dim=32, depth=4, drop_path_rate=0.2, attn_drop_rate=0.1).train()
    treated = copy.deepcopy(plain)
    with apply_plan(treated.blocks, parse_plan(plan)):
        for step in range(5):
            images = torch.randn(4, 3, 64, 64)
            assert torch.equal(train_once(treated, images, step), train_once(plain, images, step))
    for (key, value), (_, expected) in zip(treated.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.equal(value, expected), key
    for (key, value), (_, expected) in zip(treated.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(value.grad, expected.grad), key
    assert int(treated.blocks[0].local_mp.bn.num_batches_tracked) == 5


def test_synchronised_norms_take_the_plain_way():
    torch.manual_seed(7)
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=1).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model(images).logits
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    torch.testing.assert_close(converted(images).logits, expected)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_the_stem_of_a_single_image_has_the_true_gradients(fast, in_chans):
    """Where timm's are wrong on a CPU: a fault of torch's BatchNorm with transposed gradients and a batch of one."""
    torch.manual_seed(10)
    model = create_xcit("xcit_nano_12_p4_32", num_classes=3, embed_dim=8, depth=1, in_chans=in_chans, fast=fast)
    model = model.double().train()
    images = torch.randn(1, in_chans, 16, 24, dtype=torch.float64)
    weights = torch.randn(1, 24, 8, dtype=torch.float64)
    parameters = list(model.patch_embed.parameters())
    loss = (model.embed(images)[0] * weights).sum()
    grads = torch.autograd.grad(loss, parameters)
    for parameter, grad in zip(parameters, grads, strict=True):
        direction = torch.randn_like(parameter)
        losses = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += step * direction
                losses.append(float((model.embed(images)[0] * weights).sum()))
                parameter -= step * direction
        slope = (losses[0] - losses[1]) / 2e-6
        assert float((grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_every_patch_size_has_its_grid(patch):
    model = create_xcit(f"xcit_nano_12_p{patch}_32", num_classes=3, in_chans=5, embed_dim=32, depth=1)
    tokens, height, width = model.embed(torch.randn(1, 5, 32, 48))
    assert (height, width) == (32 // patch, 48 // patch)
    assert tokens.shape == (1, height * width, 32)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_one_image_has_half_the_gradients_of_itself_twice(fast, is_training):
    # timm's has not: torch's BatchNorm misreads the strides of one image's transposed gradient
    torch.manual_seed(3)
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=1, fast=fast).double().train(is_training)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    gradients = []
    for images in (image, torch.cat([image, image])):
        model.zero_grad()
        train_once(model, images)
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(2.0 * one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("side", [64, 192])  # by tokens and by their moments
def test_folding_changes_nothing(side):
    torch.manual_seed(8)
    model = create_xcit(NANO, num_classes=3, embed_dim=32, depth=2)
    for block in model.blocks:
        for gamma in (block.gamma1, block.gamma2, block.gamma3):
            torch.nn.init.uniform_(gamma, 0.5, 1.5)
    images = torch.randn(2, 3, side, side)
    for _ in range(3):
        model.train()(images)
    expected = model.eval()(images).logits
    folded = fold_for_inference(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.patch_embed.modules())
    assert [name for name, _ in folded.blocks.named_parameters() if "gamma" in name] == []
    kept = images.clone()
    torch.testing.assert_close(folded(images).logits, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(images, kept)
    folded.set_fast(False)  # what torch.compile and export see
    torch.testing.assert_close(folded(images).logits, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(images).logits, expected, rtol=0, atol=0)


def test_losses_take_classes_shares_and_decisions():
    images = torch.randn(4, 3, 32, 32)
    small = {"embed_dim": 32, "depth": 1}
    model = create_xcit(NANO, num_classes=3, label_smoothing=0.1, **small)
    labels = torch.tensor([0, 2, 1, 1])
    output = model(images, labels)
    assert torch.equal(output.loss, functional.cross_entropy(output.logits, labels, label_smoothing=0.1))
    shares = functional.one_hot(labels, 3).double()
    torch.testing.assert_close(model(images, shares).loss, output.loss)
    model = create_xcit(NANO, num_classes=1, loss="binary_cross_entropy", **small)
    output = model(images, torch.tensor([0, 1, 1, 0]))
    expected = functional.binary_cross_entropy_with_logits(output.logits[:, 0], torch.tensor([0.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "xcit_nano_16_p16_224"}, "no XCiT has this name.*xcit_nano_12_p16_224"),
        ({"name": NANO, "patch_size": 6}, "patch_size: must be one of 2, 4, 8, 16, not 6"),
        ({"name": NANO, "norm": "layer"}, "norm: must be one of batch, group"),
        ({"name": NANO, "embed_dim": 40, "num_heads": 3}, "multiple of num_heads"),
        ({"name": NANO, "drop_path_rate": 1.0}, r"drop_path_rate: must be in \[0, 1\)"),
        ({"name": NANO, "loss": "hinge"}, "loss: must be one of cross_entropy"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_xcit(**arguments)


def test_images_of_other_channels_are_refused():
    model = create_xcit(NANO, num_classes=3, in_chans=1, embed_dim=32, depth=1)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 32, 32\), but this model takes \(batch, 1, height, width\)"):
        model(torch.randn(2, 3, 32, 32))
