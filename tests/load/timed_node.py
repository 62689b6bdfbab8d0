"""A resident node that notes when it was asked, when it had computed and when it had sealed.

Takes the arguments of `feddp node serve`. The times (of the machine's monotonic clock) go into
`times-I.jsonl` beside its config, one line for each question.
"""

import json
import sys
import time
from pathlib import Path

from flwr.app import RecordDict

from feddp.client.node import Node
from feddp.client.service import answer as answering
from feddp.simulations.cli import main


def play(arguments: list[str]) -> int:
    part = arguments[arguments.index("--part") + 1].split("/")[0]
    path = Path(arguments[0]).parent / f"times-{part}.jsonl"
    honest, computed = answering.answer, [0.0]

    def noting(method: str) -> None:
        compute = getattr(Node, method)

        def timed(node: Node, *request: object, **options: object) -> object:
            reply = compute(node, *request, **options)
            computed[0] = time.monotonic()
            return reply

        setattr(Node, method, timed)

    def answer(node: Node, kind: str, *rest: object) -> RecordDict:
        asked = time.monotonic()
        reply = honest(node, kind, *rest)  # type: ignore[arg-type]
        times = {"kind": kind, "asked": asked, "computed": computed[0], "sealed": time.monotonic()}
        with path.open("a") as file:
            file.write(json.dumps(times) + "\n")
        return reply

    noting("train")
    noting("evaluate")
    answering.answer = answer
    return main(["node", "serve", *arguments])


if __name__ == "__main__":
    sys.exit(play(sys.argv[1:]))
