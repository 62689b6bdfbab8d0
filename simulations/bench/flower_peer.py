"""Flower's Ray simulation against the engine, which runs between Flower's rounds.

Imported only in a separate process (`race.run_apart`), whose descendants are all Flower's.
"""

import functools
import json
import tempfile
import time
from typing import Any

import numpy as np
import psutil
import ray
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from flwr.simulation import run_simulation

from feddp.common.model.layout import AdapterLayout
from feddp.simulations.bench import contestants
from feddp.simulations.bench.race import Contestant
from feddp.simulations.bench.workload import User, make_workload, nonzero_start

DROPPED_ROUNDS = 2  # actors start, models load, caches fill
NUM_CPUS = 2
OBJECT_STORE_BYTES = 100 << 20
EXIT_SECONDS = 10.0


class Trainee:
    """The model of one Ray actor, loaded once, and the users that it may train."""

    def __init__(self, population: list[Any], shape: dict[str, Any]):
        torch.set_num_threads(1)
        base, layout, self.users = make_workload(population, shape)
        self.model, self.parameters = contestants.peft_model(base, layout)

    def train(self, user: User, adapter: ArrayRecord) -> ArrayRecord:
        """The adapter after the local steps of one user."""
        arrays = adapter.to_numpy_ndarrays()
        for parameter, array in zip(self.parameters.values(), arrays, strict=True):
            parameter.data = torch.from_numpy(array.copy())
        optimizer = torch.optim.SGD(self.parameters.values(), lr=contestants.LEARNING_RATE)
        for step in user:
            optimizer.zero_grad()
            contestants.mean_loss(self.model, *contestants.collate(step, "cpu")).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return ArrayRecord([p.detach().numpy() for p in self.parameters.values()])


@functools.cache
def trainee(workload: str) -> Trainee:
    """One per process, so that an actor loads the model once."""
    return Trainee(**json.loads(workload))


def train(message: Message, context: Context) -> Message:
    """What one Flower client answers: its adapter after training, with weight one."""
    found = trainee(str(message.content["config"]["workload"]))
    user = found.users[int(context.node_config["partition-id"])]
    trained = found.train(user, message.content["arrays"])
    content = RecordDict({"arrays": trained, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def tree_seconds() -> float:
    """CPU seconds of this process and its live descendants, with their reaped children."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of reaped children
        except psutil.NoSuchProcess:  # it has ended; its parent counts its time
            continue
    return total


class Rounds:
    """The server: times Flower between evaluations, and the engine during each."""

    def __init__(
        self,
        workload: str,
        layout: AdapterLayout,
        num_users: int,
        *,
        engine: Contestant,
        wide_engine: Contestant,
    ):
        self.workload, self.layout = workload, layout
        self.engine, self.wide_engine = engine, wide_engine
        self.strategy = DifferentialPrivacyServerSideFixedClipping(
            FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=num_users),
            noise_multiplier=0.0,  # of the first round, which proves equal work
            clipping_norm=contestants.CLIPPING_NORM,
            num_sampled_clients=num_users,
        )
        self.start = nonzero_start(layout)
        self.first_update = np.zeros_like(self.start)
        self.seconds: dict[str, list[float]] = {"flower": [], "engine": []}
        self.wall_seconds: dict[str, list[float]] = {"flower": [], "engine": []}
        self._left, self._wall_left = 0.0, 0.0

    def main(self, grid: Grid, num_rounds: int) -> None:
        """All rounds of one run."""
        self.strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(list(self.layout.unflatten(self.start).values())),
            num_rounds=num_rounds,
            train_config=ConfigRecord({"workload": self.workload}),
            evaluate_fn=self.between,
        )

    def between(self, round: int, adapter: ArrayRecord) -> MetricRecord:
        """Takes Flower's time since the last call, and runs the engine."""
        wall = time.perf_counter() - self._wall_left
        if round > 0:
            self.seconds["flower"].append(tree_seconds() - self._left)
            self.wall_seconds["flower"].append(wall)
            for clock, engine, seconds in (
                (time.process_time, self.engine, self.seconds),
                (time.perf_counter, self.wide_engine, self.wall_seconds),
            ):
                started = clock()
                engine()
                seconds["engine"].append(clock() - started)
        if round == 1:
            arrays = adapter.to_numpy_ndarrays()
            self.first_update = np.concatenate([a.ravel() for a in arrays]) - self.start
            self.strategy.noise_multiplier = contestants.NOISE_MULTIPLIER
        self._left, self._wall_left = tree_seconds(), time.perf_counter()
        return MetricRecord()


def compare(*, population: list[Any], shape: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Seconds per round of Flower's Ray engine and of this engine, in turn.

    Args:
      population: fields of `Population`; every user is one Flower node, in every round.
      shape: fields of `Shape`.
      repeats: measured rounds, after two for warm-up.

    Returns:
      "seconds" of CPU of "flower" (driver and all its descendants) and "engine" (one thread);
      "wall_seconds" of both, with `NUM_CPUS` actors and threads; "first_rounds", the dropped CPU
      seconds of Flower; and the "relative_error" between both mean updates of round 1, without
      noise.
    """
    torch.set_num_threads(1)
    base, layout, users = make_workload(population, shape)
    run, wide = (
        contestants.engine(
            base,
            layout,
            users,
            pass_tokens=contestants.PASS_TOKENS * num_threads,
            num_threads=num_threads,
        )
        for num_threads in (1, NUM_CPUS)
    )
    expected = contestants.mean_update(run(), len(users))
    engine, wide_engine = (
        contestants.private(each, cohort_size=len(users), dimension=layout.dimension)
        for each in (run, wide)
    )
    rounds = Rounds(
        json.dumps({"population": population, "shape": shape}),
        layout,
        len(users),
        engine=engine,
        wide_engine=wide_engine,
    )
    _run_flower(rounds, num_nodes=len(users), num_rounds=repeats + DROPPED_ROUNDS)
    error = np.linalg.norm(rounds.first_update - expected) / np.linalg.norm(expected)
    return {
        "seconds": _kept(rounds.seconds),
        "wall_seconds": _kept(rounds.wall_seconds),
        "first_rounds": rounds.seconds["flower"][:DROPPED_ROUNDS],
        "relative_error": float(error),
    }


def _kept(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: found[DROPPED_ROUNDS:] for name, found in seconds.items()}


def _run_flower(rounds: Rounds, *, num_nodes: int, num_rounds: int) -> None:
    client_app, server_app = ClientApp(), ServerApp()
    client_app.train()(train)
    server_app.main()(lambda grid, context: rounds.main(grid, num_rounds))
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        init = {
            "num_cpus": NUM_CPUS,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": folder,
        }
        config = {"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
        try:
            run_simulation(server_app, client_app, num_nodes, backend_config=config)
        finally:
            ray.shutdown()
            _end_descendants()


def _end_descendants() -> None:
    """Waits for Ray's processes to end, and ends those that remain."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=EXIT_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)
