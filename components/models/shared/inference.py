"""Predicting with trained models: the functions that validation, OOF and submission share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from components.data.batching import plan_inference_batches

Batch = dict[str, Tensor]

PRECISIONS: dict[str, torch.dtype | None] = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Names as accelerate has them; fp16 is what Kaggle's T4 is fast in."""


class InferenceData(Protocol):
    """Unpadded examples and what decides which of them pad to the same width."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Any: ...  # noqa: ANN401 - an example is the collator's business
    def padding_keys(self) -> Sequence[int]: ...


def predict_logits(
    model: nn.Module,
    data: InferenceData,
    collate: Callable[[list[Any]], Batch],
    *,
    batch_size: int,
    precision: str = "no",
    num_workers: int = 0,
) -> Tensor:
    """Logits of all rows in their order, float32 on the CPU, (N, C).

    Batches depend on the data alone, so that the same rows give the same bits in validation and in a kernel.
    `precision` (PRECISIONS) is the type that matrix products are computed in; `num_workers` processes make the batches.
    """
    return _predict_rows(
        model,
        lambda batch: model(**batch).logits,
        data,
        collate,
        batch_size=batch_size,
        precision=precision,
        num_workers=num_workers,
    )


def predict_vectors(
    encoder: nn.Module,
    pool: Callable[[Any], Tensor],
    data: InferenceData,
    collate: Callable[[list[Any]], Batch],
    *,
    batch_size: int,
    precision: str = "no",
) -> Tensor:
    """`pool(encoder(...))` of all rows in their order, float32 on the CPU, (N, D); else as `predict_logits`."""
    return _predict_rows(
        encoder, lambda batch: pool(encoder(**batch)), data, collate, batch_size=batch_size, precision=precision
    )


def _predict_rows(
    model: nn.Module,
    run: Callable[[Batch], Tensor],
    data: InferenceData,
    collate: Callable[[list[Any]], Batch],
    *,
    batch_size: int,
    precision: str,
    num_workers: int = 0,
) -> Tensor:
    rows: list[int] = []
    parts: list[Tensor] = []
    device = next(model.parameters()).device
    with evaluating([model], precision):
        plan = plan_inference_batches(data.padding_keys(), batch_size)
        # Its own generator, as else validating would draw from the global one
        loader: DataLoader[Any] = DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=plan,
            collate_fn=collate,
            num_workers=num_workers,
            generator=torch.Generator(),
        )
        for batch_rows, batch in zip(plan, loader, strict=True):
            batch.pop("labels", None)
            result = run({key: value.to(device) for key, value in batch.items()})
            rows += batch_rows
            parts.append(result.float().cpu())
    if not parts:
        return torch.zeros(0, 0)
    joined = torch.cat(parts)
    return torch.empty_like(joined).index_copy_(0, torch.tensor(rows), joined)


@contextmanager
def evaluating(models: Sequence[nn.Module], precision: str) -> Iterator[None]:
    """Within the block models are in evaluation mode, products in `precision`, and nothing is kept for a backward."""
    modes = [model.training for model in models]
    device, dtype = next(models[0].parameters()).device, PRECISIONS[precision]
    try:
        for model in models:
            model.eval()
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield
    finally:
        for model, was_training in zip(models, modes, strict=True):
            model.train(was_training)
