"""Encoders that run on transformers' own code (DeBERTa, MPNet, ModernBERT, ...), in the form of ours."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.models.bert.encoded import EncodedTokens
from components.models.shared.token_rows import TokenRows

# The names under which configurations say how much is dropped.
DROPOUTS = ("hidden_dropout_prob", "hidden_dropout", "dropout", "embedding_dropout", "mlp_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


class HubEncoder(nn.Module):
    """An encoder of transformers' AutoModel; without weights where `folder` is that of a model of ours."""

    def __init__(
        self, folder: Path, *, has_weights: bool, dropout: float | None = None, attention_dropout: float | None = None
    ) -> None:
        super().__init__()
        # Loaded late: seconds, which our own encoders do not need
        from transformers import AutoConfig, AutoModel

        config: Any = AutoConfig.from_pretrained(folder)
        for names, value in ((DROPOUTS, dropout), (ATTENTION_DROPOUTS, attention_dropout)):
            for name in names:
                if value is not None and hasattr(config, name):
                    setattr(config, name, value)
        auto_model: Any = AutoModel
        self.model: Any = (
            auto_model.from_pretrained(folder, config=config, dtype=torch.float32)
            if has_weights
            else auto_model.from_config(config)
        )
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError(f"{folder}: {config.model_type} is an encoder-decoder; needs an encoder such as BERT")

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        positions = int(getattr(self.model.config, "max_position_embeddings", 512))
        # MPNet, Longformer and others of RoBERTa's line count positions from the padding id on
        return positions - 2 if positions % 64 == 2 else positions

    @property
    def layer_stacks(self) -> list[nn.ModuleList]:
        """The list of its layers, found by its length."""
        depth = self.model.config.num_hidden_layers
        stacks = [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        return stacks[:1]

    @property
    def embedding_layers(self) -> list[nn.Module]:
        """The module that transformers calls `embeddings`, where there is one."""
        embeddings = getattr(self.model, "embeddings", None)
        return [embeddings] if isinstance(embeddings, nn.Module) else []

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> EncodedTokens:
        """All (B, L); types are left out where the model has none."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        has_types = getattr(self.model.config, "type_vocab_size", 0) > 1
        types = {"token_type_ids": token_type_ids} if has_types and token_type_ids is not None else {}
        hidden = self.model(input_ids=input_ids, attention_mask=real.long(), **types).last_hidden_state  # (B, L, D)
        return EncodedTokens(hidden.flatten(0, 1), TokenRows(*input_ids.shape), real)

    def whole_state(self) -> dict[str, Tensor]:
        """The parameters by transformers' names."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def config(self) -> dict[str, Any]:
        """What stands in `config.json`."""
        config: dict[str, Any] = json.loads(self.model.config.to_json_string(use_diff=True))
        return config

    def reinitialise_top(self, num_layers: int) -> None:
        """Draw the weights of the last layers anew, as the model itself would. ALBERT's layers are one, and stay."""
        layers = self.layer_stacks[0] if self.layer_stacks else nn.ModuleList()
        if not 0 <= num_layers <= len(layers):
            raise ValueError(f"{num_layers} layers to draw anew, but the encoder has {len(layers)}")
        for layer in layers[len(layers) - num_layers :]:
            for part in layer.modules():
                if isinstance(part, nn.LayerNorm):
                    part.reset_parameters()
                elif isinstance(part, nn.Linear):
                    part.weight.data.normal_(0.0, getattr(self.model.config, "initializer_range", 0.02))
                    if part.bias is not None:
                        part.bias.data.zero_()
