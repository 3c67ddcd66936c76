"""The shape of an XCiT, the published sizes, and how timm names them."""

import difflib
import re
from dataclasses import dataclass, fields, replace

NORMS = ("batch", "group")
PATCH_SIZES = (2, 4, 8, 16)
HEAD_ALIGNMENT = "embed_dim must be a multiple of num_heads"

_NAME = re.compile(r"xcit_(?P<size>[a-z]+_\d+)_p(?P<patch>\d+)_(?P<pixels>\d+)(_dist)?(\.\w+)?")


@dataclass(frozen=True)
class XCiTArchitecture:
    """Sizes and switches of one XCiT.

    `eta` is the first value of LayerScale; `tokens_norm` says whether class attention's second norm covers the image
    tokens too; `img_size` is the side the weights were trained at, in pixels, and binds nothing. `norm` "group" puts
    GroupNorm (16 channels a group) where the paper has BatchNorm, for tiny batches. Raises ValueError for sizes that
    make no model.
    """

    name: str
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    img_size: int = 224
    in_chans: int = 3
    num_classes: int = 1000
    eta: float = 1.0
    tokens_norm: bool = True
    mlp_ratio: int = 4
    cls_attn_layers: int = 2
    norm: str = "batch"

    def __post_init__(self) -> None:
        for field in ("embed_dim", "depth", "num_heads", "img_size", "in_chans", "mlp_ratio", "cls_attn_layers"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: must be at least 1, not {getattr(self, field)}")
        if self.num_classes < 0:
            raise ValueError(f"num_classes: must be at least 1, or 0 for a model without head, not {self.num_classes}")
        if self.patch_size not in PATCH_SIZES:
            raise ValueError(f"patch_size: must be one of {', '.join(map(str, PATCH_SIZES))}, not {self.patch_size}")
        if self.norm not in NORMS:
            raise ValueError(f"norm: must be one of {', '.join(NORMS)}, not {self.norm!r}")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"{HEAD_ALIGNMENT}, and {self.embed_dim} is none of {self.num_heads}")
        if self.embed_dim % self.patch_size:
            raise ValueError(
                f"embed_dim: {self.embed_dim} must be a multiple of patch_size {self.patch_size}, as the stem halves "
                "its width at each of its convolutions"
            )


@dataclass(frozen=True)
class _Size:
    embed_dim: int
    depth: int
    num_heads: int
    eta: float
    tokens_norm: bool


# Table 1 of the paper; eta and tokens_norm as in the published configurations.
_SIZES = {
    "nano_12": _Size(128, 12, 4, 1.0, False),
    "tiny_12": _Size(192, 12, 4, 1.0, True),
    "tiny_24": _Size(192, 24, 4, 1e-5, True),
    "small_12": _Size(384, 12, 8, 1.0, True),
    "small_24": _Size(384, 24, 8, 1e-5, True),
    "medium_24": _Size(512, 24, 8, 1e-5, True),
    "large_24": _Size(768, 24, 16, 1e-5, True),
}

PUBLISHED = tuple(f"xcit_{size}_p{patch}_{pixels}" for patch in (16, 8) for size in _SIZES for pixels in (224, 384))
"""The 28 architectures that have published weights, by timm's names."""


def read_name(name: str) -> XCiTArchitecture:
    """The architecture of a name: timm's ("xcit_nano_12_p16_224", with or without a tag such as ".fb_dist_in1k"), the
    official files' ("..._dist"), or with another patch or image size ("xcit_tiny_12_p4_32").

    Raises ValueError with the nearest known name.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["size"] not in _SIZES:
        near = difflib.get_close_matches(name, PUBLISHED, n=1, cutoff=0.0)[0]
        sizes = ", ".join(_SIZES)
        raise ValueError(
            f"{name}: no XCiT has this name; it reads xcit_SIZE_pPATCH_PIXELS with SIZE one of {sizes}, "
            f"for example {near}"
        )
    size = _SIZES[found["size"]]
    return XCiTArchitecture(
        name=f"xcit_{found['size']}_p{found['patch']}_{found['pixels']}",
        patch_size=int(found["patch"]),
        img_size=int(found["pixels"]),
        **{field.name: getattr(size, field.name) for field in fields(size)},
    )


def with_changes(architecture: XCiTArchitecture, **changes: int | float | bool | str | None) -> XCiTArchitecture:
    """The architecture with every change that is not None."""
    return replace(architecture, **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]


def recognise(embed_dim: int, depth: int, num_heads: int, patch_size: int) -> XCiTArchitecture | None:
    """The published architecture of these sizes (at 224 pixels), if there is one."""
    for size, published in _SIZES.items():
        if (published.embed_dim, published.depth, published.num_heads) == (embed_dim, depth, num_heads):
            return read_name(f"xcit_{size}_p{patch_size}_224")
    return None
