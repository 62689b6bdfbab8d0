"""`python -m fuzz --inputs 1000000`: every parser, a table, and exit code 1 on a finding."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

from fuzz.run import MAX_SECONDS, fuzz
from fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="one parser")
    asked = parser.parse_args()
    print(f"{'parser':18}{'inputs':>10}{'accepted':>10}{'seconds':>9}{'slowest':>9}{'MiB':>6}")
    num_findings = 0
    with ProcessPoolExecutor(asked.processes, max_tasks_per_child=1) as executor:
        running = {
            executor.submit(fuzz, name, num_inputs=asked.inputs, seed=asked.seed): name
            for name in asked.only or TARGETS
        }
        for done in as_completed(running):
            report = done.result()
            print(
                f"{running[done]:18}{report.num_inputs:10,}{report.num_accepted:10,}"
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
