"""A Flower grid in one process: the real apps, messages and serialisation, without Ray or sockets.

The only file of the tests with non-public flwr names: there is no public way to make a run.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Fault = Callable[[Message], str | None]


def _name(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def _copy(message: Message) -> Message:
    copied = message_from_proto(message_to_proto(message))
    _name(copied, message.metadata.message_id)
    return copied


class InProcessGrid(Grid):
    """Asks `client_app` at once. `fault(message)` is None, "drop" or "error"."""

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[dict[str, Any]],
        run_config: dict[str, Any],
        *,
        fault: Fault = lambda _message: None,
    ):
        self._run, self._app, self._fault = Run.create_empty(1), client_app, fault
        self._replies: dict[str, Message] = {}
        self._count = itertools.count()
        TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._contexts = {
            1000 + i: Context(1, 1000 + i, dict(config), RecordDict(), dict(run_config))
            for i, config in enumerate(node_configs)
        }
        self.server_context = Context(1, SUPERLINK_NODE_ID, {}, RecordDict(), dict(run_config))

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise AssertionError("not used")

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = f"m{next(self._count)}"
            _name(message, message_id)
            ids.append(message_id)
            fault = self._fault(message)
            if fault == "drop":
                continue
            if fault == "error":
                reply = Message(Error(2, "injected"), reply_to=message)
            else:
                sent = _copy(message)
                reply = self._app(sent, self._contexts[message.metadata.dst_node_id])
            _name(reply, f"r{message_id}")
            self._replies[message_id] = _copy(reply)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))
