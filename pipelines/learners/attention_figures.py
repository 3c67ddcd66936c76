"""Pictures of an XCiT's attention."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.learners.figures import save_figure

MOST_ROWS = 4


def draw_class_attention(
    images: Sequence[NDArray[np.uint8]], maps: NDArray[np.float32], titles: Sequence[str], path: Path
) -> Path:
    """Images (H, W, C), and below each how much the class token looks at each place of it.

    maps: (class blocks, images, rows, columns) of attention weights, the mean of the heads.
    """
    from matplotlib.figure import Figure

    num_blocks, num_images = maps.shape[:2]
    figure = Figure(figsize=(1.7 * num_images + 0.6, 1.9 * (1 + num_blocks)), layout="constrained")
    axes = figure.subplots(1 + num_blocks, num_images, squeeze=False)
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes[0, column].imshow(_shown(image), cmap="gray", vmin=0, vmax=255)
        axes[0, column].set_title(_broken(title), fontsize=8)
        height, width = image.shape[:2]
        for block in range(num_blocks):
            below = axes[1 + block, column]
            below.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            heat = maps[block, column]
            below.imshow(heat, cmap="inferno", alpha=0.65, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            if column == 0:
                below.set_ylabel(f"class block {block + 1}", fontsize=8)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
    return save_figure(figure, path)


def draw_cross_covariance(maps: NDArray[np.float32], path: Path) -> Path:
    """Which channel of the query attends to which of the key: a matrix per head, for a few blocks from first to last.

    maps: (blocks, heads, d, d), the mean over images; all on one scale.
    """
    from matplotlib.figure import Figure

    num_blocks, num_heads = maps.shape[:2]
    shown = sorted({round(step) for step in np.linspace(0, num_blocks - 1, min(num_blocks, MOST_ROWS))})
    figure = Figure(figsize=(1.7 * num_heads + 1.2, 1.8 * len(shown) + 0.3), layout="constrained")
    axes = figure.subplots(len(shown), num_heads, squeeze=False)
    picture = None
    for row, block in enumerate(shown):
        for head in range(num_heads):
            picture = axes[row, head].imshow(maps[block, head], cmap="viridis", vmin=0.0, vmax=float(maps.max()))
            axes[row, head].set(xticks=[], yticks=[])
            if row == 0:
                axes[row, head].set_title(f"head {head + 1}", fontsize=8)
        axes[row, 0].set_ylabel(f"block {block + 1}", fontsize=8)
    assert picture is not None
    figure.colorbar(picture, ax=axes, shrink=0.6, label="attention weight, key channel to the right")
    return save_figure(figure, path)


def _shown(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, :, 0] if image.shape[2] == 1 else image


def _broken(title: str) -> str:
    return title.replace(", ", ",\n")
