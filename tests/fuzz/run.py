"""Runs random inputs through one parser and reports what escaped."""

import contextlib
import math
import resource
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzz.targets import TARGETS

MEMORY = Path("/dev/shm")
MAX_SECONDS = 1.0
MAX_GROWTH_BYTES = 256 << 20


@dataclass(frozen=True)
class Report:
    """What one parser did with its inputs.

    Attributes:
      num_inputs: parsed.
      num_accepted: without an error.
      findings: inputs that raised an undeclared error, broke a property or took too long.
      seconds: for all of them.
      slowest: seconds of one input.
      grown_bytes: growth of the largest resident set.
    """

    num_inputs: int
    num_accepted: int
    findings: list[str]
    seconds: float
    slowest: float
    grown_bytes: int


def fuzz(
    name: str,
    *,
    num_inputs: int,
    seed: int,
    max_findings: int = 5,
    max_seconds: float = math.inf,
) -> Report:
    """Feeds up to `num_inputs` inputs to the parser of that name; a seed makes the same inputs."""
    target, rng = TARGETS[name], Random(f"{name}/{seed}")
    accepted, slowest, findings = 0, 0.0, list[str]()
    started, memory = time.monotonic(), _peak_bytes()
    count = 0

    def is_done() -> bool:
        is_late = time.monotonic() - started > max_seconds
        return count >= num_inputs or len(findings) >= max_findings or is_late

    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        with contextlib.suppress(Exception):
            target.parse(target.make(rng), Path(place))  # imports what it needs, untimed
        while not is_done():
            content, count = target.make(rng), count + 1
            began = time.monotonic()
            try:
                target.parse(content, Path(place))
                accepted += 1
            except target.declared:
                pass
            except Exception:  # the finding is the product of this program
                findings.append(f"{content!r:.400}\n{traceback.format_exc(limit=-3)}")
            slowest = max(slowest, time.monotonic() - began)
    grown = _peak_bytes() - memory
    if grown > MAX_GROWTH_BYTES:
        findings.append(f"memory grew by {grown >> 20} MiB")
    return Report(count, accepted, findings, time.monotonic() - started, slowest, grown)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
