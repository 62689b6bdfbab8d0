import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feddp.deploy.fleet.supervisor import Child, Supervisor

SLEEP = "import time; time.sleep(600)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).wait()"


def child(folder: Path, code: str) -> Child:
    command = [sys.executable, "-c", code]
    return Child("one", command, dict(os.environ), folder / "one.log")


def group_of(leader: int) -> list[int]:
    words = ["ps", "-o", "pid=", "-g", str(leader)]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


def wait_until(is_true: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not is_true() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.02)
    assert is_true()  # type: ignore[operator]


def test_stopping_ends_children_and_grandchildren(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.start(child(tmp_path, PARENT))
    process = supervisor.children["one"].process
    assert process is not None
    wait_until(lambda: len(group_of(process.pid)) == 2)
    supervisor.stop()
    wait_until(lambda: group_of(process.pid) == [])


def test_a_stopped_process_is_ended_too(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.start(child(tmp_path, SLEEP))
    supervisor.children["one"].send(signal.SIGSTOP)
    supervisor.stop()
    assert not supervisor.children["one"].is_alive


def test_who_has_ended_is_started_again_but_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor()
    supervisor.start(child(tmp_path, "print('alive', flush=True)"))
    one = supervisor.children["one"]
    assert one.process is not None
    one.process.wait()
    assert supervisor.tend() == []
    assert one.num_starts == 1
    monkeypatch.setattr("feddp.deploy.fleet.supervisor.RETRY_SECONDS", 0.0)
    assert supervisor.tend() == [one]
    assert one.num_starts == 2
    supervisor.stop()
    assert (tmp_path / "one.log").read_text().count("alive") >= 1


def test_a_signal_to_the_dead_is_nothing(tmp_path: Path) -> None:
    one = child(tmp_path, "pass")
    one.send(signal.SIGTERM)
    one.start()
    assert one.process is not None
    one.process.wait()
    one.send(signal.SIGTERM)
