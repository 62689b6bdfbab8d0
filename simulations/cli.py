"""The feddp command."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from common.config import RunConfig, load_config, parse_override, settings, to_flat
from common.errors import DiskError, FeddpError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake is one clear message and a non-zero exit code."""
    options = _parser().parse_args(arguments)
    # PEFT still calls what transformers renamed; nothing that a person here could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    try:
        code: int = options.command(options)
    except FeddpError as error:
        print(f"feddp: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"feddp: {error}. Free or repair the disk, then resume.", file=sys.stderr)
        return DiskError.exit_code
    except KeyboardInterrupt:
        print("feddp: interrupted; nothing uncharged was released.", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feddp",
        description="Private federated fine-tuning of language models with LoRA.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    simulate = commands.add_parser("simulate", help="train on one machine; no arguments: the demo")
    _add_config(simulate)
    simulate.add_argument("--resume", type=Path, metavar="RUN", help="continue a run folder")
    simulate.add_argument(
        "--with-non-private",
        action="store_true",
        help="also train without privacy, to compare (generated data, or with the next option)",
    )
    simulate.add_argument(
        "--non-private-dir",
        type=Path,
        metavar="FOLDER",
        help="real data: where the result WITHOUT privacy goes, outside the run folder",
    )
    simulate.set_defaults(command=_simulate)

    plan = commands.add_parser("plan", help="what a run would promise; reads no data")
    _add_config(plan)
    plan.add_argument(
        "--group-size",
        action="store_true",
        help="also compare users and examples as units of drawing, by group size; no data",
    )
    plan.set_defaults(command=_plan)

    check = commands.add_parser("check", help="look for all problems in config and data")
    _add_config(check)
    check.add_argument("--keys", action="store_true", help="list every setting")
    check.add_argument(
        "--count-users",
        action="store_true",
        help="print how many users the data holds; for their owner's eyes",
    )
    check.set_defaults(command=_check)

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
    _add_config(audit)
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
    audit.set_defaults(command=_audit)

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

    ledger = commands.add_parser("ledger", help="show the privacy ledger of a run")
    ledger.add_argument("run", type=Path, metavar="RUN")
    ledger.add_argument(
        "--verify", action="store_true", help="recompute epsilon from the events as well"
    )
    ledger.set_defaults(command=_ledger)

    chat = commands.add_parser("chat", help="generate or classify with a run's adapter")
    chat.add_argument("run", type=Path, metavar="RUN")
    chat.add_argument("--prompt", help="answer this and exit; default: ask")
    chat.add_argument("--max-new-tokens", type=int, default=60)
    chat.add_argument("--temperature", type=float, default=0.7, help="0: the most likely text")
    chat.set_defaults(command=_chat)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, help="TOML file; default: the demo")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; repeatable",
    )
    parser.add_argument("--output-dir", metavar="FOLDER", help="parent folder of runs")


def _config(options: argparse.Namespace) -> RunConfig:
    overrides = dict(parse_override(text) for text in options.set)
    if options.output_dir is not None:
        overrides["run.output-dir"] = options.output_dir
    return load_config(options.config, overrides)


# Each command imports what it needs: a wrong setting is reported before torch is loaded.


def _simulate(options: argparse.Namespace) -> int:
    if options.resume is not None:
        from simulations.simulate import resume

        return resume(options.resume)
    config = _config(options)
    from simulations.simulate import simulate

    return simulate(
        config,
        is_comparing=options.with_non_private,
        non_private_path=options.non_private_dir,
    )


def _plan(options: argparse.Namespace) -> int:
    config = _config(options)
    from simulations.inspect import show_plan

    return show_plan(config, is_grouping=options.group_size)


def _check(options: argparse.Namespace) -> int:
    if options.keys:
        defaults = to_flat(RunConfig())
        for key, about in settings().items():
            print(f"{key} = {defaults[key]!r}\n    {about.doc}; {about.allowed()}")
        return 0
    config = _config(options)
    from simulations.inspect import check

    return check(config, is_counting=options.count_users)


def _evaluate(options: argparse.Namespace) -> int:
    from simulations.evaluate import Extent, evaluate_run

    extent = Extent(
        num_users=options.users,
        num_secrets=options.secrets,
        num_unknown_digits=options.unknown_digits,
        num_overfitted=options.overfit,
    )
    return evaluate_run(options.run, extent, measurements_path=options.measurements_dir)


def _audit(options: argparse.Namespace) -> int:
    config = _config(options)
    from simulations.audit_run import AuditExtent, audit

    extent = AuditExtent(
        num_canaries=options.canaries,
        num_users=options.users,
        num_rounds=options.rounds,
        sampling_probability=options.sampling_probability,
    )
    return audit(
        config, extent, is_private_data=options.on_private_data, output_path=options.output
    )


def _compare(options: argparse.Namespace) -> int:
    from simulations.compare import compare, default_processes

    return compare(
        options.config,
        dict(parse_override(text) for text in options.set),
        output_path=options.output_dir or Path("runs") / f"{options.config.stem}-comparison",
        num_processes=options.processes or default_processes(),
        is_quick=options.quick,
        is_private_data=options.on_private_data,
    )


def _report(options: argparse.Namespace) -> int:
    from simulations.report import report

    return report(options.folder)


def _ledger(options: argparse.Namespace) -> int:
    from simulations.inspect import show_ledger

    return show_ledger(options.run, is_verifying=options.verify)


def _chat(options: argparse.Namespace) -> int:
    from simulations.chat import chat

    return chat(
        options.run,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
    )


if __name__ == "__main__":
    sys.exit(main())
