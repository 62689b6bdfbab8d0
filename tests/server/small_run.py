"""A run of three rounds over integers: the real plan, ledger, checkpoints and loop, no model."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from small_ledger import DIMENSION, LAYOUT_SHA256

from feddp.common.disk import Disk, disk_errors
from feddp.common.evaluation import Evaluation
from feddp.common.privacy.ledger.history import Charge
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.encoding import Identity
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest
from feddp.server.checkpoint import Checkpoint, Checkpoints, RoundState
from feddp.server.optimizer import ServerOptimizer
from feddp.server.release import Training, resume_state
from feddp.server.rounds import RoundReport, evaluate, run_rounds

INITIAL = np.linspace(-1, 1, DIMENSION, dtype=np.float32)
Log = Callable[..., None]


def no_log(*words: object) -> None:
    """For runs whose output nobody compares."""


def array_sha256(values: NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes, hex."""
    return hashlib.sha256(values.tobytes()).hexdigest()


@dataclass
class IntegerNodes:
    """Nodes whose sums depend on round and adapter alone; they log every adapter that they see.

    Attributes:
      log: told ("request", round, digest) and ("evaluated", digest).
      change: what becomes of the honest replies of a round before they are returned.
    """

    log: Log = no_log
    change: Callable[[TrainRequest, list[TrainReply]], Sequence[TrainReply]] = field(
        default=lambda request, replies: replies
    )

    def train(self, request: TrainRequest) -> Sequence[TrainReply]:
        """Two nodes, whose update sums stay within N K together."""
        self.log("request", request.round, array_sha256(request.adapter))
        replies = []
        for node in (0, 1):
            digest = hashlib.sha256(f"{node}/{request.round}".encode() + request.adapter.tobytes())
            rng = np.random.default_rng(int.from_bytes(digest.digest()[:8], "big"))
            total = UpdateSum.zeros(request.sum_dimension)
            steps = request.grid_steps
            total.add(rng.integers(-steps, steps, request.sum_dimension))
            replies.append(TrainReply(request.round, request.layout_sha256, total))
        return self.change(request, replies)

    def evaluate(self, request: EvaluateRequest) -> Sequence[Evaluation]:
        """One evaluation user, whose loss is the sum of squares."""
        self.log("evaluated", array_sha256(request.adapter))
        return [Evaluation(float((request.adapter.astype(np.float64) ** 2).sum()), 1, 0)]


def create(folder: Path, plan: PrivacyPlan) -> Path:
    """An empty run folder."""
    (folder / "checkpoints").mkdir(parents=True)
    Ledger.create(folder / "ledger.sqlite", plan_row(plan))
    return folder


def training_of(
    folder: Path, plan: PrivacyPlan, ledger: Ledger, nodes: IntegerNodes, disk: Disk
) -> Training:
    """The parts of a run."""
    return Training(
        plan=plan,
        encoding=Identity(DIMENSION),
        max_units_per_node=plan.population.num_units,
        segment=None,
        layout_sha256=LAYOUT_SHA256,
        ledger=ledger,
        nodes=nodes,
        optimizer=ServerOptimizer("fedadam", 0.1, 0.9, 0.99, 1e-5),
        checkpoints=Checkpoints(folder / "checkpoints", plan.sha256),
        evaluate_every=1,
        disk=disk,
    )


def recover(ledger: Ledger, checkpoints: Checkpoints, disk: Disk) -> None:
    """What a life begins with; mutants put another in its place."""
    checkpoints.recover(ledger, disk)


def write_checkpoint(folder: Path, checkpoint: Checkpoint, disk: Disk) -> str:
    """The file of a checkpoint, as a release leaves it; its SHA-256, hex."""
    checkpoints = Checkpoints(folder, checkpoint.plan_sha256)
    path = checkpoint_path(folder, checkpoint.state.round, checkpoint.attempt)
    content = checkpoints.to_bytes(checkpoint)
    with disk_errors(path):
        disk.replace(path, content)
    return hashlib.sha256(content).hexdigest()


def checkpoint_path(folder: Path, round: int, attempt: int) -> Path:
    """Where the checkpoint of one charge lies."""
    return Checkpoints(folder, "").path(Charge(round, attempt))


def live(
    folder: Path,
    plan: PrivacyPlan,
    *,
    nodes: IntegerNodes | None = None,
    disk: Disk | None = None,
    on_round: Callable[[RoundReport], None] = lambda report: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> RoundState:
    """One life of the server process: opens, recovers, resumes, publishes, runs to the end."""
    disk, nodes = disk or Disk(), nodes or IntegerNodes()
    path = folder / "ledger.sqlite"
    with Ledger.open(path, disk=disk) as ledger:
        ledger.open_run(start_of("small", plan))
        training = training_of(folder, plan, ledger, nodes, disk)
        recover(ledger, training.checkpoints, disk)
        state = resume_state(training, INITIAL)
        on_round(RoundReport(state.round, 0.0, evaluate(training, state)))
        return run_rounds(training, state, on_round=on_round, is_stopped=is_stopped)
