"""One node over several processes: each trains its share of the users; one all-reduce adds up.

A share is a node of its own over a disjoint part of the users, and sums are exact integers, so the
result has the same bytes as one process would give. Requests travel as JSON and raw float32 over a
pipe, on which a worker waits without a time limit; a worker ends when its pipe does.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, multiprocessing

from client.node import Node
from client.own_noise import OwnNoise, answer_round
from common.build import Part
from common.config import RunConfig, from_flat, to_flat
from common.messages import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.privacy.sampling import Draw
from common.privacy.summation import UpdateSum

NodeBuilder = Callable[[RunConfig, Part, int], Node]


@dataclass(frozen=True)
class Shard:
    """Where one process stands.

    Attributes:
      rank: 0 is the process that is asked.
      workers: how many processes.
      meeting_path: file over which they find each other.
    """

    rank: int
    workers: int
    meeting_path: str


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
    ):
        """Starts `workers` - 1 processes, each with its own model and share of the users.

        Args:
          build: makes the share of a rank in a part; importable by name.
          config: of the run.
          part: of the users that belong to this node.
          workers: how many processes, at least 2.
          own_noise: added to the sum of all processes, where the node does that itself.
        """
        self._own_noise = own_noise
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="feddp-")
        meeting = str(Path(self._folder.name) / "meeting")
        self._pipes: list[Connection] = []
        for rank in range(1, workers):
            ours, theirs = context.Pipe()
            arguments = (
                Shard(rank, workers, meeting),
                build,
                to_flat(config),
                asdict(part),
                theirs,
            )
            context.Process(target=_work, args=arguments, daemon=True).start()
            theirs.close()
            self._pipes.append(ours)
        self._node = build(config, part, 0)
        self._group = _join(Shard(0, workers, meeting), config.nodes.deadline_seconds)
        self.dimension = self._node.dimension

    def train(self, request: TrainRequest, *, dropout: float = 0.0) -> TrainReply:
        """Same contract as `Node.train`, over the users of all processes.

        Raises:
          ValueError: the draw is of a fixed size, which only one place can make.
        """
        if request.draw.cohort_size:
            raise ValueError("a cohort of fixed size is drawn in one place: nodes.workers = 1")
        return answer_round(request, self._own_noise, lambda: self._update_sum(request, dropout))

    def _update_sum(self, request: TrainRequest, dropout: float) -> UpdateSum:
        header = asdict(dataclasses.replace(request, head=None))
        header = {name: value for name, value in header.items() if name not in ("adapter", "head")}
        self._send({**header, "dropout": dropout}, request.adapter)
        return UpdateSum(_add_up(self._node.update_sum(request, dropout), self._group))

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Same contract as `Node.evaluate`, over the evaluation users of all processes."""
        self._send({"layout_sha256": request.layout_sha256}, request.adapter)
        return _add_evaluations(self._node.evaluate(request), self._group)

    def close(self) -> None:
        """Ends the workers."""
        for pipe in self._pipes:
            pipe.close()
        dist.destroy_process_group(self._group)
        self._folder.cleanup()

    def _send(self, header: dict[str, object], adapter: NDArray[np.float32]) -> None:
        content = json.dumps(header).encode() + b"\n" + adapter.astype("<f4").tobytes()
        for pipe in self._pipes:
            pipe.send_bytes(content)


def part_of(part: Part, rank: int, workers: int) -> Part:
    """The share of one process: the shares of all ranks are disjoint and make up the part.

    >>> part_of(Part(1, 3), 1, 2)
    Part(index=4, num_parts=6)
    """
    return Part(part.index + part.num_parts * rank, part.num_parts * workers)


def _work(
    shard: Shard,
    build: NodeBuilder,
    settings: dict[str, object],
    part: dict[str, int],
    pipe: Connection,
) -> None:
    """A worker's life: build, then answer with sums until the pipe ends."""
    config = from_flat(settings)
    node = build(config, Part(**part), shard.rank)
    group = _join(shard, config.nodes.deadline_seconds)
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        line, _, raw = content.partition(b"\n")
        header = json.loads(line)
        adapter = np.frombuffer(raw, dtype="<f4").astype(np.float32)
        if "round" in header:
            dropout, draw = header.pop("dropout"), Draw(**header.pop("draw"))
            request = TrainRequest(adapter=adapter, draw=draw, **header)
            _add_up(node.update_sum(request, dropout), group)
        else:
            _add_evaluations(node.evaluate(EvaluateRequest(adapter, **header)), group)


def _join(shard: Shard, deadline_seconds: float) -> dist.ProcessGroup:
    """The group of this node's processes, on this machine alone."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{shard.meeting_path}",
        rank=shard.rank,
        world_size=shard.workers,
        timeout=timedelta(seconds=deadline_seconds),
    )
    group = dist.group.WORLD
    assert group is not None
    return group


def _add_up(share: UpdateSum, group: dist.ProcessGroup) -> NDArray[np.int64]:
    """The exact sum over all processes; int64, shape (P,). Sensitive."""
    total: Tensor = torch.from_numpy(share.total.copy())
    dist.all_reduce(total, group=group)
    return total.numpy()


def _add_evaluations(reply: EvaluateReply, group: dist.ProcessGroup) -> EvaluateReply:
    loss = torch.tensor([reply.loss_sum], dtype=torch.float64)
    counts = torch.tensor([reply.num_targets, reply.num_correct])
    dist.all_reduce(loss, group=group)
    dist.all_reduce(counts, group=group)
    return EvaluateReply(float(loss[0]), int(counts[0]), int(counts[1]))
