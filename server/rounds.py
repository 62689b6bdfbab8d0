"""The round loop: collect, charge, noise, step, checkpoint, release, publish."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feddp.common.disk import Disk
from feddp.common.privacy.ledger.history import Charge
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian, NoisedRow
from feddp.common.privacy.mechanism.gaussian import NoisedSum, ReleasedUpdate
from feddp.common.privacy.mechanism.noise import BitStream, fresh_key, seeded_key
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.wire.messages import EvaluateRequest, TrainRequest
from feddp.server.aggregation import (
    MAX_SUM,
    Evaluation,
    add_evaluations,
    add_noised_replies,
    add_replies,
)
from feddp.server.checkpoint import (
    Checkpoint,
    check_free_space,
    prune,
    read_released,
    write_checkpoint,
)
from feddp.server.nodes import Nodes
from feddp.server.noise_segment import Segment
from feddp.server.optimizer import Moments, ServerOptimizer


@dataclass(frozen=True)
class RoundState:
    """Where training stands after a release; all of it is public.

    Attributes:
      round: the last released round; 0 is the base model.
      adapter: float32, shape (P,).
      moments: of the server optimizer, float64, shape (P,) each.
      clipping_norm: C of the next round.
    """

    round: int
    adapter: NDArray[np.float32]
    moments: Moments
    clipping_norm: float


@dataclass(frozen=True)
class RoundReport:
    """What may be told about a round: public values only.

    Attributes:
      round: 0 is the base.
      seconds: wall time of the round, for the operator.
      evaluation: of the declared evaluation users, where this round evaluates.
    """

    round: int
    seconds: float
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Training:
    """The parts of one run that do not change over its rounds.

    Attributes:
      max_units_per_node: what a single reply may hold at most; public.
      segment: the correlated noise of the run; None where rounds are noised independently.
    """

    plan: PrivacyPlan
    max_units_per_node: int
    segment: Segment | None
    layout_sha256: str
    ledger: Ledger
    nodes: Nodes
    optimizer: ServerOptimizer
    checkpoints_path: Path
    evaluate_every: int
    disk: Disk


def run_rounds(
    training: Training,
    state: RoundState,
    *,
    on_round: Callable[[RoundReport], None],
    is_stopped: Callable[[], bool],
) -> RoundState:
    """Runs the planned rounds that the ledger has not seen released.

    **Guarantee:** a round's noise is drawn only after its charge is durable, and its result leaves
    this function only after its checkpoint and its release row are. A stop before the charge costs
    nothing; after it, the round is finished first.

    Args:
      training: the fixed parts.
      state: `resume_state`'s answer.
      on_round: called with the report of each released round.
      is_stopped: asked before a round starts and again before it is charged.

    Returns:
      The state after the last released round.
    """
    while not is_stopped() and training.ledger.next_round <= training.plan.num_rounds:
        started = time.monotonic()
        total = collect(training, state)
        if is_stopped():
            break
        state = release(training, state, total)
        evaluation = evaluate(training, state) if is_due(training, state.round) else None
        on_round(RoundReport(state.round, time.monotonic() - started, evaluation))
    return state


def collect(training: Training, state: RoundState) -> UpdateSum | NoisedSum:
    """Asks the nodes for one round's update sum: sensitive, in memory only, unless the nodes have
    added the noise."""
    plan, mechanism = training.plan, training.plan.mechanism
    request = TrainRequest(
        round=training.ledger.next_round,
        adapter=state.adapter,
        layout_sha256=training.layout_sha256,
        draw=plan.draw,
        clipping_norm=state.clipping_norm,
        grid_steps=plan.grid_steps,
        bit_steps=plan.bit_steps,
        noise_scale=mechanism.noise_scale if plan.is_noised_by_nodes else 0,
        seed=plan.seed,
        head=training.ledger.claim(),
    )
    replies = training.nodes.train(request)
    if request.noise_scale:
        return add_noised_replies(replies, request)
    return add_replies(
        replies,
        request,
        num_units=plan.num_units,
        max_units_per_node=training.max_units_per_node,
        max_sum=mechanism.max_sum if isinstance(mechanism, CorrelatedGaussian) else MAX_SUM,
    )


def release(training: Training, state: RoundState, total: UpdateSum | NoisedSum) -> RoundState:
    """Charges, then noises, steps, and makes the result durable before anyone sees it."""
    plan, ledger, disk = training.plan, training.ledger, training.disk
    number = ledger.next_round
    num_arrays = 1 + 2 * len(state.moments)
    check_free_space(training.checkpoints_path, 2 * num_arrays * state.adapter.nbytes, disk)
    charge = ledger.charge(number)  # charged, then drawn
    released, row = draw(training, charge, total, state.clipping_norm)
    adapter, moments = training.optimizer.step(state.adapter, released, state.moments)
    norm = released.next_clipping_norm
    checkpoint = Checkpoint(number, charge.attempt, plan.sha256, adapter, moments, norm, row)
    digest = write_checkpoint(training.checkpoints_path, checkpoint, disk)
    ledger.release(charge, digest, next_clipping_norm=repr(norm))  # durable, then published
    if training.segment is not None and row is not None:
        training.segment.append(row)  # all rows are kept: later rounds are noised with them
    else:
        prune(training.checkpoints_path, disk, last_round=number)
    return RoundState(number, adapter, moments, norm)


def draw(
    training: Training, charge: Charge, total: UpdateSum | NoisedSum, clipping_norm: float
) -> tuple[ReleasedUpdate, NoisedRow | None]:
    """The round's noise, and what is released; a row where the noise is correlated."""
    plan, mechanism = training.plan, training.plan.mechanism
    if isinstance(mechanism, CorrelatedGaussian):
        assert training.segment is not None  # made with the plan
        assert isinstance(total, UpdateSum)  # the plan refuses correlated noise of nodes
        return training.segment.release(total, charge)
    if isinstance(total, UpdateSum):
        context = f"{training.ledger.head}/{charge.round}/{charge.attempt}".encode()
        key = (
            fresh_key(context, total) if plan.seed is None else seeded_key(plan.seed, charge.round)
        )
        total = mechanism.add_noise(total, bits=BitStream(key))
    return mechanism.to_update(total, clipping_norm=clipping_norm), None


def is_due(training: Training, round: int) -> bool:
    """Whether the evaluation users are looked at after this round; 0 is the base."""
    return round % training.evaluate_every == 0 or round == training.plan.num_rounds


def evaluate(training: Training, state: RoundState) -> Evaluation | None:
    """The adapter's loss on the declared evaluation users; None when there are none."""
    request = EvaluateRequest(adapter=state.adapter, layout_sha256=training.layout_sha256)
    return add_evaluations(training.nodes.evaluate(request))


def resume_state(training: Training, initial: NDArray[np.float32]) -> RoundState:
    """The state after the ledger's last release, or the start. Call `recover` first.

    Raises:
      LedgerDamagedError: a released checkpoint is missing or is not the recorded one.
    """
    last = training.ledger.last_release
    if last is None:
        moments = training.optimizer.initial_moments(len(initial))
        return RoundState(0, initial, moments, training.plan.clipping_norm)
    checkpoint = read_released(training.checkpoints_path, last)
    return RoundState(
        checkpoint.round, checkpoint.adapter, checkpoint.moments, checkpoint.clipping_norm
    )
