"""The picture and the table of docs/adafactor.md: rates that Adafactor applied, by its own account.

    OMP_NUM_THREADS=1 python docs/draw_adafactor_rates.py [--checkpoint google/t5-v1_1-small] [--output docs/pictures]

Every number comes from `Adafactor.effective_lrs()` after real steps: on the architecture of T5-v1.1-small with freshly
drawn weights (or on a checkpoint, a folder or a hub name) for the table and the first panel, on a small T5 that learns
to turn digits round for the second. About a minute on one core.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from components.models.t5.checkpoint import T5Architecture, create_t5, load_t5
from components.optim.adafactor.optimizer import Adafactor
from components.optim.schedules import Schedule, apply_schedule, build_cosine, build_inverse_sqrt

# T5-v1.1-small: 8 + 8 blocks, 77 million weights.
SMALL = T5Architecture(32128, 512, 64, 1024, 8, 8, 6)
TINY = T5Architecture(16, 128, 32, 256, 2, 2, 4, dropout=0.0)
KINDS = {
    "embedding": r"^shared",
    "head": r"^lm_head",
    "q": r"\.q\.",
    "k": r"\.k\.",
    "v": r"\.v\.",
    "o": r"\.o\.",
    "wi_0": r"\.wi_0\.",
    "wi_1": r"\.wi_1\.",
    "wo": r"\.wo\.",
    "position bias": r"relative_attention_bias",
    "norms": r"layer_norm",
}
# (scale_parameter, lr): transformers' advice for fine-tuning, T5's own, and what our small models train at.
SETTINGS = ((False, 1e-3), (True, 1e-3), (True, 3e-2))
COLOURS = ("#4c78a8", "#e45756", "#f2a33a", "#54a24b", "#7a5195", "#767676")
NUM_STEPS, NUM_WARMUP_STEPS = 400, 40


def kind_of(name: str) -> str:
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))


def applied_rates(model: nn.Module, optimizer: Adafactor) -> dict[str, list[float]]:
    """The rates of the last step, by kind of tensor."""
    names = {id(param): name for name, param in model.named_parameters()}
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for group, index, value in optimizer.effective_lrs():
        rates[kind_of(names[id(optimizer.param_groups[group]["params"][index])])].append(value)
    return rates


def rates_after_one_step(model: nn.Module, scale_parameter: bool, lr: float) -> dict[str, list[float]]:
    """The weights are put back afterwards; the gradient, whose size Adafactor divides out, is noise."""
    weights = [param.detach().clone() for param in model.parameters()]
    optimizer = Adafactor(model.parameters(), lr=lr, relative_step=False, scale_parameter=scale_parameter)
    generator = torch.Generator().manual_seed(0)
    for param in model.parameters():
        param.grad = torch.randn(param.shape, generator=generator)
    optimizer.step()
    with torch.no_grad():
        for param, weight in zip(model.parameters(), weights, strict=True):
            param.copy_(weight)
    return applied_rates(model, optimizer)


def print_table(model: nn.Module, rates: dict[str, dict[str, list[float]]]) -> None:
    squares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for name, param in model.named_parameters():
        squares[kind_of(name)].append(float(param.detach().square().mean().sqrt()))
    print("| tensors | RMS | " + " | ".join(f"`{name}`" for name in rates) + " |\n" + "|---" * (2 + len(rates)) + "|")
    for kind in KINDS:
        cells = [squares[kind], *(rates[name][kind] for name in rates)]
        print(f"| {kind} | " + " | ".join(f"{sum(cell) / len(cell):.2g}" for cell in cells) + " |")


# -- the panels ------------------------------------------------------------------------------------------------------


def draw_kinds(axes: Axes, rates: dict[str, dict[str, list[float]]]) -> None:
    """One row per kind of tensor, one mark per setting."""
    for colour, marker, size, (setting, by_kind) in zip(COLOURS, "osD", (11, 6, 6), rates.items(), strict=False):
        means = [sum(values) / len(values) for values in by_kind.values()]
        fill = "none" if marker == "o" else colour
        axes.plot(means, range(len(KINDS)), marker, color=colour, mfc=fill, label=setting, markersize=size)
    for row, kind in enumerate(KINDS):
        values = [sum(by_kind[kind]) / len(by_kind[kind]) for by_kind in rates.values()]
        axes.plot([min(values), max(values)], [row, row], color="#cccccc", zorder=0)
    axes.set_xscale("log")
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.invert_yaxis()
    axes.set_ylim(len(KINDS) - 0.5, -2.9)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.set_xlabel("applied rate: root mean square of one step, before clipping")
    axes.set_title("One step of T5-v1.1-small, by kind of tensor")


def digit_batches() -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        digits = torch.randint(3, 13, (32, 8), generator=generator)
        yield {"input_ids": digits, "attention_mask": torch.ones_like(digits), "labels": digits.flip(1)}


def rates_over_training(scale_parameter: bool, lr: float) -> dict[str, list[float]]:
    """By kind of tensor, the mean rate of each step of a training under warm-up and cosine."""
    torch.manual_seed(0)
    model = create_t5(TINY, head="seq2seq")
    optimizer = Adafactor(model.parameters(), lr=lr, relative_step=False, scale_parameter=scale_parameter)
    schedule = build_cosine(num_steps=NUM_STEPS, num_warmup_steps=NUM_WARMUP_STEPS, final_factor=0.0)
    history: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for step, batch in zip(range(NUM_STEPS), digit_batches(), strict=False):
        apply_schedule(optimizer, schedule(step))
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        for kind, values in applied_rates(model, optimizer).items():
            history[kind].append(sum(values) / len(values))
    return history


def draw_training(axes: Axes) -> None:
    """The schedule sets the shape, the tensor's size the height."""
    scaled = rates_over_training(True, 3e-2)
    for colour, kind in zip(COLOURS[1:], ("embedding", "wo", "k", "q"), strict=False):
        axes.plot(scaled[kind], color=colour, label=f"{kind}: scale_parameter=True, lr=3e-2")
    plain = rates_over_training(False, 1e-3)
    axes.plot(plain["wo"], "--", color=COLOURS[0], label="all tensors: scale_parameter=False, lr=1e-3")
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 0.1)
    axes.legend(loc="lower left", fontsize=8, frameon=False, bbox_to_anchor=(0.05, 0.0))
    axes.set_xlabel("step")
    axes.set_ylabel("applied rate")
    axes.set_title("A training: warm-up and cosine, times each tensor's scale")


def rates_of_own_schedule(warmup_init: bool, num_steps: int) -> list[float]:
    """rho_t of `relative_step`, from steps on a single number."""
    param = nn.Parameter(torch.ones(1))
    optimizer = Adafactor([param], scale_parameter=False, relative_step=True, warmup_init=warmup_init)
    rates = []
    for _ in range(num_steps):
        param.grad = torch.ones(1)
        optimizer.step()
        rates.append(optimizer.effective_lrs()[0].value)
    return rates


def rates_of_schedule(schedule: Schedule, lr: float, num_steps: int) -> list[float]:
    param = nn.Parameter(torch.ones(1))
    optimizer = Adafactor([param], lr=lr, relative_step=False, scale_parameter=False)
    rates = []
    for step in range(num_steps):
        apply_schedule(optimizer, schedule(step))
        param.grad = torch.ones(1)
        optimizer.step()
        rates.append(optimizer.effective_lrs()[0].value)
    return rates


def draw_schedules(axes: Axes, num_steps: int = 30_000) -> None:
    """Where rho comes from."""
    inverse = build_inverse_sqrt(num_steps=num_steps, num_warmup_steps=1000, time_scale=1000)
    cosine = build_cosine(num_steps=num_steps, num_warmup_steps=1000, final_factor=0.0)
    curves = {
        "relative_step": rates_of_own_schedule(False, num_steps),
        "relative_step, warmup_init": rates_of_own_schedule(True, num_steps),
        "lr=1e-2, inverse_sqrt": rates_of_schedule(inverse, 1e-2, num_steps),
        "lr=1e-2, cosine": rates_of_schedule(cosine, 1e-2, num_steps),
    }
    for colour, style, (label, values) in zip(COLOURS, ("-", "-", "--", "--"), curves.items(), strict=False):
        axes.plot(range(1, num_steps + 1), values, style, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(8e-7, 0.2)
    axes.legend(loc="upper left", fontsize=8, frameon=False, ncols=2)
    axes.set_xlabel("step")
    axes.set_ylabel("rho, before the parameter's scale")
    axes.set_title("rho: Adafactor's own schedules and ours")


def compounded_rates(model: nn.Module, lr: float) -> list[float]:
    """What comes of writing each tensor's rate back into the group: the next tensor starts from it."""
    rates = []
    for param in model.parameters():
        optimizer = Adafactor([param], lr=lr, relative_step=False)
        param.grad = torch.ones_like(param)
        optimizer.step()
        rates.append(lr := optimizer.effective_lrs()[0].value)
    return rates


def draw_compounding(axes: Axes) -> None:
    torch.manual_seed(0)
    model = create_t5(TINY, head="seq2seq")
    ours = Adafactor(model.parameters(), lr=1e-3, relative_step=False)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    ours.step()
    counts = range(1, len(list(model.parameters())) + 1)
    axes.plot(counts, [rate.value for rate in ours.effective_lrs()], ".", color=COLOURS[0], label="group read only")
    axes.plot(counts, compounded_rates(model, 1e-3), ".", color=COLOURS[1], label="group written back")
    axes.set_yscale("log")
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    axes.set_xlabel("tensor, in the order of the step")
    axes.set_ylabel("applied rate")
    axes.set_title("The first step at lr=1e-3, with and without the group bug")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", help="a T5 v1.1 in a folder or on the hub, in place of fresh weights")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = load_t5(options.checkpoint, head="seq2seq") if options.checkpoint else create_t5(SMALL, head="seq2seq")
    rates = {f"scale_parameter={scaled}, lr={lr:g}": rates_after_one_step(model, scaled, lr) for scaled, lr in SETTINGS}
    print_table(model, rates)
    figure = Figure(figsize=(12.5, 9.0), layout="constrained")
    panels = figure.subplots(2, 2)
    draw_kinds(panels[0, 0], rates)
    draw_training(panels[0, 1])
    draw_schedules(panels[1, 0])
    draw_compounding(panels[1, 1])
    for axes in panels.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "adafactor_rates.png", dpi=110)


if __name__ == "__main__":
    main()
