"""Signatures of the ledger: Ed25519 over each row's hash, with a key only its owner can read."""

import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from feddp.common.disk import Disk
from feddp.common.errors import ConfigError, LedgerDamagedError


class LedgerKey:
    """The private key of one writer. Its bytes are never shown."""

    def __init__(self, private: Ed25519PrivateKey):
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()

    def sign(self, head: bytes) -> bytes:
        """64 bytes; the same for the same hash."""
        return self._private.sign(head)


def create_key(path: Path, disk: Disk) -> LedgerKey:
    """A new key in a new file that its owner alone can read; durable, name and bytes.

    Raises:
      OSError: it cannot be written.
    """
    private = Ed25519PrivateKey.generate()
    disk.replace(path, private.private_bytes_raw().hex().encode() + b"\n")
    return LedgerKey(private)


def load_key(path: Path) -> LedgerKey:
    """The key in a file.

    Raises:
      ConfigError: it is missing, damaged, or others can read it.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii")
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.strip()))
    except OSError as error:
        raise ConfigError(
            [
                f"privacy.ledger-key: {path}: cannot be read ({error.strerror}). Without its key "
                "a ledger can be verified, and not written."
            ]
        ) from error
    except ValueError as error:
        raise ConfigError([f"privacy.ledger-key: {path}: holds no Ed25519 key."]) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            [
                f"privacy.ledger-key: {path}: others can read it (mode {stat.S_IMODE(mode):o}). "
                f"Make it yours alone: chmod 600 {path}; if they may have, "
                "`feddp ledger rotate`."
            ]
        )
    return LedgerKey(private)


def is_signed(public_key: bytes, head: bytes, signature: bytes) -> bool:
    """Whether the holder of a key signed a hash.

    Args:
      public_key: Ed25519, 32 bytes.
      head: what was signed, 32 bytes.
      signature: 64 bytes.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, head)
    except InvalidSignature:
        return False
    return True


def default_key_path(ledger_path: Path) -> Path:
    """Where a ledger's private key lies unless a configuration says otherwise."""
    return ledger_path.with_name(ledger_path.name + ".key")


def new_key_path(path: Path) -> Path:
    """Where a rotation keeps the next key until the ledger has taken it."""
    return path.with_name(path.name + ".new")


def replace_key(path: Path, disk: Disk) -> None:
    """Durably puts the new key in the place of the old one.

    Raises:
      OSError: it cannot.
    """
    disk.rename_durably(new_key_path(path), path)


def writer_key(path: Path, public_key: bytes, disk: Disk) -> LedgerKey:
    """The private half of a ledger's key; finishes a rotation that a crash cut off.

    Raises:
      ConfigError: it cannot be used.
      LedgerDamagedError: it is another key, or somebody else's ledger.
      OSError: the rotation cannot be finished.
    """
    new_path = new_key_path(path)
    if new_path.exists() and load_key(new_path).public == public_key:
        replace_key(path, disk)
    key = load_key(path)
    if key.public != public_key:
        raise LedgerDamagedError(
            f"privacy.ledger-key: {path}: is not the key of this ledger (its public key is "
            f"{public_key.hex()[:12]}, this one's {key.public.hex()[:12]}). If nobody rotated it, "
            "somebody else has written this ledger."
        )
    return key
