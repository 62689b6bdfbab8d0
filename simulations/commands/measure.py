"""feddp evaluate, audit, compare, report and bench: the words of their command lines."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feddp.common.config.run_config import RunConfig, parse_override
from feddp.common.errors import ConfigError

Subparsers = Any  # argparse names the type of add_subparsers() privately
BENCH_STAGES = (
    "users",
    "examples",
    "pfl",
    "flower",
    "server",
    "memory",
    "vocabulary",
    "population",
)


def add_measure_commands(
    commands: Subparsers,
    *,
    add_config: Callable[[argparse.ArgumentParser], None],
    config_of: Callable[[argparse.Namespace], RunConfig],
) -> None:
    """Adds the commands that measure what a run costs, leaks and takes."""
    evaluate = commands.add_parser("evaluate", help="what a run's adapter leaks about its users")
    evaluate.add_argument("run", type=Path, metavar="RUN")
    evaluate.add_argument("--users", type=int, default=300, help="most users of each side")
    evaluate.add_argument("--secrets", type=int, default=20, help="secrets ranked; generated data")
    evaluate.add_argument(
        "--unknown-digits", type=int, default=3, choices=range(1, 7), help="of a ranked order id"
    )
    evaluate.add_argument(
        "--overfit",
        type=int,
        default=0,
        metavar="USERS",
        help="positive control: also attack an adapter trained without privacy on few users",
    )
    evaluate.add_argument(
        "--measurements-dir",
        type=Path,
        metavar="FOLDER",
        help="real data: where measurements on private users go, outside the run folder",
    )
    evaluate.set_defaults(command=_evaluate)

    audit = commands.add_parser(
        "audit", help="canary users in the real pipeline: bounds of epsilon"
    )
    add_config(audit)
    audit.add_argument("--canaries", type=int, default=1000, help="half of them take part")
    audit.add_argument("--users", type=int, default=100, help="training users beside them")
    audit.add_argument("--rounds", type=int, default=5, help="of each audited run")
    audit.add_argument(
        "--sampling-probability", type=float, default=1.0, help="1 is audited most tightly"
    )
    audit.add_argument("--output", type=Path, metavar="FILE", help="also write the figures as JSON")
    audit.add_argument(
        "--on-private-data", action="store_true", help="audit on data that is not generated"
    )
    audit.set_defaults(command=lambda options: _audit(options, config_of(options)))

    compare = commands.add_parser("compare", help="units, group sizes and epsilons side by side")
    compare.add_argument("config", type=Path, help="TOML file with a section [compare]")
    compare.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    compare.add_argument("--output-dir", type=Path, metavar="FOLDER", help="also to continue there")
    compare.add_argument("--processes", type=int, help="cells at a time; default: one per core")
    compare.add_argument("--quick", action="store_true", help="a minute's grid, to try it")
    compare.add_argument(
        "--on-private-data", action="store_true", help="compare on data that is not generated"
    )
    compare.set_defaults(command=_compare)

    report = commands.add_parser("report", help="one HTML page about a run or a comparison")
    report.add_argument("folder", type=Path, metavar="RUN|COMPARISON")
    report.set_defaults(command=_report)

    bench = commands.add_parser("bench", help="speed and memory of the engine beside its peers")
    bench.add_argument("--repeats", type=int, default=3, help="turns that count; default: 3")
    bench.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STAGE",
        choices=BENCH_STAGES,
        help="may be given several times: " + ", ".join(BENCH_STAGES),
    )
    bench.add_argument("--output-dir", type=Path, default=Path("bench"), metavar="FOLDER")
    bench.add_argument("--gpu", action="store_true", help="a 1B Llama shape in bf16 on a GPU")
    bench.set_defaults(command=_bench)


def _evaluate(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.measure_text import show_evaluation
    from feddp.simulations.leakage.evaluate import Extent

    extent = Extent(
        num_users=options.users,
        num_secrets=options.secrets,
        num_unknown_digits=options.unknown_digits,
        num_overfitted=options.overfit,
    )
    return show_evaluation(options.run, extent, measurements_path=options.measurements_dir)


def _audit(options: argparse.Namespace, config: RunConfig) -> int:
    from feddp.simulations.audit.canaries import AuditExtent
    from feddp.simulations.commands.measure_text import show_audit

    extent = AuditExtent(
        num_canaries=options.canaries,
        num_users=options.users,
        num_rounds=options.rounds,
        sampling_probability=options.sampling_probability,
    )
    return show_audit(
        config, extent, is_private_data=options.on_private_data, output_path=options.output
    )


def _compare(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.measure_text import show_comparison

    return show_comparison(
        options.config,
        dict(parse_override(text) for text in options.set),
        output_path=options.output_dir or Path("runs") / f"{options.config.stem}-comparison",
        num_processes=options.processes,
        is_quick=options.quick,
        is_private_data=options.on_private_data,
        command=options.line,
    )


def _report(options: argparse.Namespace) -> int:
    from feddp.simulations.commands.measure_text import show_report

    return show_report(options.folder)


def _bench(options: argparse.Namespace) -> int:
    if options.repeats < 1:
        raise ConfigError([f"--repeats {options.repeats}: must be at least 1."])
    if options.gpu:
        from feddp.simulations.bench.gpu import gpu_bench

        return gpu_bench(repeats=options.repeats, folder=options.output_dir)
    from feddp.simulations.bench.bench import bench

    return bench(repeats=options.repeats, folder=options.output_dir, only=options.only)
