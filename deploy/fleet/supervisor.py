"""Child processes: each in a group of its own, restarted when it ends, stopped by its id."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RETRY_SECONDS = 5.0
STOP_SECONDS = 8.0


@dataclass
class Child:
    """One role of the fleet: its command, and the process that runs it.

    Attributes:
      name: of the role, and of its log.
      command: argument vector.
      environment: complete.
      log_path: the output of all its processes, one after the other.
      process: the one that runs, or the last one that did.
      started: `time.monotonic` when that process was started.
      num_starts: how often a process was started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    num_starts: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether its process exists; one that a signal has stopped does."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts a process in a session, and so in a process group, of its own."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.log_path.parent,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.num_starts += 1

    def send(self, number: int) -> None:
        """Sends a signal to the role's process group; does nothing if the group has ended."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


@dataclass
class Supervisor:
    """Keeps its children running until it is stopped.

    A SuperLink refuses a SuperNode that ended without signing off for about 60 seconds. Restarts
    are tried every few seconds without a limit, so they outlast that.
    """

    children: dict[str, Child] = field(default_factory=dict)

    def start(self, child: Child) -> None:
        """Adds and starts a child."""
        self.children[child.name] = child
        child.start()

    def tend(self) -> list[Child]:
        """Restarts the children that have ended, each at most every few seconds; returns them."""
        now = time.monotonic()
        ended = [
            child
            for child in self.children.values()
            if not child.is_alive and now - child.started >= RETRY_SECONDS
        ]
        for child in ended:
            child.send(signal.SIGKILL)  # processes that it had started
            child.start()
        return ended

    def stop(self) -> None:
        """Stops all groups, the last started first: SIGTERM, and SIGKILL after a few seconds."""
        for child in reversed(self.children.values()):
            child.send(signal.SIGCONT)
            child.send(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for child in self.children.values():
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.1, end - time.monotonic()))
        for child in self.children.values():
            child.send(signal.SIGKILL)
            if child.process is not None:
                child.process.wait()
