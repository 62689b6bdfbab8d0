"""Several processes against one, and a worker that is lost."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from feddp.client.assembly import build_part
from feddp.client.node import Node
from feddp.client.sharding import ShardedNode, WorkerLostError, part_of
from feddp.common.assembly import Part, load_model
from feddp.common.config.run_config import from_flat
from feddp.common.errors import ModelError
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import EvaluateRequest, TrainRequest

CONFIG = from_flat({"nodes.workers": 2, "evaluation.max-users": 3})


def test_shares_are_disjoint_and_make_up_the_part() -> None:
    keys = np.arange(1000)
    for part in (Part(), Part(1, 3)):
        own = keys[keys % part.num_parts == part.index]
        shares = [part_of(part, rank, 4) for rank in range(4)]
        found = [keys[keys % share.num_parts == share.index] for share in shares]
        assert np.array_equal(np.sort(np.concatenate(found)), own)


def test_two_processes_give_the_bytes_of_one_and_a_lost_worker_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = build_part(replace(CONFIG, nodes=replace(CONFIG.nodes, workers=1)), Part())
    with monkeypatch.context() as loading:
        loaded = load_model(CONFIG)
        loading.delattr("feddp.client.assembly.load_model")
        sharded = build_part(CONFIG, Part(), loaded=loaded)
    assert isinstance(node, Node)
    assert isinstance(sharded, ShardedNode)
    start, layout_sha256 = load_model(CONFIG)[1].start, node._layout_sha256

    def ask(number: int) -> TrainRequest:
        return TrainRequest(number, start, layout_sha256, Draw(0.002), 0.5, 1 << 20, 0, 0, 4)

    try:
        first = node.train(ask(1)).total
        assert first.total.any()
        assert sharded.train(ask(1)).total == first
        sharded._workers[0].process.kill()
        with pytest.raises(WorkerLostError, match="failed"):
            sharded.train(ask(2))
        assert sharded.train(ask(2), dropout=0.2).total == node.train(ask(2), dropout=0.2).total
        asked = EvaluateRequest(start, layout_sha256)
        one, two = node.evaluate(asked), sharded.evaluate(asked)
        assert (one.num_targets, one.num_correct) == (two.num_targets, two.num_correct)
        np.testing.assert_allclose(two.loss_sum, one.loss_sum, rtol=1e-6)
        with pytest.raises(ValueError, match="another layout"):
            sharded.train(replace(ask(3), layout_sha256="0" * 64))
        assert sharded._workers == []
    finally:
        sharded.close()


def test_a_node_whose_model_cannot_be_built_says_so_and_leaves_no_process() -> None:
    config = from_flat({"nodes.workers": 2, "adapter.target-modules": "no_such_module"})
    before = set(multiprocessing.active_children())
    with pytest.raises(ModelError, match="no such module"):
        build_part(config, Part())
    assert set(multiprocessing.active_children()) == before
