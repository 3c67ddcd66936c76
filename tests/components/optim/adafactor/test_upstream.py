"""What other Adafactors got wrong, each named after where; every path is held to it."""

import numpy as np
import pytest
import torch
from adafactor_reference import EXTERNAL, build_params, run_steps
from torch import nn

from components.optim.adafactor import blocks as adafactor_blocks
from components.optim.adafactor import paths as adafactor_paths
from components.optim.adafactor.optimizer import Adafactor

FAST_PATHS = ("numba", "blocks", "grouped")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Tiny tensors are cut into blocks too."""
    monkeypatch.setattr(adafactor_paths, "_LEAST_FOR_BLOCKS", 0)
    monkeypatch.setattr(adafactor_blocks, "_BLOCK", 24)


@pytest.mark.parametrize("path", FAST_PATHS)
def test_untouched_row_beside_a_huge_one_stays_as_it_is_on_every_path(path):
    """Their ratio underflows in float32; the quotient form of the update makes NaN of it (0 * inf)."""
    (param,) = build_params([(2, 3)])
    before = param.detach().clone()
    gradient = np.array([[1e9] * 3, [0.0] * 3], np.float32)
    run_steps(Adafactor([param], **EXTERNAL, path=path), [param], [[gradient]] * 2)
    assert torch.equal(param[1], before[1])
    assert torch.isfinite(param).all()
    assert (param[0] < before[0]).all()


@pytest.mark.parametrize("path", ["plain", *FAST_PATHS])
def test_norms_of_millions_of_numbers_are_exact_where_those_of_transformers_are_not(path, monkeypatch):
    """One float32 vector_norm over four million numbers is off by 5e-5, and so is every rate computed from it."""
    monkeypatch.undo()
    (param,), zeros = build_params([(8192, 512)]), nn.Parameter(torch.zeros(8192, 512))
    rms = param.detach().double().square().mean().sqrt().item()
    assert abs(torch.linalg.vector_norm(param.detach()).item() / 2048 / rms - 1) > 1e-5
    zeros.grad, param.grad = param.detach().clone(), param.detach().clone()
    optimizer = Adafactor([param], **EXTERNAL, path=path)
    optimizer.step()
    assert optimizer.effective_lrs()[0].value == pytest.approx(EXTERNAL["lr"] * rms, rel=1e-6)
    # Clipped to a tenth, the update of a weight at zero is what the weight becomes.
    Adafactor([zeros], **EXTERNAL, scale_parameter=False, clip_threshold=0.1, path=path).step()
    assert zeros.detach().double().square().mean().sqrt().item() == pytest.approx(EXTERNAL["lr"] / 10, rel=1e-6)


@pytest.mark.parametrize("path", FAST_PATHS)
def test_group_rate_is_read_and_never_written_transformers_pr_9751_fairseq(path):
    params = build_params([(4, 3)] * 40)
    optimizer = Adafactor(params, **EXTERNAL, path=path)
    gradient = np.ones((4, 3), np.float32)
    run_steps(optimizer, params, [[gradient] * 40] * 3)
    assert optimizer.param_groups[0]["lr"] == EXTERNAL["lr"]
    rates = [rate.value for rate in optimizer.effective_lrs()]
    assert min(rates) > 1e-4, "upstream, the 35th tensor's rate was zero"


def test_momentum_averages_the_update_times_its_rate_transformers_34506():
    """Kept upstream because tensor2tensor does so: after a jump of the rate, momentum still carries the old one."""
    (param,) = build_params([(3, 3)])
    optimizer = Adafactor([param], lr=1.0, relative_step=False, scale_parameter=False, beta1=0.9, path="numba")
    param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    before = param.detach().clone()
    optimizer.step()
    torch.testing.assert_close(before - param.detach(), torch.full((3, 3), 0.09))


def test_scale_parameter_holds_with_an_external_rate_timm():
    """timm ignores scale_parameter where a rate is given: its step is twenty times this one for weights of RMS .05."""
    param = nn.Parameter(torch.full((4, 4), 0.05))
    param.grad = torch.ones(4, 4)
    optimizer = Adafactor([param], lr=1e-3, relative_step=False, scale_parameter=True)
    optimizer.step()
    assert optimizer.effective_lrs()[0].value == pytest.approx(5e-5, rel=1e-5)


@pytest.mark.parametrize("path", ["plain", *FAST_PATHS])
def test_small_bfloat16_gradients_still_teach_torch_optim_adafactor(path):
    """torch.optim.Adafactor's epsilon is bfloat16's own: at gradients of 1e-4 its step is a hundredth of this one."""
    torch.manual_seed(0)
    start = torch.randn(64, 64)
    gradient = torch.randn(64, 64) * 1e-4

    def relative_step_size(optimizer_class, **options):
        param = nn.Parameter(start.bfloat16())
        param.grad = gradient.bfloat16()
        before = param.detach().float()
        optimizer_class([param], lr=0.1, **options).step()
        return ((param.detach().float() - before).norm() / before.norm() / 0.1).item()

    assert relative_step_size(Adafactor, relative_step=False, path=path) == pytest.approx(1, abs=0.05)
    assert relative_step_size(torch.optim.Adafactor) < 0.02


def test_clipping_never_enlarges_an_update_timm_pr_2790():
    """timm's adafactorbv clamped the divisor to at most one, so that small updates were blown up to the threshold."""
    for path in ("plain", *FAST_PATHS):
        (param,) = build_params([(8, 8)])
        options = {"lr": 1.0, "relative_step": False, "scale_parameter": False, "clip_threshold": 1.0}
        optimizer = Adafactor([param], **options, path=path)
        gradients = [[np.ones((8, 8), np.float32)]] * 3
        run_steps(optimizer, [param], gradients)
        before = param.detach().clone()
        run_steps(optimizer, [param], [[np.full((8, 8), 0.01, np.float32)]])
        step = (before - param.detach()).abs().max().item()
        assert 0.01 < step < 0.02, "the update of a gradient far below its average is itself far below one"


def test_small_dimensions_can_be_kept_whole_transformers_14830():
    """T5's own code factors from 128 on, transformers always: T5's table of relative positions then differs."""
    shapes = [(32, 6), (128, 130), (4,)]
    params = build_params(shapes)
    optimizer = Adafactor(params, min_dim_size_to_factor=128)
    run_steps(optimizer, params, [[np.ones(shape, np.float32) for shape in shapes]])
    names = [sorted(key for key in optimizer.state[param] if key != "step") for param in params]
    assert names == [["exp_avg_sq"], ["exp_avg_sq_col", "exp_avg_sq_row"], ["exp_avg_sq"]]
    assert optimizer.state[params[0]]["exp_avg_sq"].shape == (32, 6)


@pytest.mark.parametrize("path", ["plain", *FAST_PATHS])
def test_precisions_mixed_in_a_group_do_not_share_an_epsilon_torch_optim_adafactor(path):
    """torch takes the group's epsilon from its first tensor: a bfloat16 one stops the float32 ones behind it."""
    dtypes = (torch.bfloat16, torch.float32, torch.float64)
    mixed = [build_params([(6, 5)], dtype)[0] for dtype in dtypes]
    alone = [build_params([(6, 5)], dtype)[0] for dtype in dtypes]
    for param in (*mixed, *alone):
        param.grad = torch.full_like(param, 1e-5)
    Adafactor(mixed, **EXTERNAL, path=path).step()
    for param in alone:
        Adafactor([param], **EXTERNAL, path=path).step()
    assert all(torch.equal(one, other) for one, other in zip(mixed, alone, strict=True))


@pytest.mark.parametrize("path", ["plain", *FAST_PATHS])
def test_a_stack_of_matrices_steps_as_its_matrices_do_jettify(path):
    """Its mean over rows lacked keepdim, which mixes the matrices of a stack, and its groups lacked the key it read."""
    (stack,) = build_params([(3, 4, 5)])
    singles = [nn.Parameter(matrix.detach().clone()) for matrix in stack]
    # No clipping and no parameter scale, which are the stack's as a whole.
    options = {"lr": 1e-2, "relative_step": False, "scale_parameter": False, "clip_threshold": 1e9, "path": path}
    rng = np.random.default_rng(0)
    gradients = [(rng.standard_normal((3, 4, 5)) * [[[1e-3]], [[1]], [[1e3]]]).astype(np.float32) for _ in range(3)]
    run_steps(Adafactor([stack], **options), [stack], [[gradient] for gradient in gradients])
    run_steps(Adafactor(singles, **options), singles, [list(gradient) for gradient in gradients])
    torch.testing.assert_close(stack.detach(), torch.stack([one.detach() for one in singles]), rtol=1e-6, atol=1e-7)
