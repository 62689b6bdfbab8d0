"""Turns a cohort's sum into a released round: charge, noise, step, checkpoint, release."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feddp.common.disk import Disk
from feddp.common.privacy.ledger.history import Charge
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import charge_and_release, read_released
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian, NoisedRow
from feddp.common.privacy.mechanism.encoding import Encoding
from feddp.common.privacy.mechanism.gaussian import NoisedSum, ReleasedUpdate
from feddp.common.privacy.mechanism.noise import BitStream, fresh_key, seeded_key
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.server.checkpoint import Checkpoint, Checkpoints, RoundState
from feddp.server.nodes import Nodes
from feddp.server.noise_segment import Segment
from feddp.server.optimizer import ServerOptimizer


@dataclass(frozen=True)
class Training:
    """The parts of one run that do not change over its rounds.

    Attributes:
      encoding: of the updates; the same as the nodes'.
      max_units_per_node: most units in a single reply; public.
      segment: the correlated noise of the run; None if rounds are noised independently.
    """

    plan: PrivacyPlan
    encoding: Encoding
    max_units_per_node: int
    segment: Segment | None
    layout_sha256: str
    ledger: Ledger
    nodes: Nodes
    optimizer: ServerOptimizer
    checkpoints: Checkpoints
    evaluate_every: int
    disk: Disk


def release(training: Training, state: RoundState, total: UpdateSum | NoisedSum) -> RoundState:
    """Charges, then noises, steps, and makes the result durable before anyone sees it.

    Raises:
      DiskError: too little space, with nothing charged; or see `charge_and_release`.
    """
    disk, checkpoints = training.disk, training.checkpoints

    def draw_and_step(charge: Charge) -> Checkpoint:
        """The state after the round, drawn after its charge."""
        released, row = draw(training, charge, total, state.clipping_norm)
        decoded = training.encoding.decode(released)
        adapter, moments = training.optimizer.step(state.adapter, decoded, state.moments)
        after = RoundState(charge.round, adapter, moments, released.next_clipping_norm)
        return Checkpoint(after, charge.attempt, training.plan.sha256, row)

    num_arrays = 1 + 2 * len(state.moments)
    checkpoints.check_free_space(2 * num_arrays * state.adapter.nbytes, disk)
    checkpoint = charge_and_release(training.ledger, checkpoints, disk, draw_and_step)
    if training.segment is not None and checkpoint.row is not None:
        training.segment.append(checkpoint.row)  # later rounds need every row
    else:
        checkpoints.prune(disk, last_round=checkpoint.state.round)
    return checkpoint.state


def draw(
    training: Training, charge: Charge, total: UpdateSum | NoisedSum, clipping_norm: float
) -> tuple[ReleasedUpdate, NoisedRow | None]:
    """(released update, row): the sum with the round's noise; a row only if it is correlated."""
    plan, mechanism = training.plan, training.plan.mechanism
    if isinstance(mechanism, CorrelatedGaussian):
        assert training.segment is not None  # made with the plan
        assert isinstance(total, UpdateSum)  # the plan refuses correlated noise from nodes
        return training.segment.release(total, charge)
    if isinstance(total, UpdateSum):
        context = f"{training.ledger.head}/{charge.round}/{charge.attempt}".encode()
        key = (
            fresh_key(context, total) if plan.seed is None else seeded_key(plan.seed, charge.round)
        )
        total = mechanism.add_noise(total, bits=BitStream(key))
    return mechanism.to_update(total, clipping_norm=clipping_norm), None


def resume_state(training: Training, initial: NDArray[np.float32]) -> RoundState:
    """The state after the ledger's last release, or the start. Call `Checkpoints.recover` first.

    Raises:
      LedgerDamagedError: a released checkpoint is missing or is not the recorded one.
    """
    last = training.ledger.last_release
    if last is None:
        moments = training.optimizer.initial_moments(len(initial))
        return RoundState(0, initial, moments, training.plan.clipping_norm)
    return read_released(training.checkpoints, last).state
