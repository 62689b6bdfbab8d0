"""Files of secrets: whole or not at all, and never readable by others for a moment."""

import os
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Writes a secret that only its owner reads."""
    _write(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Writes what every machine may read."""
    _write(path, content, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
