"""Activation plans as plain data: written, read, and fitted to a stack."""

import pytest
from activation_stacks import build_stack

from components.memory.checkpointing import apply_plan
from components.memory.plans import (
    EmbeddingsPlan,
    LayerPlan,
    Piece,
    SegmentPlan,
    Treatment,
    UniformPlan,
    parse_plan,
)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("none", UniformPlan()),
        ("recompute", UniformPlan(Treatment.RECOMPUTE)),
        ("rebuild/3", UniformPlan(Treatment.REBUILD, 3)),
        ("segments", SegmentPlan()),
        ("segments/4", SegmentPlan(4)),
        ("segments@0,3,4", SegmentPlan(starts=(0, 3, 4))),
        ("recompute*2 keep*1", LayerPlan((Treatment.RECOMPUTE, Treatment.RECOMPUTE, Treatment.KEEP))),
        ("embeddings+none", EmbeddingsPlan(UniformPlan())),
        ("embeddings+rebuild*2 keep*1", EmbeddingsPlan(LayerPlan((Treatment.REBUILD,) * 2 + (Treatment.KEEP,)))),
    ],
)
def test_plans_are_written_and_read(text, plan):
    assert parse_plan(text) == plan
    assert str(plan) == text


def test_pieces():
    recompute, keep = Treatment.RECOMPUTE, Treatment.KEEP
    assert UniformPlan(recompute, 2).pieces(3) == (Piece(0, 1, recompute), Piece(1, 2, keep), Piece(2, 3, recompute))
    assert [(piece.start, piece.stop) for piece in SegmentPlan().pieces(12)] == [(0, 4), (4, 8), (8, 12)]
    assert [(piece.start, piece.stop) for piece in SegmentPlan(5).pieces(12)] == [(0, 5), (5, 10), (10, 12)]
    assert [(piece.start, piece.stop) for piece in SegmentPlan(starts=(0, 1)).pieces(12)] == [(0, 1), (1, 12)]
    assert parse_plan("keep recompute*2").pieces(3)[2] == Piece(2, 3, recompute)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        ("recomput", "no treatment is called 'recomput'; there are keep, rebuild"),
        ("recompute/0", "every must be at least 1, not 0"),
        ("recompute/two", "'two' is no whole number"),
        ("segments/0", "length must be at least 1"),
        ("segments@4,8", r"starts must begin with 0 and grow, not \[4, 8\]"),
        ("segments@0,8,8", "starts must begin with 0 and grow"),
        ("recompute*x keep", "'x' is no whole number"),
        ("embeddings+", "the text is empty"),
        ("embeddings", "no treatment is called 'embeddings'; .* embeddings\\+ and one of these"),
    ],
)
def test_texts_that_are_no_plan(text, message):
    with pytest.raises(ValueError, match=message):
        parse_plan(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [("keep*2 recompute", "names 3 layers, but the stack has 4"), ("segments@0,4", "there is no layer 4, only 0 to 3")],
)
def test_plans_that_do_not_fit_the_stack(text, message):
    model, _ = build_stack()
    with pytest.raises(ValueError, match=message):
        apply_plan(model.layers, parse_plan(text))
    assert all("forward" not in vars(layer) for layer in model.layers)
