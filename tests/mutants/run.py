"""Runs each mutant's tests on a copy of the repository that has the bug in it.

Every run is a fork of this process, which has loaded the libraries and none of the code under test:
a fork takes a second where a new interpreter takes ten.
"""

import contextlib
import importlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("feddp", "common", "client", "server", "deploy", "simulations", "tests", "pyproject.toml")
LIBRARIES = (
    "numpy",
    "scipy.stats",
    "hypothesis.extra.numpy",
    "dp_accounting.pld",
    "cryptography",
    "safetensors.numpy",
    "flwr.app",
    "torch",
    "transformers",
    "peft",
)
MAX_SECONDS = 300
_UNCHANGED = ("", str(ROOT), str(ROOT / "tests"), "tests")  # where the source without bugs is found
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


@dataclass(frozen=True)
class Answer:
    """Exit code and output of pytest."""

    code: int
    output: str


def broken_without_bugs(mutants: Sequence[Mutant], *, processes: int = 2) -> str | None:
    """What the tests of all mutants say of the source as it is; None when they pass."""
    tests = sorted({test for mutant in mutants for test in mutant.killed_by})
    with tempfile.TemporaryDirectory() as place:
        copy = copy_source(Path(place))
        with forks(processes) as pool:
            parts = [(copy, tests[start::processes]) for start in range(processes)]
            answers = pool.starmap(run_pytest, [part for part in parts if part[1]])
    return next((answer.output[-3000:] for answer in answers if answer.code != 0), None)


def run_mutants(mutants: Sequence[Mutant], *, processes: int = 2) -> Iterator[Verdict]:
    """The verdict on each mutant, in order; every run has a copy of the source for itself."""
    with tempfile.TemporaryDirectory() as place:
        copies = multiprocessing.get_context("fork").SimpleQueue()
        for number in range(processes):
            copies.put(copy_source(Path(place) / str(number)))
        with forks(processes, copies) as pool:
            yield from pool.imap(_judge, mutants)


def forks(processes: int, copies: object = None):  # type: ignore[no-untyped-def]
    """A pool of forks, each for one task, that have the libraries loaded."""
    if "feddp" in sys.modules:
        raise RuntimeError("the code under test is loaded already")
    for name in LIBRARIES:
        importlib.import_module(name)
    return multiprocessing.get_context("fork").Pool(
        processes, maxtasksperchild=1, initializer=_keep, initargs=(copies,)
    )


def _keep(copies: object) -> None:
    global _copies
    _copies = copies


def _judge(mutant: Mutant) -> Verdict:
    copy: Path = _copies.get()  # type: ignore[name-defined]
    path, started = copy / mutant.file, time.monotonic()
    honest = path.read_text(encoding="utf-8")
    path.write_text(mutant.apply(honest), encoding="utf-8")
    try:
        answer = run_pytest(copy, mutant.killed_by)
    finally:
        path.write_text(honest, encoding="utf-8")
        _copies.put(copy)  # type: ignore[name-defined]
    failed = [line for line in answer.output.splitlines() if line.startswith("FAILED ")]
    is_killed = answer.code == TESTS_FAILED and bool(failed)
    lines = answer.output.strip().splitlines() or [""]
    test = failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else lines[-1]
    return Verdict(mutant, is_killed, test, time.monotonic() - started)


def run_pytest(copy: Path, tests: Sequence[str]) -> Answer:
    """Runs tests in a copy; stops at the first failure, and leaves no byte code behind."""
    os.chdir(copy)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.path[:] = [str(copy), *[entry for entry in sys.path if entry not in _UNCHANGED]]
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # an interrupted run kills nothing
    signal.alarm(MAX_SECONDS)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "", *tests])
    signal.alarm(0)
    return Answer(int(code), output.getvalue())


def copy_source(target: Path) -> Path:
    """A copy of the repository that tests can be run in; links stay links."""
    target.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored, symlinks=True)
        else:
            shutil.copy(source, target / name)
    return target
