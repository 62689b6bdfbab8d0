"""Runs each mutant's tests on a copy of the repository that has the bug in it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("common", "client", "server", "simulations", "tests", "pyproject.toml")
MAX_SECONDS = 300
TESTS_FAILED = 1  # pytest's exit code; 2 and more are errors of collection or usage


@dataclass(frozen=True)
class Verdict:
    """What a mutant's tests said.

    Attributes:
      mutant: whose.
      is_killed: a test ran and failed.
      test: the first failed test, or what happened instead.
      seconds: of the run.
    """

    mutant: Mutant
    is_killed: bool
    test: str
    seconds: float


def broken_without_bugs(mutants: Sequence[Mutant]) -> str | None:
    """What the tests of all mutants say of the source as it is; None when they pass."""
    tests = sorted({test for mutant in mutants for test in mutant.killed_by})
    with tempfile.TemporaryDirectory() as place:
        done = _pytest(_copy(Path(place)), tests)
    return None if done.returncode == 0 else done.stdout[-3000:] + done.stderr[-1000:]


def run_mutants(mutants: Sequence[Mutant], *, processes: int = 2) -> Iterator[Verdict]:
    """The verdict on each mutant, in order; every process works on a copy of its own."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(processes) as executor:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(processes):
            copies.put(_copy(Path(place) / str(number)))

        def judge(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return _judge(mutant, copy)
            finally:
                copies.put(copy)

        yield from executor.map(judge, mutants)


def _judge(mutant: Mutant, copy: Path) -> Verdict:
    path, started = copy / mutant.file, time.monotonic()
    honest = path.read_text(encoding="utf-8")
    path.write_text(mutant.apply(honest), encoding="utf-8")
    try:
        done = _pytest(copy, mutant.killed_by)
    except subprocess.TimeoutExpired:
        return Verdict(mutant, False, "no answer in time", time.monotonic() - started)
    finally:
        path.write_text(honest, encoding="utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    is_killed = done.returncode == TESTS_FAILED and bool(failed)
    test = failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else _last(done)
    return Verdict(mutant, is_killed, test, time.monotonic() - started)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    return f"exit code {done.returncode}: {lines[-1]}"


def _pytest(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs tests in a copy: stops at the first failure, leaves no byte code behind."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", ""]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    return subprocess.run(
        [*command, *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
        check=False,
    )


def _copy(target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)
    return target
