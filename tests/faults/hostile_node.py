"""A resident node that marks its sums, and misbehaves as a file beside its config says.

Takes the arguments of `feddp node serve`. The file `behaviour-NAME` holds one of BEHAVIOURS for the
next question to train, which takes it away; without it the node is honest.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, RecordDict

from feddp.client.node import Node
from feddp.client.service import answer as answering
from feddp.common.wire.messages import FLAT_INT64, TrainReply
from feddp.common.wire.records import opaque, read_opaque
from feddp.common.wire.sealing import seal_reply
from feddp.simulations.cli import main

# In the first entries of every sum: what a scan of the relay's database and logs looks for.
CANARY = np.array([0x1A2B, -0x3C4D, 0x5E6F, -0x7081], dtype=np.int64)
BEHAVIOURS = ("error", "garbage", "wrong-key", "replay", "oversize", "slow", "foreign-type")
SLOW_SECONDS = 45.0
Answer = Callable[..., RecordDict]


def marked(train: Callable[..., TrainReply]) -> Callable[..., TrainReply]:
    def train_marked(node: Node, request: object) -> TrainReply:
        reply = train(node, request)
        reply.total._total[: len(CANARY)] = CANARY  # type: ignore[union-attr]
        return reply

    return train_marked


def hostile(answer: Answer, folder: Path, name: str) -> Answer:
    kept: list[RecordDict] = []

    def answer_as_told(node: Node, kind: str, *rest: object) -> RecordDict:
        if kind != "train" or (behaviour := taken(folder / f"behaviour-{name}", kept)) is None:
            reply = answer(node, kind, *rest)
            if kind == "train":
                kept.append(reply)
            return reply
        return misbehave(behaviour, lambda: answer(node, kind, *rest), kept)

    return answer_as_told


def taken(path: Path, kept: list[RecordDict]) -> str | None:
    """The behaviour in a file, which is gone then; one that has to wait for an answer stays."""
    behaviour = path.read_text() if path.exists() else None
    if behaviour is None or (behaviour == "replay" and not kept):
        return None
    path.unlink()
    return behaviour


def misbehave(
    behaviour: str, honest: Callable[[], RecordDict], kept: list[RecordDict]
) -> RecordDict:
    if behaviour == "error":
        raise RuntimeError("a secret of user 42")
    if behaviour == "slow":
        time.sleep(SLOW_SECONDS)
    if behaviour == "wrong-key":
        own, answering.seal_reply = answering.seal_reply, with_another_key
        try:
            return honest()
        finally:
            answering.seal_reply = own
    reply = honest()
    blob = read_opaque(reply, most_bytes=1 << 40)
    if behaviour == "garbage":
        return opaque(bytes(len(blob)))
    if behaviour == "replay":
        return kept[0]
    if behaviour == "oversize":
        return opaque(blob + bytes(1 << 24))
    if behaviour == "foreign-type":
        array = Array("int64", (len(blob) // 8,), FLAT_INT64, blob)
        return RecordDict({"sum": ArrayRecord({"vector": array})})
    return reply


def with_another_key(ask: object, body: bytes, *, node_key: object) -> bytes:
    return seal_reply(ask, body, node_key=Ed25519PrivateKey.generate())  # type: ignore[arg-type]


def play(arguments: list[str]) -> int:
    name = arguments[arguments.index("--part") + 1].split("/")[0]
    Node.train = marked(Node.train)  # type: ignore[method-assign]
    folder = Path(arguments[0]).parent
    answering.answer = hostile(answering.answer, folder, f"node-{name}")
    return main(["node", "serve", *arguments])


if __name__ == "__main__":
    sys.exit(play(sys.argv[1:]))
