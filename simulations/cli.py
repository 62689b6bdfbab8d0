"""The feddp command."""

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from feddp.common.config.run_config import RunConfig, load_config, parse_override, settings, to_flat
from feddp.common.errors import ConfigError, DiskError, FeddpError
from feddp.simulations.commands.deploy import add_deploy_commands
from feddp.simulations.commands.ledger import add_ledger_commands
from feddp.simulations.commands.measure import add_measure_commands
from feddp.simulations.commands.node import add_node_commands, with_action


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a person's mistake is one clear message and a non-zero exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(with_action(words))
    options.line = shlex.join(["feddp", *words])
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
    simulate.add_argument(
        "--new-noise-segment",
        action="store_true",
        help="with --resume: the master key of correlated noise is lost; go on without it",
    )
    simulate.set_defaults(command=_simulate)

    plan = commands.add_parser("plan", help="what a run would promise; reads no private data")
    _add_config(plan)
    plan.add_argument(
        "--group-size",
        action="store_true",
        help="also choose what to draw, how many examples of a user, and where to clip",
    )
    plan.add_argument(
        "--proxy",
        metavar="FILE",
        help="with --group-size: users declared PUBLIC, in the columns of data; default: generated",
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

    add_measure_commands(commands, add_config=_add_config, config_of=_config)
    add_node_commands(commands)
    add_deploy_commands(commands, add_config=_add_config, config_of=_config)

    add_ledger_commands(commands)

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
    config = _config(options)
    is_resumed = options.resume is not None or bool(config.run.resume)
    if options.new_noise_segment and not is_resumed:
        raise ConfigError(["--new-noise-segment: only a run that is resumed has lost its key."])
    if is_resumed:
        from feddp.simulations.run.terminal import show_resumption

        path = options.resume or Path(config.run.resume)
        return show_resumption(path, is_new_segment=options.new_noise_segment, command=options.line)
    from feddp.simulations.run.terminal import show_simulation

    return show_simulation(
        config,
        is_comparing=options.with_non_private,
        non_private_path=options.non_private_dir,
        command=options.line,
    )


def _plan(options: argparse.Namespace) -> int:
    config = _config(options)
    from feddp.simulations.commands.look import show_plan

    if options.proxy is not None and not options.group_size:
        raise ConfigError(["--proxy: only --group-size reads it. Add --group-size."])
    return show_plan(config, is_grouping=options.group_size, proxy_path=options.proxy)


def _check(options: argparse.Namespace) -> int:
    if options.keys:
        defaults = to_flat(RunConfig())
        for key, about in settings().items():
            print(f"{key} = {defaults[key]!r}\n    {about.doc}; {about.allowed()}")
        return 0
    config = _config(options)
    from feddp.simulations.commands.look import check

    return check(config, is_counting=options.count_users)


def _chat(options: argparse.Namespace) -> int:
    from feddp.simulations.run.chat import chat

    return chat(
        options.run,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
    )


if __name__ == "__main__":
    sys.exit(main())
