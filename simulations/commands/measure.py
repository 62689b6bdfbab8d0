"""feddp evaluate, audit, compare, report and bench."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feddp.common.errors import ConfigError
from feddp.deploy.commands import argument, option
from feddp.simulations.commands.config_options import (
    Config,
    OutputDir,
    RunFolder,
    Settings,
    config_of,
    overrides_of,
)

if TYPE_CHECKING:
    from feddp.common.privacy.plan.plan import PrivacyPlan
    from feddp.simulations.audit.bounds import AuditResult
    from feddp.simulations.comparison.cells import Cell, Grid

Stage = StrEnum(
    "Stage", ["users", "examples", "pfl", "flower", "server", "memory", "vocabulary", "population"]
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
        option(
            "real data: where measurements on private users go, outside the run folder", "FOLDER"
        ),
    ] = None,
) -> None:
    """Measures what a run's adapter leaks about its users; exit code 1 above a ceiling."""
    from feddp.simulations.leakage import evaluate as leakage

    def show_control() -> None:
        """Says that the control begins."""
        print("The positive control: few users, without privacy, many times over ...", flush=True)

    extent = leakage.Extent(
        num_users=users,
        num_secrets=secrets,
        num_unknown_digits=unknown_digits,
        num_overfitted=overfit,
    )
    found = leakage.evaluate(
        run, extent=extent, measurements_path=measurements_dir, on_control=show_control
    )
    print(f"{found!r}\n\n  {found.path}")
    for name in found.violations:
        print(f"  ABOVE ITS CEILING: {name}. The promise does not hold; do not publish this run.")
    raise typer.Exit(1 if found.violations else 0)


def audit(
    config: Config = None,
    settings: Settings = None,
    output_dir: OutputDir = None,
    canaries: Annotated[int, typer.Option(help="half of them take part")] = 1000,
    users: Annotated[int, typer.Option(help="training users beside them")] = 100,
    rounds: Annotated[int, typer.Option(help="of each audited run")] = 5,
    sampling_probability: Annotated[float, typer.Option(help="1 is audited most tightly")] = 1.0,
    output: Annotated[Path | None, option("also write the figures as JSON", "FILE")] = None,
    on_private_data: OnPrivateData = False,
) -> None:
    """Puts canary users through the real pipeline, and bounds epsilon from below."""
    run_config = config_of(config, settings, output_dir=output_dir)
    from feddp.simulations.audit import canaries as auditor

    extent = auditor.AuditExtent(
        num_canaries=canaries,
        num_users=users,
        num_rounds=rounds,
        sampling_probability=sampling_probability,
    )
    claim = 0.0

    def show_plan(plan: "PrivacyPlan") -> None:
        """What is audited; keeps its epsilon for the results."""
        nonlocal claim
        claim = plan.epsilon
        print("\n".join(auditor.about_lines(plan, extent)), flush=True)

    def show_result(name: str, result: "AuditResult") -> None:
        """A bound beside the claim."""
        print(auditor.result_line(name, result, claim), flush=True)

    found = auditor.audit(
        run_config,
        extent=extent,
        is_private_data=on_private_data,
        on_plan=show_plan,
        on_result=show_result,
    )
    print(
        "\n  Bounds hold at 95 % confidence each. A bound above the claim refutes it; one below "
        "proves nothing. The two\n  controls are not private on purpose, and nothing of them is "
        "kept."
    )
    if output is not None:
        output.write_text(found.to_json(), encoding="utf-8")
    raise typer.Exit(0 if found.is_as_expected else 1)


def compare(
    context: typer.Context,
    config: Annotated[Path, argument("CONFIG.toml", "what to compare")],
    settings: Settings = None,
    output_dir: Annotated[Path | None, option("also to continue there", "FOLDER")] = None,
    processes: Annotated[int | None, option("cells at a time; default: one per core")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a minute's grid, to try it")] = False,
    on_private_data: OnPrivateData = False,
) -> None:
    """Compares units, group sizes and epsilons side by side: the grid of the section `compare`."""
    from feddp.simulations.comparison import compare as comparison
    from feddp.simulations.comparison.table import COMPARISON_NAME

    def show_start(grid: "Grid", cells: Sequence["Cell"], num_processes: int) -> None:
        """What is going to run."""
        print("\n".join(comparison.announcement_lines(grid, cells, num_processes)), flush=True)

    def show_cell(cell: "Cell", result: Mapping[str, Any]) -> None:
        """How a cell ended."""
        print(f"  {cell.name:<44} {comparison.outcome_text(result)}", flush=True)

    output_path = output_dir or Path("runs") / f"{config.stem}-comparison"
    found = comparison.compare(
        config,
        overrides_of(settings),
        output_path=output_path,
        num_processes=processes,
        is_quick=quick,
        is_private_data=on_private_data,
        command=context.obj,
        on_start=show_start,
        on_cell=show_cell,
    )
    print(f"\n{found!r}\n  {output_path / COMPARISON_NAME}")
    print(f"  a page with pictures: feddp report {output_path}")


def report(
    folder: Annotated[Path, argument("RUN_OR_COMPARISON", "folder of a run or a comparison")],
) -> None:
    """Writes one HTML page about a run or a comparison."""
    from feddp.simulations.report import report as reporter

    path, pictures = reporter.report(folder), reporter.PICTURES_NAME
    print(f"{path}: open it in a browser; pictures (SVG, PNG) and CSV are in {pictures}/.")


def bench(
    repeats: Annotated[int, typer.Option(help="turns that count")] = 3,
    only: Annotated[list[Stage] | None, option("one stage; repeatable; default: all")] = None,
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
