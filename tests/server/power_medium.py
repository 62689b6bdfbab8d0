"""What of a folder tree is durable: a power cut keeps that, and a random part of the rest."""

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

HAS_APSW = importlib.util.find_spec("apsw") is not None
SECTOR = 512
_replace, _remove = os.replace, os.unlink  # a machine takes the names over later


@dataclass(frozen=True)
class NameChange:
    """One change of a folder that is not durable yet.

    Attributes:
      kind: "create", "rename" or "delete".
      path: the name that came or went.
      source: the old name of a renamed file.
      visible: bytes of the file that the change replaced or deleted; None when there was none.
      durable: of these, what was synced.
    """

    kind: str
    path: str
    source: str = ""
    visible: str | None = None
    durable: str = ""


class Medium:
    """The synced bytes of each file, and each folder's changes since its last sync.

    Without apsw the calls of SQLite cannot be seen: its files are then taken for durable after
    every commit, and what the settings of SQLite promise is not tested.

    Texts hold bytes as latin-1: the medium outlives its process as JSON.
    """

    def __init__(self, root: Path):
        self._root = root
        self._contents: dict[str, str] = {}
        self._changes: dict[str, list[NameChange]] = {}

    @classmethod
    def durable(cls, root: Path) -> "Medium":
        """All that lies in the tree now is on the disk."""
        medium = cls(root)
        medium._contents = {path: _read(path) for path in medium._files()}
        return medium

    @classmethod
    def load(cls, root: Path, path: Path) -> "Medium":
        """What a process left behind."""
        medium = cls(root)
        state = json.loads(path.read_text())
        medium._contents = state["contents"]
        medium._changes = {
            folder: [NameChange(**change) for change in changes]
            for folder, changes in state["changes"].items()
        }
        return medium

    def save(self, path: Path) -> None:
        """For the next process."""
        changes = {key: [asdict(change) for change in kept] for key, kept in self._changes.items()}
        path.write_text(json.dumps({"contents": self._contents, "changes": changes}))

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path lies in the tree, and what happens to it can be seen."""
        is_of_sqlite = Path(path).name.startswith("ledger.sqlite")
        return Path(path).is_relative_to(self._root) and (HAS_APSW or not is_of_sqlite)

    def synced(self, path: str) -> None:
        """A file or a folder was synced. A file's sync does not cover its name."""
        if os.path.isdir(path):
            self._changes.pop(path, None)
        else:
            self._contents[path] = _read(path)

    def created(self, path: str) -> None:
        """A new, empty file got its name."""
        self._add(NameChange("create", path))

    def rename(self, source: str, target: str) -> None:
        """Renames a file inside a folder."""
        replaced = _read(target) if os.path.exists(target) else None
        lost = self._contents.pop(target, "")
        _replace(source, target)
        self._add(NameChange("rename", target, source, replaced, lost))
        if source in self._contents:
            self._contents[target] = self._contents.pop(source)

    def delete(self, path: str) -> None:
        """Deletes a file."""
        deleted, lost = _read(path), self._contents.pop(path, "")
        _remove(path)
        self._add(NameChange("delete", path, "", deleted, lost))

    def lose_power(self, rng: np.random.Generator) -> None:
        """Undoes the last changes of each folder, and spoils the bytes that were not synced."""
        for _, changes in sorted(self._changes.items()):
            for change in reversed(changes[rng.integers(len(changes) + 1) :]):
                self._undo(change)
        for path in self._files():
            visible, durable = _read(path), self._contents.get(path, "")
            if visible != durable:
                _write(path, _mixed(visible, durable, rng))
        self._contents = {path: _read(path) for path in self._files()}
        self._changes = {}

    def _add(self, change: NameChange) -> None:
        self._changes.setdefault(os.path.dirname(change.path), []).append(change)

    def _undo(self, change: NameChange) -> None:
        if change.kind == "create":
            _remove(change.path)
            self._contents.pop(change.path, None)
        if change.kind == "rename":
            _replace(change.path, change.source)
            self._contents[change.source] = self._contents.pop(change.path, "")
        if change.visible is not None:
            _write(change.path, change.visible)
            self._contents[change.path] = change.durable

    def _files(self) -> Iterator[str]:
        paths = sorted(self._root.rglob("*"))
        return (str(path) for path in paths if path.is_file() and self.holds(path))


def _mixed(visible: str, durable: str, rng: np.random.Generator) -> str:
    """Each sector is the new one, the old one, or zeros; the length is the new or the old one."""
    size = int(rng.choice([len(visible), len(durable)]))
    share = rng.choice([0.0, 0.5, 0.9, 1.0])
    sectors = []
    for start in range(0, size, SECTOR):
        origin = visible if rng.random() < share else durable
        sectors.append(origin[start : start + SECTOR].ljust(SECTOR, "\0"))
    return "".join(sectors)[:size]


def _read(path: str) -> str:
    return Path(path).read_bytes().decode("latin-1")


def _write(path: str, content: str) -> None:
    Path(path).write_bytes(content.encode("latin-1"))
