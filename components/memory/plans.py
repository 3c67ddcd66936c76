"""Plans for what each layer of a stack keeps for its backward pass, as plain data that a configuration can carry.

A plan knows nothing of tensors: `pieces(num_layers)` says which layers go together and how they are treated, and
`activation_checkpointing.apply_plan` does it. `parse_plan(str(plan)) == plan` for every plan.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class Treatment(StrEnum):
    """What one layer keeps of its activations, from everything to nothing."""

    KEEP = "keep"
    """Everything that autograd saves: no plan."""
    REBUILD = "rebuild"
    """Drops what activations, norms and casts yield, rebuilds it from what is kept; dropout masks shrink to bits."""
    REBUILD_ATTENTION = "rebuild_attention"
    """As rebuild, and runs attention kernels again; cheap where sequences are short."""
    REBUILD_WIDE = "rebuild_wide"
    """As rebuild, and repeats the products that widen (a transformer's first feed-forward matrix)."""
    REBUILD_WIDE_ATTENTION = "rebuild_wide_attention"
    """Both."""
    REBUILD_LINEAR = "rebuild_linear"
    """As rebuild, and repeats every linear product whose result is saved (queries, keys, values too)."""
    REBUILD_SUMS = "rebuild_sums"
    """Repeats all but the product that narrows (a transformer's second feed-forward matrix): keeps one sum a layer."""
    REBUILD_ALL = "rebuild_all"
    """Repeats all, beginning with what the layers before keep."""
    SAVE_MATMULS = "save_matmuls"
    """Keeps the layer's input and the results of products, convolutions and attention kernels; recomputes the rest."""
    SAVE_ATTENTION = "save_attention"
    """Keeps the layer's input and the results of attention kernels; recomputes the rest."""
    RECOMPUTE = "recompute"
    """Keeps the layer's input alone: classic activation checkpointing."""
    OFFLOAD = "offload"
    """Everything that autograd saves, but in the host's memory; on a CPU the same as keep."""
    RECOMPUTE_OFFLOAD = "recompute_offload"
    """As recompute, with the layer's input in the host's memory."""


@dataclass(frozen=True)
class Piece:
    """Layers `start` to `stop` (exclusive) under one treatment; only `recompute` pieces are longer than one."""

    start: int
    stop: int
    treatment: Treatment


@dataclass(frozen=True)
class UniformPlan:
    """One treatment for layers 0, `every`, 2 `every`, ...; the others keep everything."""

    treatment: Treatment = Treatment.KEEP
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"activation plan: every must be at least 1, not {self.every}")

    def pieces(self, num_layers: int) -> tuple[Piece, ...]:
        """One piece per layer."""
        treatments = [self.treatment if index % self.every == 0 else Treatment.KEEP for index in range(num_layers)]
        return tuple(Piece(index, index + 1, treatment) for index, treatment in enumerate(treatments))

    def __str__(self) -> str:
        if self.treatment is Treatment.KEEP:
            return "none"
        return str(self.treatment) + (f"/{self.every}" if self.every > 1 else "")


@dataclass(frozen=True)
class SegmentPlan:
    """Only the input of each segment of consecutive layers is kept (arXiv:1604.06174, section 4).

    `length` layers make a segment, the last may be shorter; or `starts` names the first layer of each; with neither,
    about sqrt(n) segments of equal length, the least memory where a layer's activations are as large as its input.
    """

    length: int | None = None
    starts: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.length is not None and self.starts is not None:
            raise ValueError("activation plan: segments have a length or starts, not both")
        if self.length is not None and self.length < 1:
            raise ValueError(f"activation plan: a segment's length must be at least 1, not {self.length}")
        starts = self.starts
        if starts is not None and (not starts or starts[0] != 0 or sorted(set(starts)) != list(starts)):
            raise ValueError(f"activation plan: starts must begin with 0 and grow, not {list(starts)}")

    def pieces(self, num_layers: int) -> tuple[Piece, ...]:
        """One piece per segment; raises ValueError where a start lies beyond the last layer."""
        if self.starts is not None:
            starts = list(self.starts)
            if starts[-1] >= num_layers:
                raise ValueError(f"activation plan {self}: there is no layer {starts[-1]}, only 0 to {num_layers - 1}")
        elif self.length is not None:
            starts = list(range(0, num_layers, self.length))
        else:
            count = max(1, round(math.sqrt(num_layers)))
            starts = [index * num_layers // count for index in range(count)]
        ends = [*starts[1:], num_layers]
        return tuple(Piece(start, stop, Treatment.RECOMPUTE) for start, stop in zip(starts, ends, strict=True))

    def __str__(self) -> str:
        if self.starts is not None:
            return "segments@" + ",".join(map(str, self.starts))
        return "segments" + (f"/{self.length}" if self.length is not None else "")


@dataclass(frozen=True)
class LayerPlan:
    """A treatment of its own for each layer."""

    treatments: tuple[Treatment, ...]

    def pieces(self, num_layers: int) -> tuple[Piece, ...]:
        """One piece per layer; raises ValueError where the numbers of layers differ."""
        if len(self.treatments) != num_layers:
            raise ValueError(
                f"activation plan {self}: names {len(self.treatments)} layers, but the stack has {num_layers}"
            )
        return tuple(Piece(index, index + 1, treatment) for index, treatment in enumerate(self.treatments))

    def __str__(self) -> str:
        runs: list[tuple[Treatment, int]] = []
        for treatment in self.treatments:
            if runs and runs[-1][0] is treatment:
                runs[-1] = (treatment, runs[-1][1] + 1)
            else:
                runs.append((treatment, 1))
        return " ".join(f"{treatment}*{count}" for treatment, count in runs)


StackPlan = UniformPlan | SegmentPlan | LayerPlan


@dataclass(frozen=True)
class EmbeddingsPlan:
    """`layers` for the layers; of the embeddings below them only the ids are kept, and the rest is had again."""

    layers: StackPlan

    def pieces(self, num_layers: int) -> tuple[Piece, ...]:
        """Those of the layers."""
        return self.layers.pieces(num_layers)

    def __str__(self) -> str:
        return f"{_WITH_EMBEDDINGS}{self.layers}"


ActivationPlan = StackPlan | EmbeddingsPlan

_WITH_EMBEDDINGS = "embeddings+"
_FORMS = (
    "none; a treatment, as in recompute; recompute/2 (every second layer); segments (about sqrt n), segments/3 (three "
    "layers each), segments@0,4,8 (their first layers); one treatment per layer, as in recompute*8 keep*4; or "
    "embeddings+ and one of these"
)


def parse_plan(text: str) -> ActivationPlan:
    """The plan that `text` writes out.

    none | <treatment>[/<every>] | segments[/<length>] | segments@<start>,<start>,... | <treatment>*<count> ..., each
    behind `embeddings+` or alone. Raises ValueError with what would work.
    """
    if text.startswith(_WITH_EMBEDDINGS):
        return EmbeddingsPlan(_parse_layers(text.removeprefix(_WITH_EMBEDDINGS)))
    return _parse_layers(text)


def _parse_layers(text: str) -> StackPlan:
    words = text.split()
    if not words:
        raise ValueError(f"activation plan: the text is empty; write {_FORMS}")
    if len(words) > 1 or "*" in text:
        return LayerPlan(tuple(treatment for word in words for treatment in _parse_run(word, text)))
    name, _, number = words[0].partition("/")
    if name.startswith("segments@"):
        return SegmentPlan(starts=tuple(_parse_count(start, text) for start in words[0][len("segments@") :].split(",")))
    count = _parse_count(number, text) if "/" in words[0] else None
    if name == "segments":
        return SegmentPlan(length=count)
    if name == "none" and count is None:
        return UniformPlan()
    return UniformPlan(_parse_treatment(name, text), 1 if count is None else count)


def _parse_run(word: str, text: str) -> tuple[Treatment, ...]:
    name, star, number = word.partition("*")
    return (_parse_treatment(name, text),) * (_parse_count(number, text) if star else 1)


def _parse_treatment(name: str, text: str) -> Treatment:
    try:
        return Treatment(name)
    except ValueError:
        known = ", ".join(Treatment)
        raise ValueError(
            f"activation plan {text!r}: no treatment is called {name!r}; there are {known}. A plan is {_FORMS}"
        ) from None


def _parse_count(number: str, text: str) -> int:
    if not number.isascii() or not number.isdigit():
        raise ValueError(f"activation plan {text!r}: {number!r} is no whole number; a plan is {_FORMS}")
    return int(number)
