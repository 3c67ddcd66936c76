"""Wall time until an XCiT tells clothes apart: our blocks against timm's behind the same stem, in the same loop.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/xcit_time_to_score.py [--target 0.88] [--steps 1800] [--seed 1]

Both start from the same weights (the model of xcit_nano_fashion) and see the same batches of Fashion-MNIST, mirrored
alike, under AdamW and a cosine; both are scored on the official test images at the same steps. They differ in
the blocks alone: after a hundred steps their losses still agree to three digits. They take turns from evaluation to
evaluation, so that a busy machine slows both; a clock runs during its owner's training only, which includes making the
batches. Needs `podium data prepare fashion_mnist`. About ten minutes on a busy core.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from timm.models import xcit as timm_xcit
from torch import Tensor, nn

from components.data.image import ImageCollator, LabelledImages
from components.data.image_augmentation import Augmentation
from components.data.image_files import ArrayImages
from components.data.image_inspection import measure_pixels
from components.models.output import ModelOutput
from components.models.xcit import XCiT, create_xcit
from components.optim.param_groups import build_param_groups
from components.optim.schedules import build_cosine
from components.training.inference import predict_logits
from components.training.loop import LoopSettings, TrainingLoop

DATA = Path(__file__).parents[1] / "data" / "fashion-mnist"
HOST = DATA.parent / "local_host" / "fashion-mnist"
AUGMENTATION = Augmentation(flip=0.5)
BATCH, EVAL_BATCH, LR, WEIGHT_DECAY, NUM_WARMUP_STEPS, LOG_EVERY = 64, 500, 3e-3, 0.05, 100, 100


class TimmBlocks(nn.Module):
    """An XCiT of ours whose blocks are timm's, with the same weights."""

    def __init__(self, model: XCiT) -> None:
        super().__init__()
        shape, self.model = model.architecture, copy.deepcopy(model)
        sizes = {"dim": shape.embed_dim, "num_heads": shape.num_heads, "qkv_bias": True, "eta": shape.eta}
        blocks = nn.ModuleList(timm_xcit.XCABlock(**sizes) for _ in model.blocks)
        heads = nn.ModuleList(
            timm_xcit.ClassAttentionBlock(**sizes, tokens_norm=shape.tokens_norm) for _ in model.cls_attn_blocks
        )
        blocks.load_state_dict(model.blocks.state_dict())
        heads.load_state_dict(model.cls_attn_blocks.state_dict())
        self.model.blocks, self.model.cls_attn_blocks = blocks, heads

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ModelOutput:
        model = self.model
        tokens, height, width = model.embed(pixel_values)
        for block in model.blocks:
            tokens = block(tokens, height, width)
        tokens = torch.cat([model.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in model.cls_attn_blocks:
            tokens = block(tokens)
        logits = model.forward_head(model.norm(tokens))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ModelOutput(logits=logits, loss=loss)


class Task:
    """The images of both, and the score of a model on the test images."""

    def __init__(self, num_test: int) -> None:
        train, test = (np.load(DATA / f"{part}_images.npy", mmap_mode="r")[:, None] for part in ("train", "test"))
        names = sorted(pd.read_csv(DATA / "train.csv")["label"].unique())
        labels, truth = (
            np.array([names.index(name) for name in pd.read_csv(path)["label"]])
            for path in (DATA / "train.csv", HOST / "solution.csv")
        )
        statistics = measure_pixels([np.asarray(train)])
        assert statistics is not None
        source = ArrayImages(train, range(len(train)))
        self.train = LabelledImages(source, labels, img_size=28, augmentation=AUGMENTATION, seed=0)
        self.test = LabelledImages(ArrayImages(test, range(num_test)), None, img_size=28)
        self.truth = torch.tensor(truth[:num_test])
        self.collate = ImageCollator(statistics, augmentation=AUGMENTATION)

    def score(self, model: nn.Module) -> float:
        logits = predict_logits(model, self.test, self.collate, batch_size=EVAL_BATCH)
        return float((logits.argmax(1) == self.truth).double().mean())


class Turns:
    """One contender runs at a time; who hands over waits until the other has had its turn."""

    def __init__(self, names: Sequence[str]) -> None:
        self.queue, self.changed = list(names), Condition()

    def wait(self, name: str) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.queue[0] == name)

    def hand_over(self, name: str, *, leaves: bool = False) -> None:
        with self.changed:
            self.queue.remove(name)
            self.queue += [] if leaves else [name]
            self.changed.notify_all()


@dataclass
class Clock:
    """One contender's seconds of training, and its points (step, wall seconds, CPU seconds, accuracy)."""

    name: str
    turns: Turns
    task: Task
    points: list[tuple[int, float, float, float]] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0

    def start(self) -> None:
        self.turns.wait(self.name)
        self.since = time.perf_counter(), time.process_time()

    def evaluate(self, step: int, model: nn.Module) -> dict[str, float]:
        self.wall += time.perf_counter() - self.since[0]
        self.cpu += time.process_time() - self.since[1]
        accuracy = self.task.score(model)
        self.points.append((step, self.wall, self.cpu, accuracy))
        print(f"    {self.name:5s} step {step:5d}  {self.wall:6.1f} s  {accuracy:.4f}", flush=True)
        self.turns.hand_over(self.name)
        self.start()
        return {"valid/accuracy": accuracy}

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == LOG_EVERY:
            print(f"    {self.name:5s} step {step:5d}  loss {metrics['train/loss']:.5f}", flush=True)

    def on_evaluation(self, step: int, scores: object) -> None: ...

    def should_stop(self) -> bool:
        return False


def run(model: nn.Module, clock: Clock, folder: Path, *, num_steps: int, eval_every: int, seed: int) -> None:
    steps = iter(range(eval_every, num_steps + eval_every, eval_every))
    loop = TrainingLoop(
        accelerator=Accelerator(cpu=True),
        model=model,
        optimizer=torch.optim.AdamW(build_param_groups(model, weight_decay=WEIGHT_DECAY, lr=LR), lr=LR, fused=True),
        schedule=build_cosine(num_steps=num_steps, num_warmup_steps=min(NUM_WARMUP_STEPS, num_steps), final_factor=0.0),
        data=copy.copy(clock.task.train),  # each is in an epoch of its own
        collate=clock.task.collate,
        evaluate=lambda model: clock.evaluate(min(next(steps), num_steps), model),
        save_model=lambda model, folder: None,
        settings=LoopSettings(
            num_steps=num_steps, batch_size=BATCH, eval_every_steps=eval_every, log_every_steps=LOG_EVERY, seed=seed
        ),
        folder=folder,
        observer=clock,
    )
    try:
        clock.start()
        loop.run()
    finally:
        clock.turns.hand_over(clock.name, leaves=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.88)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--num-test", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    task = Task(arguments.num_test)
    ours = create_xcit("xcit_nano_12_p4_28", num_classes=10, in_chans=1, embed_dim=64, depth=4, num_heads=4)
    contenders = {"ours": ours, "timm": TimmBlocks(ours)}
    turns = Turns(list(contenders))
    clocks = {name: Clock(name, turns, task) for name in contenders}
    options = {"num_steps": arguments.steps, "eval_every": arguments.eval_every, "seed": arguments.seed}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(contenders)) as pool:
        races = [
            pool.submit(run, model, clocks[name], Path(folder) / name, **options) for name, model in contenders.items()
        ]
        for race in races:
            race.result()
    _report(clocks, arguments.target)


def _report(clocks: Mapping[str, Clock], target: float) -> None:
    reached = {name: next((p for p in clock.points if p[3] >= target), None) for name, clock in clocks.items()}
    print(f"{'':6s}{'step':>7s}{'wall s':>9s}{'CPU s':>8s}{'accuracy':>10s}")
    for name, point in reached.items():
        print(f"{name:6s}" + ("never" if point is None else "{:7d}{:9.1f}{:8.1f}{:10.4f}".format(*point)))
    ours, timm = reached["ours"], reached["timm"]
    if ours is not None and timm is not None:
        print(f"time to {target:.0%}, ours over timm's: {ours[1] / timm[1]:.2f} wall, {ours[2] / timm[2]:.2f} CPU")
    pace = [clock.wall / clock.points[-1][0] for clock in clocks.values()]
    print(f"seconds a step over the whole training, ours over timm's: {pace[0] / pace[1]:.2f}")


if __name__ == "__main__":
    main()
