"""pfl-research and the engine do equal work."""

import pytest
from small_shape import SMALL

from feddp.simulations.bench.race import run_apart


def test_pfl_and_the_engine_do_equal_work() -> None:
    pytest.importorskip("pfl.version", reason="pfl is not installed")
    found = run_apart(
        "feddp.simulations.bench.pfl_peer:compare",
        population=[4, [0.7, 1.0, 1, 6], [2.5, 0.8, 2, 40]],
        shape=SMALL,
        width=40,
        repeats=1,
    )
    assert found["relative_error"] < 5e-4
    assert [len(times) for times in found["seconds"].values()] == [1, 1]
