"""The Nodes protocol over a fleet of enrolled nodes: signed requests, sealed replies."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from feddp.common.evaluation import Evaluation
from feddp.common.privacy.mechanism.clipping import is_within
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.wire import messages
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest
from feddp.common.wire.node_registry import Entry
from feddp.common.wire.records import MessageError
from feddp.common.wire.sealing import SealError
from feddp.server.cohort_draw import ServerDraw
from feddp.server.metrics import Metrics
from feddp.server.nodes import MALFORMED, POLL_SECONDS, ask, measure_nodes, read_train_reply
from feddp.server.sealer import Question, Sealer

HELLO_SECONDS = 60.0
NORM, DUPLICATE = "norm", "duplicate"
Reply = TypeVar("Reply")


@dataclass
class SealedNodes:
    """Enrolled nodes behind a relay that can drop messages but neither read nor forge them.

    Attributes:
      grid, dimension, deadline_seconds, server_draw, reasons: see `FlowerNodes`.
      sealer: signs what is asked and opens what comes back.
      units_per_user: most units of one registered user; None: unbounded, if examples are the unit.
      is_asking_everyone: if the server draws, all nodes are asked and train, and answers of undrawn
        ones are dropped unopened, so that the traffic does not show the cohort. A node cannot be
        told that it was not drawn: requests are signed but not secret.
      names: the claimed name of each Flower node.
    """

    grid: Grid
    dimension: int
    deadline_seconds: float
    sealer: Sealer
    units_per_user: int | None = 1
    server_draw: ServerDraw | None = None
    is_asking_everyone: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    _hellos: dict[str, int] = field(default_factory=dict)

    def wait_for_nodes(self, minimum: int) -> None:
        """Blocks until `minimum` enrolled nodes are online; then fixes the population."""
        while len(set(self.names.values()) & self.sealer.enrolled().keys()) < minimum:
            self._meet()
            time.sleep(POLL_SECONDS)
        if self.server_draw is not None:
            self.server_draw.fix(self.sealer.enrolled())

    def train(self, request: TrainRequest) -> list[TrainReply]:
        """One sum per asked node with a valid answer. Same contract as `Nodes.train`.

        **Guarantee:** each sum was signed by the key of its node for this very request, and its L2
        norm is at most K times the units of the node's registered users.
        """
        self.sealer.round = request.round
        if request.head is not None:
            self.sealer.follow(request.head)
        enrolled = self.sealer.enrolled()
        drawn: Collection[str] = enrolled
        if self.server_draw is not None:
            names, request = self.server_draw.draw(request)
            drawn = [name for name in names if name in enrolled]  # not revoked since

        def decode(content: RecordDict, question: Question) -> TrainReply:
            """A node's reply, within the norm that its users allow."""
            reply = read_train_reply(content, request)
            self._check_norm(reply, question, request.grid_steps)
            return reply

        return self._ask(
            "train",
            messages.encode_train_request(request),
            enrolled=enrolled,
            asked=enrolled if self.is_asking_everyone else drawn,
            counted=drawn,
            layout=request.layout_sha256,
            num_numbers=request.sum_dimension,
            decode=decode,
        )

    def evaluate(self, request: EvaluateRequest) -> list[Evaluation]:
        """Asks every node for its evaluation users. Same contract as `Nodes.evaluate`."""
        enrolled = self.sealer.enrolled()
        return self._ask(
            "evaluate",
            messages.encode_evaluate_request(request),
            enrolled=enrolled,
            asked=enrolled,
            counted=enrolled,
            layout=request.layout_sha256,
            num_numbers=0,
            decode=lambda content, _: messages.decode_evaluate_reply(content),
        )

    def measure(self, metrics: Metrics) -> None:
        """Same as `FlowerNodes.measure`, for enrolled nodes."""

        def num_online() -> int:
            """Enrolled nodes that are connected."""
            online = {self.names.get(node) for node in self.grid.get_node_ids()}
            return len(online & self.sealer.enrolled().keys())

        measure_nodes(metrics, self.reasons, num_online)

    def _ask(
        self,
        kind: str,
        content: RecordDict,
        *,
        enrolled: Mapping[str, Entry],
        asked: Collection[str],
        counted: Collection[str],
        layout: str,
        num_numbers: int,
        decode: Callable[[RecordDict, Question], Reply],
    ) -> list[Reply]:
        """The valid replies of the `counted` among the `asked` nodes, ordered by name."""
        self._meet()
        ids = sorted(node for node, name in self.names.items() if name in asked)
        questions = self.sealer.questions(
            kind,
            content,
            entries=[(self.names[node], enrolled[self.names[node]]) for node in ids],
            layout=layout,
            num_numbers=num_numbers,
        )
        answers = ask(
            self.grid,
            kind,
            [(node, question.content) for node, question in zip(ids, questions, strict=True)],
            group_id=f"{kind}-{self.sealer.round}",
            deadline_seconds=self.deadline_seconds,
        )
        replies: dict[str, Reply] = {}
        for i, answer in answers:
            name = questions[i].ask.node
            if isinstance(answer, str):
                self.reasons[answer] += 1
            elif name in replies:
                self.reasons[DUPLICATE] += 1
            elif name in counted and (reply := self._open(answer, questions[i], decode)):
                replies[name] = reply
        return [replies[name] for name in sorted(replies)]

    def _open(
        self,
        content: RecordDict,
        question: Question,
        decode: Callable[[RecordDict, Question], Reply],
    ) -> Reply | None:
        """The reply; if it is invalid, None, and the reason is counted."""
        try:
            return decode(self.sealer.open(content, question), question)
        except SealError as error:
            self.reasons[error.code] += 1
        except MessageError:
            self.reasons[MALFORMED] += 1
        return None

    def _check_norm(self, reply: TrainReply, question: Question, grid_steps: int) -> None:
        if isinstance(reply.total, NoisedSum) or self.units_per_user is None:
            return
        limit = question.entry.users * self.units_per_user * grid_steps
        if not is_within(reply.total.total, limit):
            raise SealError(NORM)

    def _meet(self) -> None:
        """Asks new Flower nodes for their names, and collects earlier answers.

        A name is only a claim. A node that claims another's name gets copies of its requests but
        cannot answer them, because each answer is signed.
        """
        for reply in self.grid.pull_messages(list(self._hellos)) if self._hellos else []:
            node = self._hellos.pop(reply.metadata.reply_to_message_id, None)
            if node is not None and not reply.has_error():
                config = reply.content.config_records.get("config", {})
                self.names[node] = str(config.get("name", ""))
        known = {*self.names, *self._hellos.values()}
        new = [node for node in sorted(self.grid.get_node_ids()) if node not in known]
        if not new:
            return
        hellos = [
            Message(RecordDict(), node, "query.hello", group_id="hello", ttl=HELLO_SECONDS)
            for node in new
        ]
        pushed = zip(self.grid.push_messages(hellos), new, strict=False)
        self._hellos |= {message_id: node for message_id, node in pushed if message_id}
