"""Child processes: started in groups of their own, restarted when they die, ended by id."""

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
    """One role: its command, and the process that plays it now.

    Attributes:
      name: of the role, and of its log.
      command: argument vector.
      environment: complete.
      log_path: output of all its lives.
      process: the present or last life.
      started: `time.monotonic` of that life.
      num_starts: lives so far.
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
        """Whether its process runs (or is stopped by a signal)."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Begins a life in a session, and so a process group, of its own."""
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
        """Sends a signal to the role's whole group; the dead are left in peace."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


@dataclass
class Supervisor:
    """Keeps its children alive until it is stopped.

    A SuperNode that died without a farewell is refused by its SuperLink for about 60 seconds; the
    restarts, one every few seconds without an end, outlast that.
    """

    children: dict[str, Child] = field(default_factory=dict)

    def start(self, child: Child) -> None:
        """Adds and starts a child."""
        self.children[child.name] = child
        child.start()

    def tend(self) -> list[Child]:
        """Restarts who has died, at most once in a few seconds each, and returns them."""
        now = time.monotonic()
        died = [
            child
            for child in self.children.values()
            if not child.is_alive and now - child.started >= RETRY_SECONDS
        ]
        for child in died:
            child.send(signal.SIGKILL)  # what a dead parent left behind in its group
            child.start()
        return died

    def stop(self) -> None:
        """Ends all groups, the last started first: SIGTERM, and after a few seconds SIGKILL."""
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
