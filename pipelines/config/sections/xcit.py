"""XCiT: the model, the images it sees, and what builds it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.models.xcit.architecture import NORMS, XCiTArchitecture, read_name, with_changes
from pipelines.config.checks import above, at_least, one_of, share
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.pixels import check_channels
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from torch import nn

XCIT_SIZES = ("patch_size", "embed_dim", "depth", "cls_attn_layers", "num_heads", "eta")
BAD_IMAGES = ("error", "skip")
NORMALISATIONS = ("data", "imagenet")


@dataclass(frozen=True, kw_only=True)
class XCiT(Section):
    """The cross-covariance image transformer: a published size, another of one's own, or published weights."""

    name: ClassVar[str] = "xcit"

    architecture: str = "xcit_nano_12_p16_224"
    """timm's name of a size, patch and training resolution; the last binds nothing. The fields below change it."""
    checkpoint: str | None = None
    """Weights to start from: a hub name, timm's short name, a file or folder, or kaggle:owner/slug; null draws them."""
    patch_size: int | None = None
    """Pixels to a token's side: 2, 4, 8 or 16; null as the name says."""
    embed_dim: int | None = None
    """Width of a token; null as the name says."""
    depth: int | None = None
    """Blocks of cross-covariance attention, before those of class attention; null as the name says."""
    cls_attn_layers: int | None = None
    """Blocks of class attention; null for the usual two."""
    num_heads: int | None = None
    """Groups of channels that attend to one another; null as the name says."""
    eta: float | None = None
    """First value of LayerScale: 1.0, or 1e-5 with 24 blocks; null as the name says."""
    norm: str = "batch"
    """batch, or group for batches too small for BatchNorm's statistics."""
    drop_rate: float = 0.0
    """Share of the class token's features dropped before the head."""
    attn_drop_rate: float = 0.0
    """Share of attention weights dropped."""
    drop_path_rate: float = 0.0
    """Chance that an image skips a branch of a block; 0.05 in the paper's small models."""

    def __post_init__(self) -> None:
        one_of(self, "norm", NORMS)
        share(self, "drop_rate", "attn_drop_rate", "drop_path_rate")
        at_least(self, 1, "patch_size", "embed_dim", "depth", "cls_attn_layers", "num_heads")
        above(self, 0, "eta")
        if self.checkpoint is None:
            self.resolve()
            return
        own = [name for name in XCIT_SIZES if getattr(self, name) is not None]
        if own:
            raise ValueError(
                f"{own[0]}: {getattr(self, own[0])} with checkpoint: {self.checkpoint}, which has a size of its own; "
                "needs null"
            )

    def resolve(self) -> XCiTArchitecture:
        """The architecture that name and fields describe; a ValueError where there is none."""
        sizes = {name: getattr(self, name) for name in XCIT_SIZES}
        return with_changes(read_name(self.architecture), norm=self.norm, **sizes)


@dataclass(frozen=True, kw_only=True)
class Images(Section):
    """The competition's images as squares of pixels, changed at random while training."""

    name: ClassVar[str] = "images"

    img_size: int = 224
    """Side in pixels that images are brought to: the shorter side is resized to it, the middle is kept."""
    in_chans: int = 3
    """Channels: 3 for colour, 1 for grey, which colour images are then turned to."""
    convert_grey: bool = False
    """With three channels: repeat the one of a grey image; false calls it a bad image."""
    on_bad_image: str = "error"
    """error ends the run before it begins; skip trains without the image, and answers for it as if it were blank."""
    normalisation: str = "data"
    """data: by mean and deviation of the training pixels; imagenet: by those of published weights."""
    crop_scale: float = 1.0
    """Least share of the area that a random crop keeps; 1 crops nothing at random, 0.08 is usual on photographs."""
    rand_augment: int = 0
    """Magnitude of RandAugment's two operations, 0 to 30; 9 is usual, 0 is off. It costs .3 ms an image."""
    flip: float = 0.0
    """Chance that an image is mirrored left to right."""
    shift: int = 0
    """Pixels that an image is moved at most, up, down, left and right; black comes in."""
    rotate: float = 0.0
    """Degrees that an image is turned at most, either way."""
    zoom: float = 0.0
    """Share by which an image is enlarged or reduced at most; 0.1 is a tenth."""
    erase: float = 0.0
    """Chance that a random rectangle is blotted out."""
    mixup: float = 0.0
    """Alpha of mixup, which adds pairs of images and of labels; 0 is off, 0.8 is usual."""
    cutmix: float = 0.0
    """Alpha of cutmix, which pastes part of one image into another; with mixup too, either by lot for each batch."""
    tta: str = "none"
    """none, or flip: predict the mirrored image as well and average the probabilities, at twice the cost."""
    cache: bool = False
    """Decode every training image once, to a file of img_size pixels in the run; random crops then see no more."""
    num_workers: int = 0
    """Processes that read and change images beside the training; 0 does it in between, which suits tiny images."""
    max_train_rows: int | None = None
    """Train on so many rows, drawn once with the experiment's seed; null takes all."""
    max_valid_rows: int | None = None
    """Score so many validation rows during training; null takes all, and the final OOF always does."""

    def __post_init__(self) -> None:
        at_least(self, 1, "img_size", "max_train_rows", "max_valid_rows")
        at_least(self, 0, "shift", "rotate", "mixup", "cutmix", "num_workers", "rand_augment")
        share(self, "zoom")
        one_of(self, "on_bad_image", BAD_IMAGES)
        one_of(self, "normalisation", NORMALISATIONS)
        one_of(self, "tta", ("none", "flip"))
        _check_pixels(self)
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is out of range; needs a chance from 0 to 1")


def _check_pixels(data: Images) -> None:
    check_channels(data.in_chans)
    if data.normalisation == "imagenet" and data.in_chans != 3:
        raise ValueError(f"normalisation: 'imagenet' with in_chans: {data.in_chans}; needs data, or in_chans: 3")
    if not 0 < data.crop_scale <= 1:
        raise ValueError(f"crop_scale: {data.crop_scale} is out of range; needs more than 0 and at most 1")
    if data.rand_augment > 30:
        raise ValueError(f"rand_augment: {data.rand_augment} is out of range; needs 0 to 30")
    if data.shift >= data.img_size:
        raise ValueError(f"shift: {data.shift} with img_size: {data.img_size} moves images out of sight; needs less")


def build_xcit(
    context: ModelContext,
    *,
    architecture: str,
    checkpoint: str | None,
    patch_size: int | None,
    embed_dim: int | None,
    depth: int | None,
    cls_attn_layers: int | None,
    num_heads: int | None,
    eta: float | None,
    norm: str,
    drop_rate: float,
    attn_drop_rate: float,
    drop_path_rate: float,
) -> "nn.Module":
    """With a checkpoint name and sizes are its own."""
    from components.models.xcit import model as xcit

    if checkpoint is None:
        return xcit.create_xcit(
            architecture,
            num_classes=context.num_classes,
            in_chans=context.in_chans,
            norm=norm,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            cls_attn_layers=cls_attn_layers,
            num_heads=num_heads,
            eta=eta,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            loss=context.classifier_loss,
            label_smoothing=context.label_smoothing,
        )
    model = xcit.load_xcit(
        context.weights or checkpoint,
        num_classes=context.num_classes,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
        drop_path_rate=drop_path_rate,
        loss=context.classifier_loss,
        label_smoothing=context.label_smoothing,
    )
    takes = model.architecture.in_chans
    if takes != context.in_chans:
        raise ValueError(f"{checkpoint}: takes {takes} channels and data.in_chans is {context.in_chans}; needs {takes}")
    return model
