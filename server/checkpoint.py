"""Atomic round state: written whole or not at all, adopted or burned after a crash."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from feddp.common.disk import Disk, disk_errors
from feddp.common.errors import DiskError, LedgerDamagedError
from feddp.common.privacy.ledger.charge_terms import UPDATE
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.correlated import NoisedRow

_ABOUT = "feddp-checkpoint"  # one key: safetensors writes several in any order
_NAME = re.compile(r"round-(\d{6})-attempt-(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """All state that was derived from a release; the noise cannot be drawn again.

    Attributes:
      round: the released round.
      attempt: of that round.
      plan_sha256: of the run.
      adapter: float32, shape (P,).
      moments: of the server optimizer, float64, shape (P,) each.
      clipping_norm: C of the next round.
      row: what was released, where noise is correlated over the rounds: later rounds need it.
    """

    round: int
    attempt: int
    plan_sha256: str
    adapter: NDArray[np.float32]
    moments: Mapping[str, NDArray[np.float64]]
    clipping_norm: float
    row: NoisedRow | None = None


def checkpoint_path(folder: Path, round: int, attempt: int) -> Path:
    """Where the checkpoint of one charge lies."""
    return folder / f"round-{round:06d}-attempt-{attempt}.safetensors"


def write_checkpoint(folder: Path, checkpoint: Checkpoint, disk: Disk) -> str:
    """Writes, syncs, renames, syncs the folder; returns the SHA-256 of the whole file, hex.

    Raises:
      DiskError: a write, sync or rename failed; the charge stays open, and spent.
    """
    about = {
        "round": checkpoint.round,
        "attempt": checkpoint.attempt,
        "plan_sha256": checkpoint.plan_sha256,
        "clipping_norm": repr(checkpoint.clipping_norm),
        "row_nonce": _nonce(checkpoint),
        "content_sha256": _content_sha256(checkpoint),
    }
    content = save(_arrays(checkpoint), metadata={_ABOUT: json.dumps(about)})
    path = checkpoint_path(folder, checkpoint.round, checkpoint.attempt)
    temporary = path.with_suffix(".tmp")
    with disk_errors(path):
        disk.point("before checkpoint")
        disk.write(temporary, content)
        disk.point("checkpoint written")
        disk.rename(temporary, path)
        disk.point("checkpoint renamed")
        disk.fsync_folder(folder)
        disk.point("after checkpoint")
    return hashlib.sha256(content).hexdigest()


def parse_checkpoint(content: bytes) -> Checkpoint | None:
    """The checkpoint in the bytes of a file; None when they are torn or not ours."""
    try:
        arrays = load(content)
        about = _metadata(content)
        checkpoint = Checkpoint(
            round=about["round"],
            attempt=about["attempt"],
            plan_sha256=about["plan_sha256"],
            adapter=arrays["adapter"],
            moments={
                name.removeprefix("moment."): value
                for name, value in arrays.items()
                if name.startswith("moment.")
            },
            clipping_norm=float(about["clipping_norm"]),
            row=_row(about, arrays),
        )
        is_whole = about["content_sha256"] == _content_sha256(checkpoint)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return checkpoint if is_whole else None


def read_released(folder: Path, release: Release) -> Checkpoint:
    """The checkpoint that a RELEASE row speaks of.

    Raises:
      LedgerDamagedError: its file is missing, torn, or not the one that was released.
      DiskError: it cannot be read.
    """
    path = checkpoint_path(folder, release.round, release.attempt)
    content = _read(path)
    checkpoint = parse_checkpoint(content)
    if checkpoint is None or hashlib.sha256(content).hexdigest() != release.sha256:
        raise LedgerDamagedError(
            f"{path}: missing, or not what the ledger says was released. A release is never drawn "
            "again: restore the file, or start a new run."
        )
    return checkpoint


def released_rows(folder: Path, releases: Sequence[Release]) -> list[NoisedRow]:
    """The rows of a run with correlated noise, in the order of its rounds.

    Raises:
      LedgerDamagedError: a released checkpoint is missing or is not the recorded one.
    """
    rows = [read_released(folder, release).row for release in releases]
    return [row for row in rows if row is not None]


def recover(ledger: Ledger, folder: Path, plan_sha256: str, disk: Disk) -> None:
    """Closes the charge that a crash left open: adopts its finished checkpoint, or burns it.

    **Guarantee:** a charge has at most one answer. A complete file is adopted byte for byte, after
    a second sync, because a file seen after a process crash need not be durable; without one the
    charge stays spent, and its round is charged again. A charge that was not for an update has no
    checkpoint: it is burned.

    Raises:
      DiskError: a read, sync or write failed; the charge stays open, and spent.
    """
    charge = ledger.open_charge
    if charge is not None:
        path = checkpoint_path(folder, charge.round, charge.attempt)
        content = _read(path)
        checkpoint = parse_checkpoint(content)
        is_update = charge.purpose == UPDATE
        if is_update and checkpoint is not None and _answers(checkpoint, charge, plan_sha256):
            with disk_errors(path):
                disk.fsync(path)
                disk.fsync_folder(folder)
            ledger.release(
                charge,
                hashlib.sha256(content).hexdigest(),
                next_clipping_norm=repr(checkpoint.clipping_norm),
            )
        else:
            ledger.burn(charge, "crash")
    with disk_errors(folder):
        for leftover in list(folder.glob("*.tmp")):
            disk.remove(leftover)


def check_free_space(folder: Path, num_bytes: int, disk: Disk) -> None:
    """Stops before anything is charged when the disk cannot hold two checkpoints.

    Raises:
      DiskError: too little space.
    """
    with disk_errors(folder):
        free = disk.free_bytes(folder)
    if free < num_bytes:
        raise DiskError(
            f"{folder}: {free:,} bytes free, {num_bytes:,} needed for two checkpoints. Nothing was "
            "charged for this round; free the disk and resume."
        )


def prune(folder: Path, disk: Disk, *, last_round: int, keep: int = 3) -> None:
    """Deletes checkpoints that `keep` newer released rounds have replaced.

    Raises:
      DiskError: one cannot be deleted.
    """
    with disk_errors(folder):
        for path in list(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match and int(match[1]) <= last_round - keep:
                disk.remove(path)


def _read(path: Path) -> bytes:
    """The bytes of a file; none when it is absent."""
    with disk_errors(path):
        return path.read_bytes() if path.is_file() else b""


def _answers(checkpoint: Checkpoint, charge: Charge, plan_sha256: str) -> bool:
    ours = (charge.round, charge.attempt, plan_sha256)
    return (checkpoint.round, checkpoint.attempt, checkpoint.plan_sha256) == ours


def _arrays(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    moments = {f"moment.{name}": values for name, values in checkpoint.moments.items()}
    row = {} if checkpoint.row is None else {"row": checkpoint.row.values}
    return {"adapter": checkpoint.adapter, **moments, **row}


def _nonce(checkpoint: Checkpoint) -> str:
    return "" if checkpoint.row is None else checkpoint.row.nonce.hex()


def _row(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NoisedRow | None:
    if "row" not in arrays:
        return None
    nonce = bytes.fromhex(about["row_nonce"])
    return NoisedRow(about["round"], about["attempt"], nonce, arrays["row"])


def _content_sha256(checkpoint: Checkpoint) -> str:
    """SHA-256 over everything in a checkpoint: completeness is proven by content."""
    about = (
        f"{checkpoint.round}/{checkpoint.attempt}/{checkpoint.plan_sha256}/"
        f"{checkpoint.clipping_norm!r}/{_nonce(checkpoint)}/"
    )
    digest = hashlib.sha256(about.encode())
    for name, values in sorted(_arrays(checkpoint).items()):
        digest.update(f"{name}/{values.dtype.str}/{values.shape}/".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _metadata(content: bytes) -> dict[str, Any]:
    """What `write_checkpoint` says about the arrays of a file that `load` has accepted."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    about: dict[str, Any] = json.loads(header["__metadata__"][_ABOUT])
    return about
