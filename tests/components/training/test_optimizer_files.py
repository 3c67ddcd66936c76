"""What a resume point gives back to an optimizer: every number, and every option in the type that went in."""

import json

import pytest
import torch
from adafactor_reference import EXTERNAL, build_params, random_gradients, run_steps
from torch import nn

from components.optim.adafactor.optimizer import Adafactor
from components.training.checkpoint import load_optimizer, save_optimizer

SHAPES = ((7,), (5, 11), (2, 3, 4), (9, 6), (9, 6), (3, 2, 3, 3))
OPTIMIZERS = {
    "adafactor": lambda params: Adafactor(params, **EXTERNAL, beta1=0.9),
    "adafactor with a list": lambda params: Adafactor(params, **EXTERNAL, eps=[1e-20, 1e-2]),
    "adafactor, relative": lambda params: Adafactor(params, relative_step=True, warmup_init=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.8, 0.95), amsgrad=True),
    "adamw, fused": lambda params: torch.optim.AdamW(params, lr=1e-2, fused=True),
    "sgd": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9, nesterov=True),
    "rprop": lambda params: torch.optim.Rprop(params, lr=1e-2, step_sizes=(1e-5, 1.0)),
    "torch's adafactor": lambda params: torch.optim.Adafactor(params, lr=1e-2),
    "nadam": lambda params: torch.optim.NAdam(params, lr=1e-2),
}


def through_a_file(first, second, folder):
    rest = json.loads(json.dumps(save_optimizer(first, folder / "optimizer.safetensors")))
    load_optimizer(second, folder / "optimizer.safetensors", rest)
    return second


def typed(value):
    """A state dictionary as nested pairs of type and value, which `==` compares to the last bit."""
    if isinstance(value, torch.Tensor):
        return torch.Tensor, value.dtype, value.shape, value.tolist()
    if isinstance(value, dict):
        return dict, [(key, typed(part)) for key, part in sorted(value.items(), key=lambda item: str(item[0]))]
    if isinstance(value, list | tuple):
        return type(value), [typed(part) for part in value]
    return type(value), value


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_and_options_come_back_in_the_types_that_went_in(name, tmp_path):
    def grouped(params):
        return [{"params": params[:3], "weight_decay": 0.1}, {"params": params[3:]}]

    params = build_params(SHAPES)
    build = OPTIMIZERS[name]
    first = build(grouped(params))
    run_steps(first, params, random_gradients(SHAPES, 2))
    second = through_a_file(first, build(grouped(build_params(SHAPES))), tmp_path)
    assert typed(second.state_dict()) == typed(first.state_dict())


@pytest.mark.parametrize("path", ["plain", "blocks", "numba", "grouped"])
@pytest.mark.parametrize("options", [{}, {"beta1": 0.9, "weight_decay": 0.1}], ids=["bare", "momentum"])
def test_adafactor_goes_on_bit_for_bit_from_a_file_on_every_path(path, options, tmp_path):
    gradients = random_gradients(SHAPES, 6)
    whole, parts = build_params(SHAPES), build_params(SHAPES)
    run_steps(Adafactor(whole, **EXTERNAL, **options, path=path), whole, gradients)
    first, second = (Adafactor(parts, **EXTERNAL, **options, path=path) for _ in range(2))
    run_steps(first, parts, gradients[:3])
    run_steps(through_a_file(first, second, tmp_path), parts, gradients[3:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_grouped_steps_take_eps_from_a_list_wherever_it_came_from():
    gradients = random_gradients(SHAPES, 4)
    whole, parts = build_params(SHAPES), build_params(SHAPES)
    run_steps(Adafactor(whole, **EXTERNAL, path="grouped"), whole, gradients)
    optimizer = Adafactor(parts, **EXTERNAL, eps=[1e-30, 1e-3], path="grouped")
    run_steps(optimizer, parts, gradients[:2])
    # The state of transformers' Adafactor, which was saved as JSON
    optimizer.load_state_dict({**optimizer.state_dict(), "param_groups": json.loads(json.dumps(groups_of(optimizer)))})
    assert optimizer.param_groups[0]["eps"] == (1e-30, 1e-3)
    run_steps(optimizer, parts, gradients[2:3])
    optimizer.param_groups[0]["eps"] = [1e-30, 1e-3]
    run_steps(optimizer, parts, gradients[3:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def groups_of(optimizer):
    return optimizer.state_dict()["param_groups"]


def test_another_number_of_groups_is_refused(tmp_path):
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    first = torch.optim.AdamW([{"params": layer.parameters()} for layer in layers])
    second = torch.optim.AdamW(layers[0].parameters())
    with pytest.raises(ValueError, match="parameter groups"):
        through_a_file(first, second, tmp_path)
