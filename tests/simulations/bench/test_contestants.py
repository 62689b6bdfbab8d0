"""The contestants of the bench do the same work."""

import numpy as np
import pytest
from small_shape import SHAPE, relative

from feddp.common.data.tokens import IGNORE
from feddp.simulations.bench import contestants
from feddp.simulations.bench.workload import Population, make_base, make_users, nonzero_start

NORM = 0.01


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


def test_the_start_is_the_same_for_all_contestants() -> None:
    base, layout = make_base(SHAPE)
    plain = contestants.Plain(base, layout)
    assert np.array_equal(plain.start.numpy(), nonzero_start(layout))
