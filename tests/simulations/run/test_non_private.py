"""Training without privacy: the plain mean of the same cohort's updates."""

import numpy as np
import pytest
from numpy.typing import NDArray

from feddp.client.assembly import build_node
from feddp.client.node import Node
from feddp.common.assembly import load_model, load_users
from feddp.common.config.run_config import RunConfig
from feddp.common.data.users import UsersView
from feddp.common.evaluation import add_evaluations
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import EvaluateRequest, TrainRequest
from feddp.server.optimizer import ServerOptimizer
from feddp.simulations.run.non_private import train_without_privacy

SEED = 7


@pytest.fixture(scope="module")
def made() -> tuple[Node, AdapterLayout]:
    config = RunConfig()
    users, _ = load_users(config)
    base, layout = load_model(config)
    training, evaluation = UsersView(users, np.arange(3)), UsersView(users, np.arange(3, 5))
    return build_node(config, base, layout, training, evaluation), layout


def trained(node: Node, layout: AdapterLayout, *, is_stopped: bool) -> NDArray[np.float32]:
    adapter, evaluation = train_without_privacy(
        node,
        layout,
        num_rounds=1,
        sampling_probability=1.0,
        optimizer=ServerOptimizer("fedavg", 1.0, 0.0, 0.99, 1e-5),
        seed=SEED,
        is_stopped=lambda: is_stopped,
    )
    expected = add_evaluations([node.evaluate(EvaluateRequest(adapter, layout.sha256))])
    assert evaluation == expected
    return adapter


def test_a_round_adds_the_mean_of_the_updates_unclipped_and_without_noise(
    made: tuple[Node, AdapterLayout],
) -> None:
    node, layout = made
    start = layout.initial()
    request = TrainRequest(1, start, layout.sha256, Draw(1.0), 0.5, 1 << 20, 0, 0, SEED)
    updates: list[NDArray[np.float32]] = []
    node.train_locally(request, sink=lambda _, update: updates.append(update.copy()))
    assert len(updates) == 3
    change = trained(node, layout, is_stopped=False) - start
    assert np.linalg.norm(change) > 0
    np.testing.assert_allclose(change, np.mean(updates, axis=0), rtol=1e-4, atol=1e-7)


def test_a_stopped_training_keeps_what_it_has(made: tuple[Node, AdapterLayout]) -> None:
    node, layout = made
    assert np.array_equal(trained(node, layout, is_stopped=True), layout.initial())
