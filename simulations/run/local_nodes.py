"""The Nodes protocol in one process: no Ray, no sockets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from feddp.client.refusal import RefusedError
from feddp.common.evaluation import Evaluation
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest
from feddp.server.cohort_draw import ServerDraw


class Asked(Protocol):
    """A node in this process."""

    def train(self, request: TrainRequest, *, dropout: float = 0.0) -> TrainReply:
        """See `Node.train`."""
        ...

    def evaluate(self, request: EvaluateRequest) -> Evaluation:
        """See `Node.evaluate`."""
        ...


log = logging.getLogger("feddp.node")


@dataclass(frozen=True)
class LocalNodes:
    """Nodes in this process, asked one after another.

    One `Node` can also stand for a whole population of one-user nodes: each of its users has its
    own coin, trains independently and is clipped separately, so one engine call gives the exact sum
    of that many replies.

    Attributes:
      nodes: each over its own users.
      dropout: share of the drawn users who drop out of a round or answer after its deadline; they
        count as zero, and neither noise nor divisor changes.
      server_draw: draws among one-user nodes, named by their index ("0", "1", ...); None: nodes
        draw their own users.
    """

    nodes: Sequence[Asked]
    dropout: float = 0.0
    server_draw: ServerDraw | None = None

    def train(self, request: TrainRequest) -> list[TrainReply]:
        """One update sum per node that does not refuse; see `Nodes.train`."""
        replies, asked = [], list(self.nodes)
        if self.server_draw is not None:
            self.server_draw.fix(map(str, range(len(asked))))
            drawn, request = self.server_draw.draw(request)
            asked = [self.nodes[place] for place in sorted(map(int, drawn))]
        for node in asked:
            try:
                replies.append(node.train(request, dropout=self.dropout))
            except RefusedError as error:
                log.warning("round %d: a node refuses: %s", request.round, error.code)
        return replies

    def evaluate(self, request: EvaluateRequest) -> list[Evaluation]:
        """Sums over each node's evaluation users. Same contract as `Nodes.evaluate`."""
        return [node.evaluate(request) for node in self.nodes]
