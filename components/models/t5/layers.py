"""The layers of T5 (arXiv:1910.10683, sections 2.1 and 3.1.1): attention with relative positions, feed-forward, stacks.

Hidden states are rows (N, D) of tokens, packed where a batch has much padding (`TokenRows`). Modules are named as in
transformers, so that checkpoints load both ways. Differences from transformers' code: the position bias and the masks
are joined once per stack; masking adds -30000, which is exact zero after softmax in every float type; in float16 the
residual stream, the product of the gated unit and `wo` are float32, where T5 is known to overflow
(huggingface/transformers#5651).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.shared.dropout import add_dropout, dropout, is_hand_written
from components.models.shared.token_rows import TokenRows
from components.models.t5.architecture import T5Architecture
from components.models.t5.ops import fused_attention, gated_gelu, rms_norm

MASKED = -30000.0


def relative_position_bucket(distance: Tensor, *, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each distance, key position minus query position: exact up to a half, then logarithmic.

    One direction (the decoder) sees only the past; two directions (the encoder) give each half of the buckets.
    The logarithm is taken in float32, as in mesh-tensorflow, since a bucket's border depends on the rounding.
    """
    offset = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    exact = num_buckets // 2
    ratio = torch.log(distance.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (num_buckets - exact)).long()).clamp_max(num_buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


@lru_cache(maxsize=16)
def _bucket_table(size: int, bidirectional: bool, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    # (size, size), query by key; sliced for every shorter length. Kept for training even if first asked for in
    # inference mode, whose tensors autograd refuses
    with torch.inference_mode(False):
        position = torch.arange(size)
        distance = position[None, :] - position[:, None]
        table = relative_position_bucket(
            distance, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
        )
        return table.to(device)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """Softmax(query key^T + bias) value, unscaled, with dropout `p` on the weights.

    query (B, H, Q, K), key and value (B, H, S, K), bias broadcastable to (B, H, Q, S) -> (B, Q, H * K).
    """
    batch, heads, length, width = query.shape
    if not is_hand_written(query):
        mask = None if bias is None else bias.to(query.dtype)
        context = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=p, scale=1.0)
        return context.transpose(1, 2).reshape(batch, length, heads * width)
    wide = query.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    if wide and query.dtype == key.dtype == (query if bias is None else bias).dtype:
        return fused_attention(query, key, value, bias, p)
    # On CPU torch's kernel falls back to plain products as soon as there is dropout, and draws its mask slowly.
    flat_query = query.reshape(batch * heads, length, width)
    flat_key = key.reshape(batch * heads, -1, width).transpose(1, 2)
    if bias is None:
        scores = torch.bmm(flat_query, flat_key)
    else:
        flat_bias = bias.expand(batch, heads, length, -1).reshape(batch * heads, length, -1)
        scores = torch.baddbmm(flat_bias, flat_query, flat_key)
    weights = dropout(scores.softmax(-1), p)  # (B * H, Q, S)
    context = torch.bmm(weights, value.reshape(batch * heads, -1, width))
    return context.view(batch, heads, length, width).transpose(1, 2).reshape(batch, length, heads * width)


class T5LayerNorm(nn.Module):
    """Root-mean-square norm with a learned scale."""

    def __init__(self, architecture: T5Architecture) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(architecture.d_model))
        self.eps = architecture.layer_norm_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        return rms_norm(hidden, self.weight, self.eps)


class T5Attention(nn.Module):
    """Multi-head attention without biases and without 1 / sqrt(d_kv), which T5 folds into the initialisation."""

    def __init__(self, architecture: T5Architecture, *, has_relative_bias: bool = False) -> None:
        super().__init__()
        inner = architecture.num_heads * architecture.d_kv
        self.num_heads, self.d_kv, self.dropout = architecture.num_heads, architecture.d_kv, architecture.dropout
        self.q = nn.Linear(architecture.d_model, inner, bias=False)
        self.k = nn.Linear(architecture.d_model, inner, bias=False)
        self.v = nn.Linear(architecture.d_model, inner, bias=False)
        self.o = nn.Linear(inner, architecture.d_model, bias=False)
        if has_relative_bias:
            buckets = architecture.relative_attention_num_buckets
            self.relative_attention_bias = nn.Embedding(buckets, architecture.num_heads)

    def heads(self, x: Tensor) -> Tensor:
        """(B, L, H * K) -> (B, H, L, K)."""
        return x.view(*x.shape[:2], self.num_heads, self.d_kv).transpose(1, 2)

    def keys_values(self, hidden: Tensor, rows: TokenRows) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, L, K) of hidden states (N, D)."""
        return self.heads(rows.pad(self.k(hidden))), self.heads(rows.pad(self.v(hidden)))

    def forward(
        self, hidden: Tensor, rows: TokenRows, keys_values: tuple[Tensor, Tensor], bias: Tensor | None
    ) -> Tensor:
        """Hidden states (N, D) attending to keys and values (B, H, S, K) -> (N, D)."""
        query = self.heads(rows.pad(self.q(hidden)))
        context = attend(query, *keys_values, bias, self.dropout if self.training else 0.0)
        projected: Tensor = self.o(rows.pack(context))
        return projected


class WideLinear(nn.Linear):
    """A projection computed in float32 wherever the model around it is float16, by its type or by autocast."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideLinear":
        def keep_wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype == torch.float16 else moved

        super()._apply(keep_wide, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        under_half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        if not under_half and x.dtype != torch.float16:
            return functional.linear(x, self.weight)
        with torch.autocast(kind, enabled=False):
            return functional.linear(x.float(), self.weight.float())


class T5FeedForward(nn.Module):
    """relu(x wi) wo of T5 v1.0, or (gelu(x wi_0) * x wi_1) wo of v1.1 (arXiv:2002.05202)."""

    def __init__(self, architecture: T5Architecture) -> None:
        super().__init__()
        d_model, d_ff = architecture.d_model, architecture.d_ff
        self.is_gated = architecture.feed_forward == "gated-gelu"
        self.dropout = architecture.dropout
        if self.is_gated:
            self.wi_0 = nn.Linear(d_model, d_ff, bias=False)
            self.wi_1 = nn.Linear(d_model, d_ff, bias=False)
        else:
            self.wi = nn.Linear(d_model, d_ff, bias=False)
        self.wo = WideLinear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        p = self.dropout if self.training else 0.0
        if self.is_gated:
            # Each factor fits float16, their product may not
            inner = gated_gelu(_widened(self.wi_0(x)), _widened(self.wi_1(x)), p)
        else:
            inner = dropout(functional.relu(self.wi(x)), p)
        out: Tensor = self.wo(inner)
        return out


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x


class T5SelfAttentionLayer(nn.Module):
    """x + dropout(attention(norm(x)))."""

    def __init__(self, architecture: T5Architecture, *, has_relative_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(architecture, has_relative_bias=has_relative_bias)
        self.layer_norm = T5LayerNorm(architecture)
        self.dropout = architecture.dropout

    def forward(self, hidden: Tensor, rows: TokenRows, bias: Tensor | None) -> Tensor:
        normed = self.layer_norm(hidden)
        attended = self.SelfAttention(normed, rows, self.SelfAttention.keys_values(normed, rows), bias)
        return add_dropout(hidden, attended, self.dropout if self.training else 0.0)


class T5CrossAttentionLayer(nn.Module):
    """x + dropout(attention(norm(x), memory))."""

    def __init__(self, architecture: T5Architecture) -> None:
        super().__init__()
        self.EncDecAttention = T5Attention(architecture)
        self.layer_norm = T5LayerNorm(architecture)
        self.dropout = architecture.dropout

    def forward(
        self, hidden: Tensor, rows: TokenRows, keys_values: tuple[Tensor, Tensor], bias: Tensor | None
    ) -> Tensor:
        attended = self.EncDecAttention(self.layer_norm(hidden), rows, keys_values, bias)
        return add_dropout(hidden, attended, self.dropout if self.training else 0.0)


class T5FeedForwardLayer(nn.Module):
    """x + dropout(feed_forward(norm(x)))."""

    def __init__(self, architecture: T5Architecture) -> None:
        super().__init__()
        self.DenseReluDense = T5FeedForward(architecture)
        self.layer_norm = T5LayerNorm(architecture)
        self.dropout = architecture.dropout

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.DenseReluDense(self.layer_norm(hidden))
        return add_dropout(hidden, inner, self.dropout if self.training else 0.0)


class T5EncoderBlock(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, architecture: T5Architecture, *, has_relative_bias: bool) -> None:
        super().__init__()
        attention = T5SelfAttentionLayer(architecture, has_relative_bias=has_relative_bias)
        self.layer = nn.ModuleList([attention, T5FeedForwardLayer(architecture)])

    @property
    def self_attention(self) -> T5Attention:
        layer = self.layer[0]
        assert isinstance(layer, T5SelfAttentionLayer)
        return layer.SelfAttention

    def forward(self, hidden: Tensor, rows: TokenRows, bias: Tensor | None) -> Tensor:
        attended: Tensor = self.layer[0](hidden, rows, bias)
        out: Tensor = self.layer[1](attended)
        return out


class T5DecoderBlock(nn.Module):
    """Self-attention, attention to the encoder's output (`memory`) and feed-forward."""

    def __init__(self, architecture: T5Architecture, *, has_relative_bias: bool) -> None:
        super().__init__()
        attention = T5SelfAttentionLayer(architecture, has_relative_bias=has_relative_bias)
        self.layer = nn.ModuleList([attention, T5CrossAttentionLayer(architecture), T5FeedForwardLayer(architecture)])

    @property
    def self_attention(self) -> T5Attention:
        layer = self.layer[0]
        assert isinstance(layer, T5SelfAttentionLayer)
        return layer.SelfAttention

    def memory_keys_values(self, memory: Tensor, memory_rows: TokenRows) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, K) of the encoder's output (M, D)."""
        attention = self.layer[1].EncDecAttention
        assert isinstance(attention, T5Attention)
        return attention.keys_values(memory, memory_rows)

    def forward(
        self,
        hidden: Tensor,
        rows: TokenRows,
        bias: Tensor | None,
        memory: Tensor,
        memory_rows: TokenRows,
        memory_bias: Tensor | None,
    ) -> Tensor:
        hidden = self.layer[0](hidden, rows, bias)
        hidden = self.layer[1](hidden, rows, self.memory_keys_values(memory, memory_rows), memory_bias)
        out: Tensor = self.layer[2](hidden)
        return out

    def step(
        self,
        hidden: Tensor,
        past: tuple[Tensor, Tensor],
        bias: Tensor,
        beams: TokenRows,
        memory: tuple[Tensor, Tensor],
        memory_bias: Tensor | None,
    ) -> Tensor:
        """One new token in each row: hidden (R, D) -> (R, D).

        `past` holds keys and values (R, H, T, K) whose last position is filled here; `bias` (1, H, 1, T) is that of
        the new position; `beams` says which rows belong to which example of `memory` (E, H, S, K).
        """
        attention = self.self_attention
        normed = self.layer[0].layer_norm(hidden)  # type: ignore[operator]
        one = TokenRows(len(hidden), 1)
        for store, new in zip(past, attention.keys_values(normed, one), strict=True):
            store[:, :, -1:] = new  # (R, H, 1, K)
        hidden = hidden + attention(normed, one, past, bias)
        # The beams of an example stand as its query positions, so that its memory is held once
        hidden = self.layer[1](hidden, beams, memory, memory_bias)
        out: Tensor = self.layer[2](hidden)
        return out


class T5Stack(nn.Module):
    """What encoder and decoder share: blocks, the position bias in the first of them, the last norm."""

    def __init__(self, architecture: T5Architecture, *, is_decoder: bool) -> None:
        super().__init__()
        self.architecture, self.is_decoder = architecture, is_decoder
        block = T5DecoderBlock if is_decoder else T5EncoderBlock
        depth = architecture.num_decoder_layers if is_decoder else architecture.num_layers
        self.block = nn.ModuleList([block(architecture, has_relative_bias=index == 0) for index in range(depth)])
        self.final_layer_norm = T5LayerNorm(architecture)

    @property
    def active_dropout(self) -> float:
        return self.architecture.dropout if self.training else 0.0

    def position_bias(self, length: int) -> Tensor:
        """The learned bias (1, H, L, L) of each query (row) and key (column) position; causal in the decoder."""
        first = self.block[0]
        assert isinstance(first, T5EncoderBlock | T5DecoderBlock)
        weight = first.self_attention.relative_attention_bias.weight  # (buckets, H)
        sizes = self.architecture
        table = _bucket_table(
            -(-length // 64) * 64,
            not self.is_decoder,
            sizes.relative_attention_num_buckets,
            sizes.relative_attention_max_distance,
            weight.device,
        )
        by_head = functional.embedding(table[:length, :length], weight).permute(2, 0, 1)  # (H, L, L)
        # CUDA's fused attention takes no bias whose keys do not lie side by side
        bias = by_head.contiguous().unsqueeze(0)  # (1, H, L, L)
        if not self.is_decoder:
            return bias
        future = torch.ones(length, length, dtype=torch.bool, device=weight.device).triu_(1)
        return bias.masked_fill(future, MASKED)

    def enter(self, embedded: Tensor) -> Tensor:
        """Dropout on the embeddings; in float16 also the step into the float32 residual stream."""
        return _widened(dropout(embedded, self.active_dropout))

    def leave(self, hidden: Tensor) -> Tensor:
        """The last norm and its dropout."""
        return dropout(self.final_layer_norm(hidden), self.active_dropout)


def key_mask_bias(real: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The bias (B, 1, 1, S) that hides the keys not `real` (B, S); None on CPU when it would hide none."""
    if is_hand_written(real) and bool(real.all()):
        return None
    return torch.zeros(real.shape, dtype=dtype, device=real.device).masked_fill_(~real, MASKED)[:, None, None, :]
