"""Options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feddp.deploy.commands import argument, option

if TYPE_CHECKING:
    from feddp.common.config.run_config import RunConfig

Config = Annotated[
    Path | None, typer.Argument(metavar="CONFIG.toml", help="what to run", show_default="the demo")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="override one setting; repeatable",
        show_default=False,
    ),
]
OutputDir = Annotated[str | None, option("parent folder of runs", "FOLDER")]
RunFolder = Annotated[Path, argument("RUN", "folder of a run")]


def overrides_of(settings: Sequence[str] | None) -> dict[str, object]:
    """The values of `--set`, by key.

    Raises:
      ConfigError: one of them is not SECTION.KEY=VALUE.
    """
    from feddp.common.config.run_config import parse_override

    return dict(parse_override(text) for text in settings or ())


def config_of(
    path: Path | None,
    settings: Sequence[str] | None,
    *,
    output_dir: str | None = None,
    data_path: str | None = None,
) -> "RunConfig":
    """The configuration that a command line asks for.

    Raises:
      ConfigError: with every problem of it at once.
    """
    from feddp.common.config.run_config import load_config

    words = {"run.output-dir": output_dir, "data.path": data_path}
    given = {key: value for key, value in words.items() if value is not None}
    return load_config(path, {**overrides_of(settings), **given})
