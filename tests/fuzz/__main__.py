"""`python -m fuzz --inputs 1000000`: every parser, a table, and exit code 1 on a finding."""

import argparse
import math
import multiprocessing
import sys

from fuzz.run import MAX_SECONDS, Report, fuzz
from fuzz.targets import TARGETS


def _job(job: tuple[str, int, int, float]) -> tuple[str, Report]:
    name, num_inputs, seed, minutes = job
    return name, fuzz(name, num_inputs=num_inputs, seed=seed, max_seconds=60 * minutes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of each parser")
    parser.add_argument("--minutes", type=float, default=math.inf, help="at most, of each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="one parser")
    asked = parser.parse_args()
    print(f"{'parser':18}{'inputs':>10}{'accepted':>10}{'seconds':>9}{'slowest':>9}{'MiB':>6}")
    names, num_findings = asked.only or TARGETS, 0
    jobs = [(name, asked.inputs, asked.seed, asked.minutes) for name in names]
    # A process per parser, so that its largest resident set is its own.
    with multiprocessing.get_context("fork").Pool(asked.processes, maxtasksperchild=1) as pool:
        for name, report in pool.imap_unordered(_job, jobs):
            print(
                f"{name:18}{report.num_inputs:10,}{report.num_accepted:10,}"
                f"{report.seconds:9.1f}{report.slowest:9.3f}{report.grown_bytes >> 20:6}",
                flush=True,
            )
            for finding in report.findings:
                print(f"  FOUND {finding}")
            num_findings += len(report.findings)
            if report.slowest > MAX_SECONDS:
                print(f"  one input took more than {MAX_SECONDS:g} s (a busy machine, or a parser)")
    print(f"{num_findings} findings")
    return 1 if num_findings else 0


if __name__ == "__main__":
    sys.exit(main())
