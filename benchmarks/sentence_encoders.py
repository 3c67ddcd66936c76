"""Distilled Chinese encoders against their teacher: how well titles find their articles, how fast all read them.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/sentence_encoders.py [--encoder run:EXPERIMENT ...] [--rounds 5]

Quality: every title of the evaluated Chinese news asks for its own body among all bodies, from which its verbatim
repeats are cut; mean reciprocal rank over all ranks and to rank 10, equal scores in the middle. Speed: CPU time of the
whole process while it encodes the same titles and the same beginnings of bodies, text to vector, tokenizing included,
encoders taking turns; texts a second are of the fastest round, and the ratio is of an article's time (its title and its
body) by the minima. The teacher's own cut of 150 characters is what all are given. An encoder is a run's name, a run's
folder or a checkpoint's, with `LABEL=` before it if wished; several, with --json, are the curve of quality against time
and size (`docs/draw_distillation.py`).
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for everybody

import numpy as np
from safetensors import safe_open

from components.search.encoders import SentenceEncoder, encode_in_batches
from components.search.evaluation import cut_title, known_item_metrics, rank_of
from components.search.onnx_encoder import OnnxEncoder
from components.search.onnx_export import WEIGHTS_FILE, WIDE_FILE, export_encoder
from components.search.usem3_encoder import Usem3Encoder
from pipelines.runs.run import Run
from pipelines.search.corpora.chinese_news import load_evaluated
from pipelines.workspace import Workspace

GIVEN_CHARACTERS = 150
DISTILLED = "run:bert_tiny_zh_distilled"


@dataclass
class Contender:
    """An encoder, and its CPU seconds for a sample of titles and of bodies, one a round."""

    label: str
    encoder: SentenceEncoder
    num_parameters: int
    titles: list[float] = field(default_factory=list)
    bodies: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return min(self.titles) + min(self.bodies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", help=f"{DISTILLED}, a folder; may be given several times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=256, help="articles encoded in a round")
    parser.add_argument("--json", type=Path, help="write the table to this file as well")
    arguments = parser.parse_args()
    articles = load_evaluated()
    titles = [article.title for article in articles]
    bodies = [cut_title(article.title, article.body)[:GIVEN_CHARACTERS] for article in articles]
    with tempfile.TemporaryDirectory() as folder:
        contenders = [Contender("usem3 (teacher)", Usem3Encoder(max_characters=GIVEN_CHARACTERS), 0)]
        for number, name in enumerate(arguments.encoder or [DISTILLED]):
            label, _, where = name.rpartition("=")
            contenders.append(open_checkpoint(label or where, find_checkpoint(where), Path(folder) / str(number)))
        race(contenders, titles[: arguments.sample], bodies[: arguments.sample], arguments.rounds)
        rows = [measure(one, contenders[0], titles, bodies, arguments.sample) for one in contenders]
    print_table(rows, len(titles))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def find_checkpoint(name: str) -> Path:
    if name.startswith("run:"):
        run = Run.newest_finished(Workspace(Path(__file__).parents[1]).runs, name.removeprefix("run:"))
        return Run(run.path).trained_checkpoints()[0]
    folder = Path(name)
    return folder if (folder / WEIGHTS_FILE).is_file() else Run(folder).trained_checkpoints()[0]


def open_checkpoint(label: str, checkpoint: Path, folder: Path) -> Contender:
    length = int(json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"])
    export_encoder(checkpoint, folder, name=label, max_length=length)
    files = [checkpoint / name for name in (WEIGHTS_FILE, WIDE_FILE)]
    return Contender(label, OnnxEncoder(folder), sum(count_numbers(file) for file in files if file.is_file()))


def count_numbers(file: Path) -> int:
    with safe_open(file, "numpy") as tensors:
        return sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118


def race(contenders: Sequence[Contender], titles: Sequence[str], bodies: Sequence[str], rounds: int) -> None:
    """Round 0 warms up and does not count."""
    for number in range(rounds + 1):
        for contender in contenders:
            for texts, times in ((titles, contender.titles), (bodies, contender.bodies)):
                begun = time.process_time()
                encode_in_batches(contender.encoder, texts)
                if number:
                    times.append(time.process_time() - begun)


def measure(
    contender: Contender, teacher: Contender, titles: Sequence[str], bodies: Sequence[str], num_timed: int
) -> dict[str, object]:
    """A row of the table: speed from the race, quality from all titles."""
    likeness = encode_in_batches(contender.encoder, titles) @ encode_in_batches(contender.encoder, bodies).T
    ranks = np.array([rank_of(row, number) for number, row in enumerate(likeness)])
    return {
        "encoder": contender.label,
        "dimension": contender.encoder.dimension,
        "parameters": contender.num_parameters,
        "titles/s": num_timed / min(contender.titles),
        "bodies/s": num_timed / min(contender.bodies),
        "speed": teacher.seconds / contender.seconds,
        "mrr": float((1 / ranks).mean()),
    } | known_item_metrics(ranks.tolist())


def print_table(rows: Sequence[dict[str, Any]], num_questions: int) -> None:
    print(f"{num_questions:,} questions")
    print(f"{'encoder':50s}{'width':>6s}{'parameters':>12s}{'titles/s':>9s}{'bodies/s':>9s}{'speed':>7s}", end="")
    print(f"{'MRR':>7s}{'MRR@10':>7s}{'R@1':>7s}{'R@10':>7s}")
    for row in rows:
        print(f"{row['encoder'][-49:]:50s}{row['dimension']:6d}{row['parameters']:12,d}", end="")
        print(f"{row['titles/s']:9,.0f}{row['bodies/s']:9,.0f}{row['speed']:6.1f}x", end="")
        print("".join(f"{row[name]:7.3f}" for name in ("mrr", "mrr@10", "recall@1", "recall@10")))


if __name__ == "__main__":
    main()
