"""Draw docs/pictures/memory_frontier.png from what two benchmarks measured.

.venv/bin/python benchmarks/activation_plans.py --model bert --tokens 256 --lengths 128 --json build/plans128.json
.venv/bin/python benchmarks/activation_plans.py --model bert --tokens 512 --lengths 512 --json build/plans512.json
.venv/bin/python benchmarks/memory_planner.py --rows 16 --json build/frontier.json
.venv/bin/python docs/draw_memory_frontier.py build/plans128.json build/plans512.json build/frontier.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PICTURE = Path(__file__).parent / "pictures" / "memory_frontier.png"
THEIRS = "transformers "
Rows = Sequence[dict[str, Any]]


def share(rows: Rows, key: str) -> list[float]:
    """Each row's value in percent of the plan "none"'s, which is ours."""
    base = next(row for row in rows if row["plan"] == "none")[key]
    return [100 * row[key] / base for row in rows]


def draw_plans(axes: Axes, title: str, rows: Rows) -> None:
    """What each plan keeps and takes, ours and transformers' each along a line."""
    points = [*zip(share(rows, "saved"), share(rows, "seconds"), rows, strict=True)]
    for is_theirs, style, label in ((False, "o-", "plans of ours"), (True, "s--", "transformers, every_n_layers")):
        chosen = sorted((x, y) for x, y, row in points if row["plan"].startswith(THEIRS) is is_theirs)
        axes.plot([x for x, _ in chosen], [y for _, y in chosen], style, label=label)
    axes.set(title=title.removesuffix(", cpu"), xlabel="% kept for the backward pass", ylabel="% of the time of a step")
    axes.legend()


def draw_budgets(axes: Axes, points: Rows) -> None:
    """The planner's choices for ten budgets, forecast and measured."""
    milliseconds = [point["seconds"] * 1e3 for point in points]
    forecast, measured = ([point[key] / 2**20 for point in points] for key in ("forecast", "measured"))
    axes.plot(forecast, milliseconds, "o-", fillstyle="none", label="fastest plan, forecast")
    axes.plot(measured, milliseconds, "kx", label="the same, measured")
    for point in points:
        axes.axvline(point["budget"] / 2**20, color="black", linewidth=0.5, linestyle=":")
    axes.set(
        title="AdamW, 16 x 128 tokens: ten budgets (dotted)",
        xlabel="MiB at the peak of a step, weights and optimizer too",
        ylabel="ms beyond the fastest plan, a quarter batch",
    )
    axes.legend()


def main(plans: Sequence[Path], frontier: Path) -> None:
    tables = [table for path in plans for table in json.loads(path.read_text()).items()]
    figure = Figure(figsize=(5 * (len(tables) + 1), 4.2), layout="constrained")
    axes = figure.subplots(1, len(tables) + 1)
    for part, (title, rows) in zip(axes, tables, strict=False):
        draw_plans(part, title, rows)
    draw_budgets(axes[-1], json.loads(frontier.read_text()))
    for part in axes:
        part.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    *plan_files, frontier_file = map(Path, sys.argv[1:])
    main(plan_files, frontier_file)
