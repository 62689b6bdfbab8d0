import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import TrainReply, TrainRequest
from feddp.server.aggregation import add_noised_replies, add_replies

P, K = 3, 1 << 20
REQUEST = TrainRequest(4, np.zeros(P, np.float32), "ab", Draw(0.5), 1.0, K, 0, 0, None)


def reply(values: list[int], *, round: int = 4, layout: str = "ab") -> TrainReply:
    total = UpdateSum.zeros(P)
    total.add(np.array(values, dtype=np.int64))
    return TrainReply(round, layout, total)


@given(st.lists(st.lists(st.integers(-K // 2, K // 2), min_size=P, max_size=P), max_size=6))
def test_sum_is_exact_and_does_not_depend_on_order(values: list[list[int]]) -> None:
    replies = [reply(v) for v in values]
    forward = add_replies(replies, REQUEST, num_units=10, max_units_per_node=10)
    backward = add_replies(replies[::-1], REQUEST, num_units=10, max_units_per_node=10)
    expected = np.array(values, dtype=np.int64).reshape(-1, P).sum(axis=0)
    np.testing.assert_array_equal(forward.total, expected)
    assert forward == backward


@pytest.mark.parametrize(
    "bad",
    [
        reply([1, 1, 1], round=3),
        reply([1, 1, 1], layout="cd"),
        reply([10 * K + 1, 0, 0]),
        reply([8 * K, 8 * K, 0]),
        reply([-(2**63), 0, 0]),
    ],
    ids=["another round", "another layout", "one entry too large", "norm too large", "lowest"],
)
def test_invalid_reply_contributes_zero_and_others_count(bad: TrainReply) -> None:
    total = add_replies([reply([1, 2, 3]), bad], REQUEST, num_units=10, max_units_per_node=10)
    np.testing.assert_array_equal(total.total, [1, 2, 3])


def test_replies_that_are_too_large_together_never_overflow() -> None:
    num_users = (1 << 62) // K - 1
    largest = reply([num_users * K, 0, 0])
    total = add_replies(
        [largest, largest, reply([-5, 0, 0])],
        REQUEST,
        num_units=num_users,
        max_units_per_node=num_users,
    )
    np.testing.assert_array_equal(total.total, [num_users * K, 0, 0])


def test_no_more_replies_are_added_than_the_mechanism_has_room_for() -> None:
    replies = [reply([10 * K, 0, 0])] * 3
    sizes = {"num_units": 10, "max_units_per_node": 10}
    total = add_replies(replies, REQUEST, **sizes, max_sum=25 * K)
    np.testing.assert_array_equal(total.total, [20 * K, 0, 0])


def test_a_reply_counts_whatever_other_replies_hold() -> None:
    """Else a hostile node that fills the sum would let one user decide whether a node counts."""
    largest = reply([10 * K, 0, 0])
    replies = [largest, largest, reply([5, 0, 0]), reply([0, 7, 0])]
    total = add_replies(replies, REQUEST, num_units=10, max_units_per_node=10)
    np.testing.assert_array_equal(total.total, [20 * K + 5, 7, 0])


def test_largest_possible_sum_is_accepted() -> None:
    total = add_replies([reply([6 * K, 8 * K, 0])], REQUEST, num_units=10, max_units_per_node=10)
    np.testing.assert_array_equal(total.total, [6 * K, 8 * K, 0])


def test_nobody_answers_and_the_sum_is_zero() -> None:
    assert add_replies([], REQUEST, num_units=10, max_units_per_node=10) == UpdateSum.zeros(P)


# Sums that nodes have noised


def noised(values: list[int], *, round: int = 4) -> TrainReply:
    return TrainReply(round, "ab", NoisedSum.from_node(np.array(values, dtype=np.int64)))


def test_noised_sums_are_added_and_what_no_honest_node_sends_is_not() -> None:
    replies = [
        noised([K * 50, -3, 1]),
        noised([1, 2, 3]),
        noised([1, 1, 1], round=3),
        noised([1, 1]),
        noised([(1 << 53) + 1, 0, 0]),
        noised([-(2**63), 0, 0]),
        reply([7, 7, 7]),
    ]
    total = add_noised_replies(replies, REQUEST)
    np.testing.assert_array_equal(total.total, [K * 50 + 1, -1, 4])


def test_a_noised_sum_is_never_added_to_sums_that_are_not() -> None:
    total = add_replies([noised([1, 1, 1])], REQUEST, num_units=10, max_units_per_node=10)
    assert total == UpdateSum.zeros(P)


def test_a_node_of_one_unit_is_clipped_again() -> None:
    replies = [reply([K, 0, 0]), reply([0, K + 1, 0]), reply([0, 3 * K // 4, 3 * K // 4])]
    total = add_replies(replies, REQUEST, num_units=10, max_units_per_node=1)
    np.testing.assert_array_equal(total.total, [K, 0, 0])
