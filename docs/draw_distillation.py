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
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    by_time, by_size = figure.subplots(1, 2, sharey=True)
    for axes, key in ((by_time, "speed"), (by_size, "parameters")):
        axes.axhline(teacher["mrr"], color="black", linewidth=0.8, label="the teacher's MRR")
        axes.axhline(teacher["mrr"] - SLACK, color="black", linewidth=0.8, linestyle=":", label="5 points less")
        for row, marker in zip(students, "o^sDvP", strict=False):
            axes.plot(row[key] / (1e6 if key == "parameters" else 1), row["mrr"], marker, label=row["encoder"])
        axes.margins(0.15)
        axes.grid(alpha=0.3)
    by_time.axvline(LEAST_SPEED, color="black", linewidth=0.8, linestyle="--", label="ten times as fast")
    by_time.set(xlabel="times the teacher's speed, one thread", ylabel="MRR over 1,850 questions")
    by_size.set(xlabel="million numbers in the checkpoint", xlim=(0, None))
    handles, labels = by_time.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
