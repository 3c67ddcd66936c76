"""Draw docs/pictures/distillation.png from what benchmarks/sentence_encoders.py measured.

.venv/bin/python benchmarks/sentence_encoders.py --encoder ... --encoder ... --json build/encoders.json
.venv/bin/python docs/draw_distillation.py build/encoders.json
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

PICTURE = Path(__file__).parent / "pictures" / "distillation.png"
SLACK, LEAST_SPEED = 0.05, 10


def main(source: Path) -> None:
    teacher, *students = json.loads(source.read_text())
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    by_time, by_size = figure.subplots(1, 2, sharey=True)
    for axes, key, label in (
        (by_time, "speed", "times the teacher's speed, one thread"),
        (by_size, "parameters", "numbers in the checkpoint"),
    ):
        axes.axhline(teacher["mrr"], color="black", linewidth=0.8, label="the teacher")
        axes.axhline(teacher["mrr"] - SLACK, color="black", linewidth=0.8, linestyle=":", label="5 points below")
        for row in students:
            axes.plot(row[key], row["mrr"], "o", color="C1" if row is students[0] else "C0")
            axes.annotate(row["encoder"], (row[key], row["mrr"]), (4, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    by_time.axvline(LEAST_SPEED, color="black", linewidth=0.8, linestyle="--", label="ten times as fast")
    by_size.set_xscale("log")
    by_time.set(ylabel="MRR over 1,850 questions")
    by_time.legend(fontsize=8, loc="lower left")
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
