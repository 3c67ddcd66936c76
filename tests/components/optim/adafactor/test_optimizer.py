"""Adafactor against the paper in float64, against transformers, and against the bugs that others shipped."""

import copy
import io

import numpy as np
import pytest
import torch
from adafactor_reference import (
    EXTERNAL,
    MODES,
    build_params,
    paper_step,
    random_gradients,
    run_steps,
    set_gradients,
)
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from transformers.optimization import Adafactor as TransformersAdafactor

from components.optim.adafactor.optimizer import Adafactor

SHAPES = ((7,), (5, 11), (2, 3, 4))


@pytest.mark.parametrize("options", MODES)
def test_equals_the_paper_over_200_steps(options):
    params = {dtype: build_params(SHAPES, dtype) for dtype in (torch.float32, torch.float64)}
    optimizers = {dtype: Adafactor(params[dtype], **options) for dtype in params}
    expected = [param.detach().numpy().astype(np.float64) for param in params[torch.float32]]
    states = [{} for _ in SHAPES]
    for t, gradients in enumerate(random_gradients(SHAPES, 200), start=1):
        for dtype, optimizer in optimizers.items():
            set_gradients(params[dtype], gradients)
            optimizer.step()
        for i, gradient in enumerate(gradients):
            expected[i] = paper_step(expected[i], gradient.astype(np.float64), states[i], t, options)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        for param, value in zip(params[dtype], expected, strict=True):
            error = np.linalg.norm(param.detach().double().numpy() - value) / np.linalg.norm(value)
            assert error <= tolerance, f"{dtype} {tuple(param.shape)}: {error:.1e}"


@pytest.mark.parametrize("constants", [{}, {"eps": (1e-2, 0.5), "clip_threshold": 0.7, "decay_rate": -0.4}], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (1, 6), (6, 1), (3, 2, 3, 3)], ids=str)
def test_equals_the_paper_on_unusual_shapes_and_constants(shape, constants):
    options = {**EXTERNAL, **constants, "scale_parameter": True, "beta1": 0.9, "weight_decay": 0.1}
    (param,) = build_params([shape], torch.float64)
    optimizer, expected, state = Adafactor([param], **options), param.detach().numpy().copy(), {}
    rng = np.random.default_rng(0)
    for t in range(1, 21):
        gradient = rng.standard_normal(shape)
        param.grad = torch.as_tensor(gradient)
        optimizer.step()
        expected = paper_step(expected, np.asarray(gradient), state, t, options)
    np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", MODES)
def test_equals_transformers_where_both_are_right(options):
    """No closure, no AdafactorSchedule, no rows whose averages underflow: there the two must agree in every mode."""
    ours, theirs = build_params(SHAPES), build_params(SHAPES)
    run_steps(Adafactor(ours, **options), ours, random_gradients(SHAPES, 25))
    run_steps(TransformersAdafactor(theirs, **options), theirs, random_gradients(SHAPES, 25))
    for our, their in zip(ours, theirs, strict=True):
        assert (our - their).norm() <= 1e-6 * their.norm()


@pytest.mark.parametrize(
    ("first", "second"), [(TransformersAdafactor, Adafactor), (Adafactor, TransformersAdafactor)], ids=["from", "to"]
)
def test_state_moves_from_and_to_transformers(first, second):
    options = {**EXTERNAL, "beta1": 0.9}
    gradients = random_gradients(SHAPES, 20)
    whole, moved = build_params(SHAPES), build_params(SHAPES)
    run_steps(Adafactor(whole, **options), whole, gradients)
    beginning, end = first(moved, **options), second(moved, **options)
    run_steps(beginning, moved, gradients[:10])
    end.load_state_dict(beginning.state_dict())
    run_steps(end, moved, gradients[10:])
    for one, other in zip(whole, moved, strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm()


@pytest.mark.parametrize(
    "build_scheduler",
    [
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=150),
        lambda optimizer: LambdaLR(optimizer, lambda s: 0.97**s),
    ],
    ids=["CosineAnnealingLR", "LambdaLR"],
)
def test_step_never_writes_the_group_rate_transformers_pr_9751(build_scheduler):
    """Writing the scaled rate to group["lr"] gave the k-th tensor the product of k scales: zero from the 35th on."""
    shapes = ((4, 3), (5,)) * 20
    params, twin_params = build_params(shapes), build_params([(1,)])
    optimizer = Adafactor(params, lr=1e-2, relative_step=False, scale_parameter=True)
    twin = torch.optim.SGD(twin_params, lr=1e-2)
    scheduler, twin_scheduler = build_scheduler(optimizer), build_scheduler(twin)
    for gradients in random_gradients(shapes, 4) * 25:
        before = [param.detach().clone() for param in params]
        set_gradients(params, gradients)
        optimizer.step()
        twin.step()
        rate = twin.param_groups[0]["lr"]
        assert optimizer.param_groups[0]["lr"] == rate
        scheduler.step()
        twin_scheduler.step()
        assert scheduler.get_last_lr() == twin_scheduler.get_last_lr()
    assert optimizer.param_groups[0]["lr"] == twin.param_groups[0]["lr"] > 1e-4
    scales = [value.square().mean().sqrt().item() for value in before]
    applied = [rate_of_one.value for rate_of_one in optimizer.effective_lrs()]
    assert applied == pytest.approx([rate * scale for scale in scales], rel=1e-5)
    assert all(not torch.equal(param, value) for param, value in zip(params, before, strict=True))


def test_effective_rates_name_every_updated_tensor_not_only_the_first():
    """transformers' AdafactorSchedule reports the first tensor alone, and fails if that one has no gradient."""
    params = build_params([(2, 2), (3,), (4, 2), (0, 3)])
    groups = [{"params": params[:2]}, {"params": params[2:], "scale_parameter": False}]
    optimizer = Adafactor(groups, warmup_init=True)
    assert optimizer.effective_lrs() == []
    scale = params[1].square().mean().sqrt().item()
    for param in params[1:]:
        param.grad = torch.ones_like(param)
    optimizer.step()
    first, second = optimizer.effective_lrs()
    assert (first.group_index, first.param_index) == (0, 1)
    assert first.value == pytest.approx(scale * 1e-6, rel=1e-6)
    assert second == (1, 0, 1e-6)


def test_least_parameter_scale_lets_a_zero_tensor_move():
    param = nn.Parameter(torch.zeros(4, 4))
    param.grad = torch.ones(4, 4)
    optimizer = Adafactor([param], **EXTERNAL)
    optimizer.step()
    assert optimizer.effective_lrs()[0].value == pytest.approx(3e-6, rel=1e-6)
    torch.testing.assert_close(param.detach(), torch.full((4, 4), -3e-6))


def test_closure_can_call_backward():
    """transformers runs the closure without gradients: `element 0 of tensors does not require grad`."""
    param = nn.Parameter(torch.tensor([2.0, 1.0]))
    optimizer = Adafactor([param], **EXTERNAL)

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 5.0
    assert param.grad.tolist() == [4.0, 2.0]
    assert param[0] < 2.0
    assert param.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("beta1", [None, 0.9])
def test_resume_from_a_file_is_bit_exact(dtype, beta1):
    options = {**EXTERNAL, "beta1": beta1, "weight_decay": 0.1}
    gradients = random_gradients(SHAPES, 12)
    whole, first = build_params(SHAPES, dtype), build_params(SHAPES, dtype)
    whole_optimizer, first_optimizer = Adafactor(whole, **options), Adafactor(first, **options)
    run_steps(whole_optimizer, whole, gradients)
    run_steps(first_optimizer, first, gradients[:6])
    file = io.BytesIO()
    torch.save({"params": first, "optimizer": first_optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed_optimizer = Adafactor(saved["params"], **options)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    run_steps(resumed_optimizer, saved["params"], gradients[6:])
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    for one, other in zip(whole, saved["params"], strict=True):
        assert torch.equal(one, other)
        one_state, other_state = whole_optimizer.state[one], resumed_optimizer.state[other]
        assert list(one_state) == list(other_state)
        assert one_state.pop("step") == other_state.pop("step") == 12
        for key, value in one_state.items():
            assert value.dtype == other_state[key].dtype == state_dtype
            assert torch.equal(value, other_state[key])


def test_loaded_state_is_not_shared_with_the_optimizer_it_came_from():
    params, others = build_params(SHAPES), build_params(SHAPES)
    optimizer, other = Adafactor(params), Adafactor(others)
    run_steps(optimizer, params, random_gradients(SHAPES, 2))
    rows = optimizer.state[params[1]]["exp_avg_sq_row"].clone()
    other.load_state_dict(optimizer.state_dict())
    run_steps(other, others, random_gradients(SHAPES, 2))
    assert torch.equal(optimizer.state[params[1]]["exp_avg_sq_row"], rows)
    assert other.effective_lrs() != []


def test_loading_keeps_what_the_users_hook_made_of_the_state():
    (param,) = build_params([(3, 2)], torch.bfloat16)
    optimizer = Adafactor([param])
    run_steps(optimizer, [param], random_gradients(((3, 2),), 1))
    saved = optimizer.state_dict()

    def double_rows(_, state_dict):
        state = {0: {**state_dict["state"][0], "exp_avg_sq_row": saved["state"][0]["exp_avg_sq_row"] * 2}}
        return {**state_dict, "state": state}

    rows = saved["state"][0]["exp_avg_sq_row"].clone()
    optimizer.register_load_state_dict_pre_hook(double_rows)
    optimizer.load_state_dict(saved)
    assert torch.equal(optimizer.state[param]["exp_avg_sq_row"], rows * 2)


def test_a_deep_copy_steps_like_the_original():
    params = build_params(SHAPES)
    optimizer = Adafactor(params)
    run_steps(optimizer, params, random_gradients(SHAPES, 3))
    twin = copy.deepcopy(optimizer)
    assert twin.effective_lrs() == []
    twin_params = twin.param_groups[0]["params"]
    run_steps(optimizer, params, random_gradients(SHAPES, 3, seed=5))
    run_steps(twin, twin_params, random_gradients(SHAPES, 3, seed=5))
    assert all(torch.equal(one, other) for one, other in zip(params, twin_params, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_step_is_the_float32_step_rounded_once(dtype):
    """torch.optim.Adafactor squares in bfloat16 and all but stops where gradients are below 1e-3."""
    low = build_params(SHAPES, dtype)
    full = [nn.Parameter(param.detach().float()) for param in low]
    for param, twin in zip(low, full, strict=True):
        param.grad = torch.full_like(param, 1e-4)
        twin.grad = param.grad.float()
    Adafactor(low, lr=0.1, relative_step=False).step()
    Adafactor(full, lr=0.1, relative_step=False).step()
    for param, twin, start in zip(low, full, build_params(SHAPES, dtype), strict=True):
        assert torch.equal(param, twin.to(dtype))
        assert not torch.equal(param, start)


@pytest.mark.parametrize("options", MODES)
def test_step_fetches_no_value_from_the_device(options):
    """Meta tensors have shapes and no values: `.item()`, a branch on a tensor or `float()` would raise."""
    params = [nn.Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    optimizer = Adafactor(params, **options)
    for _ in range(2):
        for param in params:
            param.grad = torch.empty_like(param)
        optimizer.step()
    assert [optimizer.state[param]["step"] for param in params] == [2, 2, 2]


@pytest.mark.parametrize("beta1", [None, 0.9])
def test_zero_gradients_change_nothing(beta1):
    params, before = build_params(SHAPES), build_params(SHAPES)
    zeros = [np.zeros(shape, np.float32) for shape in SHAPES]
    run_steps(Adafactor(params, beta1=beta1), params, [zeros] * 3)
    assert all(torch.equal(param, value) for param, value in zip(params, before, strict=True))


def test_untouched_row_beside_a_huge_one_stays_as_it_is():
    """Their ratio underflows in float32; the quotient form of the update makes NaN of it (0 * inf)."""
    (param,) = build_params([(2, 3)])
    before = param.detach().clone()
    run_steps(Adafactor([param], **EXTERNAL), [param], [[np.array([[1e9] * 3, [0.0] * 3], np.float32)]] * 2)
    assert torch.equal(param[1], before[1])
    assert torch.isfinite(param).all()
    assert (param[0] < before[0]).all()


def test_parameters_without_gradient_or_elements_are_left_alone():
    params = build_params([(2, 3), (0, 4), (3,)])
    before = params[0].detach().clone()
    optimizer = Adafactor(params, weight_decay=0.1)
    for _ in range(2):
        params[1].grad, params[2].grad = torch.empty(0, 4), torch.ones(3)
        optimizer.step()
    assert torch.equal(params[0], before)
    assert list(optimizer.state) == [params[2]]
    params[0].grad = torch.ones(2, 3)
    optimizer.step()
    assert [optimizer.state[params[i]]["step"] for i in (0, 2)] == [1, 3]


def test_memory_format_does_not_change_the_result():
    (param,), (twin,) = build_params([(2, 3, 4, 5)]), build_params([(2, 3, 4, 5)])
    twin.data = twin.data.to(memory_format=torch.channels_last)
    gradients = random_gradients(((2, 3, 4, 5),), 3)
    run_steps(Adafactor([param]), [param], gradients)
    run_steps(Adafactor([twin]), [twin], gradients)
    torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-7)


def test_state_is_one_average_per_row_and_column():
    params = build_params(SHAPES)
    optimizer = Adafactor(params)
    run_steps(optimizer, params, random_gradients(SHAPES, 1))
    shapes = [{k: tuple(v.shape) for k, v in optimizer.state[param].items() if k != "step"} for param in params]
    assert shapes == [
        {"exp_avg_sq": (7,)},
        {"exp_avg_sq_row": (5,), "exp_avg_sq_col": (11,)},
        {"exp_avg_sq_row": (2, 3), "exp_avg_sq_col": (2, 4)},
    ]


def test_sparse_gradient_is_refused_with_the_cure():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"shape \(5, 2\); build its embedding with sparse=False"):
        Adafactor(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 1e-3}, r"lr=0.001 contradicts relative_step=True"),
        ({"relative_step": False}, "needs an lr"),
        ({**EXTERNAL, "warmup_init": True}, "warmup_init=True is a form of relative_step"),
        ({"lr": -1.0, "relative_step": False}, "lr=-1.0 is out of range; it must be zero or more"),
        ({"eps": (0.0, 1e-3)}, r"eps=\(0.0, 0.001\)"),
        ({"clip_threshold": 0.0}, "clip_threshold=0.0"),
        ({"decay_rate": 0.8}, "decay_rate=0.8 is out of range; it must be zero or less, such as -0.8"),
        ({"beta1": 1.0}, "beta1=1.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Adafactor(build_params([(2,)]), **options)


def test_a_group_is_checked_with_its_own_options():
    params = build_params([(2,), (3,)])
    optimizer = Adafactor([{"params": params[0], "lr": 1e-2}], lr=1e-3, relative_step=False)
    with pytest.raises(ValueError, match="contradicts"):
        optimizer.add_param_group({"params": params[1], "relative_step": True})
    with pytest.raises(ValueError, match="complex"):
        optimizer.add_param_group({"params": nn.Parameter(torch.zeros(2, dtype=torch.complex64))})
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2]
