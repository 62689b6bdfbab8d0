"""Interleaved timing: contestants take turns, and only paired ratios of one turn are compared."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feddp
from feddp.common.errors import FeddpError

Contestant = Callable[[], object]
_CALL = """
import importlib, json, sys
module, function, arguments = sys.argv[1:]
found = getattr(importlib.import_module(module), function)(**json.loads(arguments))
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of some repeats."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.least:.2f}, {self.most:.2f}]"


def race(
    contestants: Mapping[str, Contestant],
    *,
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of every contestant in every repeat; each runs once per repeat.

    The order is reversed in every other repeat and the first repeat is dropped (warm-up), so a slow
    phase of the machine affects all contestants alike.

    >>> ticks = iter(range(100))
    >>> race({"a": lambda: None, "b": lambda: next(ticks)}, repeats=2, clock=lambda: next(ticks))
    {'a': [1, 1], 'b': [2, 2]}
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name in list(contestants)[:: -1 if repeat % 2 else 1]:
            started = clock()
            contestants[name]()
            seconds[name].append(clock() - started)
    return {name: found[1:] for name, found in seconds.items()}


def paired(seconds: Mapping[str, list[float]], slow: str, fast: str) -> Spread:
    """Spread of seconds[slow] / seconds[fast], repeat by repeat: how many times faster `fast` is.

    >>> str(paired({"a": [2.0, 3.0, 8.0], "b": [1.0, 1.0, 2.0]}, "a", "b"))
    '3.00 [2.00, 4.00]'
    """
    return Spread.of([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


def peak_megabytes() -> float:
    """Peak resident memory of this process so far, in MB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # Not ru_maxrss, which a child of a large process inherits on Linux.
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def run_apart(function: str, **arguments: Any) -> Any:
    """Result of "module:name" run in a fresh process, with its own memory and descendants.

    Arguments and result travel as JSON.

    Raises:
      FeddpError: the process failed; the text ends with its last output.
    """
    module, name = function.split(":")
    command = [sys.executable, "-c", _CALL, module, name, json.dumps(arguments)]
    here = str(Path(feddp.__file__).parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise FeddpError(f"{function} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
