"""A regression whose targets lie far from 0, in texts and in images, and the smallest experiments that learn it."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tiny_images import write_files

from components.data.text.character_tokenizer import build_character_tokenizer
from components.models.bert.checkpoint import BertArchitecture, BertEncoder, save_bert

NUM_TRAIN, NUM_TEST = 48, 6
ALL_ROWS = range(NUM_TRAIN + NUM_TEST)
PLAIN = {"task": "regression", "metric": "rmse", "extra_metrics": ()}
WITH_IMAGES = {**PLAIN, "name": "tiny_pictures", "kaggle_slug": "tiny-pictures"}
COMMON = """\
schedule: {name: constant}
folds: {name: kfold, num_folds: 2}
tracking: {name: none}
"""
LOOP = "training: {num_steps: 40, batch_size: 8, log_every_steps: 10, eval_every_steps: 20, num_threads: 1}\n"
EXPERIMENTS = {
    "bert": "competition: tiny_task\nmodel: {name: bert, checkpoint: CHECKPOINT}\n"
    "data: {name: segments, max_length: 16}\noptimizer: {name: adamw, lr: 3e-3}\n",
    "t5": "competition: tiny_task\n"
    "model: {name: t5_from_scratch, head: classifier, d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1,"
    " num_decoder_layers: 1}\n"
    "data: {name: text, vocabulary: word}\noptimizer: {name: adamw, lr: 3e-3}\n",
    "xcit": "competition: tiny_pictures\n"
    "model: {name: xcit, architecture: xcit_nano_12_p4_28, embed_dim: 16, depth: 1, num_heads: 2}\n"
    "data: {name: images, img_size: 16, in_chans: 1, tta: flip}\noptimizer: {name: adamw, lr: 3e-3}\n",
}


def save_tiny_bert(folder: Path) -> Path:
    """A checkpoint of one narrow layer and some forty pieces."""
    torch.manual_seed(0)
    tokenizer = build_character_tokenizer(["fine bad word"], size=80, least_count=1)
    sizes = {"hidden_size": 24, "embedding_size": 24, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
    encoder = BertEncoder(BertArchitecture(vocab_size=tokenizer.size, max_positions=32, **sizes))
    encoder.initialise()
    save_bert(encoder, folder)
    tokenizer.save(folder)
    return folder


def make_targets(num: int, seed: int) -> np.ndarray:
    """Every second row about 150,000, the others about 250,000: so far from 0 and from one another."""
    noise = np.random.default_rng(seed).normal(0, 1_000, num)
    return np.where(np.arange(num) % 2, 250_000, 150_000) + noise.round()


def write_experiment(root: Path, family: str, checkpoint: str = "", loop: str = LOOP) -> str:
    """The experiment of a family; returns its name."""
    name, folder = f"tiny_{family}", root / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"name: {name}\n{EXPERIMENTS[family]}{COMMON}{loop}"
    (folder / f"{name}.yaml").write_text(text.replace("CHECKPOINT", checkpoint), encoding="utf-8")
    return name


def write_texts(folder: Path) -> pd.DataFrame:
    """Texts with "fine" have the low target, those with "bad" the high one; returns the training rows."""
    return _write(folder, [f"{'bad' if row % 2 else 'fine'} {'word ' * (row % 3)}".strip() for row in ALL_ROWS])


def write_pictures(folder: Path) -> pd.DataFrame:
    """Dark images have the low target, bright ones the high one; returns the training rows."""
    dark = np.random.default_rng(1).integers(0, 60, (len(ALL_ROWS), 16, 16), dtype=np.uint8)
    light = np.array([row % 2 * 150 for row in ALL_ROWS], np.uint8)[:, None, None]
    return _write(folder, [path.name for path in write_files(folder / "images", dark + light, ".png")])


def _write(folder: Path, cells: list[str]) -> pd.DataFrame:
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"id": ALL_ROWS, "text": cells, "label": make_targets(len(ALL_ROWS), seed=0)})
    train, test = frame[:NUM_TRAIN], frame[NUM_TRAIN:]
    train.to_csv(folder / "train.csv", index=False)
    test.drop(columns="label").to_csv(folder / "test.csv", index=False)
    test[["id"]].assign(label=0.5).to_csv(folder / "sample_submission.csv", index=False)
    return train.reset_index(drop=True)
