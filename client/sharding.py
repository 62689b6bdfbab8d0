"""One node over several processes: each trains its share of the users; their sums add up.

A share is a node over a disjoint part of the users, and sums are exact integers, so the result has
the same bytes as that of one process. Requests and replies travel as the messages of `common.wire`
over one pipe per worker; a closed pipe shows at once that its worker is gone.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict
from torch import multiprocessing

from feddp.client.node import Node
from feddp.client.own_noise import OwnNoise, answer_round
from feddp.common.assembly import Part
from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.errors import FeddpError
from feddp.common.evaluation import Evaluation
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire import messages
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest
from feddp.common.wire.records import MAX_HEADER_BYTES, pack, unpack

NodeBuilder = Callable[[RunConfig, Part, int], Node]
READY = b"ready"
QUESTION = "question"  # key of the kind of a message to a worker
STOP_SECONDS = 5.0
MOST_FRAME = 2 * MAX_HEADER_BYTES  # of a reply, besides its array
Reply = TypeVar("Reply")


class WorkerLostError(FeddpError):
    """A worker ended or does not answer; the question failed, and the next one restarts workers."""

    def __init__(self) -> None:
        super().__init__(
            "A worker process of this node ended or does not answer (out of memory?). The round "
            "failed; what it was charged stays spent."
        )


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


class ShardedNode:
    """A node whose users are spread over processes; the calling process is one of them.

    **Guarantee:** `train` returns the bytes that one process over the same users returns for the
    same drawn users. When a worker is lost, the request fails and nothing is added.
    """

    def __init__(
        self,
        build: NodeBuilder,
        config: RunConfig,
        part: Part,
        *,
        workers: int,
        own_noise: OwnNoise | None = None,
        build_first: NodeBuilder | None = None,
    ):
        """Starts `workers` - 1 processes, each with its own model and share of the users.

        Args:
          build: makes the share of a rank in a part; importable by name.
          workers: how many processes, at least 2.
          own_noise: added to the sum of all processes, if the node adds the noise itself.
          build_first: makes the share of rank 0, in this process; None: `build`.

        Raises:
          WorkerLostError: a worker could not be built; its stderr says why.
        """
        self._own_noise = own_noise
        self._build, self._config, self._part = build, config, part
        self._ranks = range(1, workers)
        self._workers: list[_Worker] = []
        self._start()
        with self._fence():
            self._node = (build_first or build)(config, part, 0)
            self._receive(len(READY))
        self.dimension, self.encoding = self._node.dimension, self._node.encoding

    def train(self, request: TrainRequest, *, dropout: float = 0.0) -> TrainReply:
        """Same contract as `Node.train`, over the users of all processes.

        Raises:
          ValueError: the draw is of a fixed size, which only one process can make.
          WorkerLostError: a worker ended before it answered.
        """
        if request.draw.cohort_size:
            raise ValueError("a cohort of fixed size is drawn in one place: nodes.workers = 1")
        return answer_round(request, self._own_noise, lambda: self._update_sum(request, dropout))

    def _update_sum(self, request: TrainRequest, dropout: float) -> UpdateSum:
        content = messages.encode_train_request(replace(request, head=None))
        content[QUESTION] = ConfigRecord({"kind": "train", "dropout": dropout})
        dimension = request.sum_dimension
        total, others = self._ask(
            content, lambda: self._node.update_sum(request, dropout), 8 * dimension
        )
        for other in others:
            part = messages.decode_train_reply(other, dimension=dimension).total
            assert isinstance(part, UpdateSum)  # a worker has no noise of its own
            total.merge(part)
        return total

    def evaluate(self, request: EvaluateRequest) -> Evaluation:
        """Same contract as `Node.evaluate`, over the evaluation users of all processes."""
        content = messages.encode_evaluate_request(request)
        content[QUESTION] = ConfigRecord({"kind": "evaluate"})
        own, others = self._ask(content, lambda: self._node.evaluate(request), 0)
        return sum(map(messages.decode_evaluate_reply, others), start=own)

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
        self._workers = []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in self._ranks:
            ours, theirs = context.Pipe()
            arguments = (self._build, to_flat(self._config), asdict(self._part), rank, theirs)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def _ask(
        self, content: RecordDict, own: Callable[[], Reply], array_bytes: int
    ) -> tuple[Reply, list[RecordDict]]:
        """This process's answer and those of all workers, which compute at the same time."""
        packed = pack(content)
        with self._fence():
            if not self._workers:
                self._start()
                self._receive(len(READY))
            for worker in self._workers:
                worker.pipe.send_bytes(packed)
            answer = own()
            return answer, [unpack(part) for part in self._receive(MOST_FRAME + array_bytes)]

    @contextmanager
    def _fence(self) -> Iterator[None]:
        """Ends the workers on any failure: a late answer must not be taken for the next one's."""
        try:
            yield
        except (OSError, EOFError) as error:
            self.close()
            raise WorkerLostError from error
        except BaseException:
            self.close()
            raise

    def _receive(self, most_bytes: int) -> list[bytes]:
        """The next content of every worker; raises what `_fence` catches."""
        contents = []
        for worker in self._workers:
            if not worker.pipe.poll(self._config.nodes.deadline_seconds):
                raise TimeoutError
            contents.append(worker.pipe.recv_bytes(most_bytes))
        return contents


def part_of(part: Part, rank: int, workers: int) -> Part:
    """One process's share of a part; the shares of all ranks are disjoint and make up the part.

    >>> part_of(Part(1, 3), 1, 2)
    Part(index=4, num_parts=6)
    """
    return Part(part.index + part.num_parts * rank, part.num_parts * workers)


def _work(
    build: NodeBuilder,
    settings: dict[str, object],
    part: dict[str, int],
    rank: int,
    pipe: Connection,
) -> None:
    """The main function of a worker: builds its node, then answers until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    node = build(from_flat(settings), Part(**part), rank)
    pipe.send_bytes(READY)
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(_answer(node, content))


def _answer(node: Node, packed: bytes) -> bytes:
    """A packed reply, with an exact sum or an evaluation. Sensitive."""
    content = unpack(packed)
    question = content.config_records[QUESTION]
    del content[QUESTION]
    if question["kind"] == "evaluate":
        looked_at = messages.decode_evaluate_request(content, dimension=node.dimension)
        return pack(messages.encode_evaluate_reply(node.evaluate(looked_at)))
    request = messages.decode_train_request(
        content, dimension=node.dimension, num_encoded=node.encoding.dimension
    )
    dropout = question["dropout"]
    assert isinstance(dropout, float)
    total = node.update_sum(request, dropout)
    return pack(
        messages.encode_train_reply(TrainReply(request.round, request.layout_sha256, total))
    )
