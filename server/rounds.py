"""The round loop: collect, charge, noise, step, checkpoint, release, publish."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from feddp.common.evaluation import Evaluation, add_evaluations
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import EvaluateRequest, TrainRequest
from feddp.server.aggregation import MAX_SUM, add_noised_replies, add_replies
from feddp.server.checkpoint import RoundState
from feddp.server.release import Training, release


@dataclass(frozen=True)
class RoundReport:
    """What is published about a round: public values only.

    Attributes:
      round: 0 is the base.
      seconds: wall time of the round, for the operator.
      evaluation: of the declared evaluation users; None if this round does not evaluate.
    """

    round: int
    seconds: float
    evaluation: Evaluation | None


def run_rounds(
    training: Training,
    state: RoundState,
    *,
    on_round: Callable[[RoundReport], None],
    is_stopped: Callable[[], bool],
) -> RoundState:
    """Runs the planned rounds that are not released; returns the state after the last one.

    **Guarantee:** a round's noise is drawn only after its charge is durable, and its result leaves
    this function only after its checkpoint and its release row are. A stop before the charge costs
    nothing; after the charge, the round is finished first.

    Args:
      state: from `resume_state`.
      on_round: called with the report of each released round.
      is_stopped: asked before a round starts and again before it is charged.
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
    """Asks the nodes for one round's sum: sensitive unless the nodes have added the noise."""
    plan, mechanism = training.plan, training.plan.mechanism
    request = TrainRequest(
        round=training.ledger.next_round,
        adapter=state.adapter,
        layout_sha256=training.layout_sha256,
        draw=plan.draw,
        clipping_norm=state.clipping_norm,
        grid_steps=plan.noise.grid_steps,
        bit_steps=plan.bit_steps,
        noise_scale=mechanism.noise_scale if plan.trust.is_noised_by_nodes else 0,
        seed=plan.seed,
        head=training.ledger.claim(),
        num_encoded=training.encoding.dimension,
    )
    replies = training.nodes.train(request)
    if request.noise_scale:
        return add_noised_replies(replies, request)
    return add_replies(
        replies,
        request,
        num_units=plan.population.num_units,
        max_units_per_node=training.max_units_per_node,
        max_sum=mechanism.max_sum if isinstance(mechanism, CorrelatedGaussian) else MAX_SUM,
    )


def is_due(training: Training, round: int) -> bool:
    """Whether to evaluate after this round; 0 is the base."""
    return round % training.evaluate_every == 0 or round == training.plan.num_rounds


def evaluate(training: Training, state: RoundState) -> Evaluation | None:
    """The adapter's loss on the declared evaluation users; None if there are none."""
    request = EvaluateRequest(adapter=state.adapter, layout_sha256=training.layout_sha256)
    return add_evaluations(training.nodes.evaluate(request))
