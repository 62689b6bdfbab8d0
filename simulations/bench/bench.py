"""feddp bench: speed and peak memory of the engine and its peers, interleaved in one run."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feddp.client.engine.passes import padded_length
from feddp.simulations.bench import contestants
from feddp.simulations.bench.race import paired, peak_megabytes, race, run_apart
from feddp.simulations.bench.scale import measure_population, measure_vocabulary
from feddp.simulations.bench.scoreboard import Measure, Scoreboard
from feddp.simulations.bench.server_path import measure_server
from feddp.simulations.bench.workload import (
    Population,
    Shape,
    User,
    make_base,
    make_users,
    num_tokens,
    rows_of,
)

ROWS_OF_USER = (0.7, 1.0, 1, 12)
TOKENS_OF_ROW = (3.3, 0.8, 8, 128)


@dataclass(frozen=True)
class Case:
    """Users of the bench, the vocabulary of their base model, and turns per repeat: short turns are
    noisy, so they are repeated more often."""

    population: Population
    vocabulary: int = 2048
    turns: int = 2


CASES = {
    "256 tokens per client step": Case(Population.equal(16, rows=4, tokens=64)),
    "32 tokens per client step": Case(Population.equal(64, rows=1, tokens=32)),
    "vocabulary 8192": Case(Population.equal(16, rows=4, tokens=64), vocabulary=8192),
    "lognormal users": Case(Population(128, ROWS_OF_USER, TOKENS_OF_ROW), turns=1),
}
# A base a quarter as large, where the overhead of a round weighs more.
SMALL = {"hidden": 128, "intermediate": 344}
EXAMPLES = Case(Population.equal(32, rows=1, tokens=64))


@dataclass(frozen=True)
class PflCase:
    """Users of a round of pfl, tokens to which it pads every row (None: to the longest of a local
    batch), and fields of `Shape` that differ from its defaults."""

    population: Population
    width: int | None
    shape: Mapping[str, Any]


# pfl's benchmark of language models: cohorts of 100, local batches of 4, rows padded to 512 tokens
# (those of Aya and OpenAssistant).
PFL_POPULATION = Population(100, ROWS_OF_USER, TOKENS_OF_ROW)
PFL_CASES = {
    "pfl, to a batch's longest": PflCase(PFL_POPULATION, None, {}),
    "pfl, rows padded to their bound of 128": PflCase(PFL_POPULATION, TOKENS_OF_ROW[3], {}),
    "pfl, rows padded to their bound of 512": PflCase(
        Population(100, ROWS_OF_USER, (4.3, 0.8, 8, 512)), 512, SMALL
    ),
}
FLOWER_CASES = {
    "256 tokens per client": (Population.equal(16, rows=4, tokens=64), {}),
    "32 tokens per client": (Population.equal(16, rows=1, tokens=32), {}),
    "32 tokens, hidden 128": (Population.equal(16, rows=1, tokens=32), SMALL),
}


def bench(*, repeats: int, folder: Path, only: Sequence[str] = ()) -> int:
    """Runs the stages `only`, or all, prints results, and writes bench.json and bench.png.

    Where turns are short, there are twice as many `repeats`.
    """
    torch.set_num_threads(1)
    # Opacus hooks modules whose inputs need no gradient, and torch warns each time.
    warnings.filterwarnings("ignore", message="Full backward hook", category=UserWarning)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print("CPU time of one thread; ratio: how many times the speed of the second; median [range]")
    print(f"{repeats} turns; load average of this machine: {load}")
    board = Scoreboard()
    for name, stage in STAGES.items():
        if not only or name in only:
            stage(board, repeats)
            board.write(folder)
    return 0


def useful_share(users: Sequence[User]) -> float:
    """Share of real tokens in the tokens that the engine computes."""
    return num_tokens(users) / sum(padded_length(row, None) for row in rows_of(users))


def user_contestants(case: Case, users: Sequence[User]) -> dict[str, Callable[[], object]]:
    """Central training with and without chunked loss, the plain loop, and the engine."""
    base, layout = make_base(Shape(vocabulary=case.vocabulary))
    plain = contestants.Plain(base, layout)
    return {
        "central": contestants.central(plain, users),
        "central, library loss": contestants.central(plain, users, is_chunked=False),
        "loop": contestants.loop(plain, users),
        "engine": contestants.engine(base, layout, users),
    }


def measure_users(board: Scoreboard, repeats: int) -> None:
    """Compares user-level training with central training and the plain loop."""
    for name, case in CASES.items():
        users = make_users(case.population, case.vocabulary)
        seconds = race(user_contestants(case, users), repeats=repeats * case.turns)
        board.measure(_measures(name, seconds, num_tokens(users)))
        board.figure(f"useful tokens / computed tokens, {name}", useful_share(users))


def example_contestants() -> dict[str, Callable[[], object]]:
    """One step over examples: non-private, the engine with unit example, and Opacus."""
    base, layout = make_base(Shape())
    users = make_users(EXAMPLES.population, EXAMPLES.vocabulary)
    rows = rows_of(users)
    return {
        "non-private step": contestants.central(contestants.Plain(base, layout), users),
        "engine": contestants.engine(base, layout, users),
        "opacus hooks": contestants.opacus(base, layout, rows, is_ghost=False),
        "opacus ghost": contestants.opacus(base, layout, rows, is_ghost=True),
    }


def measure_examples(board: Scoreboard, repeats: int) -> None:
    """Compares example-level training with the non-private step and Opacus."""
    seconds = race(example_contestants(), repeats=repeats * EXAMPLES.turns)
    users = make_users(EXAMPLES.population, EXAMPLES.vocabulary)
    board.measure(_measures("example-level DP", seconds, num_tokens(users)))


def measure_pfl(board: Scoreboard, repeats: int) -> None:
    """Compares engine and exact noise with a round of pfl, under both of its padding rules."""
    if find_spec("pfl") is None:
        board.skip("pfl", "not installed; docs/performance.md says how")
        return
    for name, case in PFL_CASES.items():
        users = make_users(case.population, Shape(**case.shape).vocabulary)
        found = run_apart(
            "feddp.simulations.bench.pfl_peer:compare",
            population=astuple(case.population),
            shape=case.shape,
            width=case.width,
            repeats=repeats,
        )
        _equal_work(board, name, found)
        mean = num_tokens(users) / len(rows_of(users))
        board.figure(f"{name}: mean tokens of a row", mean)
        seconds = {name: found["seconds"]["pfl"], "engine": found["seconds"]["engine"]}
        board.measure(_measures("100 lognormal users", seconds, num_tokens(users)))


def measure_flower(board: Scoreboard, repeats: int) -> None:
    """Compares engine and exact noise with a round of Flower's Ray engine, in all its processes."""
    for package in ("ray", "psutil"):
        if find_spec(package) is None:
            board.skip("flower", f"{package} is not installed")
            return
    for name, (population, shape) in FLOWER_CASES.items():
        users = make_users(population, Shape().vocabulary)
        found = run_apart(
            "feddp.simulations.bench.flower_peer:compare",
            population=astuple(population),
            shape=shape,
            repeats=repeats,
        )
        _equal_work(board, f"Flower, {name}", found)
        board.figure(f"Flower, {name}: CPU seconds of dropped rounds", found["first_rounds"])
        board.measure(_measures(name, found["seconds"], num_tokens(users)))
        board.measure(
            _measures(f"{name}, wall, 2 cores each", found["wall_seconds"], num_tokens(users))
        )


def measure_memory(board: Scoreboard, repeats: int) -> None:
    """Peak resident memory of one process per contestant."""
    names = ("central", "loop", "engine")
    peaks = {who: run_apart("feddp.simulations.bench.bench:peak_of", who=who) for who in names}
    board.figure("peak memory in MB, lognormal users", peaks)


def peak_of(who: str) -> float:
    """Runs one contestant over the lognormal users; this process's peak in MB."""
    torch.set_num_threads(1)
    case = CASES["lognormal users"]
    user_contestants(case, make_users(case.population, case.vocabulary))[who]()
    return peak_megabytes()


def _measures(case: str, seconds: dict[str, list[float]], tokens: int) -> list[Measure]:
    rate = tokens / float(np.median(seconds["engine"]))
    return [
        Measure(case, "engine", other, paired(seconds, other, "engine"), rate)
        for other in seconds
        if other != "engine"
    ]


def _equal_work(board: Scoreboard, name: str, found: dict[str, Any]) -> None:
    """Reports the distance of two mean updates; grid and float32 explain 1e-3 at most.

    Raises:
      RuntimeError: they differ by more, so the times would compare different work.
    """
    error = found["relative_error"]
    board.figure(f"{name}: relative error of the mean update", error)
    if not error < 1e-3:
        raise RuntimeError(f"{name}: the updates differ by {error:.1e}; times were not compared")


Stage = Callable[[Scoreboard, int], None]
STAGES: dict[str, Stage] = {
    "users": measure_users,
    "examples": measure_examples,
    "pfl": measure_pfl,
    "flower": measure_flower,
    "server": measure_server,
    "memory": measure_memory,
    "vocabulary": measure_vocabulary,
    "population": measure_population,
}
