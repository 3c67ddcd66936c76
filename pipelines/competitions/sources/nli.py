"""What the competitions about textual entailment share: the classes, and the one prompt of both their stages.

A model trained on one of them goes on with another (`model.checkpoint: run:…`), so a premise must read the same in all.
"""

from collections.abc import Mapping

ENTAILMENT, NEUTRAL, CONTRADICTION = CLASS_NAMES = ("0", "1", "2")


def build_prompt(row: Mapping[str, str]) -> str:
    """The prompt that mT5 was fine-tuned on for XNLI (Xue et al. 2021, and T5's MNLI)."""
    return f"xnli: premise: {row['premise']} hypothesis: {row['hypothesis']}"
