"""Epsilon of odd plans, computed again by our own convolution of our own histograms."""

from collections.abc import Callable
from typing import Any

import pytest
from flat_plan import flat_plan
from own_convolution import Losses, epsilon_of, fixed_size_losses, mixture_losses
from scipy import stats

STEP, FINE = 2e-4, 3e-5  # fine where all losses are small
BASE: dict[str, Any] = {
    "target_epsilon": 1e3,
    "clipping_norm": 1.0,
    "dimension": 1,
    "trust": "server",
    "expected_cohort_size": None,
}
Part = tuple[Losses, int]


def poisson(
    q: float, z: float, rounds: int, coins: int = 1, step: float = STEP
) -> list[list[Part]]:
    """Both directions of so many rounds, with a user's coins in each."""
    weights = stats.binom.pmf(range(coins + 1), coins, q)
    shifts = [float(count) for count, weight in enumerate(weights) if weight > 0]
    pair = mixture_losses(z, shifts, [weight for weight in weights if weight > 0], step)
    return [[(losses, rounds)] for losses in pair]


def gaussian(z: float) -> list[list[Part]]:
    return poisson(1.0, z, 1)


def fixed_size(q: float, z: float, rounds: int) -> list[list[Part]]:
    return [[(fixed_size_losses(z, q, STEP), rounds)]]


def asked(
    num_users: int, cohort: float, rounds: int, z: float, delta: float, **more: Any
) -> dict[str, Any]:
    return BASE | {
        "num_users": num_users,
        "expected_cohort_size": cohort,
        "num_rounds": rounds,
        "noise_multiplier": z,
        "target_delta": delta,
        **more,
    }


NODES = {"trust": "node", "is_noised_by_nodes": True}
ELS = {"sampling_unit": "example", "num_examples": 900, "max_examples_per_user": 4}
ODD: dict[str, tuple[dict[str, Any], Callable[[], list[list[Part]]]]] = {
    "two users, all of them": (asked(2, 2.0, 20, 6.0, 1e-5), lambda: poisson(1.0, 6.0, 20)),
    "one round": (asked(1000, 50.0, 1, 0.9, 1e-5), lambda: poisson(0.05, 0.9, 1)),
    "one round of all": (asked(50, 50.0, 1, 3.0, 1e-4), lambda: gaussian(3.0)),
    "five thousand rounds": (asked(3000, 30.0, 5000, 2.0, 1e-6), lambda: poisson(0.01, 2, 5000)),
    "the least delta": (asked(500, 10.0, 300, 1.5, 1e-12), lambda: poisson(0.02, 1.5, 300)),
    "many rounds at the least delta": (
        asked(1000, 20.0, 5000, 3.0, 1e-12), lambda: poisson(0.02, 3.0, 5000),
    ),
    "hardly ever drawn": (
        asked(10**6, 20.0, 400, 0.7, 1e-7), lambda: poisson(2e-5, 0.7, 400, step=FINE),
    ),
    "nearly always drawn": (asked(100, 97.0, 30, 9.0, 1e-3), lambda: poisson(0.97, 9.0, 30)),
    "a large delta": (asked(3, 1.0, 10, 2.0, 0.2), lambda: poisson(1 / 3, 2.0, 10)),
    "much noise": (asked(400, 40.0, 60, 50.0, 1e-5), lambda: poisson(0.1, 50.0, 60, step=FINE)),
    "on three nodes": (
        asked(1000, 50.0, 40, 3.0, 1e-5, max_nodes_per_user=3), lambda: poisson(0.05, 3.0, 40, 3),
    ),
    "on three nodes that add the noise": (
        asked(1000, 50.0, 40, 1.2, 1e-5, max_nodes_per_user=3, **NODES),
        lambda: poisson(0.05, 1.2, 3 * 40),
    ),
    "four examples of a user": (
        asked(300, 45.0, 25, 4.0, 1e-5, **ELS), lambda: poisson(0.05, 4.0, 25, 4),
    ),
    "examples on two nodes that add the noise": (
        asked(300, 45.0, 25, 5.0, 1e-5, max_nodes_per_user=2, **ELS, **NODES),
        lambda: poisson(0.05, 5.0, 2 * 25, 4),
    ),
    "a fixed cohort": (
        asked(1000, 100.0, 55, 1.699, 1e-5, mechanism="fixed-size"),
        lambda: fixed_size(0.1, 1.699, 55),
    ),
    "a fixed cohort of everyone": (
        asked(7, 7.0, 3, 5.0, 1e-3, mechanism="fixed-size"), lambda: fixed_size(1.0, 5.0, 3),
    ),
    "one of two, a thousand times": (
        asked(2, 1.0, 1000, 40.0, 1e-4, mechanism="fixed-size"),
        lambda: fixed_size(0.5, 40.0, 1000),
    ),
    "one turn of a blt": (
        asked(100, 10.0, 10, 2.0, 1e-5, mechanism="blt", separation=10), lambda: gaussian(2.0),
    ),
    "turns with coins": (
        asked(1000, 100.0, 23, 2.0, 1e-5, mechanism="cyclic-poisson", separation=5),
        lambda: poisson(0.5, 2.0, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_plan_has_the_epsilon_of_another_computation(name: str) -> None:
    numbers, ways = ODD[name]
    plan = flat_plan(**numbers)
    found = plan.epsilon - plan.noise.bridge_epsilon
    own = max(epsilon_of(parts, plan.accounting_delta) for parts in ways())
    assert found == pytest.approx(own, rel=1e-3, abs=1e-4)  # the interval of the bound
    assert found >= own * (1 - 2e-4)


def test_the_other_computation_tells_half_a_percent_of_the_noise() -> None:
    numbers, ways = ODD["a fixed cohort"]
    less = flat_plan(**numbers | {"noise_multiplier": 1.699 * 0.995})
    own = max(epsilon_of(parts, less.accounting_delta) for parts in ways())
    assert less.epsilon != pytest.approx(own, rel=1e-3)
