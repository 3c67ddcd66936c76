"""Wall time until an XCiT tells clothes apart: our blocks against timm's behind the same stem, in the same loop.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/xcit_time_to_score.py [--target 0.88] [--steps 1800] [--seed 1]

Both start from the same weights (the model of xcit_nano_fashion) and see the same batches of Fashion-MNIST, mirrored
alike, under AdamW and a cosine; both are scored on the official test images at the same steps. They differ in
the blocks alone: after a hundred steps their losses still agree to three digits. They take turns from evaluation to
evaluation, each in a process of its own (`taking_turns.py`); what is timed is training, which includes making the
batches. Needs `podium data prepare fashion_mnist`. About ten minutes on a busy core.
"""

import argparse
import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from taking_turns import Clock, Point, Silent, evaluation_steps, first_point, take_turns
from timm.models import xcit as timm_xcit
from torch import Tensor, nn

from components.data.images.augmentation import Augmentation
from components.data.images.dataset import ImageCollator, LabelledImages
from components.data.images.files import ArrayImages
from components.data.images.inspection import measure_pixels
from components.models.shared.inference import predict_logits
from components.models.shared.output import ModelOutput
from components.models.xcit.model import XCiT, create_xcit
from components.optim.param_groups import build_param_groups
from components.optim.schedules import build_cosine
from components.process_settings import tune_process
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


@dataclass(frozen=True)
class Race:
    """What both have in common."""

    task: Task
    folder: Path
    num_steps: int
    eval_every: int
    seed: int


class FirstLoss(Silent):
    """Shows an early loss, by which one sees that both learn the same."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == LOG_EVERY:
            print(f"    {self.name:12s} step {step:6d}  loss {metrics['train/loss']:.5f}", flush=True)


def build_model(seed: int) -> XCiT:
    torch.manual_seed(seed)
    return create_xcit("xcit_nano_12_p4_28", num_classes=10, in_chans=1, embed_dim=64, depth=4, num_heads=4)


def run_ours(race: Race, clock: Clock) -> None:
    run(build_model(race.seed), race, clock)


def run_timm(race: Race, clock: Clock) -> None:
    run(TimmBlocks(build_model(race.seed)), race, clock)


def run(model: nn.Module, race: Race, clock: Clock) -> None:
    num_steps, task = race.num_steps, race.task
    steps = evaluation_steps(num_steps, race.eval_every)
    loop = TrainingLoop(
        accelerator=Accelerator(cpu=True),
        model=model,
        optimizer=torch.optim.AdamW(build_param_groups(model, weight_decay=WEIGHT_DECAY, lr=LR), lr=LR, fused=True),
        schedule=build_cosine(num_steps=num_steps, num_warmup_steps=min(NUM_WARMUP_STEPS, num_steps), final_factor=0.0),
        data=task.train,
        collate=task.collate,
        evaluate=lambda model: {"valid/accuracy": clock.evaluate(next(steps), lambda: task.score(model))},
        save_model=lambda model, folder: None,
        settings=LoopSettings(
            num_steps=num_steps,
            batch_size=BATCH,
            eval_every_steps=race.eval_every,
            log_every_steps=LOG_EVERY,
            seed=race.seed,
        ),
        folder=race.folder / clock.name,
        observer=FirstLoss(clock.name),
    )
    clock.start()
    loop.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.88)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--num-test", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tune_process(num_threads=1)
    task = Task(arguments.num_test)
    with tempfile.TemporaryDirectory() as folder:
        race = Race(task, Path(folder), arguments.steps, arguments.eval_every, arguments.seed)
        points = take_turns({"ours": run_ours, "timm": run_timm}, race, num_threads=1, first="ours")
    _report(points, arguments.target)


def _report(points: Mapping[str, Sequence[Point]], target: float) -> None:
    reached = {name: first_point(of_one, lambda score: score >= target) for name, of_one in points.items()}
    print(f"{'':6s}{'step':>7s}{'wall s':>9s}{'CPU s':>8s}{'accuracy':>10s}")
    for name, p in reached.items():
        row = "never" if p is None else f"{p.step:7d}{p.training:9.1f}{p.processor:8.1f}{p.score:10.4f}"
        print(f"{name:6s}{row}")
    ours, timm = reached["ours"], reached["timm"]
    if ours is not None and timm is not None:
        ratios = ours.training / timm.training, ours.processor / timm.processor
        print(f"time to {target:.0%}, ours over timm's: {ratios[0]:.2f} wall, {ratios[1]:.2f} CPU")
    pace = [points[name][-1].training / points[name][-1].step for name in ("ours", "timm")]
    print(f"seconds a step over the whole training, ours over timm's: {pace[0] / pace[1]:.2f}")


if __name__ == "__main__":
    main()
