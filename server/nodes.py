"""The Nodes protocol, for asking the machines that hold users, and its Flower implementation."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from feddp.common.evaluation import Evaluation
from feddp.common.wire import messages
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest
from feddp.common.wire.records import MessageError
from feddp.server.cohort_draw import ServerDraw
from feddp.server.metrics import Metrics

MALFORMED = "malformed"
POLL_SECONDS = 0.2
LATE, NOT_SENT, ERROR = "late", "not-sent", "error"
MESSAGE_TYPES = {"train": "train.round", "evaluate": "evaluate.users"}
DELIVERY_SECONDS = 5.0  # a question outlives the wait for its answer by this much
Reply = TypeVar("Reply")


class Nodes(Protocol):
    """The machines that hold users. Late, missing or malformed replies are left out."""

    def train(self, request: TrainRequest) -> Sequence[TrainReply]:
        """One update sum per node that answered."""
        ...

    def evaluate(self, request: EvaluateRequest) -> Sequence[Evaluation]:
        """Sums over each node's declared evaluation users."""
        ...


@dataclass
class FlowerNodes:
    """Nodes behind a Flower grid: a Ray simulation or a fleet of SuperNodes.

    Attributes:
      dimension: P, of every adapter and sum.
      deadline_seconds: longest wait of one request; later replies count as zero.
      node_ids: the nodes of this run, fixed by `wait_for_nodes` before round 1.
      server_draw: draws the nodes, by id, if each has one user; None: nodes draw their own users.
      reasons: how often an answer counted as zero, by a fixed reason; for the operator alone.
    """

    grid: Grid
    dimension: int
    deadline_seconds: float
    node_ids: list[int] = field(default_factory=list)
    server_draw: ServerDraw | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    def wait_for_nodes(self, minimum: int) -> None:
        """Blocks until `minimum` nodes are online, and fixes them as the nodes of this run."""
        while len(node_ids := sorted(self.grid.get_node_ids())) < minimum:
            time.sleep(POLL_SECONDS)
        self.node_ids = node_ids
        if self.server_draw is not None:
            self.server_draw.fix(str(node) for node in node_ids)

    def train(self, request: TrainRequest) -> list[TrainReply]:
        """Asks the nodes that the server has drawn, or all. Same contract as `Nodes.train`."""
        asked = self.node_ids
        if self.server_draw is not None:
            drawn, request = self.server_draw.draw(request)
            names = set(drawn)
            asked = [node for node in self.node_ids if str(node) in names]

        content = messages.encode_train_request(request)
        return self._ask(
            "train",
            content,
            group_id=str(request.round),
            asked=asked,
            decode=lambda reply: read_train_reply(reply, request),
        )

    def evaluate(self, request: EvaluateRequest) -> list[Evaluation]:
        """Asks every node for its evaluation users. Same contract as `Nodes.evaluate`."""
        return self._ask(
            "evaluate",
            messages.encode_evaluate_request(request),
            group_id="evaluation",
            asked=self.node_ids,
            decode=messages.decode_evaluate_reply,
        )

    def measure(self, metrics: Metrics) -> None:
        """Records for an operator how many nodes are online, and why answers counted as zero."""
        measure_nodes(metrics, self.reasons, lambda: len(set(self.grid.get_node_ids())))

    def _ask(
        self,
        kind: str,
        content: RecordDict,
        *,
        group_id: str,
        asked: Sequence[int],
        decode: Callable[[RecordDict], Reply],
    ) -> list[Reply]:
        """The well-formed replies that came in time, in the order of the node ids."""
        questions = [(node, content) for node in asked]
        replies: dict[int, Reply] = {}
        for index, answer in ask(
            self.grid, kind, questions, group_id=group_id, deadline_seconds=self.deadline_seconds
        ):
            try:
                if isinstance(answer, str):
                    self.reasons[answer] += 1
                else:
                    replies[index] = decode(answer)
            except MessageError:
                self.reasons[MALFORMED] += 1
        return [replies[index] for index in sorted(replies)]


def read_train_reply(content: RecordDict, request: TrainRequest) -> TrainReply:
    """The answer to a request to train; MessageError if it has another size or kind."""
    return messages.decode_train_reply(
        content, dimension=request.sum_dimension, is_noised=request.noise_scale > 0
    )


def measure_nodes(
    metrics: Metrics, reasons: Mapping[str, int], num_online: Callable[[], int]
) -> None:
    """Records metrics of nodes and their replies, if an operator asked for them."""
    if metrics.is_operator:
        metrics.replies_refused(reasons)
        metrics.nodes_online(num_online())


def ask(
    grid: Grid,
    kind: str,
    questions: Sequence[tuple[int, RecordDict]],
    *,
    group_id: str,
    deadline_seconds: float,
) -> Iterator[tuple[int, RecordDict | str]]:
    """Sends each node a question of one kind, "train" or "evaluate"; see `exchange`.

    Args:
      questions: node ids and what each is asked.
      group_id: names these messages in Flower's logs.
    """
    ttl = deadline_seconds + DELIVERY_SECONDS
    messages = [
        Message(content, node, MESSAGE_TYPES[kind], group_id=group_id, ttl=ttl)
        for node, content in questions
    ]
    return exchange(grid, messages, deadline_seconds=deadline_seconds)


def exchange(
    grid: Grid, messages: Sequence[Message], *, deadline_seconds: float
) -> Iterator[tuple[int, RecordDict | str]]:
    """Sends messages and yields (index of the message, content) as replies arrive, or (index,
    reason) with the reason "late", "not-sent" or "error".

    **Guarantee:** every message is reported exactly once, within the deadline plus one poll; a
    second answer to a message is ignored.
    """
    pushed = list(grid.push_messages(messages)) if messages else []
    pushed += [""] * (len(messages) - len(pushed))  # a refused batch has no ids
    pending = {message_id: i for i, message_id in enumerate(pushed) if message_id}
    yield from ((i, NOT_SENT) for i, message_id in enumerate(pushed) if not message_id)
    end = time.monotonic() + deadline_seconds
    while pending and time.monotonic() < end:
        for reply in grid.pull_messages(list(pending)):
            index = pending.pop(reply.metadata.reply_to_message_id, None)
            if index is not None:
                # An error's reason is text from a node: it is neither read nor logged.
                yield index, ERROR if reply.has_error() else reply.content
        time.sleep(POLL_SECONDS if pending else 0)
    yield from ((i, LATE) for i in pending.values())
