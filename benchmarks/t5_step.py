"""Time of one training step (forward and backward) of our T5 against transformers', on one CPU thread.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/t5_step.py

Both have the same weights and batches and take turns, so that a busy machine slows both.
"""

import statistics
import tempfile
import time

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from components.models.t5.checkpoint import T5Architecture, create_t5, save_t5
from components.process_settings import tune_process

ROUNDS = 40
BATCH, SOURCE, TARGET = 48, 24, 16


def build_batch(vocab_size: int, *, is_padded: bool) -> dict[str, Tensor]:
    """Full rows, or lengths drawn evenly from half to full for source and from 6 to full for target."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, vocab_size, (BATCH, SOURCE), generator=generator)
    labels = torch.randint(3, vocab_size, (BATCH, TARGET), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    if is_padded:
        ends = torch.randint(SOURCE // 2, SOURCE + 1, (BATCH, 1), generator=generator)
        attention_mask = (torch.arange(SOURCE) < ends).long()
        ends = torch.randint(6, TARGET + 1, (BATCH, 1), generator=generator)
        labels = labels.masked_fill(torch.arange(TARGET) >= ends, -100)
    return {"input_ids": input_ids * attention_mask, "attention_mask": attention_mask, "labels": labels}


def time_step(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Milliseconds of one forward and backward pass."""
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    model(**batch).loss.backward()
    return (time.perf_counter() - start) * 1e3


def compare(vocab_size: int, *, is_padded: bool) -> str:
    torch.manual_seed(0)
    ours = create_t5(T5Architecture(vocab_size, 160, 40, 512, 2, 2, 4), head="seq2seq").train()
    with tempfile.TemporaryDirectory() as folder:
        theirs = T5ForConditionalGeneration.from_pretrained(save_t5(ours, folder)).train()
    batch = build_batch(vocab_size, is_padded=is_padded)
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    for turn in range(ROUNDS + 5):
        for name, model in (("theirs", theirs), ("ours", ours)):
            elapsed = time_step(model, batch)
            if turn >= 5:
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    least = {name: min(values) for name, values in times.items()}
    return (
        f"{vocab_size:6d}  {'padded' if is_padded else 'full  '}  {medians['theirs']:12.1f}  {medians['ours']:8.1f}"
        f"  {medians['theirs'] / medians['ours']:12.2f}  {least['theirs'] / least['ours']:13.2f}"
    )


if __name__ == "__main__":
    tune_process(num_threads=1)
    print(" vocab  batch   transformers  ours, ms  median ratio  minimum ratio")
    for size in (100, 1500):
        for padded in (False, True):
            print(compare(size, is_padded=padded))
