"""Adafactor (Shazeer & Stern 2018, arXiv:1804.04235), the optimizer of the T5 family.

The second moment of a matrix is kept as one average per row and one per column, so the optimizer costs a few KiB where
Adam costs two copies of the model. Arguments and state have the names of Hugging Face transformers' Adafactor, and
either loads the other's state; two things differ by intent. The schedule alone owns `group["lr"]`: `step` reads it and
never writes it (writing it multiplied the rates of all tensors into one another, transformers PR 9751). And no value
is fetched from a GPU during a step.

`adafactor_update` holds the step itself in plain operations; `adafactor_paths` chooses between it and faster ones.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast, overload

import torch
from torch import Tensor

from components.optim.adafactor.paths import PATHS, apply_updates, is_sharded, prepare
from components.optim.adafactor.update import (
    SECOND_MOMENTS,
    Rate,
    Update,
    factored_shape,
    init_state,
    second_moment_shapes,
    state_dtype,
)

# Options that neither transformers nor earlier versions of this class save.
_LATER_OPTIONS = ("min_dim_size_to_factor", "factor_convolutions", "stochastic_rounding")


class AppliedRate(NamedTuple):
    """The rate alpha_t of one parameter in the last step: `param_groups[group_index]["params"][param_index]`."""

    group_index: int
    param_index: int
    value: float


class Adafactor(torch.optim.Optimizer):
    """Adafactor with an external or a relative step size, drop-in for `transformers.optimization.Adafactor`.

    The last two dimensions of a tensor with two or more are factored; vectors and scalars keep their full second
    moment. float16 and bfloat16 parameters are computed in float32 and keep float32 state, float64 ones float64.
    Parameters that FSDP2 cut along their first dimension keep sharded state and cost a step one all-reduce.

    Args:
        params: Parameters, or dictionaries of parameter groups, which may override every argument below.
        lr: The external rate rho, with `relative_step=False`; a schedule may change it between steps.
        eps: eps1, added to the squared gradient, and eps2, the least parameter scale.
        clip_threshold: d, the largest root mean square that an update may have before the rate multiplies it.
        decay_rate: The second moment's decay at step t is `1 - t ** decay_rate`.
        beta1: Decay of the momentum, none by default. As in tensor2tensor and transformers the averaged quantity is
            the update *times its rate*, so momentum follows a change of the rate with a lag of 1 / (1 - beta1) steps.
        weight_decay: Decoupled; each step also subtracts `weight_decay * alpha_t` of the parameter from it, alpha_t
            the rate applied to this parameter, so the decay follows the schedule and the parameter scale.
        scale_parameter: alpha_t = max(eps2, RMS(parameter)) * rho_t, the paper's relative step size; otherwise rho_t.
        relative_step: rho_t = min(1e-2, 1 / sqrt(t)), the paper's schedule, in place of `lr`.
        warmup_init: rho_t = min(1e-6 * t, 1 / sqrt(t)), with `relative_step` only.
        min_dim_size_to_factor: Tensors whose shorter factored dimension is below it keep their full second moment.
            transformers factors all, which is 0; mesh-tensorflow, T5's own code, wants 128 and thus keeps T5's table
            of relative positions, 32 x heads, whole.
        factor_convolutions: Factor a tensor of three or more dimensions as the matrix (O, I * kH * kW). Without it a
            3 x 3 kernel is factored by itself, as in transformers: six averages for every nine weights.
        stochastic_rounding: Round the float32 result to bfloat16 parameters up or down by chance, the mean kept, so
            that steps below half of bfloat16's last place (0.2 % of a weight) are not lost.
        path: The code that carries out the step: "auto" by device, size and layout; "plain", "blocks", "numba" or
            "grouped" for comparison, where the tensors allow it. All give the same result but for the last bits.
            Not part of the saved state.

    Raises:
        ValueError: For a value out of range, both or neither of `lr` and `relative_step`, a complex parameter, a state
            of other shapes, a path that is not there, or (in `step`) a sparse gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        *,
        min_dim_size_to_factor: int = 0,
        factor_convolutions: bool = False,
        stochastic_rounding: bool = False,
        path: str = "auto",
    ) -> None:
        if path not in PATHS:
            raise ValueError(f"Adafactor: path={path!r} is none of {', '.join(PATHS)}")
        self._path = path
        self._is_native = False
        self._last_rates: list[tuple[int, int, Rate]] = []
        defaults = {
            "lr": lr,
            "eps": tuple(eps),
            "clip_threshold": clip_threshold,
            "decay_rate": decay_rate,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
            "min_dim_size_to_factor": min_dim_size_to_factor,
            "factor_convolutions": factor_convolutions,
            "stochastic_rounding": stochastic_rounding,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group after checking its options, its own and the inherited ones together."""
        _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        if any(param.is_complex() for param in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise ValueError("Adafactor has no rule for complex parameters; give it torch.view_as_real of them")
        self._is_native = prepare(self._path, (param for group in self.param_groups for param in group["params"]))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; `closure`, if given, computes the loss and the gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        places = [(i, j) for i, group in enumerate(self.param_groups) for j in range(len(group["params"]))]
        planned = [(place, update) for place in places if (update := self._plan(*place)) is not None]
        rates = apply_updates([update for _, update in planned], self._path, self._is_native)
        self._last_rates = [(*place, rate) for (place, _), rate in zip(planned, rates, strict=True)]
        return loss

    def effective_lrs(self) -> list[AppliedRate]:
        """Return alpha_t of every parameter that the last step updated, before update clipping.

        Costs nothing until it is called; then one device synchronisation per parameter. Empty before the first step.
        """
        return [AppliedRate(group, param, float(rate)) for group, param, rate in self._last_rates]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load `state_dict` and keep the state's own precision.

        torch casts state to the parameter's type, which would round the float32 averages of a bfloat16 parameter, and
        shares the caller's tensors where no cast was needed; both are undone here.
        """
        received: dict[str, Any] = {}
        options = [{name: group[name] for name in _LATER_OPTIONS} for group in self.param_groups]
        # Registered last, this hook sees what the user's own hooks made of the dictionary.
        hook = self.register_load_state_dict_pre_hook(lambda _, final: received.update(final))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        for group, own in zip(self.param_groups, options, strict=True):
            group.update({name: value for name, value in own.items() if name not in group})
            group["eps"] = tuple(group["eps"])  # a list where the dictionary came through JSON
        saved_ids = [saved_id for group in received["param_groups"] for saved_id in group["params"]]
        members = [(param, group) for group in self.param_groups for param in group["params"]]
        for index, (saved_id, (param, group)) in enumerate(zip(saved_ids, members, strict=True)):
            for key, value in received["state"].get(saved_id, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][key] = value.to(param.device, state_dtype(param), copy=True)
            _check_loaded(index, param, self.state.get(param, {}), group)
        self._last_rates = []

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_path": self._path, "_is_native": self._is_native}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or deep-copied optimizer, which carries options, groups and state only."""
        super().__setstate__(state)
        self._last_rates = []

    def _plan(self, group_index: int, param_index: int) -> Update | None:
        """Return what this step asks of a parameter, whose step it counts; None if it has no gradient or no element."""
        group = self.param_groups[group_index]
        param: Tensor = group["params"][param_index]
        # The mean of an empty tensor is NaN, and there is nothing to update in it.
        if param.grad is None or param.numel() == 0:
            return None
        if param.grad.layout is not torch.strided:
            raise ValueError(
                f"Adafactor got a sparse gradient for a parameter of shape {tuple(param.shape)}; "
                "build its embedding with sparse=False"
            )
        shape = _factored_shape(param, group)
        state = self.state[param]
        if not state:
            _init_state(state, param, shape, group["beta1"] is not None)
        state["step"] += 1
        step = int(state["step"])
        return Update(
            param,
            param.grad,
            state,
            shape,
            rho=_relative_rate(step, group["warmup_init"]) if group["relative_step"] else group["lr"],
            is_scaled=group["scale_parameter"],
            eps=tuple(group["eps"]),
            weight=step ** group["decay_rate"],
            clip_threshold=group["clip_threshold"],
            beta1=group["beta1"],
            weight_decay=group["weight_decay"],
            rounding_seed=_rounding_seed(step, group_index, param_index) if group["stochastic_rounding"] else None,
        )


def _relative_rate(step: int, warmup_init: bool) -> float:
    """Return rho_t of the paper's own schedule; `step` is t and counts from 1."""
    return float(min(1e-6 * step if warmup_init else 1e-2, step**-0.5))


def _rounding_seed(step: int, group_index: int, param_index: int) -> int:
    return (step * 1_000_003 + group_index) * 1_000_003 + param_index


def _factored_shape(param: Tensor, group: dict[str, Any]) -> tuple[int, ...] | None:
    return factored_shape(param.shape, group["min_dim_size_to_factor"], group["factor_convolutions"])


def _init_state(state: dict[str, Any], param: Tensor, shape: tuple[int, ...] | None, has_momentum: bool) -> None:
    if is_sharded(param):
        from components.optim.adafactor.sharded import init_sharded_state

        init_sharded_state(state, cast(Any, param), shape, has_momentum)
    else:
        init_state(state, param, shape, has_momentum)


def _check_loaded(index: int, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Refuse averages of other shapes than this optimizer would keep."""
    if not state:
        return
    expected = second_moment_shapes(param, _factored_shape(param, group))
    found = {name: tuple(state[name].shape) for name in SECOND_MOMENTS if name in state}
    if found != expected:
        raise ValueError(
            f"Adafactor: the loaded state of parameter {index}, of shape {tuple(param.shape)}, has {found} where "
            f"{expected} is kept; load it with the min_dim_size_to_factor and factor_convolutions it was saved with"
        )


def _check_options(options: dict[str, Any]) -> None:
    lr, relative_step = options["lr"], options["relative_step"]
    if relative_step and lr is not None:
        raise ValueError(f"Adafactor: lr={lr} contradicts relative_step=True; set relative_step=False or lr=None")
    if not relative_step and lr is None:
        raise ValueError("Adafactor: relative_step=False needs an lr, such as 1e-3")
    if options["warmup_init"] and not relative_step:
        raise ValueError("Adafactor: warmup_init=True is a form of relative_step=True; warm an lr up with a schedule")
    eps, beta1, least = options["eps"], options["beta1"], options["min_dim_size_to_factor"]
    for name, value, is_valid, cure in (
        ("lr", lr, lr is None or lr >= 0, "zero or more"),
        ("eps", eps, len(eps) == 2 and eps[0] > 0 and eps[1] >= 0, "two numbers, such as (1e-30, 1e-3)"),
        ("clip_threshold", options["clip_threshold"], options["clip_threshold"] > 0, "more than zero, such as 1.0"),
        ("decay_rate", options["decay_rate"], options["decay_rate"] <= 0, "zero or less, such as -0.8"),
        ("beta1", beta1, beta1 is None or 0 <= beta1 < 1, "None or in [0, 1)"),
        ("weight_decay", options["weight_decay"], options["weight_decay"] >= 0, "zero or more"),
        ("min_dim_size_to_factor", least, least >= 0, "zero or more"),
    ):
        if not is_valid:
            raise ValueError(f"Adafactor: {name}={value} is out of range; it must be {cure}")
