"""How memory and time scale with populations, cohorts and vocabularies.

Every memory figure is the peak of a separate process.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from feddp.client.assembly import build_node
from feddp.client.engine.loss import LinearCrossEntropy
from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig
from feddp.common.data.user_index import open_users
from feddp.common.data.users import Columns, Users, UsersView
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import TrainRequest
from feddp.simulations.bench.race import paired, peak_megabytes, race, run_apart
from feddp.simulations.bench.scoreboard import Measure, Scoreboard

FEW, MANY = 1_000, 1_000_000
COHORT, TENTH, LARGE_COHORT = 64, 1_000, 10_000
NODES = 100_000
VOCABULARY, HIDDEN, POSITIONS = 150_000, 128, 512


def measure_population(board: Scoreboard, repeats: int) -> None:
    """Memory against users on disk and cohort size; time with dropout."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (Path(folder) / f"{number}.jsonl" for number in (FEW, MANY))
        write_users(few, FEW)
        write_users(many, MANY)

        def apart(name: str, path: Path, **arguments: Any) -> Any:
            """A function of this file in a process of its own."""
            function = f"feddp.simulations.bench.scale:{name}"
            return run_apart(function, path=str(path), cache=folder, **arguments)

        for path in (few, many):
            found = apart("index_of", path)
            board.figure(f"index of {path.stem} users", found)
        peaks = []
        for path, cohort in ((few, COHORT), (many, COHORT), (many, TENTH), (many, LARGE_COHORT)):
            found = apart("rounds_of", path, cohort_size=cohort)
            board.figure(f"a round of {cohort} of {path.stem} users", found)
            peaks.append(found["peak_megabytes"])
        board.figure(f"peak memory at {MANY} users / at {FEW}", peaks[1] / peaks[0])
        board.figure(f"peak memory, cohort {LARGE_COHORT} / {TENTH}", peaks[3] / peaks[2])
        lost = apart("rounds_of", many, num_users=NODES, cohort_size=NODES // 50, dropout=1.0)
        board.figure(
            f"{NODES} one-user nodes, all of the drawn drop out: microseconds per node and round",
            1e6 * lost["cpu_seconds"] / NODES,
        )


def measure_vocabulary(board: Scoreboard, repeats: int) -> None:
    """Compares chunked loss with the library's on full logits, at a vocabulary of 150,000."""
    seconds = race({name: loss_of(name) for name in ("full logits", "chunked")}, repeats=repeats)
    rate = POSITIONS / float(np.median(seconds["chunked"]))
    ratio = paired(seconds, "full logits", "chunked")
    board.measure([Measure("vocabulary 150000", "chunked loss", "full logits", ratio, rate)])
    peaks = {
        name: run_apart("feddp.simulations.bench.scale:peak_of_loss", name=name)
        for name in ("none", "full logits", "chunked")
    }
    board.figure("peak memory in MB, vocabulary 150000", peaks)


def write_users(path: Path, num_users: int) -> None:
    """Writes one short text per user as JSONL."""
    with path.open("w", encoding="utf-8") as file:
        for user in range(num_users):
            row = {"user_id": f"user-{user}", "text": f"Parcel {user} comes on day {user % 28}."}
            file.write(json.dumps(row) + "\n")


def index_of(path: str, cache: str) -> dict[str, float]:
    """Builds the index of a file; seconds and peak memory of this process."""
    started = time.process_time()
    _open(path, cache)
    return {"cpu_seconds": time.process_time() - started, "peak_megabytes": peak_megabytes()}


def rounds_of(
    path: str, cache: str, cohort_size: int, num_users: int | None = None, dropout: float = 0.0
) -> dict[str, float]:
    """Two rounds of a node on the demo's base model over the first users of an indexed file.

    Returns:
      "opening_seconds" of the users, "cpu_seconds" of the second round, and "peak_megabytes".
    """
    torch.set_num_threads(1)
    config = RunConfig()
    config = dataclasses.replace(config, nodes=dataclasses.replace(config.nodes, threads=1))
    base, layout = load_model(config)
    started = time.process_time()
    users = _open(path, cache)
    opening = time.process_time() - started
    if num_users is not None:
        users = UsersView(users, np.arange(num_users))
    node = build_node(config, base, layout, users, UsersView(users, np.arange(1)))
    for round in (1, 2):
        started = time.process_time()
        request = TrainRequest(
            round=round,
            adapter=layout.initial(),
            layout_sha256=layout.sha256,
            draw=Draw(cohort_size / users.num_users),
            clipping_norm=0.1,
            grid_steps=1 << 20,
            bit_steps=0,
            noise_scale=0,
            seed=1,
        )
        node.train(request, dropout=dropout)
        seconds = time.process_time() - started
    return {"opening_seconds": opening, "cpu_seconds": seconds, "peak_megabytes": peak_megabytes()}


def loss_of(name: str, vocabulary: int = VOCABULARY) -> Callable[[], torch.Tensor]:
    """The gradient of a mean cross-entropy for hidden states, in one of two ways."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, HIDDEN, generator=generator)
    head = torch.randn(vocabulary, HIDDEN, generator=generator) / HIDDEN**0.5
    targets = torch.randint(vocabulary, (POSITIONS,), generator=generator)
    weights = torch.full((POSITIONS,), 1 / POSITIONS)

    def run() -> torch.Tensor:
        """Gradient of the hidden states, shape (positions, hidden)."""
        live = hidden.clone().requires_grad_()
        if name == "chunked":
            loss = LinearCrossEntropy.apply(live, head, None, targets, weights, None)  # type: ignore[no-untyped-call]
        else:
            loss = functional.cross_entropy(live @ head.T, targets)
        return torch.autograd.grad(loss, live)[0]

    return run


def peak_of_loss(name: str) -> float:
    """Peak memory in MB of a process that runs one of the losses; "none" only makes the inputs."""
    torch.set_num_threads(1)
    run = loss_of(name)
    if name != "none":
        run()
    return peak_megabytes()


def _open(path: str, cache: str) -> Users:
    return open_users(path, columns=Columns(text="text"), cache_path=Path(cache))
