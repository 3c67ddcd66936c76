"""Looking at every image once before training: which cannot be used, and what their pixels are like."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.data.images.dataset import PixelStatistics
from components.data.images.augmentation import build_resize
from components.data.images.files import ArrayImages, BadImage, ImageSource

CHUNK = 4096  # rows of an array that are summed at once
Found = tuple[int, NDArray[np.uint8] | str]
"""A row, and its pixels or what is wrong with them."""


@dataclass(frozen=True)
class Inspection:
    """What was found: row -> problem, and the statistics of the others (None where none is left)."""

    problems: dict[int, str]
    statistics: PixelStatistics | None


def inspect_images(
    source: ImageSource, *, img_size: int, num_threads: int, cache: NDArray[np.uint8] | None = None
) -> Inspection:
    """Decode every image, at the size that the model sees; those without a problem go into `cache` (N, C, S, S)."""
    problems: dict[int, str] = {}

    def sound() -> Iterator[NDArray[np.uint8]]:
        for row, found in _read_all(source, img_size, num_threads):
            if isinstance(found, str):
                problems[row] = found
                continue
            if cache is not None:
                cache[row] = found
            yield found[None]

    if isinstance(source, ArrayImages):
        # Pixels of an array cannot be torn one by one; it can be too short
        problems = {row: str(_read_one(source, img_size, row)[1]) for row in np.flatnonzero(~source.held).tolist()}
        return Inspection(problems, measure_pixels(_chunks(source)))
    return Inspection(problems, measure_pixels(sound()))


def measure_pixels(batches: Iterable[NDArray[np.uint8]]) -> PixelStatistics | None:
    """Mean and deviation of the channels of batches (n, C, H, W); sums are whole numbers, so their order is nothing."""
    num, total, squares = 0, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    for batch in batches:
        values = batch.astype(np.int64)
        num += values[:, 0].size
        total = total + values.sum(axis=(0, 2, 3))
        squares = squares + (values * values).sum(axis=(0, 2, 3))
    if num == 0:
        return None
    mean = total / num
    # A constant channel is left as it is
    std = np.sqrt(np.maximum(squares / num - mean**2, 1.0))
    return PixelStatistics(tuple((mean / 255).tolist()), tuple((std / 255).tolist()))


def _chunks(source: ArrayImages) -> Iterator[NDArray[np.uint8]]:
    rows = source.rows[source.held]
    for start in range(0, len(rows), CHUNK):
        yield source.array[rows[start : start + CHUNK]]


def _read_all(source: ImageSource, img_size: int, num_threads: int) -> Iterator[Found]:
    """In the order of the rows; Pillow decodes outside Python's lock."""
    read = partial(_read_one, source, img_size)
    with ThreadPoolExecutor(max(1, num_threads)) as pool:
        for start in range(0, len(source), CHUNK):
            yield from pool.map(read, range(start, min(start + CHUNK, len(source))))


def _read_one(source: ImageSource, img_size: int, row: int) -> Found:
    try:
        image = source.read(row)
    except BadImage as error:
        return row, str(error)
    return row, (image if image.shape[1:] == (img_size, img_size) else build_resize(img_size)(image)).numpy()
