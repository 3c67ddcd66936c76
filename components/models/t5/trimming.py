"""T5 with the rows of a trimmed vocabulary, and back; `components.data.text.trimming` makes the list of ids."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from components.models.t5.model import T5Model, T5Seq2Seq

_SPECIAL_IDS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")


def trim_t5(model: T5Model, kept_ids: Sequence[int], *, pad_rows_to_multiple_of: int = 8) -> T5Model:
    """A copy of `model` whose embedding and head over the vocabulary have row `kept_ids[i]` as row i.

    Dtype, device, frozen parameters and training mode stay as they are; a classifier's head has no row per piece and
    stays too. The rows beyond the vocabulary that published models carry go (mT5: 250,112 for 250,100 pieces), and as
    few as `pad_rows_to_multiple_of` asks for come: with a multiple of 8 tensor cores run, and on CPU the float32 logits
    keep their bits, which for a few tokens at a time they do not in the last rows of an odd number.

    A negative id stands for a piece that the old vocabulary lacked. Its rows, and those that fill up, are the mean of
    all old rows: a new token is then about as likely as any (Hewitt 2021, "Initializing New Word Embeddings for
    Pretrained Language Models"), where a drawn row could outweigh them all.

    Raises ValueError for an id that has no row or stands twice, and for a list without one of the special pieces.
    """
    if pad_rows_to_multiple_of < 1:
        raise ValueError(f"pad_rows_to_multiple_of: must be at least 1, not {pad_rows_to_multiple_of}")
    sizes = model.architecture
    places = _places(kept_ids, sizes.vocab_size)
    absent = [name for name in _SPECIAL_IDS if getattr(sizes, name) not in places]
    if absent:
        raise ValueError(f"kept_ids: lack {', '.join(f'{name} {getattr(sizes, name)}' for name in absent)}")
    num_rows = -(-len(kept_ids) // pad_rows_to_multiple_of) * pad_rows_to_multiple_of
    rows = torch.tensor([*kept_ids, *[-1] * (num_rows - len(kept_ids))])
    special_ids = {name: places[getattr(sizes, name)] for name in _SPECIAL_IDS}
    matrices = [_trimmed_rows(matrix, rows) for matrix in _vocabulary_matrices(model)]
    return _with_matrices(model, matrices, special_ids)


def untrim_t5(model: T5Model, kept_ids: Sequence[int], original: T5Model) -> T5Model:
    """A copy of a trimmed `model` with the vocabulary of `original`, the one it was trimmed from.

    Its rows are the trained ones where a piece was kept, and `original`'s elsewhere; rows of added pieces are dropped.
    Raises ValueError when the two do not belong together.
    """
    matrices, old_matrices = _vocabulary_matrices(model), _vocabulary_matrices(original)
    if len(matrices) != len(old_matrices) or matrices[0].shape[1] != old_matrices[0].shape[1]:
        raise ValueError("original: has another head (tied, untied, classifier) or width than the trimmed model")
    if len(kept_ids) > model.architecture.vocab_size:
        raise ValueError(f"kept_ids: {len(kept_ids)} ids for a model of {model.architecture.vocab_size} rows")
    places = _places(kept_ids, original.architecture.vocab_size)
    old_ids, new_ids = torch.tensor(list(places)), torch.tensor(list(places.values()))
    full = []
    for matrix, old_matrix in zip(matrices, old_matrices, strict=True):
        rows = old_matrix.detach().to(matrix, copy=True)
        rows[old_ids.to(rows.device)] = matrix.detach()[new_ids.to(rows.device)]
        full.append(nn.Parameter(rows, requires_grad=matrix.requires_grad))
    return _with_matrices(model, full, {name: getattr(original.architecture, name) for name in _SPECIAL_IDS})


def _places(kept_ids: Sequence[int], vocab_size: int) -> dict[int, int]:
    """New id by old id."""
    places = {old: new for new, old in enumerate(kept_ids) if old >= 0}
    if not places:
        raise ValueError("kept_ids: no piece has an old id; there is nothing to keep")
    if max(places) >= vocab_size:
        raise ValueError(
            f"kept_ids: id {max(places)} has no row in a model of {vocab_size}; it is another vocabulary's"
        )
    if len(places) != sum(old >= 0 for old in kept_ids):
        raise ValueError("kept_ids: an old id stands there twice")
    return places


def _vocabulary_matrices(model: T5Model) -> list[nn.Parameter]:
    """The embedding and, where there is one over the vocabulary, the head of its own."""
    if isinstance(model, T5Seq2Seq) and not model.architecture.tie_embeddings:
        return [_weight(model.shared), _weight(model.lm_head)]
    return [_weight(model.shared)]


def _weight(layer: nn.Module) -> nn.Parameter:
    return layer.get_parameter("weight")


def _trimmed_rows(matrix: nn.Parameter, old_ids: Tensor) -> nn.Parameter:
    """matrix (V, D) -> its rows `old_ids` (R,), the mean where these are negative."""
    values = matrix.detach()
    old_ids = old_ids.to(values.device)
    rows = values[old_ids.clamp(min=0)]  # (R, D)
    if (old_ids < 0).any():
        rows[old_ids < 0] = values.mean(0, dtype=torch.float32).to(values.dtype)
    return nn.Parameter(rows, requires_grad=matrix.requires_grad)


def _with_matrices(model: T5Model, matrices: list[nn.Parameter], special_ids: dict[str, int]) -> T5Model:
    """A deep copy with other matrices over the vocabulary, whose old ones are never copied."""
    num_rows = len(matrices[0])
    memo: dict[int, Any] = {id(old): new for old, new in zip(_vocabulary_matrices(model), matrices, strict=True)}
    sizes: dict[str, Any] = {"vocab_size": num_rows, **special_ids}
    memo[id(model.architecture)] = replace(model.architecture, **sizes)
    changed = copy.deepcopy(model, memo)
    changed.shared.num_embeddings = num_rows
    if len(matrices) == 2:
        assert isinstance(changed.lm_head, nn.Linear)
        changed.lm_head.out_features = num_rows
    return changed
