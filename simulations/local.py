"""The Nodes protocol in one process: no Ray, no sockets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from client.node import Node
from client.refusal import RefusedError
from client.sharding import ShardedNode
from common.messages import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest

log = logging.getLogger("feddp.node")


@dataclass(frozen=True)
class LocalNodes:
    """Nodes that live in this process and are asked one after the other.

    One `Node` also stands for a whole population of one-user nodes on its base model: each of its
    users tosses a coin of its own, trains apart from all others, and enters the sum alone, so one
    engine call gives the exact sum that as many replies would add up to, without a reply each.

    Attributes:
      nodes: each over its own users.
      dropout: share of the drawn users who drop out of a round or answer after its deadline; they
        count as zero, and neither noise nor divisor knows.
    """

    nodes: Sequence[Node | ShardedNode]
    dropout: float = 0.0

    def train(self, request: TrainRequest) -> list[TrainReply]:
        """One update sum per node that does not refuse. Same contract as `Nodes.train`."""
        replies = []
        for node in self.nodes:
            try:
                replies.append(node.train(request, dropout=self.dropout))
            except RefusedError as error:
                log.warning("round %d: a node refuses: %s", request.round, error.code)
        return replies

    def evaluate(self, request: EvaluateRequest) -> list[EvaluateReply]:
        """Sums over each node's evaluation users. Same contract as `Nodes.evaluate`."""
        return [node.evaluate(request) for node in self.nodes]
