"""One user against the others: whoever fails, is huge or is hostile moves their own point alone."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.protocol import Epochs
from feddp.client.node import LocalData, Node
from feddp.common.data.users import Example, InMemoryUsers
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import lay_out
from feddp.common.privacy.mechanism.encoding import Identity
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import TrainRequest

K = 1 << 20
Sums = Callable[[Sequence[Sequence[str]]], NDArray[np.int64]]
ORDINARY = [["w3 w4 w5 w6"], ["w7 w8", "w9 w10 w11"], ["w12 w13 w14"]]
ODD: dict[str, list[str]] = {
    "huge": [" ".join(f"w{3 + i % 50}" for i in range(100))] * 300,
    "long": ["w5 " * 4000],
    "repetitive": ["w3 w3 w3 w3 w3 w3"] * 2,
    "without text": ["", "   "],
    "unknown words": ["zebra \x00 \ud7ff ☃"] * 2,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("models"))


def make_node(place: Path, texts: Sequence[Sequence[str]]) -> tuple[Node, AdapterLayout]:
    """A node with these users; a user's first text is also the user's name."""
    base = tiny.load(place)
    layout = lay_out(base, kind="ffa-lora", rank=2, alpha=4.0, target_modules=None)
    users = InMemoryUsers([(of[0], [Example(text=text) for text in of]) for of in texts])
    node = Node(
        units=users,
        evaluation_users=users,
        engine=CohortEngine(base, layout, slots=2, pass_tokens=256),
        layout=layout,
        encoding=Identity(layout.dimension),
        data=LocalData(base.tokenizer, "causal-lm", (), 32, 4, "random"),
        method=SGD(50.0, Epochs(batch_size=2)),
        max_evaluation_users=1,
    )
    return node, layout


def node_sum(place: Path, texts: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """What a node with these users answers."""
    node, layout = make_node(place, texts)
    request = TrainRequest(1, layout.start, layout.sha256, Draw(), 0.5, K, 0, 0, 4)
    return node.train(request).total.total


@pytest.fixture(scope="module")
def sums(place: Path) -> Sums:
    return functools.partial(node_sum, place)


@pytest.fixture(scope="module")
def ordinary(sums: Sums) -> NDArray[np.int64]:
    return sums(ORDINARY)


def squares(point: NDArray[np.int64]) -> int:
    return sum(int(entry) ** 2 for entry in point)


@pytest.mark.parametrize("name", ODD)
def test_every_kind_of_user_moves_the_sum_by_at_most_k(
    name: str, sums: Sums, ordinary: NDArray[np.int64]
) -> None:
    """And by exactly what that user would add alone: the points of the others are the same bits."""
    moved = sums([ORDINARY[0], ODD[name], *ORDINARY[1:]]) - ordinary
    assert squares(moved) <= K**2
    assert moved.tobytes() == sums([ODD[name]]).tobytes()


def test_users_who_train_reach_the_bound(sums: Sums, ordinary: NDArray[np.int64]) -> None:
    """Their updates are clipped, so the bound above is tight."""
    assert squares(sums([ODD["huge"]])) > 0.99 * K**2
    assert ordinary.any()


def test_without_a_seed_the_same_round_draws_other_users_each_time(place: Path) -> None:
    """64 users at q = 1/2: two independent draws are equal once in 2^64."""
    node, layout = make_node(place, [[f"w{3 + i % 50} w{3 + i // 50}"] for i in range(64)])
    request = TrainRequest(1, layout.start, layout.sha256, Draw(0.5), 0.5, K, 0, 0, None)
    cohorts: list[set[int]] = [set(), set()]
    for cohort in cohorts:
        node.train_locally(request, sink=lambda key, _, cohort=cohort: cohort.add(key))
    assert all(cohorts)
    assert cohorts[0] != cohorts[1]
