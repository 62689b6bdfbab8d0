"""One node over several processes: each trains its share of the users; their sums add up.

A share is a node of its own over a disjoint part of the users, and sums are exact integers, so the
result has the same bytes as one process would give. Requests and replies travel as JSON and raw
numbers over a pipe per worker, whose end says at once that the worker is gone.
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import multiprocessing

from feddp.client.node import Node
from feddp.client.own_noise import OwnNoise, answer_round
from feddp.common.assembly import Part
from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest

NodeBuilder = Callable[[RunConfig, Part, int], Node]
READY = b"ready"
STOP_SECONDS = 5.0
Reply = TypeVar("Reply")


class WorkerLostError(FeddpError):
    """A worker ended or does not answer; the question failed, and the next starts new workers."""

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
          config: of the run.
          part: of the users that belong to this node.
          workers: how many processes, at least 2.
          own_noise: added to the sum of all processes, where the node does that itself.
          build_first: makes the share of rank 0, here; None: `build`.

        Raises:
          WorkerLostError: a worker could not be built; it has said why on stderr.
        """
        self._own_noise = own_noise
        self._build, self._config, self._part = build, config, part
        self._ranks = range(1, workers)
        self._workers: list[_Worker] = []
        self._start()
        with self._fence():
            self._node = (build_first or build)(config, part, 0)
            self._receive(len(READY))
        self.dimension = self._node.dimension

    def train(self, request: TrainRequest, *, dropout: float = 0.0) -> TrainReply:
        """Same contract as `Node.train`, over the users of all processes.

        Raises:
          ValueError: the draw is of a fixed size, which only one place can make.
          WorkerLostError: a worker ended before it answered.
        """
        if request.draw.cohort_size:
            raise ValueError("a cohort of fixed size is drawn in one place: nodes.workers = 1")
        return answer_round(request, self._own_noise, lambda: self._update_sum(request, dropout))

    def _update_sum(self, request: TrainRequest, dropout: float) -> UpdateSum:
        header = asdict(replace(request, head=None))
        header = {name: value for name, value in header.items() if name not in ("adapter", "head")}
        total, others = self._ask(
            {**header, "dropout": dropout},
            request.adapter,
            lambda: self._node.update_sum(request, dropout),
            8 * request.sum_dimension,
        )
        for content in others:
            total.merge(UpdateSum(np.frombuffer(content, dtype="<i8").astype(np.int64)))
        return total

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Same contract as `Node.evaluate`, over the evaluation users of all processes."""
        header: dict[str, object] = {"layout_sha256": request.layout_sha256}
        reply, others = self._ask(
            header, request.adapter, lambda: self._node.evaluate(request), 1 << 10
        )
        replies = [reply, *(EvaluateReply(**json.loads(content)) for content in others)]
        return EvaluateReply(
            sum(part.loss_sum for part in replies),
            sum(part.num_targets for part in replies),
            sum(part.num_correct for part in replies),
        )

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
        self,
        header: dict[str, object],
        adapter: NDArray[np.float32],
        own: Callable[[], Reply],
        most_bytes: int,
    ) -> tuple[Reply, list[bytes]]:
        """This process's answer and those of all workers, who compute at the same time."""
        content = json.dumps(header).encode() + b"\n" + adapter.astype("<f4").tobytes()
        with self._fence():
            if not self._workers:
                self._start()
                self._receive(len(READY))
            for worker in self._workers:
                worker.pipe.send_bytes(content)
            return own(), self._receive(most_bytes)

    @contextmanager
    def _fence(self) -> Iterator[None]:
        """Whatever fails ends the workers: their late answers must not meet the next question."""
        try:
            yield
        except (OSError, EOFError) as error:
            self.close()
            raise WorkerLostError from error
        except BaseException:
            self.close()
            raise

    def _receive(self, most_bytes: int) -> list[bytes]:
        """The next content of every worker.

        Raises:
          EOFError: a worker ended.
          OSError: it is silent until the deadline, or sends more than it should.
        """
        contents = []
        for worker in self._workers:
            if not worker.pipe.poll(self._config.nodes.deadline_seconds):
                raise TimeoutError
            contents.append(worker.pipe.recv_bytes(most_bytes))
        return contents


def part_of(part: Part, rank: int, workers: int) -> Part:
    """The share of one process: the shares of all ranks are disjoint and make up the part.

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
    """A worker's life: build, then answer until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    node = build(from_flat(settings), Part(**part), rank)
    pipe.send_bytes(READY)
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(_answer(node, content))


def _answer(node: Node, content: bytes) -> bytes:
    """A sum as int64, or an evaluation as JSON. Sensitive."""
    line, _, raw = content.partition(b"\n")
    header = json.loads(line)
    adapter = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if "round" not in header:
        return json.dumps(asdict(node.evaluate(EvaluateRequest(adapter, **header)))).encode()
    dropout, draw = header.pop("dropout"), Draw(**header.pop("draw"))
    request = TrainRequest(adapter=adapter, draw=draw, **header)
    return node.update_sum(request, dropout).total.astype("<i8").tobytes()
