"""Every path of Adafactor against the paper in float64, against the plain path and against what others got wrong."""

import copy
import importlib
import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from adafactor_reference import EXTERNAL, MODES, build_params, paper_step, run_steps, set_gradients
from torch import nn

from components.optim.adafactor import blocks, native, native_kernels, update
from components.optim.adafactor import paths as adafactor_paths
from components.optim.adafactor.optimizer import Adafactor

FAST_PATHS = ("numba", "blocks", "grouped")
SHAPES = ((7,), (5, 11), (2, 3, 4), (9, 6), (1, 6), (6, 1), (3, 2, 3, 3))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Tiny tensors are cut into many blocks, so that every seam is walked over."""
    monkeypatch.setattr(adafactor_paths, "_LEAST_FOR_BLOCKS", 0)
    monkeypatch.setattr(blocks, "_BLOCK", 24)


def cut_every_matrix(monkeypatch):
    """Let the native path treat any matrix as a large one: blocks of few rows, shared by threads."""
    monkeypatch.setattr(native, "_LARGEST_PIECE", 0)
    monkeypatch.setattr(native, "_LEAST_FOR_THREADS", 0)
    monkeypatch.setattr(native, "BLOCK", 24)


def hard_gradients(shapes, num_steps, seed=0):
    """Rows of fourteen orders of magnitude, every third one zero; float32 holds each number and its square."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        gradient = rng.standard_normal(shape) * 10 ** rng.uniform(-8, 6, (*shape[:-1], 1))
        if len(shape) > 1:
            gradient[..., ::3, :] = 0
        return gradient.astype(np.float32)

    return [[draw(shape) for shape in shapes] for _ in range(num_steps)]


def count_updates(monkeypatch):
    """Record how many updates reach each path's function."""
    counts = {}

    def watch(module, name):
        original = getattr(module, name)

        def watched(updates):
            counts[name] = counts.get(name, 0) + len(updates)
            return original(updates)

        monkeypatch.setattr(module, name, watched)

    watch(native, "apply_native")
    watch(blocks, "apply_in_blocks")
    watch(adafactor_paths.adafactor_grouped, "apply_grouped")
    watch(adafactor_paths, "apply_plain")
    return counts


FUNCTIONS = {"numba": "apply_native", "blocks": "apply_in_blocks", "grouped": "apply_grouped", "plain": "apply_plain"}


# The schedule of rho_t is one function for all paths, which test_optimizer holds against the paper in every mode; what
# differs from path to path is what is done with it.
@pytest.mark.parametrize("options", [mode for mode in MODES if "lr" in mode.values[0]])
def test_every_path_equals_the_paper_over_200_steps_with_hard_rows(options, monkeypatch):
    cut_every_matrix(monkeypatch)
    paths = (*FAST_PATHS, "plain")
    params = {path: build_params(SHAPES) for path in paths}
    optimizers = {path: Adafactor(params[path], **options, path=path) for path in paths}
    expected = [param.detach().numpy().astype(np.float64) for param in params["plain"]]
    states = [{} for _ in SHAPES]
    for t, gradients in enumerate(hard_gradients(SHAPES, 200), start=1):
        for path in paths:
            set_gradients(params[path], gradients)
            optimizers[path].step()
        for i, gradient in enumerate(gradients):
            expected[i] = paper_step(expected[i], gradient.astype(np.float64), states[i], t, options)
    for path in paths:
        for param, value in zip(params[path], expected, strict=True):
            error = np.linalg.norm(param.detach().double().numpy() - value) / np.linalg.norm(value)
            assert error <= 1e-6, f"{path} {tuple(param.shape)}: {error:.1e}"


@pytest.mark.parametrize("path", FAST_PATHS)
def test_the_path_that_is_asked_for_is_the_one_that_runs(path, monkeypatch):
    counts = count_updates(monkeypatch)
    params = build_params(SHAPES)
    run_steps(Adafactor(params, **EXTERNAL, path=path), params, hard_gradients(SHAPES, 1))
    assert counts == {FUNCTIONS[path]: len(SHAPES)}


@pytest.mark.parametrize("path", FAST_PATHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_precisions_equal_the_plain_path(path, dtype):
    options = {**EXTERNAL, "beta1": 0.9, "weight_decay": 0.1}
    fast, plain = build_params(SHAPES, dtype), build_params(SHAPES, dtype)
    gradients = [[np.clip(g, -1e4, 1e4) for g in step] for step in hard_gradients(SHAPES, 10)]
    run_steps(Adafactor(fast, **options, path=path), fast, gradients)
    run_steps(Adafactor(plain, **options, path="plain"), plain, gradients)
    # One place of the narrow type, where two float32 results lie on either side of the middle between two of them.
    place = {torch.float64: 1e-12, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=place, atol=1e-7 if place > 1e-9 else 1e-13)
        assert (one != other).float().mean() <= 0.02 or dtype == torch.float64


@pytest.mark.parametrize("path", FAST_PATHS)
def test_layouts_do_not_change_the_result(path):
    """A transposed matrix, a channels-last kernel, a slice and an expanded gradient, against contiguous copies."""
    base = [torch.randn(11, 5, generator=torch.Generator().manual_seed(0)), torch.randn(2, 3, 4, 5), torch.randn(6, 20)]
    odd = [base[0].t(), base[1].to(memory_format=torch.channels_last), base[2][:, ::2]]
    fast, plain = [nn.Parameter(one) for one in odd], [nn.Parameter(one.contiguous().clone()) for one in odd]
    assert not any(one.is_contiguous() for one in fast)
    one, other = Adafactor(fast, beta1=0.9, path=path), Adafactor(plain, beta1=0.9, path="plain")
    for seed in range(3):
        torch.manual_seed(seed)
        for left, right in zip(fast, plain, strict=True):
            right.grad = torch.randn(right.shape)
            left.grad = right.grad.clone()
        fast[0].grad = plain[0].grad = torch.randn(5, 1).expand(5, 11)
        one.step()
        other.step()
    for left, right in zip(fast, plain, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("path", FAST_PATHS)
def test_zero_gradients_empty_tensors_and_missing_gradients(path):
    params = build_params([(5, 4), (0, 4), (3,), (4, 2), (2, 3, 3)])
    before = [param.detach().clone() for param in params]
    optimizer = Adafactor(params, path=path, beta1=0.9)
    for _ in range(3):
        for param in (*params[:3], params[4]):
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert all(torch.equal(param, value) for param, value in zip(params, before, strict=True))
    assert list(optimizer.state) == [params[0], params[2], params[4]]


@pytest.mark.parametrize("path", FAST_PATHS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_as_visible_as_in_the_plain_path(path, poison):
    fast, plain = build_params([(6, 5), (4,)]), build_params([(6, 5), (4,)])
    for params, name in ((fast, path), (plain, "plain")):
        for param in params:
            param.grad = torch.ones_like(param)
            param.grad.view(-1)[1] = poison
        Adafactor(params, **EXTERNAL, path=name).step()
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
        assert not torch.isfinite(one).all()


@pytest.mark.parametrize("path", FAST_PATHS)
def test_effective_rates_are_those_of_the_plain_path(path):
    fast, plain = build_params(SHAPES), build_params(SHAPES)
    one, other = Adafactor(fast, **EXTERNAL, path=path), Adafactor(plain, **EXTERNAL, path="plain")
    run_steps(one, fast, hard_gradients(SHAPES, 3))
    run_steps(other, plain, hard_gradients(SHAPES, 3))
    for left, right in zip(one.effective_lrs(), other.effective_lrs(), strict=True):
        assert left[:2] == right[:2]
        assert left.value == pytest.approx(right.value, rel=1e-6)


@pytest.mark.parametrize("path", ["plain", *FAST_PATHS])
@pytest.mark.parametrize("kind", ["convolution", "whole"])
def test_other_factorings_are_those_of_the_matrix_or_the_vector_transformers_14574(path, kind):
    """A kernel factored as (O, I kH kW), and a matrix kept whole, step as the matrix or the vector would."""
    (param,) = build_params([(4, 3, 3, 3)])
    flat = (4, 27) if kind == "convolution" else (108,)
    twin = nn.Parameter(param.detach().clone().view(flat))
    least = 0 if kind == "convolution" else 5
    optimizer = Adafactor([param], factor_convolutions=kind == "convolution", min_dim_size_to_factor=least, path=path)
    gradients = hard_gradients([(4, 3, 3, 3)], 5)
    run_steps(optimizer, [param], gradients)
    run_steps(Adafactor([twin], path="plain"), [twin], [[g.reshape(flat) for g in step] for step in gradients])
    torch.testing.assert_close(param.view(flat), twin, rtol=1e-6, atol=1e-7)
    shapes = {key: tuple(value.shape) for key, value in optimizer.state[param].items() if key != "step"}
    expected = {"exp_avg_sq_row": (4,), "exp_avg_sq_col": (27,)}
    assert shapes == (expected if kind == "convolution" else {"exp_avg_sq": (4, 3, 3, 3)})


def test_state_of_another_factoring_is_refused_with_the_cure():
    saved, params = build_params([(4, 3, 3, 3)]), build_params([(4, 3, 3, 3)])
    first = Adafactor(saved)
    run_steps(first, saved, hard_gradients([(4, 3, 3, 3)], 1))
    state = first.state_dict()
    for group in state["param_groups"]:  # as transformers saves it
        del group["factor_convolutions"], group["min_dim_size_to_factor"], group["stochastic_rounding"]
    second = Adafactor(params, factor_convolutions=True)
    with pytest.raises(
        ValueError, match=r"parameter 0, of shape \(4, 3, 3, 3\).*factor_convolutions it was saved with"
    ):
        second.load_state_dict(state)


def test_groups_keep_their_own_later_options_when_an_older_state_is_loaded():
    params, others = build_params([(6, 6), (3, 3)]), build_params([(6, 6), (3, 3)])
    groups = [{"params": params[:1]}, {"params": params[1:], "stochastic_rounding": True}]
    older, optimizer = Adafactor([{"params": [other]} for other in others]), Adafactor(groups)
    run_steps(older, others, hard_gradients([(6, 6), (3, 3)], 1))
    state = older.state_dict()
    for group in state["param_groups"]:
        del group["factor_convolutions"], group["min_dim_size_to_factor"], group["stochastic_rounding"]
    optimizer.load_state_dict(state)
    assert [group["stochastic_rounding"] for group in optimizer.param_groups] == [False, True]
    run_steps(optimizer, params, hard_gradients([(6, 6), (3, 3)], 1))
    assert optimizer.state[params[0]]["step"] == 2


@pytest.mark.parametrize("path", ["plain", "blocks", "grouped"])
def test_stochastic_rounding_keeps_the_mean(path):
    """Steps of a twentieth of bfloat16's last place: nearest rounding loses all, stochastic loses none on average."""
    nearest, by_chance = (nn.Parameter(torch.ones(200, 200, dtype=torch.bfloat16)) for _ in range(2))
    options = {"lr": 2**-8 / 20, "relative_step": False, "scale_parameter": False, "path": path}
    for param, is_stochastic in ((nearest, False), (by_chance, True)):
        optimizer = Adafactor([param], **options, stochastic_rounding=is_stochastic)
        for _ in range(20):
            param.grad = torch.ones_like(param)
            optimizer.step()
    assert (nearest == 1).all()
    # Each weight moves by one place, 2^-8, in one of 20 steps on average: sd of the mean of 40,000 is half a percent.
    assert by_chance.float().mean().item() == pytest.approx(1 - 2**-8, abs=6 * 2**-8 * 0.005)
    assert set(by_chance.float().unique().tolist()) > {1.0, 1 - 2**-8}


def test_stochastic_rounding_is_unbiased_exact_and_leaves_the_global_generator():
    values = torch.tensor([1.0, 1.0 + 2**-9, -1.0 - 3 * 2**-9, 1e-40, float("inf"), float("nan"), 0.0])
    before = torch.get_rng_state()
    rounded = update.round_stochastically(values.expand(20_000, 7), torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    means = rounded.double().mean(dim=0)
    assert means[[0, 4, 6]].tolist() == [1.0, float("inf"), 0.0]
    assert torch.isnan(rounded[:, 5]).all()
    torch.testing.assert_close(means[1:3], values[1:3].double(), rtol=0, atol=6 * 2**-8 / 20_000**0.5)


@pytest.mark.parametrize("path", ["plain", "blocks", "grouped"])
def test_stochastic_rounding_resumes_bit_exactly(path):
    options = {**EXTERNAL, "stochastic_rounding": True, "path": path}
    gradients = [[np.clip(g, -1e4, 1e4) for g in step] for step in hard_gradients(SHAPES, 6)]
    whole, parts = build_params(SHAPES, torch.bfloat16), build_params(SHAPES, torch.bfloat16)
    run_steps(Adafactor(whole, **options), whole, gradients)
    first, second = Adafactor(parts, **options), Adafactor(parts, **options)
    run_steps(first, parts, gradients[:3])
    torch.randn(5)  # the global generator has no part in it
    second.load_state_dict(first.state_dict())
    run_steps(second, parts, gradients[3:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("path", FAST_PATHS)
def test_resume_from_a_file_is_bit_exact_on_every_path(path):
    options = {**EXTERNAL, "beta1": 0.9, "weight_decay": 0.1, "path": path}
    gradients = hard_gradients(SHAPES, 8)
    whole, parts = build_params(SHAPES), build_params(SHAPES)
    run_steps(Adafactor(whole, **options), whole, gradients)
    first, second = Adafactor(parts, **options), Adafactor(parts, **options)
    run_steps(first, parts, gradients[:4])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    run_steps(second, parts, gradients[4:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_the_number_of_threads_does_not_show_in_a_single_bit(monkeypatch):
    monkeypatch.setattr(native, "_LEAST_FOR_THREADS", 0)
    monkeypatch.setattr(native, "_LARGEST_PIECE", 1 << 12)
    monkeypatch.setattr(native, "BLOCK", 1 << 10)
    shapes = [(150, 64), (40, 33), (70,), (100, 90)]
    results = []
    for num_threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda num_threads=num_threads: num_threads)
        params = build_params(shapes)
        run_steps(Adafactor(params, **EXTERNAL, path="numba"), params, hard_gradients(shapes, 5))
        results.append(params)
    for params in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], params, strict=True))


def test_no_thread_outlives_a_step(monkeypatch):
    """A process forked between steps, as a data loader's workers are, must not inherit half a pool."""
    cut_every_matrix(monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    before = threading.active_count()
    params = build_params([(40, 30)])
    run_steps(Adafactor(params, path="numba"), params, hard_gradients([(40, 30)], 1))
    assert threading.active_count() == before


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    cut_every_matrix(monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def fail(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(native, "write_rows", fail)
    params = build_params([(40, 30)])
    with pytest.raises(RuntimeError, match="planted"):
        run_steps(Adafactor(params, path="numba"), params, hard_gradients([(40, 30)], 1))


def test_auto_loads_numba_for_large_models_only_and_copies_keep_the_choice(monkeypatch):
    counts = count_updates(monkeypatch)
    small, large = build_params([(30, 20)]), build_params([(1024, 1030)])
    optimizer = Adafactor(large)
    for params, one in ((small, Adafactor(small)), (large, optimizer), (None, copy.deepcopy(optimizer))):
        params = one.param_groups[0]["params"] if params is None else params
        run_steps(one, params, [[np.ones(param.shape, np.float32) for param in params]])
    assert counts == {"apply_in_blocks": 1, "apply_native": 2}


@pytest.mark.parametrize("error", [ImportError, SystemError, AttributeError])
def test_a_missing_or_broken_numba_leaves_the_blocks(error, monkeypatch):
    def refuse(name, *rest):
        raise error(name)

    adafactor_paths.load_native.cache_clear()
    monkeypatch.setattr(importlib, "import_module", refuse)
    try:
        counts = count_updates(monkeypatch)
        params = build_params([(1024, 1030)])
        run_steps(Adafactor(params), params, [[np.ones((1024, 1030), np.float32)]])
        with pytest.raises(ValueError, match='path="numba" needs a working numba'):
            Adafactor(params, path="numba")
    finally:
        adafactor_paths.load_native.cache_clear()
    assert counts == {"apply_in_blocks": 1}


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    def refuse(*_, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(native_kernels, "_njit", refuse)
    kernel = native_kernels._compiled("float64(float64)", frozenset())(lambda x: x + 1)
    assert kernel(1.0) == 2.0


def test_unknown_path_is_refused():
    with pytest.raises(ValueError, match="path='cuda' is none of auto, plain, blocks, numba, grouped"):
        Adafactor(build_params([(2,)]), path="cuda")


def test_importing_the_optimizer_does_not_import_numba():
    code = "import sys, components.optim.adafactor.optimizer; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", ["plain", *FAST_PATHS])
def test_a_gradient_scaler_skips_a_step_that_overflowed_and_unscales_the_others(path):
    params, twins = build_params([(6, 4)]), build_params([(6, 4)])
    optimizer, twin = Adafactor(params, path=path), Adafactor(twins, path=path)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for factor in (1.0, float("inf"), 2.0):
        scaler.scale(torch.ones(1))
        params[0].grad = torch.full((6, 4), factor * scaler.get_scale())
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if factor != float("inf"):
            twins[0].grad = torch.full((6, 4), factor)
            twin.step()
    assert optimizer.state[params[0]]["step"] == 2
    assert scaler.get_scale() == 512.0
    assert torch.equal(params[0], twins[0])


@pytest.mark.parametrize("path", ["numba", "blocks"])
def test_a_step_allocates_less_than_a_block_in_torch(path, monkeypatch):
    """transformers' step of this matrix takes two of its size (8 MB each), the plain path one."""
    monkeypatch.undo()
    (param,) = build_params([(4096, 512)])
    optimizer = Adafactor([param], **EXTERNAL, path=path)
    param.grad = torch.randn(4096, 512)
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    peak = max([0, *held.tolist()])
    assert peak == 0 if path == "numba" else 2**21 <= peak < 2**21 + 2**17
