"""Running a tool of this folder by itself, as `python -m feddp.deploy.NAME`."""

import argparse
import sys
from collections.abc import Callable, Sequence

from feddp.common.errors import FeddpError


def run_commands(
    name: str,
    description: str | None,
    add_commands: Callable[[argparse.ArgumentParser], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parses, runs one command, and turns a person's mistake into one line and an exit code."""
    parser = argparse.ArgumentParser(
        prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_commands(parser)
    options = parser.parse_args(arguments)
    try:
        code: int = options.command(options)
    except (FeddpError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return code
