"""Users and base of the bench: the same for everyone who asks."""

import numpy as np
from small_bench import SHAPE

from feddp.common.data.tokens import IGNORE
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


def test_equal_users_have_equal_rows_in_one_step_and_a_quarter_is_prompt() -> None:
    users = make_users(Population.equal(3, rows=2, tokens=8), SHAPE.vocabulary)
    assert [[len(step) for step in user] for user in users] == [[2]] * 3
    rows = [row for user in users for step in user for row in step]
    assert {int((row.labels == IGNORE).sum()) for row in rows} == {2}
    assert num_tokens(users) == 3 * 2 * 8


def test_a_base_is_a_function_of_its_shape_and_its_copy_shares_no_module() -> None:
    (base, layout), (again, _) = make_base(SHAPE), make_base(SHAPE)
    copied = copy_base(base)
    for name, value in base.model.state_dict().items():
        assert value.equal(again.model.state_dict()[name])
        assert value.equal(copied.model.state_dict()[name])
    assert not set(map(id, base.model.modules())) & set(map(id, copied.model.modules()))
    assert np.count_nonzero(nonzero_start(layout)) == layout.dimension
