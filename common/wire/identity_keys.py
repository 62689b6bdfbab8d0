"""Ed25519 keys of nodes and of the server, in PEM files that only their owner can read."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from feddp.common.errors import ConfigError


def make_key(path: Path) -> Path:
    """Writes a new private key to `path` (mode 0400); returns its public half's path (.pub).

    Raises:
      ConfigError: one of the files exists; a key is never overwritten.
    """
    public_path = path.with_suffix(".pub")
    for existing in (path, public_path):
        if existing.exists():
            raise ConfigError(f"{existing}: exists already; a key is never overwritten.")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_secret(path, private)
    public_path.write_bytes(public)
    return public_path


def write_secret(path: Path, content: bytes) -> None:
    """A new file that only its owner can read (mode 0400)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file.

    Raises:
      ConfigError: unreadable, not an Ed25519 key, or readable by others.
    """
    content = _read(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: a private key that others can read; `chmod 400 {path}`.")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: not a private key in PEM.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key; `feddp node keygen` makes one.")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
      ConfigError: unreadable, or not an Ed25519 key.
    """
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: not a public key in PEM.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: not an Ed25519 key; `feddp node keygen` makes one.")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
