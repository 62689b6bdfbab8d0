"""Flower's Ray simulation and the engine do equal work."""

import numpy as np
import pytest
from small_shape import SHAPE, SMALL, relative

from feddp.simulations.bench import contestants
from feddp.simulations.bench.race import run_apart
from feddp.simulations.bench.workload import make_base, nonzero_start


def test_a_flower_client_trains_as_the_loop_does() -> None:
    flower_peer = pytest.importorskip(
        "feddp.simulations.bench.flower_peer", reason="psutil is not installed"
    )
    population = [1, [0, 0, 3, 3], [2.5, 0.8, 2, 40], 2]
    trainee = flower_peer.Trainee(population, SMALL)
    base, layout = make_base(SHAPE)
    start = nonzero_start(layout)
    adapter = flower_peer.ArrayRecord(list(layout.unflatten(start).values()))
    trained = trainee.train(trainee.users[0], adapter).to_numpy_ndarrays()
    delta = np.concatenate([array.ravel() for array in trained]) - start
    plain = contestants.Plain(base, layout)
    total = contestants.loop(plain, trainee.users, clipping_norm=1.0)()
    expected = contestants.mean_update(total, 1, 1.0)
    assert relative(delta, expected) < 1e-3
    assert np.linalg.norm(expected) < 0.9  # nothing was clipped


@pytest.mark.slow
def test_flower_and_the_engine_do_equal_work_and_ray_ends() -> None:
    psutil = pytest.importorskip("psutil")
    found = run_apart(
        "feddp.simulations.bench.flower_peer:compare",
        population=[3, [0, 0, 2, 2], [0, 0, 9, 9]],
        shape=SMALL,
        repeats=1,
    )
    assert found["relative_error"] < 5e-4
    assert len(found["first_rounds"]) == 2
    assert all(times > [0.0] for times in found["wall_seconds"].values())
    assert not psutil.Process().children(recursive=True)
