"""Trying a training and taking it back: a sweep of rates and a measurement of layers leave no trace."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from components.seeding import collect_random_states, restore_random_states


@contextmanager
def undone(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Whatever the block does to the model, the optimizer and the random states is undone at its end."""
    outer = (param for group in optimizer.param_groups for param in group["params"])
    params = list(dict.fromkeys([*model.parameters(), *outer]))
    saved = [(tensor, _host_copy(tensor)) for tensor in [*params, *model.buffers()]]
    grads = [(param, param.grad) for param in params]
    modes = [(module, module.training) for module in model.modules()]
    content = optimizer.state_dict()
    state = {index: {k: _host_copy(v) for k, v in values.items()} for index, values in content["state"].items()}
    former = {**copy.deepcopy({k: v for k, v in content.items() if k != "state"}), "state": state}
    random_states = collect_random_states()
    try:
        # Not zeroed in place: these gradients are someone else's.
        for param in params:
            param.grad = None
        yield
    finally:
        with torch.no_grad():
            for tensor, copied in saved:
                tensor.copy_(copied)
        for param, grad in grads:
            param.grad = grad
        for module, mode in modes:
            module.training = mode
        optimizer.load_state_dict(former)
        restore_random_states(random_states)


def _host_copy(value: Any) -> Any:  # noqa: ANN401 - an optimizer's state may be anything
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)
