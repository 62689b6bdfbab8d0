"""Anchors: a ledger's head remembered elsewhere, without which an old copy goes unnoticed.

A chain with signatures shows every change but one: a shorter history is as sound as the whole. An
operator keeps the newest head in a file elsewhere; every node keeps the newest that it was shown.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from feddp.common.disk import Disk
from feddp.common.errors import DiskError, LedgerDamagedError, RolledBackError
from feddp.common.privacy.ledger.history import GENESIS, History, row_hash
from feddp.common.privacy.ledger.signing import is_signed

T = TypeVar("T")
MAX_PROOF_ROWS = 1 << 15  # of 32 bytes: 1 MiB of a request


@dataclass(frozen=True)
class Anchor:
    """A head that was reached.

    Attributes:
      population: name.
      epoch: starts so far.
      seq: rows so far.
      head: hash of the last one, hex.
      signature: of the head by the ledger's key, hex.
    """

    population: str
    epoch: int
    seq: int
    head: str
    signature: str


def anchor_of(history: History, signature: bytes) -> Anchor:
    """Where a ledger stands; `signature` is its last row's."""
    population = str(history.plan["population"])
    head, epoch = history.head.hex(), history.num_opened
    return Anchor(population, epoch, history.num_rows, head, signature.hex())


def check_anchor(history: History, anchor: Anchor, *, ledger_path: Path, path: Path) -> None:
    """Refuses a ledger that does not extend an anchored head.

    Raises:
      RolledBackError: it is shorter, has another history, or is of another population.
    """
    if history.plan["population"] != anchor.population:
        raise RolledBackError(
            f"{ledger_path}: is the ledger of {history.plan['population']!r}, and {path} anchors "
            f"{anchor.population!r}. Name the right file."
        )
    is_there = anchor.seq <= history.num_rows
    if not is_there or history.heads[anchor.seq].hex() != anchor.head:
        what = "has another history" if is_there else f"ends at row {history.num_rows}"
        raise RolledBackError(
            f"{ledger_path}: rolled back: {path} has seen row {anchor.seq} (head "
            f"{anchor.head[:12]}), and this ledger {what}. Charges may be missing: restore the "
            "newest copy; without it, the budget counts as spent."
        )


def check_anchor_file(ledger_path: Path, history: History, path: Path | None) -> None:
    """Refuses a ledger that does not extend an anchor file; without a path, does nothing.

    A ledger that no run has opened yet may come before its anchor.

    Raises:
      RolledBackError: it does not, or the anchor is gone.
    """
    if path is None:
        return
    anchor = read_anchor(path)
    if anchor is not None:
        check_anchor(history, anchor, ledger_path=ledger_path, path=path)
    elif history.num_opened:
        raise RolledBackError(
            f"{path}: missing, so nobody can tell whether {ledger_path} was rolled back. Restore "
            f"it; if there never was one, `feddp ledger anchor {ledger_path} --file {path}` makes "
            "it."
        )


def write_anchor(path: Path, anchor: Anchor, disk: Disk) -> None:
    """Durably puts the newest head in the place of the one before.

    Raises:
      DiskError: it cannot be written.
    """
    _write(path, json.dumps(asdict(anchor), sort_keys=True), disk)


def read_anchor(path: Path) -> Anchor | None:
    """The anchored head; None when there is no file.

    Raises:
      LedgerDamagedError: it holds something else.
      DiskError: it cannot be read.
    """
    return _read(path, _anchor_from)


@dataclass(frozen=True)
class HeadClaim:
    """What a request says of the ledger behind it.

    Attributes:
      population: name.
      epoch: of the run's start.
      seq: rows so far.
      head: 32 bytes, hash of the last row.
      signature: of the head by the ledger's key.
      proof: digests of the newest rows, 32 bytes each; the last is row `seq`'s.
    """

    population: str
    epoch: int
    seq: int
    head: bytes
    signature: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class KnownHead:
    """The newest head that a node was shown."""

    population: str
    epoch: int
    seq: int
    head: bytes


def fold(head: bytes, digests: Sequence[bytes]) -> bytes:
    """The head after more rows."""
    for digest in digests:
        head = row_hash(head, digest)
    return head


def extends(claim: HeadClaim, known: KnownHead) -> bool:
    """Whether a claimed head follows a known one, by the digests of the rows between them.

    **Guarantee:** True only if the claimed history has the known one as its beginning, unless
    SHA-256 has a collision.

    **Edge cases:**

    | claim | result |
    |---|---|
    | the same row and head | True |
    | an older epoch, fewer rows, another population | False |
    | a proof that starts after the known row | False |
    """
    num_new = claim.seq - known.seq
    if claim.population != known.population or claim.epoch < known.epoch:
        return False
    if not 0 <= num_new <= len(claim.proof) or not _is_well_formed(claim):
        return False
    new = claim.proof[len(claim.proof) - num_new :]
    return fold(known.head, new) == claim.head


class HeadMemory:
    """A node's durable memory of one population's newest head.

    **Guarantee:** after `accept` returned, also across crashes, every head that it accepts extends
    the accepted one, and is signed by the key that the node was enrolled with. A node may join
    late, so the first signed head is taken without proof.

    **Edge cases:** without a key nothing tells whose head it is, so its sender must be known by
    other means, such as a signed request. Heads that do not extend the known one are still
    refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        population: str,
        public_key: bytes | None,
        disk: Disk | None = None,
    ):
        """Reads what is remembered.

        Args:
          path: of the small file; its folder exists.
          population: the only one whose heads are accepted.
          public_key: the ledger's, which the node was enrolled with; heads must carry its
            signature. None: see the edge cases.
          disk: where it is kept.

        Raises:
          LedgerDamagedError: the file holds something else.
          DiskError: it cannot be read.
        """
        self._path, self._public_key, self._disk = path, public_key, disk or Disk()
        start = KnownHead(population, 0, 0, GENESIS)
        self._known = _read(path, _known_from) or start
        if self._known.population != population:
            raise LedgerDamagedError(f"{path}: remembers another population.")

    @property
    def known(self) -> KnownHead:
        """The newest head; row 0 before the first."""
        return self._known

    def accept(self, claim: HeadClaim) -> None:
        """Takes a head that extends the known one; durable when this returns.

        Raises:
          RolledBackError: it does not extend it, or is not signed. Nothing changes.
          DiskError: it cannot be remembered; the old one stays.
        """
        key = self._public_key
        if key is not None and not is_signed(key, claim.head, claim.signature):
            raise RolledBackError("The ledger's head is not signed by the key of this population.")
        is_first = self._known.seq == 0 and claim.population == self._known.population
        if not is_first and not extends(claim, self._known):
            raise RolledBackError(
                f"The ledger was rolled back, or its proof is too short: row {claim.seq} does not "
                f"extend row {self._known.seq}, which this node has seen."
            )
        newer = KnownHead(claim.population, claim.epoch, claim.seq, claim.head)
        if newer != self._known:
            _write(self._path, _known_to_text(newer), self._disk)
            self._known = newer


def claim_of(history: History, signature: bytes, *, num_rows: int = MAX_PROOF_ROWS) -> HeadClaim:
    """The claim of a ledger's last row, with proof for nodes up to `num_rows` rows behind."""
    proof = tuple(history.digests[-min(num_rows, MAX_PROOF_ROWS) :])
    population, epoch = str(history.plan["population"]), history.num_opened
    return HeadClaim(population, epoch, history.num_rows, history.head, signature, proof)


def _is_well_formed(claim: HeadClaim) -> bool:
    return len(claim.proof) <= MAX_PROOF_ROWS and all(len(digest) == 32 for digest in claim.proof)


def _known_to_text(known: KnownHead) -> str:
    return json.dumps({**asdict(known), "head": known.head.hex()}, sort_keys=True)


def _known_from(text: str) -> KnownHead:
    body = json.loads(text)
    return KnownHead(
        _text(body["population"]),
        _count(body["epoch"]),
        _count(body["seq"]),
        _hash(body["head"]),
    )


def _anchor_from(text: str) -> Anchor:
    body = json.loads(text)
    anchor = Anchor(**body)
    for number in (anchor.epoch, anchor.seq):
        _count(number)
    _text(anchor.population), _hash(anchor.head), bytes.fromhex(anchor.signature)
    return anchor


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value


def _hash(value: object) -> bytes:
    digest = bytes.fromhex(_text(value))
    if len(digest) != 32:
        raise ValueError("not a hash")
    return digest


def _read(path: Path, parse: Callable[[str], T]) -> T | None:
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else None
    except OSError as error:
        raise DiskError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise LedgerDamagedError(f"{path}: damaged (not a text).") from error
    if text is None:
        return None
    try:
        return parse(text)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LedgerDamagedError(f"{path}: damaged ({error}).") from error


def _write(path: Path, text: str, disk: Disk) -> None:
    try:
        disk.replace(path, text.encode() + b"\n")
    except OSError as error:
        raise DiskError(f"{path}: cannot be written ({error.strerror or error}).") from error
