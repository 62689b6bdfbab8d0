"""The Nodes protocol in one process: no Ray, no sockets."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.node import Node
from common.messages import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest


@dataclass(frozen=True)
class LocalNodes:
    """Nodes that live in this process and are asked one after the other."""

    nodes: Sequence[Node]

    def train(self, request: TrainRequest) -> list[TrainReply]:
        """One update sum per node. Same contract as `Nodes.train`."""
        return [node.train(request) for node in self.nodes]

    def evaluate(self, request: EvaluateRequest) -> list[EvaluateReply]:
        """Sums over each node's evaluation users. Same contract as `Nodes.evaluate`."""
        return [node.evaluate(request) for node in self.nodes]
