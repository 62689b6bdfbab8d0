"""The contestants of the bench do the same work, and the race pairs what belongs together."""

import json
from pathlib import Path

import numpy as np
import pytest

from feddp.common.data.tokens import IGNORE
from feddp.common.errors import FeddpError
from feddp.simulations.bench import contestants
from feddp.simulations.bench.bench import STAGES, useful_share
from feddp.simulations.bench.gpu import gpu_bench
from feddp.simulations.bench.race import Spread, paired, peak_megabytes, race, run_apart
from feddp.simulations.bench.scale import index_of, loss_of, rounds_of, write_users
from feddp.simulations.bench.scoreboard import Measure, Scoreboard
from feddp.simulations.bench.server_path import server_path
from feddp.simulations.bench.workload import Population, Shape, make_base, make_users, nonzero_start
from feddp.simulations.commands.measure import Stage

SMALL = {
    "hidden": 32,
    "intermediate": 48,
    "layers": 2,
    "heads": 2,
    "vocabulary": 50,
    "rank": 2,
}
SHAPE = Shape(**SMALL)
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


def test_the_server_path_is_measured_on_a_real_ledger_and_noise() -> None:
    seconds, copies = server_path(2, numbers=2000)
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert copies > 1


def test_the_command_line_knows_all_stages() -> None:
    assert list(STAGES) == list(Stage)


def test_a_function_apart_has_a_peak_of_its_own() -> None:
    assert run_apart("feddp.simulations.bench.race:peak_megabytes") < peak_megabytes() / 2


def test_a_function_that_fails_apart_says_why() -> None:
    with pytest.raises(FeddpError, match="no attribute 'absent'"):
        run_apart("feddp.simulations.bench.race:absent")


def test_both_losses_of_the_vocabulary_stage_give_one_gradient() -> None:
    chunked, full = (loss_of(name, vocabulary=300)().numpy() for name in ("chunked", "full logits"))
    assert relative(chunked, full) < 1e-5


def test_the_population_stage_trains_users_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    write_users(path, 30)
    assert index_of(str(path), str(tmp_path))["peak_megabytes"] > 0
    found = rounds_of(str(path), str(tmp_path), cohort_size=3)
    lost = rounds_of(str(path), str(tmp_path), cohort_size=3, num_users=20, dropout=1.0)
    assert found["cpu_seconds"] > lost["cpu_seconds"] > 0


def test_a_scoreboard_writes_numbers_and_a_plot(tmp_path: Path) -> None:
    board = Scoreboard()
    board.measure([Measure("case", "engine", "loop", Spread(2.0, 1.0, 3.0), 100.0)])
    board.figure("share", {"a": 0.123456})
    board.skip("pfl", "not installed")
    board.write(tmp_path)
    written = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert written["measures"][0]["ratio"] == [1.0, 2.0, 3.0]
    assert written["figures"] == {"share": {"a": 0.123456}}
    assert written["skipped"] == {"pfl": "not installed"}
    assert (tmp_path / "bench.png").stat().st_size > 0


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


def test_without_a_gpu_the_gpu_bench_says_so(tmp_path: Path) -> None:
    with pytest.raises(FeddpError, match="no CUDA device"):
        gpu_bench(repeats=1, folder=tmp_path)


def test_the_start_is_the_same_for_all_contestants() -> None:
    base, layout = make_base(SHAPE)
    plain = contestants.Plain(base, layout)
    assert np.array_equal(plain.start.numpy(), nonzero_start(layout))
