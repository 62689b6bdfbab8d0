"""Segment: the correlated noise of a run under one master key."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from feddp.common.disk import Disk
from feddp.common.errors import ConfigError, FeddpError
from feddp.common.privacy.ledger.history import Charge
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian, History, NoisedRow
from feddp.common.privacy.mechanism.gaussian import ReleasedUpdate
from feddp.common.privacy.mechanism.master_key import MasterKey, create_master_key, load_master_key
from feddp.common.privacy.mechanism.noise import KEY_BYTES
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.plan import PrivacyPlan

SECRETS_NAME = "secrets"  # of the folder of master keys
_KEY_NAME = re.compile(r"noise-from-(\d{6})\.key")


class Segment:
    """The rows of a run noised with one master key. Its history of update sums is sensitive.

    **Guarantee:** rows are answered by `CorrelatedGaussian.release`; a row enters the history only
    through `append`, after its release is durable.
    """

    def __init__(
        self, mechanism: CorrelatedGaussian, key: MasterKey, history: History, seed: int | None
    ):
        self._mechanism, self._key, self._history, self._seed = mechanism, key, history, seed

    def release(self, total: UpdateSum, charge: Charge) -> tuple[ReleasedUpdate, NoisedRow]:
        """The round's released update, and the row that its checkpoint must hold.

        Rounds that were charged since the last release, and not released, are burned rows.
        """
        self._history.burn_until(charge.round)
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
        """Adds a released row to the history."""
        self._history.append(row, master_key=self._key)


def open_segment(
    secrets: Path,
    plan: PrivacyPlan,
    rows: Sequence[NoisedRow],
    *,
    next_row: int,
    starts_anew: bool,
    disk: Disk,
) -> Segment | None:
    """The run's current segment, or its first; None if no correlated noise is needed.

    The master key lies among the run's secrets (`run_secrets`): whoever has it and the checkpoints
    can remove the noise.

    **Edge cases:**

    | what happens | what follows |
    |---|---|
    | all rounds are released or burned | None: the key is no longer needed |
    | `starts_anew` for a run that is over, seeded, or without correlated noise | refused |
    | `starts_anew` again before a round was released | refused: that segment is continued |

    Args:
      secrets: folder of the master keys.
      rows: released so far, in order; those that are missing between them were burned.
      next_row: that comes next.
      starts_anew: the key is lost: begin a new segment, which costs utility but no privacy.

    Raises:
      ConfigError: a new segment is asked for, but none can begin.
      FeddpError: rows were released, but their key is missing.
    """
    mechanism = plan.mechanism
    if starts_anew and (reason := _why_not_anew(secrets, plan, next_row)):
        raise ConfigError(f"--new-noise-segment: {reason}")
    if not isinstance(mechanism, CorrelatedGaussian) or next_row > plan.num_rounds:
        return None
    if plan.seed is not None:
        secret = hashlib.sha256(f"feddp-seeded-master/{plan.seed}".encode()).digest()
        key, first = MasterKey(secret, run=plan.sha256.encode()), 1
    else:
        key, first = _open_key(secrets, plan, next_row, bool(rows), starts_anew, disk)
    since = [row for row in rows if row.row >= first]
    history = mechanism.replay(since, master_key=key, first_row=first)
    return Segment(mechanism, key, history, plan.seed)


def _open_key(
    secrets: Path,
    plan: PrivacyPlan,
    next_row: int,
    has_rows: bool,
    starts_anew: bool,
    disk: Disk,
) -> tuple[MasterKey, int]:
    """The master key of the newest segment, and the segment's first row."""
    run, first = plan.sha256.encode(), _last_start(secrets)
    if first is not None and not starts_anew:
        return load_master_key(_key_path(secrets, first), run=run), first
    if has_rows and not starts_anew:
        raise FeddpError(
            f"{secrets}: the master key of the rounds before {next_row} is missing. Restore it, or "
            "begin a new segment of the noise with --new-noise-segment, which costs utility and "
            "no privacy."
        )
    return create_master_key(_key_path(secrets, next_row), run=run, disk=disk), next_row


def _why_not_anew(secrets: Path, plan: PrivacyPlan, next_row: int) -> str:
    """Why no segment can begin at a row; "" if one can."""
    if not isinstance(plan.mechanism, CorrelatedGaussian):
        return (
            f'the noise of privacy.mechanism = "{plan.schedule.mechanism.name}" is independent in '
            "every round and has no segments. Resume without it."
        )
    if plan.seed is not None:
        return "the master key of a seeded run follows from its seed. Resume without it."
    if next_row > plan.num_rounds:
        return (
            f"all {plan.num_rounds} rounds are over; no noise is left to make. Resume without it."
        )
    path = _key_path(secrets, next_row)
    if path.exists() or path.is_symlink():
        return (
            f"a segment from round {next_row} has begun already. Resume without it; if "
            f"{path} cannot be read, remove that file first: no released round needs it."
        )
    return ""


def _last_start(secrets: Path) -> int | None:
    """First row of the newest segment; None if there is no key."""
    if not secrets.is_dir():
        return None
    found = [_KEY_NAME.fullmatch(path.name) for path in secrets.iterdir()]
    return max((int(match[1]) for match in found if match), default=None)


def _key_path(secrets: Path, first_row: int) -> Path:
    return secrets / f"noise-from-{first_row:06d}.key"
