"""Memory and speed of our XCiT against timm's, with a DeiT-S on torch's fused attention as the yardstick.

    .venv/bin/python benchmarks/xcit.py [--quick] [--rounds 3] [--batch 12] [--threads 1]

Memory: bytes that a forward pass keeps for the backward pass, per image, counted by storages (parameters and images
apart), and beside it the growth of the live allocations, which counts whatever is kept by whatever means. Products:
operations in matrix products of a step over those of a forward pass, 3 where nothing is computed twice. Speed: time of
a step's forward and backward pass, and of inference, models taking turns; ratios are of the minima, timm's over ours,
so above 1 ours is the faster. One thread is timed by the processor, more of them by the clock, for which nothing else
may run. On CUDA the same in bfloat16, eager and compiled.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import timm
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from components.models.shared.output import ModelOutput
from components.models.xcit.folding import fold_for_inference
from components.models.xcit.model import create_xcit
from components.process_settings import tune_process

SMALL, SMALL_8, DEIT = "xcit_small_12_p16_224", "xcit_small_12_p8_224", "deit_small_patch16_224"
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One architecture at one image side."""

    name: str
    side: int
    batch: int

    @property
    def label(self) -> str:
        return f"{'S12/8 ' if self.name == SMALL_8 else 'S12/16'} {self.side:4d} px, {self.num_tokens:5d} tokens"

    @property
    def num_tokens(self) -> int:
        return (self.side // (8 if self.name == SMALL_8 else 16)) ** 2


@dataclass
class Times:
    """Milliseconds per round."""

    step: list[float] = field(default_factory=list)
    inference: list[float] = field(default_factory=list)


def logits_of(output: Tensor | ModelOutput) -> Tensor:
    if isinstance(output, Tensor):
        return output
    assert output.logits is not None
    return output.logits


def build_models(case: Case, device: str) -> dict[str, nn.Module]:
    """timm's, ours on both paths with the same weights, and DeiT-S."""
    theirs = timm.create_model(case.name)
    models: dict[str, nn.Module] = {"timm": theirs}
    for kind, fast in (("plain", False), ("fast", True)):
        models[kind] = create_xcit(case.name, fast=fast)
        models[kind].load_state_dict(theirs.state_dict())
    models["DeiT-S"] = timm.create_model(DEIT, img_size=case.side)
    return {kind: model.to(device) for kind, model in models.items()}


def count_saved(model: nn.Module, images: Tensor) -> float:
    """MiB per image that autograd saves in one forward pass, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), images)}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            saved[place] = tensor  # held, so that no other storage can take its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = logits_of(model(images))
    assert out.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / MIB / len(images)


def count_live(model: nn.Module, images: Tensor) -> float:
    """MiB per image by which the live allocations grow from before the forward pass to its end."""
    if images.is_cuda:
        before = torch.cuda.memory_allocated()
        out = logits_of(model(images))
        return (torch.cuda.memory_allocated() - before - out.nbytes) / MIB / len(images)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        out = logits_of(model(images))
    moved: int = sum(event.self_cpu_memory_usage for event in record.key_averages())
    return (moved - out.untyped_storage().nbytes()) / MIB / len(images)


def count_products(model: nn.Module, images: Tensor) -> float:
    """Operations in matrix products of a whole step over those of its forward pass."""

    def count(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        # The counter forgets the groups of a depth-wise convolution's backward pass
        return sum(n for kind, n in counter.get_flop_counts()["Global"].items() if "convolution" not in str(kind))

    forward = count(lambda: model(images))
    return count(lambda: logits_of(model(images)).sum().backward()) / forward


def time_in_turns(models: dict[str, nn.Module], images: Tensor, rounds: int) -> dict[str, Times]:
    """Each model in each round one step and one inference; the first round warms up and does not count."""
    times = {kind: Times() for kind in models}
    folded = {kind: fold_for_inference(model) if kind == "fast" else model for kind, model in models.items()}  # type: ignore[arg-type]
    for turn in range(rounds + 1):
        for kind, model in models.items():
            step = _time(lambda model=model: _step(model.train(), images), images)  # type: ignore[misc]
            inference = _time(lambda kind=kind: _infer(folded[kind].eval(), images), images)  # type: ignore[misc]
            if turn:
                times[kind].step.append(step)
                times[kind].inference.append(inference)
    return times


def _step(model: nn.Module, images: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    logits_of(model(images)).sum().backward()


@torch.inference_mode()
def _infer(model: nn.Module, images: Tensor) -> None:
    model(images)


def _time(run: Callable[[], None], images: Tensor) -> float:
    """Milliseconds; of one thread those of the processor, which other programs disturb less than the clock."""
    clock = time.perf_counter if images.is_cuda or torch.get_num_threads() > 1 else time.process_time
    if images.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    run()
    if images.is_cuda:
        torch.cuda.synchronize()
    return (clock() - start) * 1e3


def print_memory(cases: Sequence[Case], device: str) -> None:
    print("\nKept for the backward pass, MiB an image, float32: saved tensors (growth of live allocations)")
    print(f"{'':30s}{'timm':>17s}{'plain':>17s}{'fast':>17s}{'DeiT-S':>17s}   products of a step / forward: fast, timm")
    for case in cases:
        models = build_models(case, device)
        images = torch.randn(1, 3, case.side, case.side, device=device)
        cells = []
        for kind, model in models.items():
            has_kin = kind != "DeiT-S" or case.name == SMALL
            model.train()
            cells.append(
                f"{count_saved(model, images):8.1f} ({count_live(model, images):6.1f})" if has_kin else f"{'':>17s}"
            )
        ratios = [count_products(models[kind], images) for kind in ("fast", "timm")]
        print(f"{case.label:30s}{''.join(cells)}   {ratios[0]:12.3f} {ratios[1]:8.3f}")


def print_speed(cases: Sequence[Case], device: str, rounds: int) -> None:
    print("\nTimes, ms a batch (minimum of the rounds), and timm's over ours; inference with norms and scales folded")
    print(f"{'':40s}{'timm':>9s}{'fast':>9s}{'DeiT-S':>9s}   timm/fast  DeiT/fast")
    for case in cases:
        models = build_models(case, device)
        del models["plain"]
        if case.name != SMALL:
            del models["DeiT-S"]
        images = torch.randn(case.batch, 3, case.side, case.side, device=device)
        times = time_in_turns(models, images, rounds)
        for what in ("step", "inference"):
            least = {kind: min(getattr(spent, what)) for kind, spent in times.items()}
            cells = "".join(f"{least[kind]:9.1f}" if kind in least else f"{'':9s}" for kind in (*_KINDS,))
            beside = f"{least['DeiT-S'] / least['fast']:9.2f}" if "DeiT-S" in least else ""
            print(f"{case.label:30s}{what:>10s}{cells}   {least['timm'] / least['fast']:9.2f}  {beside}")


_KINDS = ("timm", "fast", "DeiT-S")


def print_cuda_speed(rounds: int) -> None:
    """bfloat16 autocast, each model eager and compiled, in turns."""
    print("\nCUDA, bfloat16 autocast, ms a batch of 64 (minimum of the rounds)")
    print(
        f"{'':40s}"
        + "".join(f"{name:>15s}" for name in ("timm", "fast", "DeiT-S", "timm comp.", "ours comp.", "DeiT comp."))
    )
    for side in (224, 384):
        models = build_models(Case(SMALL, side, 64), "cuda")
        del models["plain"]
        models |= {f"{kind} compiled": torch.compile(model) for kind, model in list(models.items())}  # type: ignore[misc]
        images = torch.randn(64, 3, side, side, device="cuda")
        for what in ("step", "inference"):
            least = [_least_in_bfloat16(model, images, what, rounds) for model in models.values()]
            print(f"S12/16 {side:4d} px {what:>24s} " + "".join(f"{value:15.1f}" for value in least))


def _least_in_bfloat16(model: nn.Module, images: Tensor, what: str, rounds: int) -> float:
    model.train(what == "step")
    run = _step if what == "step" else _infer
    with torch.autocast("cuda", torch.bfloat16):
        return min([_time(lambda: run(model, images), images) for _ in range(rounds + 3)][3:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="224 pixels only, one round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--batch", type=int, default=12, help="images at 196 tokens; fewer where those are more")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    tune_process(num_threads=options.threads)
    torch.manual_seed(0)
    chosen = [Case(SMALL, 224, options.batch), Case(SMALL_8, 224, max(1, options.batch // 3))]
    if not options.quick:
        chosen += [Case(SMALL, side, max(1, options.batch * 224**2 // side**2)) for side in (384, 512)]
        chosen.append(Case(SMALL_8, 512, 1))
    place = "cuda" if torch.cuda.is_available() else "cpu"
    print_memory(chosen, place)
    print_speed(chosen, place, 1 if options.quick else options.rounds)
    if place == "cuda":
        print_cuda_speed(options.rounds * 5)
