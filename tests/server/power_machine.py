"""A machine under a run: it dies at a chosen system call, and its power may go too."""

import hashlib
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from crash_disk import OutsideLog
from crash_rules import RuleBrokenError, Trial
from power_medium import HAS_APSW, Medium
from small_run import IntegerNodes, live

from feddp.common.disk import PRIVATE, Disk
from feddp.common.privacy.ledger.history import FIELDS, History


class Machine:
    """Stands between one process and its operating system; counts the calls on the run's files."""

    def __init__(self, medium: Medium, state_path: Path, dies_at: int | None):
        self.medium = medium
        self.num_steps = 0
        self._state_path = state_path
        self._dies_at = dies_at

    def step(self) -> None:
        """One more moment at which the machine can stop."""
        self.num_steps += 1
        if self.num_steps == self._dies_at:
            self.shut_down()
            os.kill(os.getpid(), signal.SIGKILL)

    def shut_down(self) -> None:
        """Leaves what is durable, and what is not, to the next life."""
        self.medium.save(self._state_path)

    def boot(self) -> None:
        """Takes over the system calls of `Disk`, for the rest of a forked process' life."""
        for name in ("open", "write", "fsync", "replace", "unlink"):
            setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))

    def _open(self, call: Callable[..., int]) -> Callable[..., int]:
        def wrapped(path: str | os.PathLike[str], flags: int, *rest: Any, **more: Any) -> int:
            is_new = flags & os.O_CREAT and not os.path.exists(path)
            descriptor = call(path, flags, *rest, **more)
            if is_new and self.medium.holds(path):
                self.medium.created(os.fspath(path))
                self.step()
            return descriptor

        return wrapped

    def _write(self, call: Callable[..., int]) -> Callable[..., int]:
        def wrapped(descriptor: int, content: bytes | memoryview) -> int:
            if not self.medium.holds(_path_of(descriptor)):
                return call(descriptor, content)
            self.step()
            return call(descriptor, content[: -(-len(content) // 2)])  # short, as it may be

        return wrapped

    def _fsync(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(descriptor: int) -> None:
            self.step()
            call(descriptor)
            self.medium.synced(_path_of(descriptor))

        return wrapped

    def _replace(self, call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
            self.step()
            self.medium.rename(os.fspath(source), os.fspath(target))
            self.step()

        return wrapped

    def _unlink(self, call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: str | os.PathLike[str], **more: Any) -> None:
            if more or not self.medium.holds(path):
                return call(path, **more)
            self.step()
            return self.medium.delete(os.fspath(path))

        return wrapped


class MachineDisk(Disk):
    """The real disk on a machine. Logs, outside it, every drawn answer and every committed head."""

    def __init__(self, machine: Machine, log: OutsideLog):
        self._machine = machine
        self._log = log
        self._connection: sqlite3.Connection | None = None

    def connect(self, path: Path, *, is_new: bool = False) -> sqlite3.Connection:
        if HAS_APSW:
            from power_vfs import connect

            self._connection = connect(path, self._machine)
        else:
            self._connection = super().connect(path, is_new=is_new)
        return self._connection

    def point(self, name: str) -> None:
        if name.removeprefix("after ") in FIELDS and self._connection is not None:
            query = "SELECT hash FROM event ORDER BY seq DESC LIMIT 1"
            self._log.add("head", self._connection.execute(query).fetchone()[0].hex())
        self._machine.step()

    def write(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        self._log.add("answer", path.name.partition(".")[0], hashlib.sha256(content).hexdigest())
        super().write(path, content, mode)


@dataclass
class PowerTrial(Trial):
    """A run on a machine that dies, and sometimes loses its power with it.

    Attributes:
      power: chance that a death is a power cut; else the next life sees all that was written.
      rng: of the cuts.
    """

    power: float = 1.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._state_path = self.folder / "medium.json"
        Medium.durable(self.run_path).save(self._state_path)

    def live_once(self, dies_at: int | None, *, is_cut: bool | None = None) -> int:
        """One life; its exit status. `is_cut` decides what chance would."""
        status = super().live_once(dies_at)
        is_cut = self.rng.random() < self.power if is_cut is None else is_cut
        if status == -signal.SIGKILL and is_cut:
            medium = Medium.load(self.run_path, self._state_path)
            medium.lose_power(self.rng)
            medium.save(self._state_path)
        return status

    def run_life(self, dies_at: int | None) -> None:
        medium = Medium.load(self.run_path, self._state_path)
        machine = Machine(medium, self._state_path, dies_at)
        machine.boot()
        nodes = IntegerNodes(self.log.add)
        try:
            live(self.run_path, self.plan, nodes=nodes, disk=MachineDisk(machine, self.log))
        finally:
            machine.shut_down()
            self.log.add("steps", machine.num_steps)

    def check(self) -> History:
        """Also: a commit that was reported once is never lost."""
        history = super().check()
        connection = sqlite3.connect(self.folder / "copy" / "ledger.sqlite")
        kept = {digest.hex() for (digest,) in connection.execute("SELECT hash FROM event")}
        connection.close()
        if not {head for (head,) in self.log.lines("head")} <= kept:
            raise RuleBrokenError("a reported commit was lost")
        return history


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
