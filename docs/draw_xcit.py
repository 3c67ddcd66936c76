"""The figure of docs/xcit.md: an XCiT from pixels to classes, and one of its blocks, with every shape.

python docs/draw_xcit.py [docs/pictures/xcit.png]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

OUTPUT = Path(__file__).parent / "pictures" / "xcit.png"
HEIGHT, GAP = 0.62, 0.34
PLAIN, TOKENS, CHANNELS, PLACES = "#eeeeee", "#d6e4f5", "#f7dcc4", "#d9efd2"

Step = tuple[str, str, str]
"""What is done, what comes out of it, colour."""

MODEL: Sequence[Step] = (
    ("image", "3 × 224 × 224", PLAIN),
    ("stem: four 3×3 convolutions of stride 2", "384 × 14 × 14", PLACES),
    ("one token a place, + sines of row and column", "196 × 384", TOKENS),
    ("12 blocks", "196 × 384", TOKENS),
    ("2 × class attention: one token asks all others", "1 × 384", TOKENS),
    ("norm, linear head", "1000", PLAIN),
)
BLOCK: Sequence[Step] = (
    ("LayerNorm, one linear layer to q, k, v", "3 × 8 heads × 48 × 196", TOKENS),
    ("each channel of q and k to length 1 over the tokens", "8 × 48 × 196", CHANNELS),
    ("softmax(temperature · q kᵀ): channels ask channels", "8 × 48 × 48", CHANNELS),
    ("the weights mix v's channels; linear, scale, + x", "196 × 384", TOKENS),
    ("LayerNorm; back onto the grid", "384 × 14 × 14", PLACES),
    ("3×3 per channel, GELU, norm, 3×3 per channel; + x", "384 × 14 × 14", PLACES),
    ("LayerNorm; linear ×4, GELU, linear; scale, + x", "196 × 384", TOKENS),
)


def draw_steps(axes: Axes, title: str, steps: Sequence[Step]) -> None:
    """Boxes from top to bottom, the shape that leaves each beside its arrow."""
    axes.set_title(title, fontsize=10, loc="left")
    for index, (text, shape, colour) in enumerate(steps):
        top = -index * (HEIGHT + GAP)
        axes.text(
            0.0,
            top,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "#888888", "linewidth": 0.8},
        )
        axes.annotate(
            "", (0.0, top - HEIGHT - GAP + 0.24), (0.0, top - 0.24), arrowprops={"arrowstyle": "->", "color": "#555555"}
        )
        axes.text(0.06, top - 0.48, shape, fontsize=7.5, color="#444444", va="center")
    axes.set(xlim=(-1.6, 1.6), ylim=(-7 * (HEIGHT + GAP) + 0.2, 0.4))
    axes.axis("off")


def main() -> None:
    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_steps(left, "XCiT-S12/16", MODEL)
    draw_steps(right, "one block", BLOCK)
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    figure.savefig(output, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
