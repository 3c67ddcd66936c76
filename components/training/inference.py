"""Predicting with trained models: the functions that validation, OOF and submission share."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.data.batching import plan_inference_batches
from components.models.t5 import T5Seq2Seq
from components.models.t5_generation import generate

Batch = dict[str, Tensor]


class InferenceData(Protocol):
    """Unpadded examples and what decides which of them pad to the same width."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Any: ...  # noqa: ANN401 - an example is the collator's business
    def padding_keys(self) -> Sequence[int]: ...


def predict_logits(
    model: nn.Module, data: InferenceData, collate: Callable[[list[Any]], Batch], *, batch_size: int
) -> Tensor:
    """Logits of all rows in their order, float32 on the CPU, (N, C).

    Batches depend on the data alone, so that the same rows give the same bits in validation and in a kernel.
    """
    rows: list[int] = []
    parts: list[Tensor] = []
    device = next(model.parameters()).device
    with _evaluating([model]):
        for batch_rows in plan_inference_batches(data.padding_keys(), batch_size):
            batch = collate([data[row] for row in batch_rows])
            batch.pop("labels", None)
            logits = model(**{key: value.to(device) for key, value in batch.items()}).logits
            rows += batch_rows
            parts.append(logits.float().cpu())
    if not parts:
        return torch.zeros(0, 0)
    logits = torch.cat(parts)
    return torch.empty_like(logits).index_copy_(0, torch.tensor(rows), logits)


def predict_sequences(
    models: Sequence[T5Seq2Seq],
    data: InferenceData,
    collate: Callable[[list[Any]], Batch],
    *,
    batch_size: int,
    max_length: int,
    num_beams: int,
    length_penalty: float,
) -> tuple[list[list[int]], list[float]]:
    """Token ids and mean log-probability per row, decoded jointly by all models, in the order of the rows."""
    sequences: list[list[int]] = [[] for _ in range(len(data))]
    scores = [0.0] * len(data)
    device = next(models[0].parameters()).device
    with _evaluating(models):
        for batch_rows in plan_inference_batches(data.padding_keys(), batch_size):
            batch = collate([data[row] for row in batch_rows])
            generated = generate(
                models,
                batch["input_ids"].to(device),
                batch["attention_mask"].to(device),
                max_length=max_length,
                num_beams=num_beams,
                length_penalty=length_penalty,
            )
            for row, ids, score in zip(
                batch_rows, generated.sequences.tolist(), generated.scores.tolist(), strict=True
            ):
                sequences[row], scores[row] = ids, score
    return sequences, scores


class _evaluating:  # noqa: N801 - reads as a phrase after `with`
    """Within the block the models are in evaluation mode and nothing is recorded for a backward pass."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = [(model, model.training) for model in models]
        self.inference = torch.inference_mode()

    def __enter__(self) -> None:
        for model, _ in self.models:
            model.eval()
        self.inference.__enter__()

    def __exit__(self, *exception: Any) -> None:  # noqa: ANN401
        self.inference.__exit__(*exception)
        for model, was_training in self.models:
            model.train(was_training)
