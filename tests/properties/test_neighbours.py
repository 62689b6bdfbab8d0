"""Neighbouring populations: one user moves the total by at most K, exactly, whatever she sends."""

import numpy as np
import pytest
from server_path import NUM_USERS, C, K, P, add, arrived, node_reply, odd_update, squares

from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.summation import UpdateSum


def check(rng: np.random.Generator) -> int:
    """One random population with and without one of its users; returns the squared distance."""
    users = [odd_update(rng) for _ in range(rng.integers(1, 7))]
    nodes = rng.integers(0, 3, size=len(users))
    gone = int(rng.integers(len(users)))

    def total(kept: list[int]) -> np.ndarray:
        return add([node_reply([users[i] for i in kept if nodes[i] == n]) for n in range(3)])

    everyone = list(range(len(users)))
    difference = total(everyone) - total([i for i in everyone if i != gone])
    alone = clip_to_grid(users[gone], clipping_norm=C, grid_steps=K)
    assert difference.tobytes() == alone.tobytes()  # hers alone, and nobody else's changed
    assert squares(difference) <= K**2
    return squares(difference)


def test_one_user_moves_the_total_by_at_most_k() -> None:
    rng = np.random.default_rng(1)
    distances = [check(rng) for _ in range(600)]
    assert max(distances) > 0.999 * K**2  # the bound is reached, so a looser clip would be seen


@pytest.mark.slow
def test_one_user_moves_the_total_by_at_most_k_in_a_hundred_thousand_populations() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100_000):
        check(rng)


def test_order_and_spread_over_nodes_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        users = [odd_update(rng) for _ in range(8)]
        expected = add([node_reply(users)])
        order = rng.permutation(8)
        cuts = np.sort(rng.integers(0, 9, size=3))
        parts = np.split(order, cuts)
        replies = [node_reply([users[i] for i in part]) for part in parts]
        assert add([replies[i] for i in rng.permutation(4)]).tobytes() == expected.tobytes()


def hostile_sums(rng: np.random.Generator) -> list[UpdateSum]:
    """What a node that is not honest may send: of the largest norm, in any direction."""
    directions = [rng.normal(size=P) for _ in range(3)]
    largest = NUM_USERS * K
    sums = [UpdateSum((d / np.linalg.norm(d) * (largest - P)).astype(np.int64)) for d in directions]
    return [*sums, UpdateSum(np.full(P, -(1 << 63))), UpdateSum(np.full(P, 1 << 62))]


def test_a_hostile_node_does_not_make_an_honest_user_count_for_more() -> None:
    """A node that sends the largest sum there is must not decide whether another node counts."""
    rng = np.random.default_rng(4)
    for _ in range(100):
        hostile = [arrived(total) for total in hostile_sums(rng)]
        users = [odd_update(rng) for _ in range(5)]
        with_user = add([*hostile, node_reply(users)])
        without = add([*hostile, node_reply(users[:-1])])
        assert squares(with_user - without) <= K**2
