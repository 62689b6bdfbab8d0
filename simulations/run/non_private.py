"""Training without privacy, to compare a private run with. Never a release."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feddp.client.node import Node
from feddp.common.evaluation import Evaluation, add_evaluations
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import EvaluateRequest, TrainRequest
from feddp.server.optimizer import ServerOptimizer
from feddp.simulations.run.progress import never


def train_without_privacy(
    node: Node,
    layout: AdapterLayout,
    *,
    num_rounds: int,
    sampling_probability: float,
    optimizer: ServerOptimizer,
    seed: int | None,
    is_stopped: Callable[[], bool] = never,
) -> tuple[NDArray[np.float32], Evaluation | None]:
    """The same rounds, cohorts, local work and server optimizer, without clip and noise.

    Updates are averaged over the realised cohort and not bounded, so the result is not private: it
    must not be published beside a private run on the same users.

    Returns:
      The final adapter, float32 (P,), and its evaluation.
    """
    adapter, moments = layout.initial(), optimizer.initial_moments(layout.dimension)
    for number in range(1, num_rounds + 1):
        if is_stopped():
            break
        request = TrainRequest(
            round=number,
            adapter=adapter,
            layout_sha256=layout.sha256,
            draw=Draw(probability=sampling_probability),
            clipping_norm=float("inf"),
            grid_steps=1,
            bit_steps=0,
            noise_scale=0,
            seed=seed,
        )
        adapter, moments = optimizer.descend(adapter, _mean_update(node, request), moments)
    reply = node.evaluate(EvaluateRequest(adapter=adapter, layout_sha256=layout.sha256))
    return adapter, add_evaluations([reply])


def _mean_update(node: Node, request: TrainRequest) -> NDArray[np.float64]:
    total, num_updates = np.zeros(len(request.adapter)), 0

    def add(_: int, update: NDArray[np.float32]) -> None:
        """Adds an update, unless it is not finite."""
        nonlocal total, num_updates
        if np.isfinite(update).all():
            total += update
            num_updates += 1

    node.train_locally(request, sink=add)
    return total / max(num_updates, 1)
