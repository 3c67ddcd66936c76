"""Padding of text batches, written out."""

import numpy as np
import pytest
import torch

from components.data.text.dataset import EncodedTexts, TextCollator


def test_sources_and_targets_are_padded_apart():
    data = EncodedTexts([[5, 1], [6, 7, 1]], [[8, 9, 4, 1], [8, 1]])
    batch = TextCollator(pad_id=0)([data[0], data[1]])
    assert batch["input_ids"].tolist() == [[5, 1, 0], [6, 7, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[8, 9, 4, 1], [8, 1, -100, -100]]


@pytest.mark.parametrize(("length", "width"), [(5, 5), (64, 64), (65, 72), (72, 72)])
def test_long_widths_round_up_to_a_multiple_and_short_ones_do_not(length, width):
    batch = TextCollator(pad_id=0, pad_to_multiple_of=8)([{"input_ids": [7] * length}])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (1, width)
    assert batch["attention_mask"].sum() == length


def test_segments_of_pairs_are_padded_like_ids():
    data = EncodedTexts([[5, 6, 7], [5]], np.array([1, 0]), type_ids=[[0, 1, 1], [0]])
    batch = TextCollator(pad_id=9)([data[0], data[1]])
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 9, 9]]


def test_class_and_float_labels_are_not_padded():
    collate = TextCollator(pad_id=0)
    classes = collate([{"input_ids": [1], "labels": 2}, {"input_ids": [1], "labels": 0}])["labels"]
    values = np.array([0.5, 1.5], dtype=np.float32)
    floats = collate([{"input_ids": [1], "labels": value} for value in values])["labels"]
    assert classes.dtype == torch.int64
    assert floats.dtype == torch.float32


def test_padding_keys_order_by_source_then_target():
    data = EncodedTexts([[1, 1], [1], [1, 1]], [[1, 1, 1], [1, 1], [1]])
    keys = data.padding_keys()
    assert sorted(range(3), key=keys.__getitem__) == [1, 2, 0]


def test_unequal_numbers_of_sources_and_targets_are_refused():
    with pytest.raises(ValueError, match="2 sources but 1 targets"):
        EncodedTexts([[1], [1]], [[1]])


def test_the_collator_cuts_nothing():
    """The ancestor's cut each batch to a length, the end of sequence of long rows included, and to another length in
    training than in evaluation. Texts are cut where they are encoded, which keeps the end (`test_vocabulary.py`).
    """
    long_row, short = [*range(5, 305), 1], {"input_ids": [5, 1], "labels": [6, 1]}
    batch = TextCollator(pad_id=0, pad_to_multiple_of=8)([{"input_ids": long_row, "labels": long_row}, short])
    assert batch["input_ids"][0].tolist() == long_row + [0] * 3
    assert batch["attention_mask"].sum(1).tolist() == [301, 2]
    assert batch["labels"][0].tolist() == long_row + [-100] * 3
