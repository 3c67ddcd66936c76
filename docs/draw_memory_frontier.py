"""Draw docs/pictures/memory_frontier.png from what benchmarks/memory_planner.py measured.

.venv/bin/python benchmarks/memory_planner.py --json build/frontier.json
.venv/bin/python docs/draw_memory_frontier.py build/frontier.json
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

PICTURE = Path(__file__).parent / "pictures" / "memory_frontier.png"


def main(source: Path) -> None:
    points = json.loads(source.read_text())
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    milliseconds = [point["seconds"] * 1e3 for point in points]
    axes.plot(
        [point["forecast"] / 2**20 for point in points],
        milliseconds,
        "o-",
        fillstyle="none",
        label="fastest plan, forecast",
    )
    axes.plot([point["measured"] / 2**20 for point in points], milliseconds, "kx", label="the same, measured")
    for point in points:
        axes.axvline(point["budget"] / 2**20, color="black", linewidth=0.5, linestyle=":")
    axes.set(
        title="BERT-base, AdamW: ten budgets (dotted) and the plans chosen for them",
        xlabel="MiB at the peak of a step: weights, gradients, optimizer, activations",
        ylabel="ms beyond the fastest plan, a quarter batch",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
