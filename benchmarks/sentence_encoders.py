"""The distilled Chinese encoder against its teacher: how well titles find their articles, how fast both read them.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/sentence_encoders.py [--encoder run:EXPERIMENT] [--rounds 5]

Quality: every title of the evaluated Chinese news asks for its own body among all bodies, from which its verbatim
repeats are cut; mean reciprocal rank over all ranks and to rank 10, equal scores in the middle. Speed: CPU time of the
whole process while it encodes the same titles and the same beginnings of bodies, text to vector, tokenizing included,
encoders taking turns; texts a second are of the fastest round, and the ratio is of an article's time (its title and its
body) by the minima. The teacher's own cut of 150 characters is what both are given. With --sizes also the speed of
other sizes, with random weights: the curve that the chosen one lies on.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for everybody

import numpy as np
from safetensors import safe_open

from components.models.bert import BertArchitecture, BertEncoder, save_bert
from components.search.encoders import SentenceEncoder, encode_in_batches
from components.search.evaluation import cut_title, rank_of
from components.search.onnx_encoder import OnnxEncoder
from components.search.onnx_export import export_encoder
from components.search.usem3_encoder import Usem3Encoder
from pipelines.config.workspace import Workspace
from pipelines.corpora.chinese_news import load_evaluated
from pipelines.engine.run_directory import RunDirectory
from pipelines.engine.run_index import newest_finished_run

GIVEN_CHARACTERS = 150
# (hidden size, feed-forward width, heads, tokens read)
SIZES = ((64, 128, 1, 64), (64, 256, 2, 64), (96, 96, 1, 96), (128, 256, 2, 64), (192, 768, 4, 64), (312, 1200, 12, 64))


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
    parser.add_argument("--encoder", default="run:bert_tiny_zh_distilled", help="run:EXPERIMENT or a folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=256, help="articles encoded in a round")
    parser.add_argument("--sizes", action="store_true", help="also time other sizes, with random weights")
    arguments = parser.parse_args()
    articles = load_evaluated()
    titles = [article.title for article in articles]
    bodies = [cut_title(article.title, article.body)[:GIVEN_CHARACTERS] for article in articles]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = find_checkpoint(arguments.encoder)
        teacher = Contender("usem3 (teacher)", Usem3Encoder(max_characters=GIVEN_CHARACTERS), 0)
        student = open_checkpoint(arguments.encoder, checkpoint, Path(folder) / "student", read_length(checkpoint))
        others = [draw(size, checkpoint, Path(folder) / str(number)) for number, size in enumerate(SIZES)]
        contenders = [teacher, student, *(others if arguments.sizes else [])]
        race(contenders, titles[: arguments.sample], bodies[: arguments.sample], arguments.rounds)
        print_speed(contenders, arguments.sample)
        for contender in (teacher, student):
            print_quality(contender, titles, bodies)


def find_checkpoint(name: str) -> Path:
    if not name.startswith("run:"):
        return Path(name)
    run = newest_finished_run(Workspace(Path(__file__).parents[1]).runs, name.removeprefix("run:"))
    return RunDirectory(run.folder).trained_checkpoints()[0]


def read_length(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"])


def open_checkpoint(label: str, checkpoint: Path, folder: Path, max_length: int) -> Contender:
    export_encoder(checkpoint, folder, name=label, max_length=max_length)
    with safe_open(checkpoint / "model.safetensors", "numpy") as file:
        num_parameters = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    return Contender(label, OnnxEncoder(folder), num_parameters)


def draw(size: tuple[int, int, int, int], like: Path, folder: Path) -> Contender:
    """An encoder of another size with random weights and the student's vocabulary."""
    hidden, wide, heads, length = size
    tokenizer = (like / "tokenizer.json").read_text(encoding="utf-8")
    checkpoint = folder.with_name(folder.name + "-checkpoint")
    architecture = BertArchitecture(
        vocab_size=5000, hidden_size=hidden, embedding_size=hidden, num_layers=4, num_heads=heads,
        intermediate_size=wide, max_positions=160,
    )  # fmt: skip
    encoder = BertEncoder(architecture)
    encoder.initialise()
    save_bert(encoder, checkpoint)
    (checkpoint / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return open_checkpoint(f"4 x {hidden}/{wide}, {heads} heads, {length} tokens", checkpoint, folder, length)


def race(contenders: Sequence[Contender], titles: Sequence[str], bodies: Sequence[str], rounds: int) -> None:
    """Round 0 warms up and does not count."""
    for number in range(rounds + 1):
        for contender in contenders:
            for texts, times in ((titles, contender.titles), (bodies, contender.bodies)):
                begun = time.process_time()
                encode_in_batches(contender.encoder, texts)
                if number:
                    times.append(time.process_time() - begun)


def print_speed(contenders: Sequence[Contender], num_texts: int) -> None:
    print(f"{'encoder':40s} {'parameters':>10s} {'titles/s':>9s} {'bodies/s':>9s} {'ratio':>6s}")
    for contender in contenders:
        speeds = [num_texts / min(times) for times in (contender.titles, contender.bodies)]
        ratio = contenders[0].seconds / contender.seconds
        size = f"{contender.num_parameters:,}" if contender.num_parameters else "-"
        print(f"{contender.label:40s} {size:>10s} {speeds[0]:9,.0f} {speeds[1]:9,.0f} {ratio:6.1f}")


def print_quality(contender: Contender, titles: Sequence[str], bodies: Sequence[str]) -> None:
    likeness = encode_in_batches(contender.encoder, titles) @ encode_in_batches(contender.encoder, bodies).T
    ranks = np.array([rank_of(row, number) for number, row in enumerate(likeness)])
    mrr, at_10 = (1 / ranks).mean(), np.where(ranks <= 10, 1 / ranks, 0).mean()
    found = [(ranks <= depth).mean() for depth in (1, 10)]
    print(
        f"{contender.label:40s} MRR {mrr:.3f}  MRR@10 {at_10:.3f}  recall@1 {found[0]:.3f}  recall@10 {found[1]:.3f}  "
        f"({len(ranks):,} questions)"
    )


if __name__ == "__main__":
    main()
