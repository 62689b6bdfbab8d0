"""KnownLedgers: a node's memory of its server apps' ledgers, to detect a rollback."""

import hashlib
import logging
from pathlib import Path

from feddp.client.refusal import RefusedError
from feddp.common.errors import RolledBackError
from feddp.common.privacy.ledger.remembered_head import HeadClaim, HeadMemory

log = logging.getLogger("feddp.node")


class KnownLedgers:
    """The newest head of every population that this node was asked for, one small file each.

    **Guarantee:** an accepted head is durable here before anything is trained for it, and a later
    one is accepted only if its ledger extends it.

    **Edge cases:**

    | what happens | what follows |
    |---|---|
    | the first request of a population | its head is taken without proof: a node may join late |
    | the node missed rounds | accepted, as far as the request's proof reaches back |
    | the ledger is restored from an old copy | refused until the newer ledger is back |
    | a request without a head | refused |

    Args:
      folder: of the files; it exists, and only the node writes there.
      public_key: of the only ledger whose heads are accepted, 32 bytes; None: any, for a node that
        identifies its server app by other means.
    """

    def __init__(self, folder: Path, public_key: bytes | None = None):
        self._folder, self._public_key = folder, public_key

    def accept(self, claim: HeadClaim | None) -> None:
        """Durably remembers a ledger's head.

        Raises:
          RefusedError: "no-head" or "rolled-back".
          LedgerDamagedError, DiskError: the memory cannot be read or written.
        """
        if claim is None:
            raise RefusedError("no-head")
        digest = hashlib.sha256(claim.population.encode()).hexdigest()[:32]
        memory = HeadMemory(
            self._folder / f"head-{digest}.json",
            population=claim.population,
            public_key=self._public_key,
        )
        try:
            memory.accept(claim)
        except RolledBackError as error:
            log.warning("%s", error)  # it holds only row numbers
            raise RefusedError("rolled-back") from error
