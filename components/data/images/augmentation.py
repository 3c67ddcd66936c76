"""Changing training images at random: what suits one image at a time, and what is cheaper over a whole batch.

Nothing here draws for itself. Every image comes with `NUM_DRAWS` numbers from [0, 1) of its own, and all that is done to
it follows from them, so that neither worker processes nor a resume change a pixel. `pixels` are uint8 or float tensors.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

NUM_DRAWS = 12
DX, DY, FLIP, ROTATE, ZOOM, ERASE, AREA, ASPECT, TOP, LEFT, MIX, OPERATIONS = range(NUM_DRAWS)
"""Which of an image's numbers decides what; the last two seed a generator, for what draws by itself."""

ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = (0.3, 3.3)
"""Share of the image, and height over width, of an erased rectangle (arXiv:1708.04896, section 3)."""
NUM_OPERATIONS = 2
"""RandAugment's operations per image, as in XCiT's and DeiT's training."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strongly images are changed; the experiment's `data` section says what each means. Nothing by default."""

    crop_scale: float = 1.0
    rand_augment: int = 0
    flip: float = 0.0
    shift: int = 0
    rotate: float = 0.0
    zoom: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of several classes."""
        return self.mixup > 0.0 or self.cutmix > 0.0


# -- one image -----------------------------------------------------------------------------------------------------


def build_resize(img_size: int) -> v2.Transform:
    """The shorter side to `img_size` pixels, and the middle square of it, as XCiT is evaluated (crop_pct 1)."""
    shorter = v2.Resize(img_size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([shorter, v2.CenterCrop(img_size)])


def build_item_transform(augmentation: Augmentation, img_size: int) -> v2.Transform | None:
    """Random crop and RandAugment of one image (C, H, W) to `img_size`; None where neither is asked for."""
    steps: list[v2.Transform] = []
    if augmentation.crop_scale < 1.0:
        scale, bicubic = (augmentation.crop_scale, 1.0), v2.InterpolationMode.BICUBIC
        steps.append(v2.RandomResizedCrop(img_size, scale=scale, interpolation=bicubic, antialias=True))
    if augmentation.rand_augment:
        steps += [] if steps else [build_resize(img_size)]
        steps.append(v2.RandAugment(NUM_OPERATIONS, augmentation.rand_augment))
    return v2.Compose(steps) if steps else None


@contextmanager
def drawing_from(draw: float) -> Iterator[None]:
    """Within the block torch's CPU generator, which torchvision draws from, starts from `draw`; then it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(draw * 2**53))
        yield


# -- a batch ---------------------------------------------------------------------------------------------------------


def move(pixels: Tensor, draws: Tensor, augmentation: Augmentation) -> Tensor:
    """Shift, flip, rotate and zoom each image (B, C, H, W) by its own draws (B, NUM_DRAWS); black comes in.

    Whole pixels are shifted without blurring; with rotation or zoom all is one bilinear resampling.
    """
    if augmentation.rotate or augmentation.zoom:
        return _resample(pixels.float(), draws, augmentation)
    if augmentation.shift or augmentation.flip:
        return _gather(pixels, draws, augmentation)
    return pixels


def _shifts(draws: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Pixels down and right, whole numbers from -shift to shift, (B,) each."""
    steps = (draws[:, [DY, DX]] * (2 * shift + 1)).floor().long() - shift
    return steps[:, 0], steps[:, 1]


def _gather(pixels: Tensor, draws: Tensor, augmentation: Augmentation) -> Tensor:
    batch, _, height, width = pixels.shape
    margin = augmentation.shift
    down, right = _shifts(draws, margin)
    rows = torch.arange(height) - down[:, None] + margin  # (B, H), in the padded image
    columns = torch.arange(width) - right[:, None] + margin  # (B, W)
    flipped = draws[:, FLIP] < augmentation.flip
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    padded = functional.pad(pixels, [margin] * 4)
    images = torch.arange(batch)[:, None, None]
    # Indices on both sides of the channels' slice put that axis last: (B, H, W, C)
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _resample(pixels: Tensor, draws: Tensor, augmentation: Augmentation) -> Tensor:
    height, width = pixels.shape[2:]
    down, right = _shifts(draws, augmentation.shift)
    angle = torch.deg2rad((2 * draws[:, ROTATE] - 1) * augmentation.rotate)
    scale = 1 + (2 * draws[:, ZOOM] - 1) * augmentation.zoom  # of the window that is looked at: above 1 is farther away
    mirror = torch.where(draws[:, FLIP] < augmentation.flip, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # Coordinates run from -1 to 1 on both axes; a row of the matrix gives x, then y, in the image that is read
    across = torch.stack([cos * mirror, -sin * height / width, -2.0 * right / width], dim=1)
    along = torch.stack([sin * mirror * width / height, cos, -2.0 * down / height], dim=1)
    matrix = torch.stack([across, along], dim=1).to(pixels.dtype)  # (B, 2, 3)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bilinear", align_corners=False)


def erase(pixels: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Set a random rectangle of each chosen image of a normalised batch (B, C, H, W) to 0, the mean colour."""
    if chance == 0.0:
        return pixels
    height, width = pixels.shape[2:]
    low, high = map(math.log, ERASED_ASPECT)
    area = (ERASED_AREA[0] + draws[:, AREA] * (ERASED_AREA[1] - ERASED_AREA[0])) * height * width
    aspect = (low + draws[:, ASPECT] * (high - low)).exp()
    tall = (area * aspect).sqrt().round().clamp(1, height)
    wide = (area / aspect).sqrt().round().clamp(1, width)
    top = (draws[:, TOP] * (height - tall + 1)).floor()
    left = (draws[:, LEFT] * (width - wide + 1)).floor()
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])  # (B, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])  # (B, W)
    chosen = (draws[:, ERASE] < chance)[:, None, None]
    mask = chosen & in_rows[:, :, None] & in_columns[:, None, :]  # (B, H, W)
    return pixels.masked_fill(mask[:, None], 0.0)


def mix(
    pixels: Tensor, labels: Tensor, draws: Tensor, augmentation: Augmentation, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Mixup (arXiv:1710.09412), cutmix (arXiv:1905.04899), or one of them by lot where both are asked for.

    Pixels (B, C, H, W), labels (B,) class indices or (B, num_classes) -> pixels, and shares (B, num_classes). One
    ratio serves a batch, whose first image's draws decide it.
    """
    if not augmentation.mixes:
        return pixels, labels
    choices: Sequence[v2.Transform] = [
        build(alpha=alpha, num_classes=num_classes)
        for build, alpha in ((v2.MixUp, augmentation.mixup), (v2.CutMix, augmentation.cutmix))
        if alpha > 0.0
    ]
    with drawing_from(float(draws[0, MIX])):
        mixed, shares = v2.RandomChoice(choices)(pixels, labels)
    return mixed, shares
