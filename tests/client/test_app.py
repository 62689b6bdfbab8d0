"""The client app of a SuperNode that names a ledger of its own in its node config."""

import logging
from pathlib import Path

import numpy as np
import pytest
from flower_grid import InProcessGrid
from flwr.app import Message, RecordDict

from feddp.client.app import _until_exit, app
from feddp.common.assembly import load_model, plan_from_config
from feddp.common.config.run_config import from_flat, to_flat
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row
from feddp.common.wire.messages import TrainRequest, decode_train_reply, encode_train_request

OWN = {
    "run.name": "ward",
    "run.rounds": 2,
    "privacy.trust": "node",
    "privacy.noise-multiplier": 2.0,
    "sampling.expected-cohort-size": 20.0,
}


def test_a_node_with_a_ledger_answers_its_owners_plan_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = from_flat(OWN)
    base, layout = load_model(config)
    plan = plan_from_config(config, trust="node", base=base, layout=layout)
    path = tmp_path / "own.sqlite"
    own = {"ledger": str(path), "partition-id": 0, "num-partitions": 400}

    def ask(noise_scale: int, **changes: object) -> Message:
        draw, steps = plan.draw, plan.noise.grid_steps
        request = TrainRequest(
            1, layout.start, layout.sha256, draw, plan.clipping_norm, steps, 0, noise_scale, None
        )
        grid = InProcessGrid(app, [own], to_flat(from_flat({**OWN, **changes})))
        message = Message(encode_train_request(request), 1000, "train.round", ttl=60)
        (reply,) = grid.send_and_receive([message])
        return reply

    with caplog.at_level(logging.WARNING, logger="feddp.node"):
        assert ask(plan.mechanism.noise_scale).has_error()
        assert "refused: ledger-missing" in caplog.text
        Ledger.create(path, plan_row(plan, "ward"))
        weaker = {"privacy.trust": "server", "privacy.noise-multiplier": 1.0}
        assert ask(0, **weaker).has_error()  # the run's configuration does not decide
        assert "PlanDiffersError" in caplog.text
        replies = [ask(plan.mechanism.noise_scale) for _ in range(2)]
        assert ask(0).has_error()
        assert "refused: another-plan" in caplog.text
    sums = [
        decode_train_reply(reply.content, dimension=layout.dimension, is_noised=True).total.total
        for reply in replies
    ]
    assert np.std(sums[0]) > 0.9 * plan.mechanism.noise_scale
    np.testing.assert_array_equal(*sums)
    _until_exit.close()
    assert len(Ledger.read(path).charges) == 1


def test_a_node_with_more_users_than_it_is_registered_for_refuses_without_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = from_flat({"nodes.users-per-node": 1})
    grid = InProcessGrid(app, [{"partition-id": 0, "num-partitions": 20}], to_flat(config))
    with caplog.at_level(logging.WARNING, logger="feddp.node"):
        message = Message(RecordDict(), 1000, "train.round", ttl=60)
        (reply,) = grid.send_and_receive([message])
    assert reply.error.reason == "refused"
    assert [record.getMessage() for record in caplog.records] == ["train: refused: too-many-users"]
