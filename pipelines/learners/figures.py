"""Pictures of a run: curves of each fold, and the folds' scores side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.files.atomic import atomic_file
from components.memory.byte_sizes import format_closely
from components.memory.planner import PlanDecision
from pipelines.competitions.competition import Competition


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> Path | None:
    """Loss, learning rate and validation scores over steps; None where nothing was recorded."""
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name != "step":
                series.setdefault(name, []).append((entry["step"], value))
    if not series:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(series), 3.2), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, marker="o" if len(points) < 20 else None)
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
    return save_figure(figure, path)


def draw_scores(metrics: Mapping[str, float], competition: Competition, path: Path) -> Path:
    """The deciding metric of every fold, with their mean."""
    from matplotlib.figure import Figure

    names = [key for key in metrics if key.startswith("fold") and key.endswith(f"/{competition.metric}")]
    figure = Figure(figsize=(1.5 + 0.9 * max(len(names), 3), 3.2), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar([name.split("/")[0] for name in names], [metrics[name] for name in names], width=0.6)
    axes.bar_label(bars, fmt="%.4f", fontsize=8)
    axes.axhline(metrics[f"cv/{competition.metric}"], color="black", linewidth=1, linestyle="--")
    axes.set(title=f"{competition.metric} by fold, mean dashed")
    return save_figure(figure, path)


def draw_lr_curve(lrs: Sequence[float], losses: Sequence[float], suggestion: float | None, path: Path) -> Path:
    """The smoothed loss over a sweep of learning rates, with the suggested one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(lrs, losses)
    if suggestion is not None:
        axes.axvline(suggestion, color="black", linewidth=1, linestyle="--")
    axes.set(title="loss after a step at each rate", xlabel="optimizer.lr", ylabel="loss, smoothed", xscale="log")
    axes.grid(alpha=0.3)
    return save_figure(figure, path)


def draw_frontier(decision: PlanDecision, path: Path) -> Path:
    """The fastest activation plans: memory against time, the budget, and the plan that was chosen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    peaks = [point.peak for point in decision.frontier]
    size, unit = (10**9, "GB") if max(peaks) >= 10**9 else (10**6, "MB")
    chosen = decision.seconds * 1e3
    milliseconds = [point.seconds * 1e3 for point in decision.frontier]
    axes.plot([peak / size for peak in peaks], milliseconds, marker=".", label="fastest plans, forecast")
    axes.axvline(
        decision.budget / size,
        color="black",
        linewidth=1,
        linestyle="--",
        label=f"budget {format_closely(decision.budget)}",
    )
    axes.plot(decision.forecast / size, chosen, "o", label="chosen, forecast")
    axes.plot(decision.measured / size, chosen, "x", color="black", label="chosen, measured")
    axes.set(
        title="memory and time of a step", xlabel=f"{unit} at the peak", ylabel="ms beyond the fastest, a few rows"
    )
    axes.set_xlim(0.95 * min(peaks) / size, 1.05 * max([*peaks, decision.measured]) / size)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def save_figure(figure: object, path: Path) -> Path:
    """Write a matplotlib figure as PNG, with its folder; the same figure gives the same bytes."""
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})  # type: ignore[attr-defined]
    return path
