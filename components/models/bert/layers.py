"""The layers of BERT (arXiv:1810.04805, section 3): embeddings, attention and feed-forward, each followed by its norm.

Hidden states are rows (N, D) of tokens, packed where a batch has much padding (`TokenRows`). Differences from
transformers' code: queries, keys and values are one product; padding is skipped, and masked only where there is any;
dropout on a CPU is drawn as in `components.models.shared.dropout`, and attention dropout as below.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.bert.architecture import ACTIVATIONS, BertArchitecture
from components.models.shared.dropout import add_dropout, dropout, dropout_mask, is_hand_written
from components.models.shared.token_rows import TokenRows


def attend(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, p: float) -> Tensor:
    """Softmax(query key^T / sqrt(K)) value over the keys that are `real` (B, L), with attention dropout `p`.

    query, key, value (B, H, L, K) -> (B, L, H * K). With dropout torch has a fast kernel on a GPU only: a CPU falls
    back to a product that holds and saves all L * L weights. There a dropped weight is dropped for all queries of its
    head at once, so that it is the value that is dropped: for each query the same distribution as in
    arXiv:1810.04805, at the price of a number per key, and one kernel for every length.
    """
    batch, heads, length, width = query.shape
    if p > 0.0 and is_hand_written(value):
        value, p = value * dropout_mask(value[..., :1], p), 0.0  # (B, H, L, 1)
    mask = None if real is None else real[:, None, None, :]  # (B, 1, 1, L)
    context = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=p)
    return context.transpose(1, 2).reshape(batch, length, heads * width)


class BertAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, architecture: BertArchitecture) -> None:
        super().__init__()
        width = architecture.hidden_size
        self.num_heads, self.dropout = architecture.num_heads, architecture.attention_dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor, rows: TokenRows, real: Tensor | None) -> Tensor:
        qkv = rows.pad(self.qkv(hidden)).view(rows.batch, rows.length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, L, K) each
        context = attend(query, key, value, real, self.dropout if self.training else 0.0)
        projected: Tensor = self.out(rows.pack(context))
        return projected


class BertLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x))."""

    def __init__(self, architecture: BertArchitecture) -> None:
        super().__init__()
        width, eps = architecture.hidden_size, architecture.layer_norm_eps
        self.attention = BertAttention(architecture)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.wide = nn.Linear(width, architecture.intermediate_size)
        self.narrow = nn.Linear(architecture.intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, eps)
        self.activation, self.dropout = ACTIVATIONS[architecture.activation], architecture.dropout

    def forward(self, hidden: Tensor, rows: TokenRows, real: Tensor | None) -> Tensor:
        """Hidden states (N, D), of which keys `real` (B, L) may be attended to, None for all -> (N, D)."""
        p = self.dropout if self.training else 0.0
        hidden = self.attention_norm(add_dropout(hidden, self.attention(hidden, rows, real), p))
        widened = self.narrow(self.activation(self.wide(hidden)))
        out: Tensor = self.output_norm(add_dropout(hidden, widened, p))
        return out


class BertEmbeddings(nn.Module):
    """Word, position and segment, added, normalised and dropped; electra's are narrower and projected after."""

    def __init__(self, architecture: BertArchitecture) -> None:
        super().__init__()
        width = architecture.embedding_size
        self.pad_id, self.is_offset = architecture.pad_id, architecture.family.offset
        self.dropout = architecture.dropout
        self.word_embeddings: nn.Module = nn.Embedding(architecture.vocab_size, width)
        self.position_embeddings = nn.Embedding(architecture.max_positions, width)
        if architecture.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(architecture.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, architecture.layer_norm_eps)
        if width != architecture.hidden_size:
            self.project = nn.Linear(width, architecture.hidden_size)

    @property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        return self.position_embeddings.num_embeddings - (self.pad_id + 1 if self.is_offset else 0)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, rows: TokenRows) -> Tensor:
        """Ids (B, L) -> hidden states (N, D)."""
        if rows.length > self.max_length:
            raise ValueError(f"a text of {rows.length} tokens, but the encoder reads at most {self.max_length}")
        hidden: Tensor = self.word_embeddings(rows.pack(input_ids))  # (N, E)
        if hasattr(self, "token_type_embeddings"):
            types = self.token_type_embeddings
            # RoBERTa's table has one row, whatever type a tokenizer of BERT's gives the second text of a pair.
            if types.num_embeddings == 1:
                token_type_ids = None
            hidden = hidden + (types.weight[0] if token_type_ids is None else types(rows.pack(token_type_ids)))
        hidden = hidden + self.position_embeddings(rows.pack(self._positions(input_ids)))
        hidden = dropout(self.norm(hidden), self.dropout if self.training else 0.0)
        return self.project(hidden) if hasattr(self, "project") else hidden

    def _positions(self, input_ids: Tensor) -> Tensor:
        """(B, L)."""
        if not self.is_offset:
            return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        is_word = input_ids != self.pad_id
        return is_word.cumsum(1) * is_word + self.pad_id
