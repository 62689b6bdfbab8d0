"""feddp evaluate, audit, compare, report and bench."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from feddp.common.errors import ConfigError
from feddp.simulations.commands.config_options import (
    Config,
    OutputDir,
    RunFolder,
    Settings,
    config_of,
    overrides_of,
)

Stage = StrEnum(
    "Stage",
    ["users", "examples", "pfl", "flower", "server", "memory", "vocabulary", "population"],
)
OnPrivateData = Annotated[
    bool, typer.Option("--on-private-data", help="also on data that is not generated")
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands that measure."""
    for command in (evaluate, audit, compare, report, bench):
        app.command(rich_help_panel="Measure")(command)


def evaluate(
    run: RunFolder,
    users: Annotated[int, typer.Option(help="most users of each side")] = 300,
    secrets: Annotated[int, typer.Option(help="secrets ranked; generated data")] = 20,
    unknown_digits: Annotated[int, typer.Option(help="of a ranked order id", min=1, max=6)] = 3,
    overfit: Annotated[
        int,
        typer.Option(
            metavar="USERS",
            help="positive control: also attack an adapter trained without privacy on few users",
        ),
    ] = 0,
    measurements_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="real data: where measurements on private users go, outside the run folder",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measures what a run's adapter leaks about its users; exit code 1 above a ceiling."""
    from feddp.simulations.commands.measure_text import show_evaluation
    from feddp.simulations.leakage.evaluate import Extent

    extent = Extent(
        num_users=users,
        num_secrets=secrets,
        num_unknown_digits=unknown_digits,
        num_overfitted=overfit,
    )
    raise typer.Exit(show_evaluation(run, extent, measurements_path=measurements_dir))


def audit(
    config: Config = None,
    settings: Settings = None,
    output_dir: OutputDir = None,
    canaries: Annotated[int, typer.Option(help="half of them take part")] = 1000,
    users: Annotated[int, typer.Option(help="training users beside them")] = 100,
    rounds: Annotated[int, typer.Option(help="of each audited run")] = 5,
    sampling_probability: Annotated[float, typer.Option(help="1 is audited most tightly")] = 1.0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write the figures as JSON", show_default=False),
    ] = None,
    on_private_data: OnPrivateData = False,
) -> None:
    """Puts canary users through the real pipeline, and bounds epsilon from below."""
    run_config = config_of(config, settings, output_dir=output_dir)
    from feddp.simulations.audit.canaries import AuditExtent
    from feddp.simulations.commands.measure_text import show_audit

    extent = AuditExtent(
        num_canaries=canaries,
        num_users=users,
        num_rounds=rounds,
        sampling_probability=sampling_probability,
    )
    code = show_audit(run_config, extent, is_private_data=on_private_data, output_path=output)
    raise typer.Exit(code)


def compare(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.toml", help="what to compare", show_default=False),
    ],
    settings: Settings = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="also to continue there", show_default=False),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="cells at a time; default: one per core", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a minute's grid, to try it")] = False,
    on_private_data: OnPrivateData = False,
) -> None:
    """Compares units, group sizes and epsilons side by side: the grid of the section `compare`."""
    from feddp.simulations.commands.measure_text import show_comparison

    code = show_comparison(
        config,
        overrides_of(settings),
        output_path=output_dir or Path("runs") / f"{config.stem}-comparison",
        num_processes=processes,
        is_quick=quick,
        is_private_data=on_private_data,
        command=context.obj,
    )
    raise typer.Exit(code)


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_COMPARISON", help="folder of a run or a comparison", show_default=False
        ),
    ],
) -> None:
    """Writes one HTML page about a run or a comparison."""
    from feddp.simulations.commands.measure_text import show_report

    raise typer.Exit(show_report(folder))


def bench(
    repeats: Annotated[int, typer.Option(help="turns that count")] = 3,
    only: Annotated[
        list[Stage] | None,
        typer.Option(help="one stage; repeatable; default: all", show_default=False),
    ] = None,
    output_dir: Annotated[Path, typer.Option(metavar="FOLDER", help="where figures go")] = Path(
        "bench"
    ),
    gpu: Annotated[bool, typer.Option("--gpu", help="a 1B Llama shape in bf16 on a GPU")] = False,
) -> None:
    """Measures speed and memory of the engine beside its peers."""
    if repeats < 1:
        raise ConfigError([f"--repeats {repeats}: must be at least 1."])
    if gpu:
        from feddp.simulations.bench.gpu import gpu_bench

        raise typer.Exit(gpu_bench(repeats=repeats, folder=output_dir))
    from feddp.simulations.bench import bench as benchmark

    raise typer.Exit(benchmark.bench(repeats=repeats, folder=output_dir, only=[*(only or ())]))
