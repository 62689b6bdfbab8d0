"""ServerDraw: the server draws among nodes that hold one user each."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feddp.common.disk import Disk
from feddp.common.errors import DiskError, LedgerDamagedError
from feddp.common.privacy.mechanism.participation import SeparationRegistry
from feddp.common.privacy.mechanism.sampling import Draw, fresh_coins, seeded_coins
from feddp.common.wire.messages import TrainRequest


class ServerDraw:
    """Draws one-user nodes from a population that was fixed before round 1.

    **Guarantee:** every node of the population is drawn as the request specifies: by its own coin,
    or in its turn, whichever other nodes exist or are online. With a separation, no node is drawn
    in two rounds that are fewer than `separation` apart, and each draw is durable before any node
    is asked.

    **Edge cases:**

    | what happens | what follows |
    |---|---|
    | a drawn node is offline | it does not answer; no other node is drawn instead |
    | a node comes back with another Flower id | its name, coins and turns are the same |
    | a node is enrolled after round 1 | it is never drawn in this run |
    | a round is drawn again after a crash | fresh coins, unless seeded; turns stay |
    | the file of a run that has begun is lost | refused: past participation is unknown |

    Args:
      path: of the file that keeps population and turns; it stays with the run.
      separation: least rounds between two participations; 1 if none is promised.
      has_begun: the run has charged a round before.

    Raises:
      LedgerDamagedError: the file is missing although the run has begun, or its content is invalid.
      DiskError: it cannot be read.
    """

    def __init__(self, path: Path, *, separation: int, has_begun: bool, disk: Disk | None = None):
        self._path, self._disk = path, disk or Disk()
        self._names: list[str] | None = None
        self._turns = SeparationRegistry(separation) if separation > 1 else None
        if path.is_file():
            self._read(separation)
        elif has_begun:
            raise LedgerDamagedError(
                f"{path}: missing, and the run has begun, so nobody knows who was asked when. "
                "Restore it, or start a new run."
            )

    @property
    def population(self) -> Sequence[str]:
        """Sorted names of the nodes to draw from; empty before `fix`."""
        return self._names or []

    def fix(self, names: Iterable[str]) -> None:
        """Fixes the population for good, before round 1; later calls change nothing.

        Raises:
          DiskError: it cannot be written.
        """
        if self._names is None:
            self._names = sorted(set(names))
            self._write()

    def draw(self, request: TrainRequest) -> tuple[list[str], TrainRequest]:
        """(names of the drawn nodes, the request to them: to train all of their users).

        Raises:
          ValueError: no population is fixed, or a later round was drawn already.
          DiskError: the draw cannot be written; no node may be asked.
        """
        if self._names is None:
            raise ValueError("the population is not fixed yet")
        coins = fresh_coins if request.seed is None else seeded_coins(request.seed, request.round)
        drawn = request.draw.units(_keys(self._names), request.round, coins)
        names = [self._names[i] for i in drawn]
        if self._turns is not None:
            names = self._turns.eligible(names, row=request.round)
            self._turns.record(names, row=request.round)
            self._write()  # durable before any node is asked
        return names, dataclasses.replace(request, draw=Draw())

    def _write(self) -> None:
        turns = None if self._turns is None else self._turns.to_json()
        content = json.dumps({"names": self._names, "turns": turns}).encode()
        try:
            self._disk.replace(self._path, content)
        except OSError as error:
            raise DiskError(f"{self._path}: cannot be written ({error.strerror}).") from error

    def _read(self, separation: int) -> None:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            names, turns = kept["names"], kept["turns"]
            is_sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
            registry = None if turns is None else SeparationRegistry.from_json(turns)
        except OSError as error:
            raise DiskError(f"{self._path}: cannot be read ({error.strerror}).") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LedgerDamagedError(f"{self._path}: damaged; restore it.") from error
        if not is_sound or (1 if registry is None else registry.separation) != separation:
            raise LedgerDamagedError(f"{self._path}: is not of this run; restore its own.")
        self._names, self._turns = names, registry


def _keys(names: Sequence[str]) -> NDArray[np.uint64]:
    """Keys of the nodes' coins and turns, from names alone, so that they survive reconnects."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)
