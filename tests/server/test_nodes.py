import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flower_grid import InProcessGrid
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from feddp.common.evaluation import Evaluation
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import (
    EvaluateRequest,
    TrainReply,
    TrainRequest,
    decode_train_request,
    encode_evaluate_reply,
    encode_train_reply,
)
from feddp.server.cohort_draw import ServerDraw
from feddp.server.metrics import Metrics
from feddp.server.nodes import FlowerNodes

P = 4
REQUEST = TrainRequest(1, np.zeros(P, np.float32), "ab", Draw(0.5), 1.0, 1 << 20, 0, 0, None)
Fault = Callable[[Message], str | None]


def nodes_of(
    num_nodes: int, *, dimension: int = P, fault: Fault = lambda _message: None
) -> FlowerNodes:
    app = ClientApp()

    @app.train("round")
    def train(message: Message, context: Context) -> Message:
        request = decode_train_request(message.content, dimension=P)
        total = UpdateSum.zeros(dimension)
        total.add(np.full(dimension, int(context.node_config["value"]), np.int64))
        reply = TrainReply(request.round, request.layout_sha256, total)
        return Message(encode_train_reply(reply), reply_to=message)

    @app.evaluate("users")
    def evaluate(message: Message, context: Context) -> Message:
        answer = Evaluation(1.0, int(context.node_config["value"]), 0)
        return Message(encode_evaluate_reply(answer), reply_to=message)

    grid = InProcessGrid(app, [{"value": i + 1} for i in range(num_nodes)], {}, fault=fault)
    nodes = FlowerNodes(grid, P, deadline_seconds=0.3)
    nodes.wait_for_nodes(num_nodes)
    return nodes


def is_node(number: int) -> Callable[[Message], bool]:
    return lambda message: message.metadata.dst_node_id == 1000 + number


def values(replies: list[TrainReply]) -> list[int]:
    return [int(reply.total.total[0]) for reply in replies]


def test_only_the_drawn_nodes_are_asked_and_the_offline_answer_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def watch(message: Message) -> str | None:
        asked.append(message.metadata.dst_node_id)
        return "drop" if message.metadata.dst_node_id == 1000 else None

    nodes = nodes_of(6, fault=watch)
    nodes.server_draw = ServerDraw(tmp_path / "p", separation=1, has_begun=False)
    nodes.wait_for_nodes(6)
    request = dataclasses.replace(REQUEST, seed=1)
    drawn, _ = nodes.server_draw.draw(request)
    assert 0 < len(drawn) < 6
    counted = values(nodes.train(request))
    assert [str(node) for node in asked] == drawn
    assert counted == [int(name) - 999 for name in drawn if name != "1000"]


def test_every_node_answers_in_the_order_of_the_nodes() -> None:
    assert values(nodes_of(3).train(REQUEST)) == [1, 2, 3]


def test_a_late_or_failing_node_is_left_out_and_the_others_count() -> None:
    for fault in ("drop", "error"):
        nodes = nodes_of(3, fault=lambda m, f=fault: f if is_node(1)(m) else None)
        assert values(nodes.train(REQUEST)) == [1, 3]


def test_a_reply_of_another_size_counts_as_missing() -> None:
    nodes = nodes_of(2, dimension=P + 1)
    assert nodes.train(REQUEST) == []
    assert dict(nodes.reasons) == {"malformed": 2}


def test_an_operator_is_told_what_counted_as_zero(tmp_path: Path) -> None:
    nodes = nodes_of(3, fault=lambda m: "error" if is_node(1)(m) else None)
    metrics = Metrics("run", 8.0, tmp_path, is_operator=True)
    nodes.train(REQUEST)
    nodes.measure(metrics)
    sample = metrics.registry.get_sample_value
    assert sample("feddp_replies_invalid_total", {"run": "run", "reason": "error"}) == 1
    assert sample("feddp_nodes_online", {"run": "run"}) == 3


def test_evaluations_come_from_every_node() -> None:
    request = EvaluateRequest(np.zeros(P, np.float32), "ab")
    assert [reply.num_targets for reply in nodes_of(3).evaluate(request)] == [1, 2, 3]
