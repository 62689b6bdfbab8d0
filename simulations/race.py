"""Interleaved timing: contestants take turns, and only paired ratios of one turn are compared."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Contestant = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some repeats."""

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
    """Seconds of every contestant in every repeat, in which each runs once.

    The order is reversed in every other repeat and the first repeat is dropped (warm-up), so a slow
    phase of the machine meets all contestants alike.

    Args:
      contestants: by name.
      repeats: kept ones.
      clock: CPU seconds of this process, or another clock.

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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
