"""Reading images: from files of their own, or as rows of one array file.

A reference is a path, "train_images/17.jpg", or an array file and a row of it, "train_images.npy#17". Arrays are uint8,
(N, H, W) grey or (N, H, W, 3) in colour, and stay on the disk until a row is asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

ARRAY_SUFFIX, ROW_MARK = ".npy", "#"
GREY_MODES = ("1", "L", "LA")
MODES = {1: "L", 3: "RGB"}
WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
"""Deeper than 8 bits: how to map them to 256 steps is for the user to say."""


class BadImage(ValueError):
    """An image that cannot be used; the message names its file and what is wrong with it."""


class ImageSource(Protocol):
    """Images by row, as uint8 tensors (C, H, W)."""

    def __len__(self) -> int: ...
    def read(self, row: int) -> Tensor: ...


def open_images(references: Sequence[str], *, in_chans: int, converts_grey: bool, size_hint: int) -> ImageSource:
    """The images of a list of references, all of them files or all rows of one array.

    `in_chans` is 1 (grey) or 3 (colour). A JPEG much larger than `size_hint` pixels is decoded at a fraction of its
    size, never below it. Raises ValueError for an array file that is missing, torn or of another shape.
    """
    if references and f"{ARRAY_SUFFIX}{ROW_MARK}" in references[0]:
        files = {reference.rpartition(ROW_MARK)[0] for reference in references}
        if len(files) > 1:
            raise ValueError(f"images lie in {len(files)} array files, {', '.join(sorted(files))}; join them in one")
        rows = [_row_of(reference) for reference in references]
        return ArrayImages(_open_array(Path(files.pop()), in_chans), rows)
    return ImageFiles(references, in_chans=in_chans, converts_grey=converts_grey, size_hint=size_hint)


def _row_of(reference: str) -> int:
    text = reference.rpartition(ROW_MARK)[2]
    if not text.isdecimal():
        raise ValueError(f"{reference}: {text!r} is no row of an array; the column of images needs whole numbers")
    return int(text)


def _open_array(path: Path, in_chans: int) -> NDArray[np.uint8]:
    """Mapped into memory, (N, C, H, W)."""
    try:
        array = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; prepare the competition's data again") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: unreadable as an array ({error}); prepare the data again") from error
    planes: NDArray[np.uint8] = (
        array[:, None] if array.ndim == 3 else np.moveaxis(array, -1, 1) if array.ndim == 4 else array
    )
    if planes.ndim != 4 or planes.shape[1] != in_chans or planes.dtype != np.uint8:
        raise ValueError(
            f"{path}: {array.dtype} of shape {array.shape}; images with data.in_chans: {in_chans} are uint8, "
            f"(N, H, W{', 3' if in_chans == 3 else ''})"
        )
    return planes


class ArrayImages:
    """Rows of an array (N, C, H, W) of uint8, which may be mapped from a file."""

    def __init__(self, array: NDArray[np.uint8], rows: Sequence[int]) -> None:
        self.array, self.rows = array, np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether the array is long enough for each row."""
        return (self.rows >= 0) & (self.rows < len(self.array))

    def read(self, row: int) -> Tensor:
        """A copy, as the file's own memory must not be written to."""
        place = int(self.rows[row])
        if not 0 <= place < len(self.array):
            raise BadImage(f"image {place} of an array of {len(self.array)}: missing")
        return torch.from_numpy(np.array(self.array[place]))


class ImageFiles:
    """One file an image, in any format that Pillow reads, turned upright as its EXIF entry says."""

    def __init__(self, paths: Sequence[str], *, in_chans: int, converts_grey: bool, size_hint: int) -> None:
        self.paths, self.in_chans, self.converts_grey, self.size_hint = list(paths), in_chans, converts_grey, size_hint

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> Tensor:
        """Raises BadImage for a file that is missing, empty, torn, no image, or grey where colour is expected."""
        path = Path(self.paths[row])
        try:
            if path.stat().st_size == 0:
                raise BadImage(f"{path}: empty, 0 bytes")
            with Image.open(path) as image:
                self._check_mode(image.mode, path)
                image.draft(None, (self.size_hint, self.size_hint))
                pixels = np.array(ImageOps.exif_transpose(image).convert(MODES[self.in_chans]))
        except FileNotFoundError:
            raise BadImage(f"{path}: missing") from None
        except UnidentifiedImageError:
            raise BadImage(f"{path}: no image, or one whose beginning is damaged") from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            # Pillow has no type of its own for a torn file; PNG's decoder raises SyntaxError
            raise BadImage(f"{path}: torn ({error})") from error
        planes = pixels[None] if self.in_chans == 1 else pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(planes))  # (C, H, W)

    def _check_mode(self, mode: str, path: Path) -> None:
        if mode in WIDE_MODES:
            raise BadImage(f"{path}: pixels of mode {mode}, not of 8 bits; convert it")
        if self.in_chans == 3 and mode in GREY_MODES and not self.converts_grey:
            raise BadImage(f"{path}: grey, in a colour set; data.convert_grey: true repeats its one channel")
