"""Segment: the correlated noise of a run, since its start or since its master key was lost."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import FeddpError
from common.privacy.correlated import CorrelatedGaussian, History, NoisedRow
from common.privacy.disk import Disk
from common.privacy.keys import MasterKey, create_master_key, load_master_key
from common.privacy.mechanism import ReleasedUpdate
from common.privacy.noise import KEY_BYTES
from common.privacy.plan import PrivacyPlan
from common.privacy.rows import Charge
from common.privacy.summation import UpdateSum

SECRETS_NAME = "secrets"
_KEY_NAME = re.compile(r"noise-from-(\d{6})\.key")


class Segment:
    """The rows of a run that one master key noised. Its history of update sums is sensitive.

    **Guarantee:** rows are answered by `CorrelatedGaussian.release`; a row enters the history only
    through `append`, after its release is durable.
    """

    def __init__(
        self, mechanism: CorrelatedGaussian, key: MasterKey, history: History, seed: int | None
    ):
        self._mechanism, self._key, self._history, self._seed = mechanism, key, history, seed

    def release(self, total: UpdateSum, charge: Charge) -> tuple[ReleasedUpdate, NoisedRow]:
        """The round's released update, and the row that its checkpoint must hold."""
        entropy = os.urandom(KEY_BYTES) if self._seed is None else bytes(KEY_BYTES)
        return self._mechanism.release(
            total,
            history=self._history,
            master_key=self._key,
            row=charge.round,
            attempt=charge.attempt,
            entropy=entropy,
        )

    def append(self, row: NoisedRow) -> None:
        """Takes a released row in."""
        self._history.append(row, master_key=self._key)


def open_segment(
    folder: Path, plan: PrivacyPlan, rows: Sequence[NoisedRow], *, starts_anew: bool, disk: Disk
) -> Segment | None:
    """The segment that a run continues, or its first; None where the noise is not correlated.

    The master key lies in a folder of its own in the run folder, for its owner alone. A copy of the
    checkpoints without it can be published; with it the noise can be taken off.

    Args:
      folder: of the run.
      plan: of the run.
      rows: released so far, in order.
      starts_anew: the key is lost: begin another segment, which costs utility and no privacy.
      disk: where the key lies.

    Raises:
      FeddpError: rows were released, and their key is not there.
    """
    mechanism = plan.mechanism
    if not isinstance(mechanism, CorrelatedGaussian):
        return None
    run = plan.sha256.encode()
    secrets, first = folder / SECRETS_NAME, _last_start(folder / SECRETS_NAME)
    if plan.seed is not None:
        secret = hashlib.sha256(f"feddp-seeded-master/{plan.seed}".encode()).digest()
        key, first = MasterKey(secret, run=run), 1
    elif first is not None and not starts_anew:
        key = load_master_key(_key_path(secrets, first), run=run)
    elif rows and not starts_anew:
        raise FeddpError(
            f"{secrets}: the master key of {len(rows)} released rounds is missing. Restore it, or "
            "begin a new segment of the noise with --new-noise-segment, which costs utility and "
            "no privacy."
        )
    else:
        first = len(rows) + 1
        key = create_master_key(_key_path(secrets, first), run=run, disk=disk)
    since = [row for row in rows if row.row >= first]
    history = mechanism.replay(since, master_key=key, first_row=first)
    return Segment(mechanism, key, history, plan.seed)


def _last_start(secrets: Path) -> int | None:
    """First row of the newest segment; None where there is no key."""
    if not secrets.is_dir():
        return None
    found = [_KEY_NAME.fullmatch(path.name) for path in secrets.iterdir()]
    return max((int(match[1]) for match in found if match), default=None)


def _key_path(secrets: Path, first_row: int) -> Path:
    return secrets / f"noise-from-{first_row:06d}.key"
