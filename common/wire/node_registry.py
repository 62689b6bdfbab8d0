"""The registry of nodes: name, public key and number of users, kept by the operator as TOML."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from feddp.common.config.run_config import read_toml
from feddp.common.disk import Disk
from feddp.common.errors import ConfigError

ACTIVE, REVOKED = "active", "revoked"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"public-key", "users", "state"}
HEADER = "# Nodes of this population; changed by `feddp node enroll | rotate | revoke`.\n"


@dataclass(frozen=True)
class Entry:
    """One node.

    Attributes:
      public_key: Ed25519, 32 bytes, hex.
      users: registered users of the node, public; bounds what its sum may be.
      state: "active" or "revoked"; a revoked name and key are never used again.
    """

    public_key: str
    users: int
    state: str = ACTIVE

    def verifier(self) -> Ed25519PublicKey:
        """The key as an object."""
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))


@dataclass(frozen=True)
class Registry:
    """All nodes by name, sorted."""

    entries: Mapping[str, Entry]

    @property
    def active(self) -> dict[str, Entry]:
        """The nodes that may answer."""
        return {name: e for name, e in self.entries.items() if e.state == ACTIVE}

    def enroll(self, name: str, key: Ed25519PublicKey, users: int) -> "Registry":
        """The registry with a new node.

        Raises:
          ConfigError: the name or the key is taken (revoked ones too), or a value is out of range.
        """
        if name in self.entries:
            raise ConfigError(
                f"{name}: enrolled already; `feddp node rotate` changes the key of a node."
            )
        return self._with(name, Entry(_hex(key), users))

    def rotate(self, name: str, key: Ed25519PublicKey) -> "Registry":
        """The registry with another key for an active node; the old key is then worthless."""
        return self._with(name, dataclasses.replace(self._active(name), public_key=_hex(key)))

    def revoke(self, name: str) -> "Registry":
        """The registry with the node revoked: it is neither asked nor believed."""
        return self._with(name, dataclasses.replace(self._active(name), state=REVOKED))

    def _active(self, name: str) -> Entry:
        if name not in self.active:
            known = ", ".join(self.active) or "none"
            raise ConfigError(f"{name}: no active node of that name. Active: {known}.")
        return self.active[name]

    def _with(self, name: str, entry: Entry) -> "Registry":
        entries = dict(sorted({**self.entries, name: entry}.items()))
        if problems := _problems(entries):
            raise ConfigError(problems)
        return Registry(entries)


def read_registry(path: Path) -> Registry:
    """Reads and checks the file.

    Raises:
      ConfigError: with every problem at once.
    """
    content = read_toml(path)
    malformed = [
        f"{path}: [{name}]: give public-key, users and state, and nothing else."
        for name, fields in content.items()
        if not isinstance(fields, dict) or set(fields) != _FIELDS
    ]
    if malformed:
        raise ConfigError(malformed)
    entries = {
        name: Entry(fields["public-key"], fields["users"], fields["state"])
        for name, fields in sorted(content.items())
    }
    if problems := _problems(entries):
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return Registry(entries)


def write_registry(path: Path, registry: Registry) -> None:
    """Replaces the file: whole, or not at all."""
    paragraphs = [
        f'\n[{name}]\npublic-key = "{e.public_key}"\nusers = {e.users}\nstate = "{e.state}"\n'
        for name, e in registry.entries.items()
    ]
    Disk().replace(path, "".join([HEADER, *paragraphs]).encode(), is_shared=True)


def _problems(entries: Mapping[str, Entry]) -> list[str]:
    problems = []
    owners: dict[str, str] = {}
    for name, entry in entries.items():
        if not _NAME.fullmatch(name):
            problems.append(f"{name}: a name has up to 64 letters, digits, - and _.")
        if not isinstance(entry.public_key, str) or not _KEY.fullmatch(entry.public_key):
            problems.append(f"{name}: public-key must be 64 hexadecimal digits.")
        if type(entry.users) is not int or entry.users < 1:
            problems.append(f"{name}: users = {entry.users}: must be a whole number >= 1.")
        if entry.state not in (ACTIVE, REVOKED):
            problems.append(f'{name}: state must be "{ACTIVE}" or "{REVOKED}".')
        if (other := owners.setdefault(str(entry.public_key), name)) != name:
            problems.append(f"{name}: has the key of {other}; each node has its own.")
    return problems


def _hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes_raw().hex()
