"""`python -m extending`: the proofs on a copy with all changes; exit code 1 if one fails.

`--apart` gives each change a copy of its own, `--without` shows that no proof passes without it.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from mutants.run import copy_source, forks, run_pytest

from extending.changes import CHANGES


def main() -> int:
    parser = argparse.ArgumentParser(prog="extending", description=__doc__)
    parser.add_argument("--only", default="", help="changes whose name holds this text")
    parser.add_argument("--apart", action="store_true", help="a copy for each change")
    parser.add_argument("--without", action="store_true", help="copies without any change")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    chosen = [change for change in CHANGES if asked.only in change.name]
    groups = [[change] for change in chosen] if asked.apart or asked.without else [chosen]
    with tempfile.TemporaryDirectory() as place, forks(asked.processes) as pool:
        tasks = []
        for number, group in enumerate(groups):
            copy = copy_source(Path(place) / str(number))
            for change in () if asked.without else group:
                change.apply(copy)
            tasks.append((copy, [f"tests/extending/proofs/{change.proof}" for change in group]))
        answers = pool.starmap(run_pytest, tasks, chunksize=1)
    for group, answer in zip(groups, answers, strict=True):
        names = ", ".join(f"{change.name} ({len(change.files)} files)" for change in group)
        print(f"{'fails' if answer.code else 'works'}  {names}")
        if answer.code and not asked.without:
            print(answer.output[-4000:])
    return 1 if any(answer.code for answer in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
