"""The layers of XCiT (arXiv:2106.09681, sections 3 and 4), readable first.

Each layer states its arithmetic twice: its own `forward`, in plain operations, is the specification; where `fast` is
set it calls `xcit_fast*`, which gives the same numbers and keeps less for the backward pass. Modules are named as in
timm, so that checkpoints load both ways.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.xcit.architecture import XCiTArchitecture
from components.models.xcit.fast.attention import add_cross_covariance
from components.models.xcit.fast.class_attention import advance_tokens, pool_tokens, score_tokens
from components.models.xcit.fast.common import add_mlp
from components.models.xcit.fast.convolution import add_local_interaction, embed_pixels

LAYER_NORM_EPSILON = 1e-6
CHANNELS_PER_GROUP = 16  # the better of the two settings of GroupNorm's paper (arXiv:1803.08494, table 3)


def build_channel_norm(kind: str, channels: int) -> nn.Module:
    """BatchNorm, or GroupNorm with as many groups of 16 channels or more as divide the channels evenly."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = next(n for n in range(max(1, channels // CHANNELS_PER_GROUP), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


def is_traced() -> bool:
    """Whether a compiler or tracer is watching: it gets plain operations, which it can fuse."""
    return torch.compiler.is_compiling() or bool(torch._C._get_tracing_state())


def is_fast(module: nn.Module) -> bool:
    """Whether this call takes the hand-written path."""
    return bool(module.fast) and not is_traced()


def draw_drop_path(x: Tensor, p: float) -> Tensor:
    """(B, 1, 1) of 0 with probability `p` and 1 / (1 - p) elsewhere, drawn as timm draws it."""
    return x.new_empty(x.shape[0], 1, 1).bernoulli_(1.0 - p).div_(1.0 - p)


class ConvPatchEmbed(nn.Module):
    """The stem (section 4.1, "patch projection"): one 3x3 convolution of stride 2 for each factor 2 of the patch."""

    def __init__(self, architecture: XCiTArchitecture) -> None:
        super().__init__()
        self.fast = True
        depth = int(math.log2(architecture.patch_size))
        widths = [architecture.embed_dim >> (depth - 1 - stage) for stage in range(depth)]
        layers: list[nn.Module] = []
        for inputs, width in zip([architecture.in_chans, *widths], widths, strict=False):
            convolution = nn.Conv2d(inputs, width, kernel_size=3, stride=2, padding=1, bias=False)
            layers += [nn.Sequential(convolution, build_channel_norm(architecture.norm, width)), nn.GELU()]
        self.proj = nn.Sequential(*layers[:-1])

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, int, int]:
        """(B, in_chans, height, width) -> tokens (B, N, C), and how many rows and columns of them there are."""
        if is_fast(self):
            feature_map = embed_pixels(pixel_values, [stage for stage in self.proj if isinstance(stage, nn.Sequential)])
        else:
            feature_map = self._forward_plain(pixel_values)  # (B, C, H, W)
        return feature_map.flatten(2).transpose(1, 2), *feature_map.shape[2:]  # (B, N, C)

    def _forward_plain(self, pixel_values: Tensor) -> Tensor:
        feature_map = pixel_values
        for stage in self.proj:
            if isinstance(stage, nn.Sequential):
                convolution, norm = stage
                # Channels last, as else torch 2.14 on a CPU gives wrong gradients below BatchNorm for a batch of one
                # image: it misreads the strides of a gradient that came through a transposition
                feature_map = norm(convolution(feature_map).contiguous(memory_format=torch.channels_last))
            else:
                feature_map = stage(feature_map)
        return feature_map


class PositionalEncodingFourier(nn.Module):
    """Sines and cosines of each token's row and column, as shares of the whole so that they fit any size, projected."""

    HIDDEN = 32
    TEMPERATURE = 1e4
    EPSILON = 1e-6
    CACHED = 8  # sizes whose features are kept

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * self.HIDDEN, dim, kernel_size=1)
        self._cache: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def features(self, height: int, width: int, like: Tensor) -> Tensor:
        """(H * W, 64): sine and cosine of the row at 16 frequencies, then of the column."""
        period = self.TEMPERATURE ** (torch.arange(0, self.HIDDEN, 2, device=like.device).float() / self.HIDDEN)
        rows, columns = (
            (torch.arange(1, size + 1, device=like.device).float() / (size + self.EPSILON) * (2 * math.pi))[:, None]
            / period
            for size in (height, width)
        )
        rows = torch.stack([rows.sin(), rows.cos()], dim=2).flatten(1)  # (H, 32)
        columns = torch.stack([columns.sin(), columns.cos()], dim=2).flatten(1)  # (W, 32)
        grid = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
        return torch.cat(grid, dim=2).flatten(0, 1).to(like.dtype)  # (H * W, 64)

    def _cached_features(self, height: int, width: int, like: Tensor) -> Tensor:
        if is_traced():
            return self.features(height, width, like)
        key = (height, width, like.device, like.dtype)
        if key not in self._cache:
            if len(self._cache) >= self.CACHED:
                self._cache.clear()
            # Kept for training even if first asked for in inference mode, whose tensors autograd refuses
            with torch.inference_mode(False):
                self._cache[key] = self.features(height, width, like)
        return self._cache[key]

    def forward(self, height: int, width: int) -> Tensor:
        """Encodings (1, H * W, C) of a grid of tokens."""
        weight = self.token_projection.weight.flatten(1)  # (C, 64)
        features = self._cached_features(height, width, weight)
        return functional.linear(features, weight, self.token_projection.bias)[None]


class XCA(nn.Module):
    """Cross-covariance attention (section 3.2): channels attend to channels, at a cost linear in the tokens."""

    def __init__(self, dim: int, num_heads: int, attn_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)

    def no_weight_decay(self) -> set[str]:
        return {"temperature"}

    def weigh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) -> weights (B, h, d, d), query by key channel, before dropout; values (B, h, d, N)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 4, 1).unbind(0)  # each (B, h, d, N)
        # In float32 at least: squares of thousands of tokens overflow half precision
        query, key = (functional.normalize(z if z.dtype == torch.float64 else z.float(), dim=-1) for z in (query, key))
        scores: Tensor = (query.to(value.dtype) @ key.to(value.dtype).transpose(-2, -1)) * self.temperature
        return scores.softmax(dim=-1), value

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        weights, value = self.weigh(x)
        mixed = self.attn_drop(weights).to(value.dtype) @ value  # (B, h, d, N)
        projected: Tensor = self.proj(mixed.permute(0, 3, 1, 2).reshape(x.shape))
        return projected


class LPI(nn.Module):
    """Local patch interaction (section 3.3): two depth-wise 3x3 convolutions over the grid of tokens."""

    def __init__(self, dim: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.bn = build_channel_norm(norm, dim)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        feature_map = torch.unflatten(x.transpose(1, 2), 2, (height, width))  # (B, C, H, W), channels last in memory
        mixed: Tensor = self.conv2(self.bn(functional.gelu(self.conv1(feature_map))))
        return mixed.flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers around GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return projected


class XCABlock(nn.Module):
    """XCA, LPI and MLP, each on normed tokens, scaled per channel and added to the residual stream (figure 1).

    The third norm and scale belong to LPI, which runs second: so the official code and its weights have it.
    """

    def __init__(self, architecture: XCiTArchitecture, *, attn_drop: float, drop_path: float) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.fast, self.drop_path = True, drop_path
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.attn = XCA(dim, architecture.num_heads, attn_drop)
        self.norm3 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.local_mp = LPI(dim, architecture.norm)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.mlp = Mlp(dim, dim * architecture.mlp_ratio)
        self.gamma1 = nn.Parameter(torch.full((dim,), architecture.eta))
        self.gamma3 = nn.Parameter(torch.full((dim,), architecture.eta))
        self.gamma2 = nn.Parameter(torch.full((dim,), architecture.eta))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, C) of a grid of `height` x `width` -> (B, N, C)."""
        if is_fast(self):
            return self._forward_fast(x, height, width)
        x = x + self._dropped(_scaled(self.attn(self.norm1(x)), self.gamma1))
        x = x + self._dropped(_scaled(self.local_mp(self.norm3(x), height, width), self.gamma3))
        return x + self._dropped(_scaled(self.mlp(self.norm2(x)), self.gamma2))

    def _forward_fast(self, x: Tensor, height: int, width: int) -> Tensor:
        attn_drop = self.attn.attn_drop.p if self.training else 0.0
        # Masks are drawn where the plain path draws them, so that one seed gives both paths the same
        weights_kept = _draw_kept_weights(x, self.attn, attn_drop)
        attn, lpi, mlp = self.attn, self.local_mp, self.mlp
        x = add_cross_covariance(
            x, self.norm1, attn.qkv, attn.temperature, attn.proj, self.gamma1, self._path_kept(x), weights_kept
        )
        x = add_local_interaction(
            x, self.norm3, lpi.conv1, lpi.bn, lpi.conv2, self.gamma3, self._path_kept(x), (height, width)
        )
        return add_mlp(x, self.norm2, mlp.fc1, mlp.fc2, self.gamma2, self._path_kept(x))

    def _path_kept(self, x: Tensor) -> Tensor | None:
        return draw_drop_path(x, self.drop_path) if self.training and self.drop_path > 0.0 else None

    def _dropped(self, branch: Tensor) -> Tensor:
        kept = self._path_kept(branch)
        return branch if kept is None else branch * kept


def _scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    """LayerScale; None where it was folded into the branch."""
    return branch if gamma is None else gamma * branch


def _draw_kept_weights(x: Tensor, attn: XCA, p: float) -> Tensor | None:
    """Dropout's factors (B, h, d, d) on the weights of XCA, or None."""
    if p == 0.0:
        return None
    width = x.shape[2] // attn.num_heads
    return functional.dropout(x.new_ones(x.shape[0], attn.num_heads, width, width), p)


class ClassAttention(nn.Module):
    """Attention of the class token over all tokens (arXiv:2103.17239, section 3)."""

    def __init__(self, dim: int, num_heads: int, attn_drop: float) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, h, L, d)."""
        return torch.unflatten(x, 2, (self.num_heads, -1)).transpose(1, 2)

    def weigh(self, x: Tensor) -> Tensor:
        """Tokens (B, 1 + N, C), the class token first -> weights (B, h, 1, 1 + N) before dropout."""
        query = self.heads(self.q(x[:, :1])) * self.scale
        scores: Tensor = query @ self.heads(self.k(x)).transpose(-2, -1)
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, 1 + N, C) -> the class token's update (B, 1, C)."""
        value = self.heads(self.v(x))
        context = self.attn_drop(self.weigh(x)).to(value.dtype) @ value  # (B, h, 1, d)
        projected: Tensor = self.proj(context.transpose(1, 2).flatten(2))
        return projected

    def forward_collapsed(self, normed_class: Tensor, tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
        """The same from the normed class token and tokens not yet normed, in time N C h instead of N C^2.

        A score is q . (Wk u + bk) = (Wk^T q) . u + q . bk, and a weighted mean of values is Wv of the weighted mean of
        tokens: neither keys nor values of image tokens are ever formed.
        """
        query = torch.unflatten(self.q(normed_class), 2, (self.num_heads, -1)).squeeze(1) * self.scale  # (B, h, d)
        key_weight = torch.unflatten(self.k.weight, 0, (self.num_heads, -1))  # (h, d, C)
        probe = torch.einsum("bhd,hdc->bhc", query, key_weight.to(query.dtype))
        offset = (query * torch.unflatten(self.k.bias, 0, (self.num_heads, -1))).sum(-1, keepdim=True)  # (B, h, 1)
        own = (probe * normed_class).sum(-1, keepdim=True)  # (B, h, 1)
        scores = torch.cat([own, score_tokens(tokens, norm, probe)], dim=2) + offset  # (B, h, 1 + N)
        weights = self.attn_drop(scores.softmax(dim=-1))
        pooled = weights[..., :1] * normed_class + pool_tokens(tokens, norm, weights[..., 1:])  # (B, h, C)
        value_weight = torch.unflatten(self.v.weight, 0, (self.num_heads, -1))  # (h, d, C)
        context = torch.einsum("bhc,hdc->bhd", pooled.to(query.dtype), value_weight.to(query.dtype))
        # The weights' sum is not 1 under dropout
        context = context + weights.sum(-1, keepdim=True) * torch.unflatten(self.v.bias, 0, (self.num_heads, -1))
        projected: Tensor = self.proj(context.flatten(1)[:, None])
        return projected


class ClassAttentionBlock(nn.Module):
    """Class attention and an MLP on the class token (section 4.1, "class attention").

    Two quirks of the published models are kept, as their weights need them: image tokens get their own first norm
    added, and are doubled by the second residual connection.
    """

    def __init__(self, architecture: XCiTArchitecture, *, attn_drop: float) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.fast, self.tokens_norm = True, architecture.tokens_norm
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.attn = ClassAttention(dim, architecture.num_heads, attn_drop)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.mlp = Mlp(dim, dim * architecture.mlp_ratio)
        self.gamma1 = nn.Parameter(torch.full((dim,), architecture.eta))
        self.gamma2 = nn.Parameter(torch.full((dim,), architecture.eta))

    def forward(self, class_token: Tensor, tokens: Tensor, is_last: bool = False) -> tuple[Tensor, Tensor]:
        """Class token (B, 1, C) and image tokens (B, N, C) -> both; `is_last`: nobody reads the image tokens again,
        and the fast path returns them as they came."""
        if is_fast(self):
            return self._forward_fast(class_token, tokens, is_last)
        x = torch.cat([class_token, tokens], dim=1)
        normed = self.norm1(x)
        x = x + self.gamma1 * torch.cat([self.attn(normed), normed[:, 1:]], dim=1)
        x = self.norm2(x) if self.tokens_norm else torch.cat([self.norm2(x[:, :1]), x[:, 1:]], dim=1)
        x = x + torch.cat([self.gamma2 * self.mlp(x[:, :1]), x[:, 1:]], dim=1)
        return x[:, :1], x[:, 1:]

    def _forward_fast(self, class_token: Tensor, tokens: Tensor, is_last: bool) -> tuple[Tensor, Tensor]:
        update = self.attn.forward_collapsed(self.norm1(class_token), tokens, self.norm1)
        class_token = self.norm2(class_token + self.gamma1 * update)
        class_token = class_token + self.gamma2 * self.mlp(class_token)
        if not is_last:
            tokens = advance_tokens(tokens, self.norm1, self.gamma1, self.norm2 if self.tokens_norm else None)
        return class_token, tokens
