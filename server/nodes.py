"""The Nodes protocol: ask the machines that hold users; and its Flower implementation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.messages import (
    EvaluateReply,
    EvaluateRequest,
    MessageError,
    TrainReply,
    TrainRequest,
    decode_evaluate_reply,
    decode_train_reply,
    encode_evaluate_request,
    encode_train_request,
)
from server.draw import ServerDraw
from server.exchange import POLL_SECONDS, exchange

Reply = TypeVar("Reply")


class Nodes(Protocol):
    """Who holds the users. A node that is late, missing or malformed is left out of the reply."""

    def train(self, request: TrainRequest) -> Sequence[TrainReply]:
        """One update sum per node that answered."""
        ...

    def evaluate(self, request: EvaluateRequest) -> Sequence[EvaluateReply]:
        """Sums over each node's declared evaluation users."""
        ...


@dataclass
class FlowerNodes:
    """Nodes behind a Flower grid: a Ray simulation or a fleet of SuperNodes.

    Attributes:
      grid: Flower's way to its nodes.
      dimension: P, of every adapter and sum.
      deadline_seconds: longest wait of one request; whoever is later counts as zero.
      node_ids: the nodes of this run, fixed by `wait_for_nodes` before round 1.
      server_draw: flips the coins, where each node has one user and its id for a name; None: each
        draws its own users.
    """

    grid: Grid
    dimension: int
    deadline_seconds: float
    node_ids: list[int] = field(default_factory=list)
    server_draw: ServerDraw | None = None

    def wait_for_nodes(self, minimum: int) -> None:
        """Blocks until `minimum` nodes are online, and fixes them as the nodes of this run."""
        while len(node_ids := sorted(self.grid.get_node_ids())) < minimum:
            time.sleep(POLL_SECONDS)
        self.node_ids = node_ids
        if self.server_draw is not None:
            self.server_draw.fix(str(node) for node in node_ids)

    def train(self, request: TrainRequest) -> list[TrainReply]:
        """Asks every node, which draws its own users, or those that the server has drawn. Same
        contract as `Nodes.train`."""
        asked = self.node_ids
        if self.server_draw is not None:
            drawn, request = self.server_draw.draw(request)
            names = set(drawn)
            asked = [node for node in self.node_ids if str(node) in names]

        def decode(content: RecordDict) -> TrainReply:
            return decode_train_reply(
                content, dimension=request.sum_dimension, is_noised=request.noise_scale > 0
            )

        content, group_id = encode_train_request(request), str(request.round)
        contents = self._ask("train.round", content, group_id, asked)
        return _decode(contents, decode)

    def evaluate(self, request: EvaluateRequest) -> list[EvaluateReply]:
        """Asks every node for its evaluation users. Same contract as `Nodes.evaluate`."""
        content = encode_evaluate_request(request)
        contents = self._ask("evaluate.users", content, "evaluation", self.node_ids)
        return _decode(contents, decode_evaluate_reply)

    def _ask(
        self, message_type: str, content: RecordDict, group_id: str, asked: Sequence[int]
    ) -> list[RecordDict]:
        """The contents of all replies that came in time, in the order of the node ids."""
        messages = [
            Message(content, node, message_type, group_id=group_id, ttl=self.deadline_seconds + 5)
            for node in asked
        ]
        answers = exchange(self.grid, messages, deadline_seconds=self.deadline_seconds)
        replies = {index: answer for index, answer in answers if not isinstance(answer, str)}
        return [replies[index] for index in sorted(replies)]


def _decode(contents: Sequence[RecordDict], decode: Callable[[RecordDict], Reply]) -> list[Reply]:
    """The well-formed replies; a malformed one counts as missing."""
    replies = []
    for content in contents:
        try:
            replies.append(decode(content))
        except MessageError:
            continue
    return replies
