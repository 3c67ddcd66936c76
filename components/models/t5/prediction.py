"""Predicting texts with trained T5s: the function that validation, OOF and submission share."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from components.data.batching import plan_inference_batches
from components.models.shared.inference import Batch, InferenceData, evaluating
from components.models.t5.checkpoint import T5Seq2Seq
from components.models.t5.generation import generate


def predict_sequences(
    models: Sequence[T5Seq2Seq],
    data: InferenceData,
    collate: Callable[[list[Any]], Batch],
    *,
    batch_size: int,
    max_length: int,
    num_beams: int,
    length_penalty: float,
    precision: str = "no",
    allowed_ids: Tensor | None = None,
) -> tuple[list[list[int]], list[float]]:
    """Token ids and mean log-probability per row, decoded jointly by all models, in the order of the rows.

    `precision` as in `predict_logits`; `allowed_ids` as in `generate`.
    """
    sequences: list[list[int]] = [[] for _ in range(len(data))]
    scores = [0.0] * len(data)
    device = next(models[0].parameters()).device
    with evaluating(models, precision):
        for batch_rows in plan_inference_batches(data.padding_keys(), batch_size):
            batch = collate([data[row] for row in batch_rows])
            generated = generate(
                models,
                batch["input_ids"].to(device),
                batch["attention_mask"].to(device),
                max_length=max_length,
                num_beams=num_beams,
                length_penalty=length_penalty,
                allowed_ids=allowed_ids,
            )
            for row, ids, score in zip(
                batch_rows, generated.sequences.tolist(), generated.scores.tolist(), strict=True
            ):
                sequences[row], scores[row] = ids, score
    return sequences, scores
