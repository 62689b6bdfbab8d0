"""The stages of the bench, and the users that they train."""

from feddp.simulations.bench.bench import STAGES, useful_share
from feddp.simulations.bench.workload import Population, make_users
from feddp.simulations.commands.measure import Stage


def test_the_command_line_knows_all_stages() -> None:
    assert list(STAGES) == list(Stage)


def test_most_tokens_that_the_engine_computes_are_of_users() -> None:
    users = make_users(Population(20, (0.7, 1.0, 1, 12), (3.3, 0.8, 8, 128)), 100)
    assert 0.85 < useful_share(users) <= 1
