"""The master key of a run with correlated noise: its only durable secret."""

import hashlib
import os
import stat
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from feddp.common.disk import Disk
from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.noise import KEY_BYTES, BitStream
from feddp.common.privacy.mechanism.summation import UpdateSum

NONCE_BYTES = 32


class MasterKey:
    """32 secret bytes, bound to one run, from which the noise of every row can be drawn again.

    **Guarantee:** no two of (run, row, attempt, nonce) share a noise stream. The secret is in no
    repr, and the object refuses to be pickled or copied. Whoever has it can take the noise off
    every release of its rows.
    """

    __slots__ = ("_run", "_secret")

    def __init__(self, secret: bytes, *, run: bytes):
        """Takes the secret and what names the run, such as the hash of its PLAN row."""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, not {len(secret)}")
        self._secret = secret
        self._run = hashlib.sha256(run).digest()

    def nonce(self, total: UpdateSum, *, row: int, attempt: int, entropy: bytes) -> bytes:
        """A public number that makes the noise of one answer its own.

        **Guarantee:** without the key it says nothing about the sum; two answers to one attempt,
        from a ledger that was rolled back or on a cloned machine, have the same nonce only if
        both entropy and sums are equal, and are then the same answer.

        Args:
          total: the sum that the noise is for.
          row: of the matrix.
          attempt: at that row.
          entropy: fresh from the operating system; constant in seeded runs, which are not private.
        """
        digest = hashlib.sha256(total.total.tobytes()).digest()
        return self._derive(b"nonce" + digest, row, attempt, salt=entropy)

    def noise_bits(self, *, row: int, attempt: int, nonce: bytes) -> BitStream:
        """The stream of one answer; the same again whenever it is asked for.

        Raises:
          ValueError: a nonce of another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        return BitStream(self._derive(b"noise", row, attempt, salt=nonce))

    def _derive(self, purpose: bytes, row: int, attempt: int, *, salt: bytes) -> bytes:
        place = row.to_bytes(8, "big") + attempt.to_bytes(8, "big")
        info = b"feddp-correlated-" + self._run + place + purpose
        hkdf = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info)
        return hkdf.derive(self._secret)

    def __repr__(self) -> str:
        return "MasterKey(secret)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a master key is secret and is neither serialised nor copied")


def create_master_key(path: Path, *, run: bytes, disk: Disk) -> MasterKey:
    """Draws a key and makes it durable, readable only by its owner, before it is used.

    **Edge cases:** an existing file is never replaced: its key may be all that explains the rows.

    Args:
      path: in a folder of its own, away from checkpoints, so that no copy of a run takes it along.
      run: see `MasterKey`.
      disk: where it lies.

    Raises:
      FeddpError: the file exists, or its folder is open to others.
      OSError: the disk refuses.
    """
    if path.exists() or path.is_symlink():
        raise FeddpError(f"{path}: there is a master key already; it is never replaced.")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(path.parent)
    secret = os.urandom(KEY_BYTES)
    disk.replace(path, secret)
    return MasterKey(secret, run=run)


def load_master_key(path: Path, *, run: bytes) -> MasterKey:
    """Reads a key back.

    Raises:
      FeddpError: no such file, not a regular one, not ours, open to others, or of another size.
    """
    _check_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise FeddpError(
            f"{path}: no master key can be read here ({error.strerror}). Restore it, or start a "
            "new segment of the noise."
        ) from error
    with open(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        is_private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not stat.S_ISREG(found.st_mode) or not is_private:
            raise FeddpError(
                f"{path}: a master key must be a file that its owner alone can read. Run "
                f'"chmod 600", and treat the key as known to others if it was not.'
            )
        secret = file.read(KEY_BYTES + 1)
    if len(secret) != KEY_BYTES:
        raise FeddpError(f"{path}: a master key has {KEY_BYTES} bytes. This file is damaged.")
    return MasterKey(secret, run=run)


def _check_folder(folder: Path) -> None:
    try:
        found = folder.stat()
    except OSError as error:
        raise FeddpError(f"{folder}: cannot be read ({error.strerror}).") from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise FeddpError(
            f'{folder}: the folder of a master key must be its owner\'s alone. Run "chmod 700".'
        )
