"""The tensors of one pass: what is padding, what is predicted, and where each token is."""

import numpy as np
import pytest
import torch

from feddp.client.engine.batch import Batch, make_batch
from feddp.common.data.tokens import IGNORE, TokenRow

PAD = 9


def row(num_tokens: int, first: int = 1) -> TokenRow:
    ids = np.arange(first, first + num_tokens, dtype=np.int64)
    return TokenRow(ids, ids + 100)


def batch_of(
    *rows: TokenRow, longest: int | None = None, is_causal: bool = True, is_packed: bool = False
) -> Batch:
    return make_batch(
        rows,
        longest=longest,
        pad=PAD,
        is_causal=is_causal,
        is_packed=is_packed,
        device=torch.device("cpu"),
    )


def test_rows_of_one_length_lie_beside_each_other() -> None:
    batch = batch_of(row(3), row(10, first=20))
    assert batch.inputs.shape == batch.mask.shape == batch.targets.shape == (2, 16)
    assert batch.inputs[0].tolist() == [1, 2, 3] + [PAD] * 13
    assert batch.mask.sum(1).tolist() == [3, 10]
    assert batch.targets[0].tolist() == [101, 102, 103] + [IGNORE] * 13
    assert batch.groups is None
    assert batch.positions[0].tolist() == list(range(16))


def test_packed_rows_lie_one_after_the_other_and_begin_anew() -> None:
    batch = batch_of(row(10, first=20), row(3), is_packed=True)
    assert batch.groups is not None
    assert [tuple(group) for group in batch.groups] == [(1, 16), (1, 8)]
    assert batch.inputs.shape == (1, 24)
    assert batch.inputs[0, 16:].tolist() == [1, 2, 3] + [PAD] * 5
    assert batch.positions[0].tolist() == [*range(16), *range(8)]


def test_positions_of_padding_stay_within_what_the_model_has() -> None:
    batch = batch_of(row(10), row(3), longest=12, is_packed=True)
    assert batch.positions[0].tolist() == [*range(12), 11, 11, 11, 11, *range(8)]
    assert batch_of(row(10), longest=12).inputs.shape == (1, 12)


def test_a_classifier_has_one_target_a_row() -> None:
    labelled = [TokenRow(row(n).input_ids, np.array([n], dtype=np.int64)) for n in (2, 5)]
    batch = batch_of(*labelled, is_causal=False)
    assert batch.targets.tolist() == [[2], [5]]


def test_a_weight_is_that_of_every_position_of_its_row() -> None:
    batch = batch_of(row(10), row(3), is_packed=True)
    spread = batch.spread(torch.tensor([2.0, 3.0]))
    assert spread.tolist() == [[2.0] * 16 + [3.0] * 8]


def test_more_labels_than_tokens_are_an_error() -> None:
    ids = row(8).input_ids
    with pytest.raises(ValueError, match="broadcast"):
        batch_of(TokenRow(ids, np.arange(9)))
