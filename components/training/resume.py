"""Resume points: all that a training needs to go on as if it had never stopped."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.training import checkpoint
from components.training.ema import WeightAverage
from components.training.seeding import collect_random_states, restore_random_states


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
    """The objects whose state makes up a resume point."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    progress: Progress

    def save(self, parent: Path, pending_losses: list[Tensor]) -> None:
        """Write `parent/step-*`, then drop the former one. Every process calls this; the first one writes."""
        random_states = self._gather_random_states()
        losses = [float(loss) for loss in pending_losses]
        all_losses: list[list[float]] = gather_object([losses])
        if self.accelerator.is_main_process:
            with checkpoint.atomic_folder(checkpoint.step_folder(parent, self.progress.step)) as folder:
                self._write(folder, random_states, all_losses)
            checkpoint.prune_steps(parent, keep={self.progress.step})
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path, random_states: dict[str, Tensor], losses: list[list[float]]) -> None:
        checkpoint.save_weights(self.model, folder / "model.safetensors")
        save_file(random_states, str(folder / "random.safetensors"))
        if self.average is not None:
            save_file(self.average.averages, str(folder / "ema.safetensors"))
        scaler = self.accelerator.scaler
        state = {
            "progress": asdict(self.progress),
            "num_processes": self.accelerator.num_processes,
            "optimizer": checkpoint.save_optimizer(self.optimizer, folder / "optimizer.safetensors"),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "pending_losses": losses,
        }
        checkpoint.write_json(folder / "state.json", state)

    def _gather_random_states(self) -> dict[str, Tensor]:
        ranks: list[dict[str, Tensor]] = gather_object([collect_random_states()])
        return {f"{rank}.{name}": state for rank, states in enumerate(ranks) for name, state in states.items()}

    def load_newest(self, parent: Path) -> list[Tensor]:
        """Continue from the newest resume point below `parent`, if any; returns the losses not yet logged.

        Raises ValueError naming the file when the point is damaged or was written by another number of processes.
        """
        steps = checkpoint.list_steps(parent)
        if not steps:
            return []
        folder = checkpoint.step_folder(parent, steps[-1])
        state = checkpoint.read_json(folder / "state.json")
        if state["num_processes"] != self.accelerator.num_processes:
            raise ValueError(
                f"{folder}: written by {state['num_processes']} process(es), resumed by "
                f"{self.accelerator.num_processes}; use NPROC={state['num_processes']}"
            )
        checkpoint.load_weights(self.model, folder / "model.safetensors")
        checkpoint.load_optimizer(self.optimizer, folder / "optimizer.safetensors", state["optimizer"])
        if self.average is not None:
            self.average.load(load_file(str(folder / "ema.safetensors")))
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._restore_progress(state["progress"])
        rank = self.accelerator.process_index
        states = load_file(str(folder / "random.safetensors"))
        prefix = f"{rank}."
        restore_random_states({k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)})
        return [torch.tensor(loss, device=self.accelerator.device) for loss in state["pending_losses"][rank]]

    def _restore_progress(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self.progress, name, value)
        self.progress.best = [(score, step) for score, step in self.progress.best]
