"""The encoder and the model that is trained: an encoder, a pooling and a linear head."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from components.losses.by_task import binary_cross_entropy, cross_entropy, mean_squared_error
from components.models.bert.architecture import BertArchitecture
from components.models.bert.compact_embedding import CompactEmbedding
from components.models.bert.encoded import EncodedTokens
from components.models.bert.layers import BertEmbeddings, BertLayer
from components.models.bert.pooling import build_pooling
from components.models.shared.dropout import dropout, is_hand_written
from components.models.shared.output import ModelOutput
from components.models.shared.token_rows import TokenRows, build_token_rows

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mse": mean_squared_error,
}
"""Losses of the head: of one class among several, of several independent ones, of a value."""


class BertEncoder(nn.Module):
    """Embeddings and layers, for every family of `bert_architecture.FAMILIES`."""

    def __init__(self, architecture: BertArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.embeddings = BertEmbeddings(architecture)
        self.layer = nn.ModuleList([BertLayer(architecture) for _ in range(architecture.num_layers)])

    @property
    def hidden_size(self) -> int:
        """D."""
        return self.architecture.hidden_size

    @property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        return self.embeddings.max_length

    @property
    def layer_stacks(self) -> list[nn.ModuleList]:
        """The stacks of like layers, which an activation plan treats each by itself."""
        return [self.layer]

    @property
    def embedding_layers(self) -> list[nn.Module]:
        """What stands below the layers, which an activation plan may treat too."""
        return [self.embeddings]

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings, under transformers' name for asking."""
        return self.embeddings.word_embeddings

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> EncodedTokens:
        """All (B, L); a mask of None hides nothing, and types of None are 0."""
        if attention_mask is None:
            rows, real, hidden_keys = TokenRows(*input_ids.shape), torch.ones_like(input_ids, dtype=torch.bool), None
        else:
            real = attention_mask.bool()
            rows = build_token_rows(real)
            # Looking would stall an accelerator's queue
            hidden_keys = None if is_hand_written(real) and bool(real.all()) else real
        hidden = self.embeddings(input_ids, token_type_ids, rows)
        for layer in self.layer:
            hidden = layer(hidden, rows, hidden_keys)
        return EncodedTokens(hidden, rows, real)

    def train_used_rows(self, used_ids: Iterable[int]) -> None:
        """Train only these rows of the word embeddings; to be called before an optimizer is made."""
        words = self.embeddings.word_embeddings
        assert isinstance(words, nn.Embedding)
        assert not isinstance(words, CompactEmbedding)
        # Dense batches look padding up as well
        self.embeddings.word_embeddings = CompactEmbedding(words.weight, {*used_ids, self.architecture.pad_id})

    def whole_state(self) -> dict[str, Tensor]:
        """The parameters by their names, the word embeddings whole."""
        state = self.state_dict()
        words = self.embeddings.word_embeddings
        if isinstance(words, CompactEmbedding):
            state["embeddings.word_embeddings.weight"] = words.whole_weight()
        return state

    def initialise(self) -> None:
        """Draw every weight anew, as transformers does from a configuration."""
        self.draw(self)

    def reinitialise_top(self, num_layers: int) -> None:
        """Draw the weights of the last layers anew: they know the pre-training's task best (arXiv:2006.05987)."""
        if not 0 <= num_layers <= len(self.layer):
            raise ValueError(f"{num_layers} layers to draw anew, but the encoder has {len(self.layer)}")
        for layer in self.layer[len(self.layer) - num_layers :]:
            self.draw(layer)

    @torch.no_grad()
    def draw(self, module: nn.Module) -> None:
        """Normal weights of the architecture's spread, biases 0, norms 1."""
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                part.weight.normal_(0.0, self.architecture.initializer_range)
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.0)
            if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
                part.bias.zero_()


class TextHead(nn.Module):
    """Hidden states to logits: pooling, dropout, and a linear layer."""

    def __init__(
        self, width: int, num_outputs: int, *, pooling: str, dropout: float = 0.1, num_dropout_samples: int = 1
    ) -> None:
        super().__init__()
        if num_outputs < 1 or num_dropout_samples < 1:
            raise ValueError(f"num_outputs: {num_outputs}, num_dropout_samples: {num_dropout_samples}; need at least 1")
        self.pooling_name, self.num_dropout_samples, self.dropout = pooling, num_dropout_samples, dropout
        self.pooling = build_pooling(pooling, width)
        self.classifier = nn.Linear(width, num_outputs)

    def forward(self, tokens: EncodedTokens) -> Tensor:
        """Logits (S, B, C), one set for each dropout sample; S is 1 where nothing is dropped."""
        pooled = self.pooling(tokens)  # (B, D)
        p = self.dropout if self.training else 0.0
        count = self.num_dropout_samples if p > 0.0 else 1
        logits: Tensor = self.classifier(dropout(pooled.expand(count, *pooled.shape), p))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    @torch.no_grad()
    def initialise(self) -> None:
        """Small weights, so that a fresh head begins near equal odds."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, 0.02)
                module.bias.zero_()


class TextClassifier(nn.Module):
    """An encoder with a head of classes, independent labels or a value, for one text or a pair.

    With several dropout samples the loss is the mean over as many masks on the same pooled vector
    (arXiv:1905.09788), and the logits are their mean.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: TextHead,
        *,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss: must be one of {', '.join(LOSSES)}, not {loss!r}")
        self.encoder, self.head = encoder, head
        self.loss, self.label_smoothing = loss, label_smoothing

    @property
    def layer_stacks(self) -> list[nn.ModuleList]:
        """The encoder's."""
        stacks: list[nn.ModuleList] = self.encoder.layer_stacks  # type: ignore[assignment]
        return stacks

    @property
    def embedding_layers(self) -> list[nn.Module]:
        """The encoder's."""
        embeddings: list[nn.Module] = self.encoder.embedding_layers  # type: ignore[assignment]
        return embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ModelOutput:
        """Ids, mask and types (B, L) -> logits (B, C).

        labels: (B,) int64 for cross_entropy; (B, C) or, with one output, (B,) for the other losses.
        """
        samples = self.head(self.encoder(input_ids, attention_mask, token_type_ids))  # (S, B, C)
        loss = None if labels is None else self._mean_loss(samples, labels)
        return ModelOutput(logits=samples.mean(0), loss=loss)

    def _mean_loss(self, samples: Tensor, labels: Tensor) -> Tensor:
        targets = labels if self.loss == "cross_entropy" else labels.view(samples.shape[1:])
        function, smoothing = LOSSES[self.loss], self.label_smoothing
        if self.loss == "mse":
            samples, targets = samples.flatten(1), targets.flatten()
        return function(samples, targets.expand(len(samples), *targets.shape), label_smoothing=smoothing)
