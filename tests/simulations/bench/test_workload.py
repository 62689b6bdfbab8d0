"""The bench's users are ragged, and both they and the base are the same in every process."""

import numpy as np
from small_shape import SHAPE

from feddp.common.data.tokens import IGNORE
from feddp.simulations.bench.bench import useful_share
from feddp.simulations.bench.workload import (
    Population,
    copy_base,
    make_base,
    make_users,
    nonzero_start,
    num_tokens,
)


def test_users_of_the_bench_are_ragged_and_repeat() -> None:
    population = Population(20, (0.7, 1.0, 1, 12), (3.3, 0.8, 8, 128))
    one, two = make_users(population, 100), make_users(population, 100)
    lengths = [len(row.input_ids) for user in one for step in user for row in step]
    assert lengths == [len(row.input_ids) for user in two for step in user for row in step]
    assert len(set(lengths)) > 10
    assert 0.85 < useful_share(one) <= 1


def test_equal_users_have_equal_rows_in_one_step_behind_a_prompt_of_a_quarter() -> None:
    users = make_users(Population.equal(3, rows=2, tokens=8), 100)
    assert [[len(step) for step in user] for user in users] == [[2], [2], [2]]
    rows = [row for user in users for step in user for row in step]
    assert all((row.labels != IGNORE).tolist() == [False] * 2 + [True] * 6 for row in rows)
    assert num_tokens(users) == 3 * 2 * 8


def test_rows_are_cut_into_local_steps_of_the_batch_size() -> None:
    (user,) = make_users(Population(1, (0, 0, 5, 5), (0, 0, 3, 3), batch_size=2), 100)
    assert [len(step) for step in user] == [2, 2, 1]


def test_a_base_is_made_of_its_seed_and_a_copy_shares_no_weights() -> None:
    (one, layout), (two, _) = make_base(SHAPE), make_base(SHAPE)
    copied = copy_base(one)
    first, again, other = (next(base.model.parameters()).data for base in (one, two, copied))
    assert first.equal(again)
    other += 1
    assert first.equal(again)
    assert not first.equal(other)
    assert np.count_nonzero(nonzero_start(layout) == layout.start) == 0
