"""The feddp command."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.config import RunConfig, load_config, parse_override, settings, to_flat
from common.errors import ConfigError, DiskError, FeddpError
from simulations.deploy_commands import add_deploy_commands
from simulations.node_commands import add_node_commands, with_action


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake is one clear message and a non-zero exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(with_action(words))
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

    add_node_commands(commands)
    add_deploy_commands(commands, add_config=_add_config, config_of=_config)

    ledger = commands.add_parser("ledger", help="the privacy ledger of a run or a population")
    _add_ledger(ledger)

    chat = commands.add_parser("chat", help="generate or classify with a run's adapter")
    chat.add_argument("run", type=Path, metavar="RUN")
    chat.add_argument("--prompt", help="answer this and exit; default: ask")
    chat.add_argument("--max-new-tokens", type=int, default=60)
    chat.add_argument("--temperature", type=float, default=0.7, help="0: the most likely text")
    chat.set_defaults(command=_chat)

    bench = commands.add_parser("bench", help="speed and memory of the engine beside its peers")
    bench.add_argument("--repeats", type=int, default=5, help="turns that count; default: 5")
    bench.add_argument("--output-dir", type=Path, default=Path("bench"), metavar="FOLDER")
    bench.add_argument("--gpu", action="store_true", help="a 1B Llama shape in bf16 on a GPU")
    bench.set_defaults(command=_bench)
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


def _add_ledger(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def add(name: str, about: str, command: Callable[[argparse.Namespace], int]) -> Any:
        made = commands.add_parser(name, help=about)
        made.add_argument("path", type=Path, metavar="LEDGER_OR_RUN")
        made.set_defaults(command=command)
        return made

    add("show", "rows, what is spent and what is left", _ledger_show)
    verify = add("verify", "rows, signatures, anchor; epsilon from the events", _ledger_verify)
    verify.add_argument("--anchor", type=Path, metavar="FILE", help="a head to be extended")
    add("export", "all rows as JSON lines; public", _ledger_export)
    anchor = add("anchor", "remember the head in a file, best elsewhere", _ledger_anchor)
    anchor.add_argument("--file", type=Path, metavar="FILE", required=True)
    add("rotate", "replace the key that signs", _ledger_rotate)
    backup = add("backup", "a verified copy, labelled with its head", _ledger_backup)
    backup.add_argument("--file", type=Path, metavar="FILE", required=True)
    create = add("create", "the ledger of a population that runs share", _ledger_create)
    create.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help="TOML file of an expected run; repeatable; default: the demo",
    )
    create.add_argument("--population", required=True, help="name of the users")
    create.add_argument("--num-users", type=int, help="N; default: the config's")
    create.add_argument("--target-epsilon", type=float, help="of all runs; default: the config's")
    create.add_argument("--target-delta", type=float, help="of all runs; default: the plan's")
    create.add_argument("--runs", type=int, default=1, help="runs of each config; default: 1")
    create.add_argument(
        "--filter",
        choices=("fixed-schedule", "adaptive"),
        default="fixed-schedule",
        help="whether all charges are planned now, or unforeseen runs may come",
    )


def _config(options: argparse.Namespace) -> RunConfig:
    overrides = dict(parse_override(text) for text in options.set)
    if options.output_dir is not None:
        overrides["run.output-dir"] = options.output_dir
    return load_config(options.config, overrides)


# Each command imports what it needs: a wrong setting is reported before torch is loaded.


def _simulate(options: argparse.Namespace) -> int:
    config = _config(options)
    if options.resume is not None or config.run.resume:
        from simulations.simulate import resume

        return resume(options.resume or Path(config.run.resume))
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


def _ledger_show(options: argparse.Namespace) -> int:
    from simulations.ledger import show

    return show(options.path)


def _ledger_verify(options: argparse.Namespace) -> int:
    from simulations.ledger import verify

    return verify(options.path, anchor=options.anchor)


def _ledger_export(options: argparse.Namespace) -> int:
    from simulations.ledger import export

    return export(options.path)


def _ledger_anchor(options: argparse.Namespace) -> int:
    from simulations.ledger import anchor

    return anchor(options.path, file=options.file)


def _ledger_rotate(options: argparse.Namespace) -> int:
    from simulations.ledger import rotate

    return rotate(options.path)


def _ledger_backup(options: argparse.Namespace) -> int:
    from simulations.ledger import backup

    return backup(options.path, target=options.file)


def _ledger_create(options: argparse.Namespace) -> int:
    configs = [load_config(path) for path in options.config or [None]]
    from simulations.ledger import create_ledger

    return create_ledger(
        options.path,
        configs,
        population=options.population,
        mode=options.filter,
        num_users=options.num_users,
        target_epsilon=options.target_epsilon,
        target_delta=options.target_delta,
        num_runs=options.runs,
    )


def _chat(options: argparse.Namespace) -> int:
    from simulations.chat import chat

    return chat(
        options.run,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
    )


def _bench(options: argparse.Namespace) -> int:
    if options.repeats < 1:
        raise ConfigError([f"--repeats {options.repeats}: must be at least 1."])
    if options.gpu:
        from simulations.gpu_bench import gpu_bench

        return gpu_bench(repeats=options.repeats, folder=options.output_dir)
    from simulations.bench import bench

    return bench(repeats=options.repeats, folder=options.output_dir)


if __name__ == "__main__":
    sys.exit(main())
