"""Local methods of another kind than the project's own: both engines run them by the protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from plain_loop import layout_of, make_users, nonzero_start
from torch import Tensor

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.local_state import LocalState
from feddp.client.engine.one_by_one import UnitLoop
from feddp.client.engine.protocol import Engine, Epochs, LocalWork, Minibatches
from feddp.common.data.tokens import IGNORE, TokenRow

RHO, RATE = 0.05, 0.3


@dataclass(frozen=True)
class NormalisedGradient:
    """One step over all rows, whose gradient at the start is the update, at norm one."""

    num_kept: ClassVar[int] = 0

    def minibatches(self, rows: list[TokenRow], rng: np.random.Generator) -> Minibatches:
        return [rows]

    def step(self, user: LocalState, number: int) -> None:
        user.delta.copy_(user.gradient)

    def update(self, user: LocalState) -> Tensor:
        return -user.delta / user.delta.norm()


@dataclass(frozen=True)
class SharpnessAware:
    """Every other step goes to where the loss is worst nearby, and is taken back with the next."""

    num_kept: ClassVar[int] = 1

    def minibatches(self, rows: list[TokenRow], rng: np.random.Generator) -> Minibatches:
        return [rows, rows]

    def step(self, user: LocalState, number: int) -> None:
        (away,) = user.kept
        if number % 2:
            away.copy_(RHO * user.gradient / user.gradient.norm())
            user.delta.add_(away)
        else:
            user.delta.sub_(away).sub_(user.gradient, alpha=RATE)

    def update(self, user: LocalState) -> Tensor:
        return user.delta


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("models"), task="classification")


@pytest.fixture(params=["ffa-lora", "head"])
def ready(request: pytest.FixtureRequest, place: Path) -> tuple[Engine, NDArray[np.float32]]:
    """An engine of each kind, and an adapter to start from."""
    base = tiny.load(place, task="classification")
    layout = layout_of(base, request.param)
    make = CohortEngine if request.param == "ffa-lora" else UnitLoop
    start = nonzero_start(layout) if request.param == "ffa-lora" else layout.initial()
    return make(base, layout), start  # type: ignore[return-value]


def gradient_at(engine: Engine, adapter: NDArray[np.float32], rows: Sequence[TokenRow]) -> Tensor:
    """Of the mean loss over what these rows predict."""
    repeated = np.stack([adapter] * len(rows))
    found = engine.gradients(repeated, rows)  # type: ignore[attr-defined]
    weights = np.array([(row.labels != IGNORE).sum() for row in rows], dtype=np.float32)
    return torch.from_numpy((weights[:, None] * found).sum(0) / weights.sum())


def users_of(engine: Engine) -> list[list[TokenRow]]:
    return [user[0] for user in make_users("classification")[:3]]


def updates(engine: Engine, start: NDArray[np.float32], method: object) -> list[Tensor]:
    found: dict[int, NDArray[np.float32]] = {}
    rng = np.random.default_rng(0)
    work = [
        LocalWork(key, lambda rows=rows: method.minibatches(rows, rng))  # type: ignore[misc]
        for key, rows in enumerate(users_of(engine))
    ]
    engine.train(start, work, method=method, sink=found.__setitem__)  # type: ignore[arg-type]
    return [torch.from_numpy(found[key]) for key in sorted(found)]


def test_an_update_may_be_something_else_than_where_the_steps_lead(
    ready: tuple[Engine, NDArray[np.float32]],
) -> None:
    engine, start = ready
    found = updates(engine, start, NormalisedGradient())
    for rows, update in zip(users_of(engine), found, strict=True):
        gradient = gradient_at(engine, start, rows)
        torch.testing.assert_close(update, -gradient / gradient.norm(), rtol=1e-3, atol=1e-5)


def test_a_method_may_go_somewhere_to_look_and_come_back(
    ready: tuple[Engine, NDArray[np.float32]],
) -> None:
    engine, start = ready
    found = updates(engine, start, SharpnessAware())
    for rows, update in zip(users_of(engine), found, strict=True):
        gradient = gradient_at(engine, start, rows)
        away = RHO * gradient / gradient.norm()
        expected = -RATE * gradient_at(engine, start + away.numpy(), rows)
        torch.testing.assert_close(update, expected, rtol=1e-3, atol=1e-5)
        assert (update + RATE * gradient).norm() > 1e-3 * update.norm()


NUMBERED = [TokenRow(np.full(2, i), np.full(2, i)) for i in range(7)]


def row_numbers(epochs: Epochs, seed: int = 0) -> list[list[int]]:
    """The rows of each step, by their first token."""
    steps = epochs.minibatches(NUMBERED, np.random.default_rng(seed))
    return [[int(row.input_ids[0]) for row in step] for step in steps]


def test_every_pass_takes_every_row_once_in_another_order() -> None:
    steps = row_numbers(Epochs(number=3, batch_size=3))
    assert [len(step) for step in steps] == [3, 3, 1] * 3
    passes = [[row for step in steps[i : i + 3] for row in step] for i in (0, 3, 6)]
    assert all(sorted(found) == list(range(7)) for found in passes)
    assert passes[0] != passes[1] != passes[2]


def test_the_order_is_the_users_own() -> None:
    epochs = Epochs(number=1, batch_size=7)
    assert row_numbers(epochs, seed=1) == row_numbers(epochs, seed=1)
    assert row_numbers(epochs, seed=1) != row_numbers(epochs, seed=2)


def test_a_limit_of_steps_leaves_out_the_rest() -> None:
    every = row_numbers(Epochs(number=2, batch_size=2))
    assert row_numbers(Epochs(number=2, batch_size=2, most_steps=5)) == every[:5]
    assert row_numbers(Epochs(number=1, batch_size=2, most_steps=99)) == every[:4]


def test_a_user_without_rows_takes_no_step() -> None:
    assert Epochs(number=2, batch_size=2).minibatches([], np.random.default_rng(0)) == []
