import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2
from sketch import Sketch

from feddp.client.assembly import build_node
from feddp.client.node import Node, _clip
from feddp.common.assembly import Part, load_model, load_users
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.users import Example, InMemoryUsers, Users
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.encoding import Identity
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import EvaluateRequest, TrainRequest

K = 1 << 20
CONFIG = from_flat({"evaluation.max-users": 5})


def make_node(
    config: RunConfig = CONFIG, users: Users | None = None, part: Part | None = None
) -> tuple[Node, AdapterLayout]:
    base, layout = load_model(config)
    training, evaluation = load_users(config, part or Part())
    return build_node(config, base, layout, users or training, evaluation), layout


def request(layout: AdapterLayout, probability: float = 0.01, seed: int | None = 4) -> TrainRequest:
    return TrainRequest(1, layout.start, layout.sha256, Draw(probability), 0.5, K, 0, 0, seed)


def some_users(texts: Sequence[Sequence[str]]) -> InMemoryUsers:
    return InMemoryUsers(
        [(f"u{i}", [Example(text=t) for t in found]) for i, found in enumerate(texts)]
    )


def test_the_sum_does_not_depend_on_how_users_are_spread_over_nodes() -> None:
    whole, layout = make_node()
    expected = whole.train(request(layout)).total
    total = UpdateSum.zeros(layout.dimension)
    for index in range(3):
        node, _ = make_node(part=Part(index, 3))
        total.merge(node.train(request(layout)).total)
    assert expected.total.any()
    assert total == expected


def test_one_user_moves_the_sum_by_at_most_the_clipping_norm() -> None:
    texts = [["hello there my order"], ["where is my parcel " * 3, "thanks"], ["a refund please"]]
    sums = []
    for users in (some_users(texts), some_users(texts[:2])):
        node, layout = make_node(users=users)
        sums.append(node.train(request(layout, probability=1.0)).total.total)
    difference = sums[0] - sums[1]
    assert difference.any()
    squares = sum(int(entry) ** 2 for entry in difference)
    assert 0.9 * K < squares**0.5 <= K


def test_an_empty_cohort_sends_zeros_of_the_same_size() -> None:
    node, layout = make_node(users=some_users([["hello"], ["there"]]))
    reply = node.train(request(layout, probability=1e-12))
    assert reply.total == UpdateSum.zeros(layout.dimension)


def test_users_without_text_contribute_zero() -> None:
    node, layout = make_node(users=some_users([[""], ["   "]]))
    reply = node.train(request(layout, probability=1.0))
    assert not reply.total.total.any()


class Panic(BaseException):
    """No Exception, as what a library in Rust raises."""


def test_an_update_that_cannot_be_encoded_adds_nothing_and_the_others_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_seen = 0

    def encode(self: Identity, update: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal num_seen
        num_seen += 1
        if num_seen == 1:
            raise Panic
        return update

    node, layout = make_node(users=some_users([["hello there"], ["good morning"]]))
    whole = node.train(request(layout, probability=1.0)).total
    updates: list[NDArray[np.int64]] = []
    node.train_locally(
        request(layout, probability=1.0),
        sink=lambda _, update: updates.append(_clip(update, request(layout))),
    )
    monkeypatch.setattr(Identity, "encode", encode)
    left = node.train(request(layout, probability=1.0)).total
    assert (whole.total - left.total).tolist() == updates[0].tolist()
    assert left.total.any()


def test_without_a_seed_two_rounds_draw_other_users() -> None:
    node, layout = make_node()
    sums = [node.train(request(layout, seed=None)).total for _ in range(2)]
    assert sums[0] != sums[1]


def test_a_user_trains_on_a_bounded_number_of_rows() -> None:
    texts = [[f"message number {i} about my order" for i in range(40)]]
    node, layout = make_node(users=some_users(texts))
    (work,) = [node._work(0, request(layout))]
    assert sum(len(step) for step in work.steps()) == CONFIG.data.max_examples_per_user == 2


def test_a_request_for_another_layout_is_refused() -> None:
    node, layout = make_node(users=some_users([["hello"], ["there"]]))
    other = TrainRequest(1, layout.start, "another", Draw(0.5), 0.5, K, 0, 0, None)
    with pytest.raises(ValueError, match="another layout"):
        node.train(other)
    with pytest.raises(ValueError, match="another layout"):
        node.evaluate(EvaluateRequest(layout.start, "another"))


def test_evaluation_reads_evaluation_users_alone() -> None:
    node, layout = make_node(users=some_users([["hello"], ["there"]]))
    reply = node.evaluate(EvaluateRequest(layout.start, layout.sha256))
    _, evaluation = load_users(CONFIG)
    assert reply.num_targets > 0
    assert np.isfinite(reply.loss_sum)
    assert evaluation.num_users == 320


def test_with_one_example_each_drawing_users_and_examples_is_the_same_sum() -> None:
    texts = [[f"where is order number {i} please"] for i in range(8)]
    sums = []
    for unit in ("user", "example"):
        config = from_flat({"sampling.unit": unit, "evaluation.max-users": 5})
        node, layout = make_node(config, users=some_users(texts))
        sums.append(node.train(request(layout, probability=0.5)).total)
    assert sums[0].total.any()
    assert sums[0] == sums[1]


def test_each_example_is_clipped_alone_where_examples_are_drawn() -> None:
    texts = [["hello there my order", "where is my parcel " * 3, "a refund please"]]
    norms = {}
    for bound in (1, 3):
        config = from_flat(
            {
                "sampling.unit": "example",
                "data.max-examples-per-user": bound,
                "local.learning-rate": 100.0,
                "evaluation.max-users": 5,
            }
        )
        node, layout = make_node(config, users=some_users(texts))
        total = node.train(request(layout, probability=1.0)).total.total
        norms[bound] = float(np.linalg.norm(total.astype(np.float64)))
    assert norms[1] <= K
    assert K < norms[3] <= 3 * K


@pytest.mark.parametrize("bit_steps", [0, 1 << 16])
def test_the_vector_that_is_clipped_is_the_encoded_one(bit_steps: int) -> None:
    node, layout = make_node(users=some_users([["hello there my order"]]))
    sketch = node.encoding = Sketch(layout.dimension)
    asked = dataclasses.replace(
        request(layout, probability=1.0),
        num_encoded=sketch.dimension,
        bit_steps=bit_steps,
        clipping_norm=10.0,
    )
    updates: list[np.ndarray] = []
    node.train_locally(asked, sink=lambda _, update: updates.append(update))
    encoded = [sketch.encode(update).astype(np.float64) for update in updates]
    total = node.train(asked).total.total.astype(np.float64)
    assert len(total) == asked.sum_dimension == sketch.dimension + (bit_steps > 0)
    assert np.linalg.norm(encoded[0]) > 10.0 > np.linalg.norm(updates[0])
    assert 0.99 * K < np.linalg.norm(total) <= K
    cosine = total[: sketch.dimension] @ encoded[0] / np.linalg.norm(encoded[0])
    assert cosine > 0.99 * np.linalg.norm(total[: sketch.dimension])


@pytest.mark.parametrize(("norm", "balance"), [(1e6, 3), (1e-9, -1)])
def test_the_clip_bit_is_one_more_number_of_the_sum(norm: float, balance: int) -> None:
    """Two users with updates, and one without rows, whose zero is never clipped."""
    node, layout = make_node(users=some_users([["hello there"], ["a refund please"], [""]]))
    asked = dataclasses.replace(
        request(layout, probability=1.0), bit_steps=1 << 16, clipping_norm=norm
    )
    total = node.train(asked).total
    assert total.dimension == layout.dimension + 1
    assert total.total[-1] == balance << 16


def test_every_block_of_a_user_is_taken_equally_often() -> None:
    config = from_flat(
        {
            "data.selection": "random-chunk",
            "data.chunk-tokens": 8,
            "data.max-examples-per-user": 3,
            "local.batch-size": 8,
        }
    )
    texts = [f"message {i} about order number {i * i}" for i in range(9)]
    node, layout = make_node(config, some_users([texts]))
    counts: Counter[bytes] = Counter()
    for number in range(1500):
        (step,) = node._minibatches(0, 7, dataclasses.replace(request(layout), round=number))
        assert len(step) == 3
        assert all(len(row.input_ids) <= 8 for row in step)
        counts.update(row.input_ids.tobytes() for row in step)
    size = len(counts)
    expected = 3 * 1500 / size
    # Three of a round are drawn without replacement, which lowers the variance of every count.
    statistic = sum((n - expected) ** 2 for n in counts.values()) / expected
    statistic *= (size - 1) / (size - 3)
    assert size > 9
    assert chi2.ppf(1e-3, size - 1) < statistic < chi2.ppf(1 - 1e-3, size - 1)
