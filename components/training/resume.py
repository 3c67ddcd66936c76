"""Resume points: all that a training needs to go on as if it had never stopped.

Two are kept, so that a training whose newest point is damaged goes on from the one before and ends in the same bits.
Each is a sealed folder, which is held against its digests before anything is taken from it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.files.digests import DIGESTS, check_file, check_folder, file_digest, read_object, sealed_folder
from components.seeding import collect_random_states, restore_random_states
from components.training import checkpoint
from components.training.ema import WeightAverage
from components.training.history import History

STATE, HISTORY = "state.json", "history.jsonl"


@dataclass
class Progress:
    """Where a training stands: everything of the loop's own besides weights, optimizer and random states."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # micro-batches of this epoch already used
    evaluations_without_gain: int = 0
    best: list[tuple[float, int]] = field(default_factory=list)  # (score, step), best first
    history_bytes: int = 0
    is_stopped_early: bool = False
    activation_plan: str = ""  # chosen for a memory budget
    num_parts: int = 1  # of each micro-batch, since memory did not suffice for the whole


@dataclass
class TrainingState:
    """The objects whose state makes up a resume point, and the folder of the checkpoints that `progress.best` names."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    progress: Progress
    history: History
    checkpoints: Path
    _newest: int | None = None  # the step of the newest whole resume point

    # -- writing -----------------------------------------------------------------------------------------------------

    def save(self, parent: Path, pending_losses: list[Tensor]) -> None:
        """Write `parent/step-*`, and keep the former one beside it. Every process calls this; the first one writes."""
        random_states = self._gather_random_states()
        losses = [float(loss) for loss in pending_losses]
        all_losses: list[list[float]] = gather_object([losses])
        if self.accelerator.is_main_process:
            # The one before the former goes first: there are never more than two on the disk.
            checkpoint.prune_steps(parent, keep=set() if self._newest is None else {self._newest})
            with sealed_folder(checkpoint.step_folder(parent, self.progress.step)) as folder:
                self._write(folder, random_states, all_losses)
        self._newest = self.progress.step
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path, random_states: dict[str, Tensor], losses: list[list[float]]) -> None:
        checkpoint.save_weights(self.model, folder / "model.safetensors")
        save_file(random_states, str(folder / "random.safetensors"))
        if self.average is not None:
            save_file(self.average.averages, str(folder / "ema.safetensors"))
        # The curves are small, and what is damaged there can be put back without training again.
        (folder / HISTORY).write_bytes(self.history.path.read_bytes()[: self.progress.history_bytes])
        scaler = self.accelerator.scaler
        state = {
            "progress": asdict(self.progress),
            "num_processes": self.accelerator.num_processes,
            "optimizer": checkpoint.save_optimizer(self.optimizer, folder / "optimizer.safetensors"),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "pending_losses": losses,
            "checkpoints": self._digest_best(),
        }
        checkpoint.write_json(folder / STATE, state)

    def _digest_best(self) -> dict[str, str | None]:
        """For each of the best checkpoints the digest of its own digests; None for one of an older version's."""
        folders = [checkpoint.step_folder(self.checkpoints, step) for _, step in self.progress.best]
        files = {folder.name: folder / DIGESTS for folder in folders}
        return {name: file_digest(file) if file.is_file() else None for name, file in files.items()}

    def _gather_random_states(self) -> dict[str, Tensor]:
        ranks: list[dict[str, Tensor]] = gather_object([collect_random_states()])
        return {f"{rank}.{name}": state for rank, states in enumerate(ranks) for name, state in states.items()}

    # -- reading -----------------------------------------------------------------------------------------------------

    def load_newest(self, parent: Path, notes: list[str]) -> list[Tensor]:
        """Continue from the newest whole resume point below `parent`, if any; returns the losses not yet logged.

        Each damage that is passed over is added to `notes`, in words. Raises ValueError naming the file when the point
        was written by another number of processes, or is an older version's, which has no digests, and torn.
        """
        # The main process looks: hashing once is enough, and all must begin at the same point.
        choices: list[tuple[int | None, list[str]]] = gather_object(
            [self._choose(parent) if self.accelerator.is_main_process else (None, [])]
        )
        self._newest, found = choices[0]
        notes.extend(found)
        if self._newest is None:
            self.history.rewind(0)
            return []
        losses = self._load(checkpoint.step_folder(parent, self._newest), notes)
        return [torch.tensor(loss, device=self.accelerator.device) for loss in losses]

    def _choose(self, parent: Path) -> tuple[int | None, list[str]]:
        """The newest step whose resume point is whole, and what is wrong with the newer ones."""
        notes: list[str] = []
        for step in reversed(checkpoint.list_steps(parent)):
            try:
                check_point(checkpoint.step_folder(parent, step), self.checkpoints)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                notes.append(f"{error}; the resume point of step {step} is not used")
            else:
                return step, [f"{note}, training goes on from step {step}" for note in notes]
        return None, [f"{note}, this fold is trained from its start" for note in notes]

    def _load(self, folder: Path, notes: list[str]) -> list[float]:
        state = read_object(folder / STATE)
        with reading(folder / STATE):
            progress, num_processes, rest = state["progress"], state["num_processes"], state["optimizer"]
            losses, scaler = list(state["pending_losses"]), state["scaler"]
        if num_processes != self.accelerator.num_processes:
            raise ValueError(
                f"{folder}: written by {num_processes} process(es), resumed by "
                f"{self.accelerator.num_processes}; use NPROC={num_processes}"
            )
        checkpoint.load_weights(self.model, folder / "model.safetensors")
        with reading(folder / "optimizer.safetensors"):
            checkpoint.load_optimizer(self.optimizer, folder / "optimizer.safetensors", rest)
        if self.average is not None:
            with reading(folder / "ema.safetensors"):
                self.average.load(load_file(str(folder / "ema.safetensors")))
        with reading(folder / STATE):
            if self.accelerator.scaler is not None and scaler is not None:
                self.accelerator.scaler.load_state_dict(scaler)
            self._restore_progress(progress)
        self._restore_history(folder, notes)
        rank = self.accelerator.process_index
        with reading(folder / "random.safetensors"):
            states = load_file(str(folder / "random.safetensors"))
            prefix = f"{rank}."
            restore_random_states({k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)})
        pending: list[float] = losses[rank]
        return pending

    def _restore_progress(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self.progress, name, value)
        self.progress.best = [(score, step) for score, step in self.progress.best]

    def _restore_history(self, folder: Path, notes: list[str]) -> None:
        if not (folder / HISTORY).is_file():  # an older version's
            self.history.rewind(self.progress.history_bytes)
        elif self.history.restore((folder / HISTORY).read_bytes()):
            notes.append(f"{self.history.path}: damaged or missing; put back from {folder}")


def check_point(folder: Path, checkpoints: Path) -> None:
    """ValueError that names a damaged file of a resume point, or of one of the checkpoints that it names.

    A point that an older version wrote has no digests and is only held against being readable.
    """
    if not (folder / DIGESTS).exists():
        if "checkpoints" in read_object(folder / STATE):
            raise ValueError(f"{folder / DIGESTS}: missing")
        return
    check_folder(folder)
    for name, digest in read_object(folder / STATE)["checkpoints"].items():
        if digest is not None:
            check_file(checkpoints / name / DIGESTS, digest)
            check_folder(checkpoints / name)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever an unreadable part of a resume point raises becomes a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{path}: unreadable as part of a resume point ({type(error).__name__}: {reason})") from error
