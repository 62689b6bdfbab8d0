"""A request's records -> the node's answer; sealed if the node has an identity."""

import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from flwr.app import ConfigRecord, RecordDict

from feddp.client.node import Node
from feddp.client.service.known_ledgers import KnownLedgers
from feddp.client.sharding import ShardedNode
from feddp.common.disk import Disk
from feddp.common.privacy.ledger.remembered_head import MAX_PROOF_ROWS, HeadClaim
from feddp.common.wire import messages
from feddp.common.wire.messages import NUM_DIGEST_BYTES
from feddp.common.wire.records import opaque, pack, read_opaque, unpack
from feddp.common.wire.sealing import Ask, SealError, seal_reply, verify_request

# Of a request, besides its adapter.
HEADER_BYTES = (1 << 17) + NUM_DIGEST_BYTES * MAX_PROOF_ROWS


@dataclass(frozen=True)
class Identity:
    """Who a node is, and whose requests it answers.

    `server_key`: the only key whose requests are answered; pinned by the node's operator.
    """

    name: str
    key: Ed25519PrivateKey
    server_key: Ed25519PublicKey
    memory: "Memory"


@dataclass(frozen=True)
class Seen:
    """The newest question of one run."""

    epoch: int
    number: int
    round: int
    seal_key: str


class Memory:
    """The newest question that this node has accepted, durable across restarts.

    **Guarantee:** no question is accepted twice or after a newer one. A server app that restarts
    from an older ledger is refused once it asks to train a round before the newest one asked for,
    or repeats an epoch with another key; a rollback of only the current round goes unnoticed.
    """

    def __init__(self, path: Path):
        self._path = path
        self._seen = _read_seen(path)

    def accept(self, ask: Ask) -> None:
        """Remembers a question durably, before it is answered.

        Raises:
          SealError: "stale": it, or a newer question, has been asked before.
        """
        run = json.dumps([ask.population, ask.run])
        last = self._seen.get(run)
        if last is not None and not _follows(ask, last):
            raise SealError("stale")
        newest_round = max(ask.round, last.round if last else 0)
        self._seen[run] = Seen(ask.epoch, ask.number, newest_round, ask.seal_key)
        content = json.dumps({name: vars(seen) for name, seen in self._seen.items()})
        Disk().replace(self._path, content.encode(), is_shared=True)


def answer(
    node: Node | ShardedNode,
    kind: str,
    content: RecordDict,
    identity: Identity | None,
    known_ledgers: KnownLedgers | None = None,
) -> RecordDict:
    """The answer to "train", "evaluate" or "hello".

    A node with an identity answers only signed requests, and only with sealed replies; "hello"
    returns the node's name, which proves nothing. A node that remembers ledgers does not train for
    one that was rolled back.

    Raises:
      MessageError: the request is malformed, not for this node, or not by its server app.
      RefusedError: see `KnownLedgers` and `OwnNoise`.
    """
    if kind == "hello":
        name = identity.name if identity else ""
        return RecordDict({"config": ConfigRecord({"name": name})})
    if identity is None:
        return _plain(node, kind, content, None, known_ledgers)
    most_bytes = HEADER_BYTES + 4 * node.dimension
    blob = read_opaque(content, most_bytes=most_bytes)
    ask, body = verify_request(blob, server_key=identity.server_key)
    if (ask.kind, ask.node) != (kind, identity.name):
        raise SealError("not-for-this-node")
    identity.memory.accept(ask)
    reply = _plain(node, kind, unpack(body), ask, known_ledgers)
    return opaque(seal_reply(ask, pack(reply), node_key=identity.key))


def _plain(
    node: Node | ShardedNode,
    kind: str,
    content: RecordDict,
    ask: Ask | None,
    known_ledgers: KnownLedgers | None,
) -> RecordDict:
    if kind == "evaluate":
        looked_at = messages.decode_evaluate_request(content, dimension=node.dimension)
        return messages.encode_evaluate_reply(node.evaluate(looked_at))
    request = messages.decode_train_request(
        content, dimension=node.dimension, num_encoded=node.encoding.dimension
    )
    if ask is not None and request.head is not None:
        _check_head(ask, request.head)
    if known_ledgers is not None:
        known_ledgers.accept(request.head)
    return messages.encode_train_reply(node.train(request))


def _check_head(ask: Ask, claim: HeadClaim) -> None:
    """Refuses a body whose ledger claim differs from the signed header's."""
    claimed = (claim.population, claim.epoch, claim.head.hex())
    if (ask.population, ask.epoch, ask.head) != claimed:
        raise SealError("head")


def _follows(ask: Ask, last: Seen) -> bool:
    """Whether a question is newer than the newest one."""
    if ask.epoch == last.epoch:
        return ask.seal_key == last.seal_key and ask.number > last.number
    is_later = ask.kind != "train" or ask.round >= last.round
    return ask.epoch > last.epoch and is_later


def _read_seen(path: Path) -> dict[str, Seen]:
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {run: Seen(**fields) for run, fields in content.items()}
