"""Images as a dataset, and the collator that normalises, changes and stacks them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data.images.augmentation import (
    NUM_DRAWS,
    OPERATIONS,
    Augmentation,
    build_item_transform,
    build_resize,
    drawing_from,
    erase,
    mix,
    move,
)
from components.data.images.files import BadImage, ImageSource

Labels = np.ndarray


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation of each channel, of pixels between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) from 0 to 255 -> float32 of mean 0 and deviation 1 over the training images."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels.float() - mean * 255.0) / (std * 255.0)

    def mean_image(self, img_size: int) -> Tensor:
        """(C, S, S) uint8 of the mean colour: what stands for an image that cannot be read."""
        return (torch.tensor(self.mean) * 255.0).round().to(torch.uint8)[:, None, None].expand(-1, img_size, img_size)


class LabelledImages:
    """Images of one size by row, with labels (N,) or (N, K) where they are known.

    With an `augmentation`, `begin_epoch` draws the numbers of all rows at once: a pure function of seed, epoch and row.
    Without one images are resized and cropped to their middle. `blind` stands for images that cannot be read, which
    are an error where it is None.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: Labels | None,
        *,
        img_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        blind: Tensor | None = None,
    ) -> None:
        if labels is not None and len(labels) != len(source):
            raise ValueError(f"{len(source)} images but {len(labels)} labels")
        self.source, self.labels, self.img_size, self.seed, self.blind = source, labels, img_size, seed, blind
        self.resize = build_resize(img_size)
        self.transform = None if augmentation is None else build_item_transform(augmentation, img_size)
        self.draws: np.ndarray | None = None
        self.is_changed = augmentation is not None
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the numbers that all rows are changed by in this epoch."""
        if self.is_changed:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self.draws = generator.random((len(self), NUM_DRAWS))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        draws = None if self.draws is None else self.draws[row]
        example: dict[str, Any] = {"image": self._image(row, draws)}
        if self.labels is not None:
            example["labels"] = self.labels[row]
        if draws is not None:
            example["draws"] = draws
        return example

    def _image(self, row: int, draws: np.ndarray | None) -> Tensor:
        try:
            image = self.source.read(row)
        except BadImage as error:
            if self.blind is None:
                raise
            warnings.warn(f"row {row}: {error}; answered for as if it were blank", stacklevel=1)
            return self.blind
        if self.transform is not None and draws is not None:
            with drawing_from(float(draws[OPERATIONS])):
                changed: Tensor = self.transform(image)
            return changed
        return image if image.shape[1:] == (self.img_size, self.img_size) else self.resize(image)

    def padding_keys(self) -> Sequence[int]:
        """All alike: images of one size need no padding."""
        return [0] * len(self)


class ImageCollator:
    """Stacks examples into `pixel_values` (B, C, S, S), normalised, and `labels`.

    Labels are (B,) class indices or (B, K) floats, and (B, num_classes) shares where images are mixed. `flips` mirrors
    every image, for test-time augmentation.
    """

    def __init__(
        self,
        statistics: PixelStatistics,
        *,
        augmentation: Augmentation | None = None,
        num_classes: int = 0,
        flips: bool = False,
    ) -> None:
        self.statistics, self.augmentation, self.num_classes, self.flips = statistics, augmentation, num_classes, flips

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        pixels = torch.stack([example["image"] for example in examples])
        labels = None
        if "labels" in examples[0]:
            labels = torch.as_tensor(np.array([example["labels"] for example in examples]))
        if "draws" in examples[0] and self.augmentation is not None:
            draws = torch.from_numpy(np.stack([example["draws"] for example in examples]))
            pixels = self.statistics.normalise(move(pixels, draws, self.augmentation))
            pixels = erase(pixels, draws, self.augmentation.erase)
            if labels is not None:
                pixels, labels = mix(pixels, labels, draws, self.augmentation, self.num_classes)
        else:
            pixels = self.statistics.normalise(pixels)
        batch = {"pixel_values": pixels.flip(3) if self.flips else pixels}
        return batch if labels is None else batch | {"labels": labels}
