"""The stages of the bench."""

from feddp.simulations.bench.bench import STAGES, useful_share
from feddp.simulations.bench.workload import Population, make_users
from feddp.simulations.commands.measure import Stage


def test_the_command_line_knows_all_stages() -> None:
    assert list(STAGES) == list(Stage)


def test_the_useful_share_is_of_real_tokens_over_computed_ones() -> None:
    full, ragged = (
        useful_share(make_users(Population.equal(2, rows=2, tokens=tokens), 100))
        for tokens in (64, 65)
    )
    assert full == 1.0
    assert ragged < 1.0
