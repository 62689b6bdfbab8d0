"""The contestants of the bench do the same work, and the race pairs what belongs together."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import FeddpError
from common.tokens import IGNORE
from simulations import contestants
from simulations.bench import missing_peers, server_microseconds, useful_share
from simulations.gpu_bench import gpu_bench
from simulations.race import paired, race
from simulations.workload import Population, Shape, make_base, make_users, nonzero_start

SHAPE = Shape(hidden=32, intermediate=48, layers=2, heads=2, vocabulary=50, rank=2)
NORM = 0.01


def relative(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))


def test_loop_and_engine_give_the_same_clipped_sum() -> None:
    base, layout = make_base(SHAPE)
    users = make_users(Population(6, (0.7, 1.0, 1, 6), (2.5, 0.8, 2, 40)), SHAPE.vocabulary)
    plain = contestants.Plain(base, layout)
    expected = contestants.loop(plain, users, clipping_norm=NORM)().total
    found = contestants.engine(base, layout, users, clipping_norm=NORM, pass_tokens=128)().total
    assert relative(found, expected) < 1e-4
    fewer = contestants.engine(base, layout, users[1:], clipping_norm=NORM, pass_tokens=128)()
    assert relative(fewer.total, expected) > 1e-2


def test_both_losses_of_central_training_give_the_gradient_of_all_rows() -> None:
    base, layout = make_base(SHAPE)
    users = make_users(Population.equal(5, rows=2, tokens=9), SHAPE.vocabulary)
    plain = contestants.Plain(base, layout)
    chunked, plainly = (
        contestants.central(plain, users, pass_tokens=40, is_chunked=c)() for c in (True, False)
    )
    assert relative(chunked.numpy(), plainly.numpy()) < 1e-5
    rows = [row for user in users for step in user for row in step]
    weight = 1 / sum(int((row.labels != IGNORE).sum()) for row in rows)
    whole = plain.gradient(rows, plain.start, weight, is_chunked=False)
    assert relative(chunked.numpy(), whole.numpy()) < 1e-5


@pytest.mark.parametrize("is_ghost", [False, True])
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_the_engine_over_examples_equals_opacus(is_ghost: bool) -> None:
    base, layout = make_base(SHAPE)
    users = make_users(Population.equal(6, rows=1, tokens=12), SHAPE.vocabulary)
    rows = [row for user in users for step in user for row in step]
    # The engine clips updates of -rate * gradient, so its norm is in those units.
    total = contestants.engine(
        base, layout, users, clipping_norm=NORM * contestants.LEARNING_RATE, pass_tokens=512
    )().total
    found = -total * NORM / contestants.GRID_STEPS
    expected = contestants.opacus(base, layout, rows, clipping_norm=NORM, is_ghost=is_ghost)()
    assert relative(found, expected.numpy()) < 5e-4  # Opacus adds 1e-6 to the norms of ghost


def test_a_race_runs_all_in_turn_and_pairs_by_repeat() -> None:
    order: list[str] = []
    found = race({n: lambda n=n: order.append(n) for n in "ab"}, repeats=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(times) for times in found.values()] == [2, 2]
    assert paired({"x": [2.0, 6.0], "y": [1.0, 2.0]}, "x", "y").least == 2.0


def test_users_of_the_bench_are_ragged_and_repeat() -> None:
    population = Population(20, (0.7, 1.0, 1, 12), (3.3, 0.8, 8, 128))
    one, two = make_users(population, 100), make_users(population, 100)
    lengths = [len(row.input_ids) for user in one for step in user for row in step]
    assert lengths == [len(row.input_ids) for user in two for step in user for row in step]
    assert len(set(lengths)) > 10
    assert 0.85 < useful_share(one) <= 1


def test_the_server_path_is_measured_on_real_noise() -> None:
    assert server_microseconds(1, numbers=2000).least > 0
    assert "pfl" in missing_peers()


def test_without_a_gpu_the_gpu_bench_says_so(tmp_path: Path) -> None:
    with pytest.raises(FeddpError, match="no CUDA device"):
        gpu_bench(repeats=1, folder=tmp_path)


def test_the_start_is_the_same_for_all_contestants() -> None:
    base, layout = make_base(SHAPE)
    plain = contestants.Plain(base, layout)
    assert np.array_equal(plain.start.numpy(), nonzero_start(layout))
