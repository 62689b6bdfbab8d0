"""The server app's side of sealing: signs questions to enrolled nodes and opens their replies."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import RecordDict

from feddp.common.privacy.ledger.remembered_head import HeadClaim
from feddp.common.wire.node_registry import Entry, read_registry
from feddp.common.wire.records import opaque, pack, read_opaque, unpack
from feddp.common.wire.sealing import Ask, open_reply, sealed_bytes, sign_request

PADDING = 4096  # of a reply, besides its numbers: its header, and an evaluation's content


@dataclass(frozen=True)
class Question:
    """A signed request to one node.

    Attributes:
      ask: the header to which the reply must be bound.
      entry: the node's row in the registry.
    """

    ask: Ask
    content: RecordDict
    entry: Entry


@dataclass
class Sealer:
    """Signs requests and opens replies, for one start of the server app.

    Attributes:
      registry_path: the registry, reread for every question, so that a revoked node is neither
        asked nor believed from the next question on.
      server_key: signs requests; nodes pin its public half.
      population: whose ledger is charged.
      head: hash of the ledger's last row when the last request to train was made, hex.
      seal_key: of this start, in memory only.
      number: questions so far.
      round: the last one asked for.
    """

    registry_path: Path
    server_key: Ed25519PrivateKey
    population: str
    run: str
    plan_sha256: str
    head: str
    epoch: int
    seal_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    number: int = 0
    round: int = 0

    def enrolled(self) -> dict[str, Entry]:
        """The active nodes in the registry now."""
        return read_registry(self.registry_path).active

    def follow(self, claim: HeadClaim) -> None:
        """Uses this ledger head and epoch in every question from now on."""
        self.head, self.epoch = claim.head.hex(), claim.epoch

    def questions(
        self,
        kind: str,
        content: RecordDict,
        *,
        entries: Sequence[tuple[str, Entry]],
        layout: str,
        num_numbers: int,
    ) -> list[Question]:
        """The same request to each of these nodes, signed for it alone.

        Args:
          entries: names and rows of enrolled nodes; a name may come several times.
          num_numbers: int64 numbers of a reply.
        """
        body, reply_bytes = pack(content), 8 * num_numbers + PADDING
        return [
            self._question(kind, body, name, entry, layout, reply_bytes) for name, entry in entries
        ]

    def open(self, content: RecordDict, question: Question) -> RecordDict:
        """The answer of the asked node to this question.

        Raises:
          MessageError: it is not that.
        """
        most_bytes = sealed_bytes(question.ask.reply_bytes)
        blob = read_opaque(content, most_bytes=most_bytes)
        body = open_reply(
            blob, question.ask, seal_key=self.seal_key, node_key=question.entry.verifier()
        )
        return unpack(body)

    def _question(
        self, kind: str, body: bytes, name: str, entry: Entry, layout: str, reply_bytes: int
    ) -> Question:
        self.number += 1
        ask = Ask(
            kind=kind,
            population=self.population,
            run=self.run,
            plan=self.plan_sha256,
            head=self.head,
            epoch=self.epoch,
            number=self.number,
            round=self.round,
            node=name,
            nonce=secrets.token_hex(32),
            layout=layout,
            seal_key=self.seal_key.public_key().public_bytes_raw().hex(),
            reply_bytes=reply_bytes,
        )
        signed = sign_request(ask, body, server_key=self.server_key)
        return Question(ask, opaque(signed), entry)
