from collections.abc import Callable, Iterable

import pytest
from flower_grid import InProcessGrid
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from feddp.server.exchange import exchange

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
