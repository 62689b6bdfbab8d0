import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from flower_grid import InProcessGrid
from flwr.app import Context, Message, RecordDict
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
from feddp.server.nodes import FlowerNodes, exchange

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


Push = Callable[[list[str]], list[str | None]]


class OddGrid(InProcessGrid):
    """Flower's answers to a push that it refuses: fewer ids, or None among them."""

    odd: Push = staticmethod(lambda ids: list(ids))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.odd(list(super().push_messages(messages)))  # type: ignore[return-value]


def outcomes(odd: Push, fault: Callable[[Message], str | None]) -> dict[int, str]:
    app = ClientApp()

    @app.train("round")
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    grid = OddGrid(app, [{}] * 3, {}, fault=fault)
    grid.odd = odd
    messages = [
        Message(RecordDict(), node, "train.round", group_id="1") for node in grid.get_node_ids()
    ]
    answers = list(exchange(grid, messages, deadline_seconds=0.3))
    assert len(answers) == 3
    return {i: answer if isinstance(answer, str) else "ok" for i, answer in answers}


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        (lambda ids: ids, {0: "ok", 1: "ok", 2: "ok"}),
        (lambda ids: [], {0: "not-sent", 1: "not-sent", 2: "not-sent"}),
        (lambda ids: [ids[0], None, ids[2]], {0: "ok", 1: "not-sent", 2: "ok"}),
        (lambda ids: ids[:1], {0: "ok", 1: "not-sent", 2: "not-sent"}),
    ],
)
def test_every_message_is_told_of_once_whatever_the_push_says(
    odd: Push, expected: dict[int, str]
) -> None:
    assert outcomes(odd, lambda _: None) == expected


def test_late_and_failing_nodes_are_told_apart() -> None:
    faults = {1000: "drop", 1001: "error"}
    found = outcomes(lambda ids: list(ids), lambda m: faults.get(m.metadata.dst_node_id))
    assert found == {0: "late", 1: "error", 2: "ok"}


def test_nothing_is_sent_where_nobody_is_asked() -> None:
    grid = InProcessGrid(ClientApp(), [{}], {})
    assert list(exchange(grid, [], deadline_seconds=9.0)) == []
