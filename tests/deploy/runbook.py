"""The runbook's text, and the commands in it."""

import re
import shlex
from pathlib import Path

RUNBOOK = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def commands(program: str) -> list[list[str]]:
    """Words of every command of a program in the runbook: of its blocks, and within its text."""
    blocks = re.findall(r"```bash\n(.*?)```", RUNBOOK, re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&", block)]
    prose = re.sub(r"```.*?```", "", RUNBOOK, flags=re.DOTALL)
    lines += re.findall(r"`([^`]+)`", " ".join(prose.split()))
    words = [shlex.split(line, comments=True) for line in lines if program in line]
    return [each for each in words if each[:1] == [program]]


def command(*start: str) -> list[str]:
    """The first command of the runbook that begins with these words."""
    return next(each for each in commands(start[0]) if each[: len(start)] == list(start))
