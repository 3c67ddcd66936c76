"""The T5 encoder-decoder and its two heads: text to text, and the classifier on the first decoder step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.losses.by_task import IGNORE_INDEX
from components.losses.chunked import linear_cross_entropy, tied_lookup
from components.models.shared.output import ModelOutput
from components.models.shared.token_rows import TokenRows, build_token_rows
from components.models.t5.architecture import T5Architecture
from components.models.t5.layers import T5Attention, T5DecoderBlock, T5FeedForward, T5LayerNorm, T5Stack, key_mask_bias

CLASSIFIER_LOSSES = ("cross_entropy", "binary_cross_entropy", "mse")


@dataclass
class DecoderState:
    """What decoding remembers between steps: R rows being written, for E encoded examples (R a multiple of E)."""

    memory: list[tuple[Tensor, Tensor]]  # per layer, keys and values of the encoder's output (E, H, S, K)
    memory_bias: Tensor | None  # (E, 1, 1, S)
    keys: list[Tensor]  # per layer (R, H, T, K), filled up to `length`
    values: list[Tensor]
    position_bias: Tensor  # (1, H, T, T)
    head_weight: Tensor  # (V, D), or the rows of what may be written
    length: int = 0

    def select(self, rows: Tensor, examples: Tensor | None = None) -> None:
        """Keep rows `rows` (R'), in that order, and of the examples `examples` (E'), or all of them."""
        self.keys = [self._selected(tensor, rows) for tensor in self.keys]
        self.values = [self._selected(tensor, rows) for tensor in self.values]
        if examples is not None:
            self.memory = [(k.index_select(0, examples), v.index_select(0, examples)) for k, v in self.memory]
            if self.memory_bias is not None:
                self.memory_bias = self.memory_bias.index_select(0, examples)

    def _selected(self, tensor: Tensor, rows: Tensor) -> Tensor:
        # Only what is filled is copied
        kept = tensor.new_empty(len(rows), *tensor.shape[1:])
        kept[:, :, : self.length] = tensor[:, :, : self.length].index_select(0, rows)
        return kept


class T5Model(nn.Module):
    """Embedding, encoder and decoder; the heads are in the subclasses."""

    def __init__(self, architecture: T5Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.shared = nn.Embedding(architecture.vocab_size, architecture.d_model)
        self.encoder = T5Stack(architecture, is_decoder=False)
        self.decoder = T5Stack(architecture, is_decoder=True)

    @property
    def decoder_blocks(self) -> list[T5DecoderBlock]:
        return [block for block in self.decoder.block if isinstance(block, T5DecoderBlock)]

    @property
    def layer_stacks(self) -> list[nn.ModuleList]:
        """The stacks of like layers, which an activation plan treats each by itself."""
        return [self.encoder.block, self.decoder.block]

    def run_encoder(self, embedded: Tensor, rows: TokenRows, real: Tensor) -> Tensor:
        """Embedded tokens (N, D), of which keys `real` (B, L) may be attended to -> memory (N, D)."""
        bias = self.encoder.position_bias(rows.length)  # (1, H, L, L)
        mask = key_mask_bias(real, bias.dtype)  # (B, 1, 1, L)
        if mask is not None:
            bias = bias + mask  # (B, H, L, L)
        hidden = self.encoder.enter(embedded)
        for block in self.encoder.block:
            hidden = block(hidden, rows, bias)
        return self.encoder.leave(hidden)

    def run_decoder(
        self, embedded: Tensor, rows: TokenRows, memory: Tensor, memory_rows: TokenRows, real: Tensor
    ) -> Tensor:
        """Embedded decoder inputs (N, D) over memory (M, D) with keys `real` (B, S) -> hidden states (N, D)."""
        bias = self.decoder.position_bias(rows.length)  # (1, H, T, T)
        memory_bias = key_mask_bias(real, bias.dtype)
        hidden = self.decoder.enter(embedded)
        for block in self.decoder.block:
            hidden = block(hidden, rows, bias, memory, memory_rows, memory_bias)
        return self.decoder.leave(hidden)

    def run_both(self, embedded: Tensor, memory_rows: TokenRows, rows: TokenRows, real: Tensor) -> Tensor:
        """Embedded source and decoder inputs (M + N, D) of a source `real` (B, S) -> what enters the head (N, D)."""
        source, target = torch.split(embedded, [memory_rows.count, rows.count])
        memory = self.run_encoder(source, memory_rows, real)
        return self.scaled(self.run_decoder(target, rows, memory, memory_rows, real))

    def scaled(self, hidden: Tensor) -> Tensor:
        """What enters the head: T5 v1.0 multiplies by d_model^-0.5."""
        return hidden * self.architecture.d_model**-0.5 if self.architecture.scale_decoder_outputs else hidden

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every weight as transformers does from a configuration (initializer_factor 1)."""
        sizes = self.architecture
        self.shared.weight.normal_(0.0, 1.0)
        for module in self.modules():
            if isinstance(module, T5LayerNorm):
                module.weight.fill_(1.0)
            elif isinstance(module, T5Attention):
                module.q.weight.normal_(0.0, (sizes.d_model * sizes.d_kv) ** -0.5)
                module.k.weight.normal_(0.0, sizes.d_model**-0.5)
                module.v.weight.normal_(0.0, sizes.d_model**-0.5)
                module.o.weight.normal_(0.0, (sizes.num_heads * sizes.d_kv) ** -0.5)
                if hasattr(module, "relative_attention_bias"):
                    module.relative_attention_bias.weight.normal_(0.0, sizes.d_model**-0.5)
            elif isinstance(module, T5FeedForward):
                for name, weight in module.named_parameters():
                    weight.normal_(0.0, (sizes.d_ff if name == "wo.weight" else sizes.d_model) ** -0.5)
        self.initialise_head()

    def initialise_head(self) -> None:
        """Draw the head's weights; the base has none."""


def _full_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


class T5Seq2Seq(T5Model):
    """Text to text. `label_smoothing` and `z_loss` are those of `linear_cross_entropy`."""

    def __init__(self, architecture: T5Architecture, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> None:
        super().__init__(architecture)
        self.label_smoothing, self.z_loss = label_smoothing, z_loss
        if not architecture.tie_embeddings:
            self.lm_head = nn.Linear(architecture.d_model, architecture.vocab_size, bias=False)

    @torch.no_grad()
    def initialise_head(self) -> None:
        """As wide as the embedding, which is what transformers ties it to."""
        if not self.architecture.tie_embeddings:
            self.lm_head.weight.normal_(0.0, 1.0)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, *, with_logits: bool = False
    ) -> ModelOutput:
        """input_ids and attention_mask (B, S), labels (B, T) with -100 where no loss is taken.

        Returns the mean loss per label and, with `with_logits`, logits (B, T, V), zero after a row's last label. They
        are no by-product: the loss is taken without ever holding them, and they cost a head of their own.
        """
        real = attention_mask.bool()
        memory_rows = build_token_rows(real)
        # A position is computed if a label stands there or later: the decoder looks back only
        rows = build_token_rows((labels != IGNORE_INDEX).flip(1).cumsum(1).flip(1) > 0)
        # One lookup for both stacks: its gradient is as large as the vocabulary
        ids = torch.cat([memory_rows.pack(input_ids), rows.pack(self.shifted_right(labels))])  # (M + N,)
        if self.architecture.tie_embeddings:
            embedded, head_weight = tied_lookup(self.shared.weight, ids)
        else:
            embedded, head_weight = self.shared(ids), self.lm_head.weight
        hidden = self.run_both(embedded, memory_rows, rows, real)
        loss = linear_cross_entropy(
            hidden, head_weight, rows.pack(labels), label_smoothing=self.label_smoothing, z_loss=self.z_loss
        )
        logits = rows.pad_zeros(functional.linear(hidden, head_weight)) if with_logits else None
        return ModelOutput(logits=logits, loss=loss)

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix (V, D), the embedding's where they are tied."""
        return self.shared.weight if self.architecture.tie_embeddings else self.lm_head.weight

    def shifted_right(self, labels: Tensor) -> Tensor:
        """The decoder's input (B, T): the start token, then the labels but the last, padding for -100."""
        shifted = labels.new_full(labels.shape, self.architecture.decoder_start_token_id)
        shifted[:, 1:] = labels[:, :-1]
        return shifted.masked_fill_(shifted == IGNORE_INDEX, self.architecture.pad_token_id)

    def start_decoding(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        max_length: int,
        num_beams: int = 1,
        allowed_ids: Tensor | None = None,
    ) -> DecoderState:
        """Encode (B, S) and make room for `num_beams` rows of at most `max_length` tokens for each example.

        With `allowed_ids` (A,) only their logits are computed, in that order.
        """
        real = attention_mask.bool()
        rows = build_token_rows(real)
        memory = self.run_encoder(self.shared(rows.pack(input_ids)), rows, real)
        blocks = self.decoder_blocks
        pairs = [block.memory_keys_values(memory, rows) for block in blocks]
        bias = self.decoder.position_bias(max_length)
        sizes = self.architecture
        room = (len(input_ids) * num_beams, sizes.num_heads, max_length, sizes.d_kv)
        return DecoderState(
            memory=[(keys.contiguous(), values.contiguous()) for keys, values in pairs],
            memory_bias=key_mask_bias(real, bias.dtype),
            keys=[pairs[0][0].new_empty(room) for _ in blocks],
            values=[pairs[0][0].new_empty(room) for _ in blocks],
            position_bias=bias,
            head_weight=self.head_weight if allowed_ids is None else self.head_weight[allowed_ids],
        )

    def decode_step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """The next tokens (R,) of each row -> logits (R, V or the allowed ids); `state` grows by one position."""
        state.length += 1
        filled = slice(None, state.length)
        bias = state.position_bias[:, :, state.length - 1, None, filled]  # (1, H, 1, T)
        examples = len(state.memory[0][0])
        beams = TokenRows(examples, len(tokens) // examples)
        hidden = self.decoder.enter(self.shared(tokens))  # (R, D)
        for index, block in enumerate(self.decoder_blocks):
            past = (state.keys[index][:, :, filled], state.values[index][:, :, filled])
            hidden = block.step(hidden, past, bias, beams, state.memory[index], state.memory_bias)
        return functional.linear(self.scaled(self.decoder.leave(hidden)), state.head_weight)


class T5Classifier(T5Model):
    """A linear head on the decoder's state after one start token, as in ceshine's finetuning-t5."""

    def __init__(self, architecture: T5Architecture, *, num_classes: int, loss: str = "cross_entropy") -> None:
        super().__init__(architecture)
        if num_classes < 1:
            raise ValueError(f"num_classes: must be at least 1, not {num_classes}")
        if loss not in CLASSIFIER_LOSSES:
            raise ValueError(f"loss: must be one of {', '.join(CLASSIFIER_LOSSES)}, not {loss!r}")
        self.num_classes, self.loss = num_classes, loss
        self.lm_head = nn.Linear(architecture.d_model, num_classes, bias=False)

    @torch.no_grad()
    def initialise_head(self) -> None:
        """Logits of unit size, for a head that starts anew on a trained decoder."""
        self.lm_head.weight.normal_(0.0, self.architecture.d_model**-0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> ModelOutput:
        """input_ids and attention_mask (B, L) -> logits (B, C).

        labels: (B,) int64 for cross_entropy; (B, C) or, with one class, (B,) for the other losses.
        """
        real = attention_mask.bool()
        memory_rows, rows = build_token_rows(real), TokenRows(len(input_ids), 1)
        starts = input_ids.new_full((len(input_ids),), self.architecture.decoder_start_token_id)
        embedded = self.shared(torch.cat([memory_rows.pack(input_ids), starts]))  # (M + B, D)
        hidden = self.run_both(embedded, memory_rows, rows, real)
        logits: Tensor = self.lm_head(hidden)  # (B, C)
        return ModelOutput(
            logits=logits, loss=None if labels is None else self._mean_loss(_full_precision(logits), labels)
        )

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.loss == "cross_entropy":
            return functional.cross_entropy(logits, labels)
        targets = labels.view_as(logits).to(logits.dtype)
        if self.loss == "mse":
            return functional.mse_loss(logits, targets)
        return functional.binary_cross_entropy_with_logits(logits, targets)
