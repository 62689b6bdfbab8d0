"""Checkpoints: written completely or not at all; adopted or burned after a crash."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from feddp.common.disk import Disk, disk_errors
from feddp.common.errors import DiskError
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released, recover
from feddp.common.privacy.mechanism.correlated import NoisedRow
from feddp.server.optimizer import Moments

_ABOUT = "feddp-checkpoint"  # a single key: safetensors does not fix the order of several
_NAME = re.compile(r"round-(\d{6})-attempt-(\d+)\.safetensors")


@dataclass(frozen=True)
class RoundState:
    """The state of training after a release; all of it is public.

    Attributes:
      round: the last released round; 0 is the base model.
      adapter: float32, shape (P,).
      moments: of the server optimizer, float64, shape (P,) each.
      clipping_norm: C of the next round.
    """

    round: int
    adapter: NDArray[np.float32]
    moments: Moments
    clipping_norm: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything derived from a release, whose noise cannot be drawn again.

    `row`: the released row, if noise is correlated over rounds: later rounds need it.
    """

    state: RoundState
    attempt: int
    plan_sha256: str
    row: NoisedRow | None = None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run: one file per charge."""

    folder: Path
    plan_sha256: str
    remedy: ClassVar[str] = "A release is never drawn again: restore the file, or start a new run."

    def path(self, charge: Charge | Release) -> Path:
        """See `AnswerFiles`."""
        return self.folder / f"round-{charge.round:06d}-attempt-{charge.attempt}.safetensors"

    def to_bytes(self, checkpoint: Checkpoint) -> bytes:
        """See `AnswerFiles`."""
        about = {
            "round": checkpoint.state.round,
            "attempt": checkpoint.attempt,
            "plan_sha256": checkpoint.plan_sha256,
            "clipping_norm": repr(checkpoint.state.clipping_norm),
            "row_nonce": _nonce(checkpoint),
            "content_sha256": _content_sha256(checkpoint),
        }
        content: bytes = save(_arrays(checkpoint), metadata={_ABOUT: json.dumps(about)})
        return content

    def parse(self, content: bytes, charge: Charge | Release) -> Checkpoint | None:
        """See `AnswerFiles`; a checkpoint of another plan is no answer."""
        try:
            arrays = load(content)
            about = _metadata(content)
            moments = {
                name.removeprefix("moment."): values
                for name, values in arrays.items()
                if name.startswith("moment.")
            }
            norm = float(about["clipping_norm"])
            state = RoundState(about["round"], arrays["adapter"], moments, norm)
            row = _row(about, arrays)
            checkpoint = Checkpoint(state, about["attempt"], about["plan_sha256"], row)
            is_whole = about["content_sha256"] == _content_sha256(checkpoint)
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
            return None
        found = (checkpoint.state.round, checkpoint.attempt, checkpoint.plan_sha256)
        is_its = found == (charge.round, charge.attempt, self.plan_sha256)
        return checkpoint if is_whole and is_its else None

    def next_clipping_norm(self, checkpoint: Checkpoint) -> str:
        """See `AnswerFiles`."""
        return repr(checkpoint.state.clipping_norm)

    def released_rows(self, releases: Sequence[Release]) -> list[NoisedRow]:
        """The rows of a run with correlated noise, in the order of its rounds.

        Raises:
          LedgerDamagedError: a released checkpoint is missing or is not the recorded one.
        """
        rows = [read_released(self, release).row for release in releases]
        return [row for row in rows if row is not None]

    def check_free_space(self, num_bytes: int, disk: Disk) -> None:
        """Raises before anything is charged if the disk cannot hold two checkpoints.

        Raises:
          DiskError: too little space.
        """
        with disk_errors(self.folder):
            free = disk.free_bytes(self.folder)
        if free < num_bytes:
            raise DiskError(
                f"{self.folder}: {free:,} bytes free, {num_bytes:,} needed for two checkpoints. "
                "Nothing was charged for this round; free the disk and resume."
            )

    def prune(self, disk: Disk, *, last_round: int, keep: int = 3) -> None:
        """Deletes all but the `keep` newest released checkpoints.

        Raises:
          DiskError: one cannot be deleted.
        """
        with disk_errors(self.folder):
            for path in list(self.folder.iterdir()):
                match = _NAME.fullmatch(path.name)
                if match and int(match[1]) <= last_round - keep:
                    disk.remove(path)

    def recover(self, ledger: Ledger, disk: Disk) -> None:
        """Closes the charge that a crash left open, and deletes partly written files.

        Raises:
          DiskError: see `release_protocol.recover`; or a file cannot be deleted.
        """
        recover(ledger, self, disk)
        with disk_errors(self.folder):
            for path in list(self.folder.glob("*.tmp")):
                disk.remove(path)


def _arrays(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    moments = {f"moment.{name}": values for name, values in checkpoint.state.moments.items()}
    row = {} if checkpoint.row is None else {"row": checkpoint.row.values}
    return {"adapter": checkpoint.state.adapter, **moments, **row}


def _nonce(checkpoint: Checkpoint) -> str:
    return "" if checkpoint.row is None else checkpoint.row.nonce.hex()


def _row(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NoisedRow | None:
    if "row" not in arrays:
        return None
    nonce = bytes.fromhex(about["row_nonce"])
    return NoisedRow(about["round"], about["attempt"], nonce, arrays["row"])


def _content_sha256(checkpoint: Checkpoint) -> str:
    """SHA-256 over everything in a checkpoint; it proves that the file is complete."""
    about = (
        f"{checkpoint.state.round}/{checkpoint.attempt}/{checkpoint.plan_sha256}/"
        f"{checkpoint.state.clipping_norm!r}/{_nonce(checkpoint)}/"
    )
    digest = hashlib.sha256(about.encode())
    for name, values in sorted(_arrays(checkpoint).items()):
        digest.update(f"{name}/{values.dtype.str}/{values.shape}/".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _metadata(content: bytes) -> dict[str, Any]:
    """A checkpoint's metadata, from bytes that `load` has accepted."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    about: dict[str, Any] = json.loads(header["__metadata__"][_ABOUT])
    return about
