"""The release protocol: charge, draw, write, release; after a crash, adopt the answer or burn.

Both sides that add noise follow it: the server, whose answer to a charge is a checkpoint, and a
node that noises its own sum, whose answer is the file that it sends.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from feddp.common.disk import Disk, disk_errors
from feddp.common.errors import LedgerDamagedError
from feddp.common.privacy.ledger.charge_terms import UPDATE
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger

Answer = TypeVar("Answer")


class AnswerFiles(Protocol[Answer]):
    """The files that hold the answers to a run's charges: one for each, or one for the newest."""

    @property
    def remedy(self) -> str:
        """What to do when the file of a release is lost, in a sentence."""

    def path(self, charge: Charge | Release) -> Path:
        """Where the answer to a charge lies."""

    def to_bytes(self, answer: Answer) -> bytes:
        """The whole file: all that was derived from the noise, which is never drawn again."""

    def parse(self, content: bytes, charge: Charge | Release) -> Answer | None:
        """The answer to a charge; None when the bytes are torn, or answer another one."""

    def next_clipping_norm(self, answer: Answer) -> str:
        """Exact decimal of the next round's, as the RELEASE row says it; "" where it is fixed."""


def charge_and_release(
    ledger: Ledger, files: AnswerFiles[Answer], disk: Disk, draw: Callable[[Charge], Answer]
) -> Answer:
    """Pays for the next update, draws its noise, and makes the answer durable.

    **Guarantee:** noise is drawn only after its charge is durable, and what is returned may be
    published: its file, and then its RELEASE row, are durable.

    Args:
      ledger: with its run started, and no charge open.
      files: where the answer is kept.
      disk: where they lie.
      draw: makes the answer to a charge; called once.

    Raises:
      BudgetSpentError, LedgerDamagedError: see `Ledger.charge`; nothing was drawn.
      DiskError: a write, sync or rename failed; the charge stays spent, and `recover` closes it.
    """
    charge = ledger.charge(ledger.next_round)  # charged, then drawn
    answer = draw(charge)
    path, content = files.path(charge), files.to_bytes(answer)
    with disk_errors(path):
        disk.replace(path, content)
    _release(ledger, files, charge, answer, content)  # durable, then published
    return answer


def recover(ledger: Ledger, files: AnswerFiles[Answer], disk: Disk) -> None:
    """Closes the charge that a crash left open: adopts its finished answer, or burns it.

    **Guarantee:** a charge has at most one answer. A whole file is adopted byte for byte, after a
    second sync, because a file that is seen after a crash need not be durable; without one the
    charge stays spent: it is its round. A charge that was not for an update has no
    file: it is burned.

    Raises:
      DiskError: a read, sync or write failed; the charge stays open, and spent.
    """
    charge = ledger.open_charge
    if charge is None:
        return
    path = files.path(charge)
    content = _read(path)
    answer = files.parse(content, charge) if charge.purpose == UPDATE else None
    if answer is None:
        ledger.burn(charge, "crash")
        return
    with disk_errors(path):
        disk.fsync(path)
        disk.fsync_folder(path.parent)
    _release(ledger, files, charge, answer, content)


def read_released(files: AnswerFiles[Answer], release: Release) -> Answer:
    """The answer that a RELEASE row speaks of.

    Raises:
      LedgerDamagedError: its file is missing, torn, or not the one that was released.
      DiskError: it cannot be read.
    """
    path = files.path(release)
    content = _read(path)
    answer = files.parse(content, release)
    if answer is None or _sha256(content) != release.sha256:
        raise LedgerDamagedError(
            f"{path}: missing, or not what the ledger says was released. {files.remedy}"
        )
    return answer


def _release(
    ledger: Ledger, files: AnswerFiles[Answer], charge: Charge, answer: Answer, content: bytes
) -> None:
    norm = files.next_clipping_norm(answer)
    ledger.release(charge, _sha256(content), next_clipping_norm=norm)


def _read(path: Path) -> bytes:
    """The bytes of a file; none when it is absent."""
    with disk_errors(path):
        return path.read_bytes() if path.is_file() else b""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
