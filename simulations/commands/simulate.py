"""feddp simulate and chat: train on one machine, and try the trained model."""

from pathlib import Path
from typing import Annotated

import typer

from feddp.common.errors import ConfigError
from feddp.deploy.commands import option
from feddp.simulations.commands.config_options import (
    Config,
    OutputDir,
    RunFolder,
    Settings,
    config_of,
)


def add_to(app: typer.Typer) -> None:
    """Adds `feddp simulate` and `chat`."""
    for command in (simulate, chat):
        app.command(rich_help_panel="Train")(command)


def simulate(
    context: typer.Context,
    config: Config = None,
    settings: Settings = None,
    output_dir: OutputDir = None,
    resume: Annotated[Path | None, option("continue a run folder", "RUN")] = None,
    with_non_private: Annotated[
        bool,
        typer.Option(
            "--with-non-private",
            help="also train without privacy, to compare (generated data, or with the next option)",
        ),
    ] = False,
    non_private_dir: Annotated[
        Path | None,
        option(
            "real data: where the result WITHOUT privacy goes, outside the run folder", "FOLDER"
        ),
    ] = None,
    new_noise_segment: Annotated[
        bool,
        typer.Option(
            "--new-noise-segment",
            help="with --resume: the master key of correlated noise is lost; go on without it",
        ),
    ] = False,
) -> None:
    """Trains on one machine; without arguments, the demo."""
    run_config = config_of(config, settings, output_dir=output_dir)
    resumed = resume or (Path(run_config.run.resume) if run_config.run.resume else None)
    if new_noise_segment and resumed is None:
        raise ConfigError(["--new-noise-segment: only a run that is resumed has lost its key."])
    from feddp.simulations.run.terminal import show_resumption, show_simulation

    line: str = context.obj
    if resumed is not None:
        code = show_resumption(resumed, is_new_segment=new_noise_segment, command=line)
    else:
        code = show_simulation(
            run_config,
            is_comparing=with_non_private,
            non_private_path=non_private_dir,
            command=line,
        )
    raise typer.Exit(code)


def chat(
    run: RunFolder,
    prompt: Annotated[str | None, option("answer this and exit; default: ask")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="longest answer")] = 60,
    temperature: Annotated[float, typer.Option(help="0: the most likely text")] = 0.7,
) -> None:
    """Generates or classifies with a run's adapter."""
    from feddp.simulations.run import chat as model

    code = model.chat(run, prompt=prompt, max_new_tokens=max_new_tokens, temperature=temperature)
    raise typer.Exit(code)
