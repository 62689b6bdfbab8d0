import dataclasses

import numpy as np
import pytest

from feddp.common.model.layout import AdapterLayout, Entry

ENTRIES = (
    Entry("block.q", "lora_B", (3, 2)),
    Entry("block.v", "lora_B", (4, 2)),
    Entry("head", "bias", (5,)),
)
LAYOUT = AdapterLayout(
    kind="ffa-lora",
    rank=2,
    alpha=4.0,
    entries=ENTRIES,
    frozen={"block.q": np.ones((2, 3), np.float32), "block.v": np.ones((2, 3), np.float32)},
    heads=("head",),
    start=np.arange(19, dtype=np.float32),
    is_transposed=False,
)


def test_sizes_follow_from_the_entries() -> None:
    assert [entry.size for entry in ENTRIES] == [6, 8, 5]
    assert LAYOUT.dimension == 19
    assert LAYOUT.scale == 2.0
    assert LAYOUT.adapted == ("block.q", "block.v")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (ENTRIES[0], "base_model.model.block.q.lora_B.weight"),
        (ENTRIES[2], "base_model.model.head.bias"),
        (Entry("", "prompt_embeddings", (2, 3)), "prompt_embeddings"),
    ],
)
def test_tensors_have_their_names_in_pefts_file(entry: Entry, name: str) -> None:
    assert entry.name == name


def test_a_vector_is_cut_in_the_order_of_the_entries_and_put_together_again() -> None:
    vector = np.random.default_rng(0).standard_normal(19).astype(np.float32)
    tensors = LAYOUT.unflatten(vector)
    assert [tensor.shape for tensor in tensors.values()] == [(3, 2), (4, 2), (5,)]
    np.testing.assert_array_equal(tensors["base_model.model.head.bias"], vector[14:])
    again = LAYOUT.flatten(dict(reversed(tensors.items())))
    np.testing.assert_array_equal(again, vector)


def test_tensors_are_views_and_the_start_is_copied() -> None:
    vector = LAYOUT.initial()
    LAYOUT.unflatten(vector)["base_model.model.head.bias"][:] = -1.0
    assert (vector[14:] == -1.0).all()
    assert LAYOUT.start[14] == 14.0


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "lora"},
        {"rank": 3},
        {"alpha": 5.0},
        {"entries": ENTRIES[:2]},
        {"frozen": {"block.q": np.ones((2, 3), np.float32)}},
        {"start": np.zeros(19, np.float32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_hash_sees_everything_that_gives_the_numbers_a_meaning(
    changes: dict[str, object],
) -> None:
    other = dataclasses.replace(LAYOUT, **changes)  # type: ignore[arg-type]
    assert other.sha256 != LAYOUT.sha256
    assert dataclasses.replace(LAYOUT).sha256 == LAYOUT.sha256
