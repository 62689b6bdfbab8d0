"""`python -m mutants`: every seeded bug, the test that killed it, and exit code 1 if one lives."""

import argparse
import sys

from mutants.catalogue import MUTANTS
from mutants.mutant import table
from mutants.run import broken_without_bugs, run_mutants


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose name or file holds this text")
    parser.add_argument("--quick", action="store_true", help="those of the default test run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of docs/assurance.md")
    asked = parser.parse_args()
    if asked.table:
        print("\n".join(table(MUTANTS)))
        return 0
    chosen = [m for m in MUTANTS if asked.only in m.name or asked.only in m.file]
    chosen = [m for m in chosen if m.is_quick] if asked.quick else chosen
    if problem := broken_without_bugs(chosen, processes=asked.processes):
        print(f"The tests fail without any bug:\n{problem}")
        return 1
    survivors = 0
    for number, verdict in enumerate(run_mutants(chosen, processes=asked.processes), start=1):
        survivors += not verdict.is_killed
        state = "killed" if verdict.is_killed else "ALIVE "
        print(
            f"{number:3} {state} {verdict.seconds:5.1f} s  {verdict.mutant.name:52} "
            f"{verdict.mutant.file:32} {verdict.test}",
            flush=True,
        )
    print(f"{len(chosen)} mutants, {survivors} alive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
