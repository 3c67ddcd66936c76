"""What tests of the training loop have in common: rows, an observer that records what the loop says, a Ctrl-C."""

import torch

from components.training.loop import TrainingLoop


class Rows:
    def __init__(self, num_rows=50):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(num_rows, 4, generator=generator)
        self.labels = torch.randint(0, 3, (num_rows,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return {"inputs": self.inputs[row], "labels": self.labels[row]}

    def padding_keys(self):
        return [1] * len(self)


def collate(examples):
    return {key: torch.stack([example[key] for example in examples]) for key in examples[0]}


class Watcher:
    """Records what the loop says, and wishes to stop after a given step."""

    def __init__(self, stop_after=None):
        self.logs, self.evaluations, self.notes, self.stop_after, self.num_steps = [], [], [], stop_after, 0

    def on_step(self, step, *, was_evaluated):
        pass

    def on_log(self, step, metrics):
        self.logs.append((step, metrics["train/loss"], metrics["train/lr"]))

    def on_evaluation(self, step, scores):
        self.evaluations.append((step, scores))

    def on_note(self, step, text, *, about="memory"):
        self.notes.append((step, text))

    def should_stop(self):
        self.num_steps += 1  # the loop asks once after each step
        return self.stop_after is not None and self.num_steps >= self.stop_after


def interrupt_at(monkeypatch, count):
    """Ctrl-C in the `count`-th step of this process."""
    original, calls = TrainingLoop._step, 0

    def step(self, window):
        nonlocal calls
        calls += 1
        if calls == count:
            raise KeyboardInterrupt
        return original(self, window)

    monkeypatch.setattr(TrainingLoop, "_step", step)


def save(model, folder):
    torch.save(model.state_dict(), folder / "weights.pt")


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
