import tracemalloc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from feddp.server.optimizer import ServerOptimizer

P, STEPS = 6, 5


def make(kind: str, **numbers: float) -> ServerOptimizer:
    defaults = {
        "learning_rate": 0.1,
        "momentum": 0.9,
        "second_momentum": 0.99,
        "adaptivity": 1e-3,
    }
    return ServerOptimizer(kind=kind, **{**defaults, **numbers})


def run(optimizer: ServerOptimizer, updates: NDArray[np.float64]) -> NDArray[np.float32]:
    adapter, moments = np.ones(P, np.float32), optimizer.initial_moments(P)
    for update in updates:
        adapter, moments = optimizer.descend(adapter, update, moments)
    return adapter


@pytest.fixture
def updates() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(STEPS, P))


@pytest.mark.parametrize(("kind", "momentum"), [("fedavg", 0.0), ("fedavgm", 0.9)])
def test_averaging_kinds_equal_torch_sgd_on_the_negative_update(
    kind: str, momentum: float, updates: NDArray[np.float64]
) -> None:
    weight = torch.ones(P, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.SGD([weight], lr=0.1, momentum=momentum)
    for update in updates:
        weight.grad = -torch.from_numpy(update)
        reference.step()
    np.testing.assert_allclose(run(make(kind), updates), weight.detach(), rtol=1e-6)


def test_fedadam_follows_its_published_recursion(updates: NDArray[np.float64]) -> None:
    adapter, first, second = np.ones(P), np.zeros(P), np.zeros(P)
    for update in updates:
        first = 0.9 * first + 0.1 * update
        second = 0.99 * second + 0.01 * update**2
        adapter = adapter + 0.1 * first / (np.sqrt(second) + 1e-3)
    np.testing.assert_allclose(run(make("fedadam"), updates), adapter, rtol=1e-6)


def test_an_update_moves_the_adapter_toward_itself() -> None:
    for kind in ("fedavg", "fedavgm", "fedadam"):
        moved = run(make(kind), np.full((1, P), 0.5))
        assert (moved > 1).all()


def test_state_is_a_function_of_releases_alone(updates: NDArray[np.float64]) -> None:
    optimizer = make("fedadam")
    np.testing.assert_array_equal(run(optimizer, updates), run(optimizer, updates))


@pytest.mark.parametrize("kind", ["fedavg", "fedavgm", "fedadam"])
def test_blocks_of_a_large_adapter_step_as_small_ones_do(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = np.random.default_rng(1).normal(size=(STEPS, P))
    whole = run(make(kind), updates)
    monkeypatch.setattr("feddp.server.optimizer._BLOCK", 4)
    np.testing.assert_array_equal(run(make(kind), updates), whole)


@pytest.mark.parametrize("kind", ["fedavg", "fedadam"])
def test_a_step_makes_one_copy_of_the_adapter_and_keeps_the_one_it_was_given(kind: str) -> None:
    size = 1 << 20
    optimizer = make(kind)
    adapter, update = np.ones(size, np.float32), np.ones(size)
    moments = optimizer.initial_moments(size)
    tracemalloc.start()
    moved, _ = optimizer.descend(adapter, update, moments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert moved.nbytes <= peak < 2 * moved.nbytes
    assert (adapter == 1).all()
