"""Adafactor (Shazeer & Stern 2018, arXiv:1804.04235), the optimizer of the T5 family.

The second moment of a matrix is kept as one average per row and one per column, so the optimizer costs a few KiB where
Adam costs two copies of the model. Arguments and state have the names of Hugging Face transformers' Adafactor, and
either loads the other's state; two things differ by intent. The schedule alone owns `group["lr"]`: `step` reads it and
never writes it (writing it multiplied the rates of all tensors into one another, transformers PR 9751). And no value
is fetched from the device during a step.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor


class AppliedRate(NamedTuple):
    """The rate alpha_t of one parameter in the last step: `param_groups[group_index]["params"][param_index]`."""

    group_index: int
    param_index: int
    value: float


class Adafactor(torch.optim.Optimizer):
    """Adafactor with an external or a relative step size, drop-in for `transformers.optimization.Adafactor`.

    The last two dimensions of a tensor with two or more are factored; vectors and scalars keep their full second
    moment. float16 and bfloat16 parameters are computed in float32 and keep float32 state, float64 ones float64.

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

    Raises:
        ValueError: For a value out of range, both or neither of `lr` and `relative_step`, a complex parameter, or (in
            `step`) a sparse gradient.
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
    ) -> None:
        self._last_rates: list[tuple[int, int, Tensor | float]] = []
        defaults = {
            "lr": lr,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "decay_rate": decay_rate,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group after checking its options, its own and the inherited ones together."""
        _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        if any(param.is_complex() for param in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise ValueError("Adafactor has no rule for complex parameters; give it torch.view_as_real of them")

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
        self._last_rates = []
        for group_index, group in enumerate(self.param_groups):
            for param_index, param in enumerate(group["params"]):
                # The mean of an empty tensor is NaN, and there is nothing to update in it.
                if param.grad is None or param.numel() == 0:
                    continue
                rate = self._update_parameter(param, group)
                self._last_rates.append((group_index, param_index, rate))
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
        # Registered last, this hook sees what the user's own hooks made of the dictionary.
        hook = self.register_load_state_dict_pre_hook(lambda _, final: received.update(final))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        saved_ids = (saved_id for group in received["param_groups"] for saved_id in group["params"])
        params = (param for group in self.param_groups for param in group["params"])
        for saved_id, param in zip(saved_ids, params, strict=True):
            for key, value in received["state"].get(saved_id, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][key] = value.to(param.device, _state_dtype(param), copy=True)
        self._last_rates = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or deep-copied optimizer, which carries groups and state only."""
        super().__setstate__(state)
        self._last_rates = []

    def _update_parameter(self, param: Tensor, group: dict[str, Any]) -> Tensor | float:
        """Apply one step to `param` and return its rate alpha_t."""
        assert param.grad is not None
        if param.grad.layout is not torch.strided:
            raise ValueError(
                f"Adafactor got a sparse gradient for a parameter of shape {tuple(param.shape)}; "
                "build its embedding with sparse=False"
            )
        dtype = _state_dtype(param)
        value = param if param.dtype == dtype else param.to(dtype)
        grad = param.grad if param.grad.dtype == dtype else param.grad.to(dtype)
        state = self.state[param]
        if not state:
            _init_state(state, value, group["beta1"] is not None)
        state["step"] += 1

        rate = _rate(value, group, state["step"])
        change = _scaled_update(grad, state, group, rate)
        if group["beta1"] is not None:
            change = state["exp_avg"].mul_(group["beta1"]).add_(change, alpha=1 - group["beta1"])
        if group["weight_decay"] != 0:
            change = _add_decay(change, value, group["weight_decay"] * rate)
        value.sub_(change)
        if value is not param:
            param.copy_(value)
        return rate


def _add_decay(change: Tensor, value: Tensor, amount: Tensor | float) -> Tensor:
    """Return `change + amount * value`, so that decay and update reach the parameter with one rounding.

    Applied by itself the decay, nearly the same in every step, is also rounded the same way in every step: in float32
    the parameter drifts by 1e-6 of its norm in 200 steps, and by more where the factor 1 - amount is rounded first.
    """
    if isinstance(amount, Tensor):
        return torch.addcmul(change, value, amount)
    return torch.add(change, value, alpha=amount)


def _scaled_update(grad: Tensor, state: dict[str, Any], group: dict[str, Any], rate: Tensor | float) -> Tensor:
    """Advance the second moment and return the clipped update times `rate`; one buffer of the gradient's size."""
    eps, weight = group["eps"][0], state["step"] ** group["decay_rate"]  # the weight of the new square, 1 - beta2_t
    # Largest norm that an update may have: its root mean square must not exceed the threshold.
    max_norm = group["clip_threshold"] * grad.numel() ** 0.5
    if grad.ndim < 2:
        second_moment: Tensor = state["exp_avg_sq"].lerp_(grad.square().add_(eps), weight)
        update = second_moment.rsqrt().mul_(grad)
        return update.mul_(_clipped_rate(rate, torch.linalg.vector_norm(update), max_norm))

    rows, columns = state["exp_avg_sq_row"], state["exp_avg_sq_col"]  # (..., N), (..., M)
    buffer = grad.square()  # (..., N, M)
    rows.lerp_(buffer.mean(dim=-1).add_(eps), weight)
    columns.lerp_(buffer.mean(dim=-2).add_(eps), weight)

    # Roots before products: with eps1 = 1e-30 the quotient rows / mean can leave float32's range, these factors cannot.
    row_factor = rows.rsqrt().mul_(rows.mean(dim=-1, keepdim=True).sqrt_())  # (..., N)
    torch.mul(grad, columns.rsqrt().unsqueeze(-2), out=buffer)  # (..., N, M) * (..., 1, M)
    row_norms = torch.linalg.vector_norm(buffer, dim=-1).mul_(row_factor)  # (..., N)
    row_factor.mul_(_clipped_rate(rate, torch.linalg.vector_norm(row_norms), max_norm))
    return buffer.mul_(row_factor.unsqueeze(-1))  # (..., N, M) * (..., N, 1)


def _clipped_rate(rate: Tensor | float, update_norm: Tensor, max_norm: float) -> Tensor:
    """Return `rate / max(1, update_norm / max_norm)`; overwrites `update_norm`."""
    return rate * max_norm / update_norm.clamp_(min=max_norm)


def _rate(value: Tensor, group: dict[str, Any], step: int) -> Tensor | float:
    """Return alpha_t for the parameter `value` (paper, algorithms 4 to 6); `step` is t and counts from 1."""
    rho: float = group["lr"]
    if group["relative_step"]:
        rho = min(1e-6 * step if group["warmup_init"] else 1e-2, step**-0.5)
    if not group["scale_parameter"]:
        return rho
    root, least_scale = value.numel() ** 0.5, group["eps"][1]
    norm: Tensor = torch.linalg.vector_norm(value)
    return norm.clamp_(min=least_scale * root).mul_(rho / root)


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def _init_state(state: dict[str, Any], value: Tensor, has_momentum: bool) -> None:
    state["step"] = 0
    if has_momentum:
        state["exp_avg"] = torch.zeros_like(value)
    if value.ndim < 2:
        state["exp_avg_sq"] = torch.zeros_like(value)
    else:
        state["exp_avg_sq_row"] = value.new_zeros(value.shape[:-1])
        state["exp_avg_sq_col"] = value.new_zeros(value.shape[:-2] + value.shape[-1:])


def _check_options(options: dict[str, Any]) -> None:
    lr, relative_step = options["lr"], options["relative_step"]
    if relative_step and lr is not None:
        raise ValueError(f"Adafactor: lr={lr} contradicts relative_step=True; set relative_step=False or lr=None")
    if not relative_step and lr is None:
        raise ValueError("Adafactor: relative_step=False needs an lr, such as 1e-3")
    if options["warmup_init"] and not relative_step:
        raise ValueError("Adafactor: warmup_init=True is a form of relative_step=True; warm an lr up with a schedule")
    eps, beta1 = options["eps"], options["beta1"]
    for name, value, is_valid, cure in (
        ("lr", lr, lr is None or lr >= 0, "zero or more"),
        ("eps", eps, len(eps) == 2 and eps[0] > 0 and eps[1] >= 0, "two numbers, such as (1e-30, 1e-3)"),
        ("clip_threshold", options["clip_threshold"], options["clip_threshold"] > 0, "more than zero, such as 1.0"),
        ("decay_rate", options["decay_rate"], options["decay_rate"] <= 0, "zero or less, such as -0.8"),
        ("beta1", beta1, beta1 is None or 0 <= beta1 < 1, "None or in [0, 1)"),
        ("weight_decay", options["weight_decay"], options["weight_decay"] >= 0, "zero or more"),
    ):
        if not is_valid:
            raise ValueError(f"Adafactor: {name}={value} is out of range; it must be {cure}")
