"""feddp simulate: many users on one machine, in one process."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from feddp.client.assembly import build_node, build_part
from feddp.client.node import Node
from feddp.client.own_noise import OwnNoise, open_own_noise
from feddp.client.sharding import ShardedNode
from feddp.common.assembly import (
    Part,
    describe_evaluation,
    load_model,
    load_users,
    pin_threads,
    plan_from_config,
)
from feddp.common.config.run_config import RunConfig
from feddp.common.data.users import Users
from feddp.common.errors import ConfigError, DataError
from feddp.common.evaluation import metrics_of
from feddp.common.model.base import BaseModel
from feddp.common.model.lora import AdapterLayout
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import epsilon_text, guarantee_line, not_covered
from feddp.server.export import finish_run
from feddp.server.run import (
    Outcome,
    Run,
    check_run_model,
    create_run,
    epsilon_curve_of,
    load_run,
    optimizer_from_config,
    train,
)
from feddp.simulations.run.console import Progress, plan_lines, result_lines
from feddp.simulations.run.data_problems import data_problems
from feddp.simulations.run.local_nodes import LocalNodes
from feddp.simulations.run.non_private import train_without_privacy
from feddp.simulations.run.pictures import leave_curves

INTERRUPTED = 130
NODE_LEDGER_NAME = "node-ledger.sqlite"
COMMAND_NAME = "command.txt"


def simulate(
    config: RunConfig, *, is_comparing: bool, non_private_path: Path | None, command: str = ""
) -> int:
    """Plans, trains and exports a new run; prints the plan, the progress and the table.

    Args:
      config: the run.
      is_comparing: also train the same rounds without clip and noise, for the table.
      non_private_path: where that result goes; required unless the users are generated, because a
        result without privacy, once published, voids the promise of the private one.
      command: the line that asked for this; it is kept in the run folder, as public as the config.

    Returns:
      The exit code: 0 when all rounds are released, 130 when a person stopped the run.
    """
    _check_comparison(config, is_comparing, non_private_path)
    pin_threads(config)
    base, layout = load_model(config)
    users, evaluation_users = load_users(config)
    plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
    if problems := data_problems(config, users, evaluation_users, base):
        raise DataError(problems)
    print("\n".join(["Plan", *plan_lines(plan), "", guarantee_line(plan), ""]), flush=True)
    run = create_run(config, plan, add_files=_node_ledger_maker(plan))
    keep_command(run.path, command)
    with _own_noise(run) as own_noise:
        node = _build_node(config, base, layout, users, evaluation_users, own_noise)
        return _train(run, node, layout, is_comparing, non_private_path)


def resume(path: Path, *, is_new_segment: bool = False, command: str = "") -> int:
    """Continues a run folder where its ledger says it stopped; a finished run is exported again.

    `is_new_segment`: the master key of its correlated noise is lost; go on without it.
    """
    run = load_run(path)
    keep_command(path, command)
    pin_threads(run.config)
    base, layout = load_model(run.config)
    check_run_model(run, base=base, layout=layout)
    users, evaluation_users = load_users(run.config)
    with _own_noise(run) as own_noise:
        node = _build_node(run.config, base, layout, users, evaluation_users, own_noise)
        print(f"Resuming {path}\n{guarantee_line(run.plan)}\n", flush=True)
        return _train(
            run,
            node,
            layout,
            is_comparing=False,
            non_private_path=None,
            is_new_segment=is_new_segment,
        )


def _node_ledger_maker(plan: PrivacyPlan) -> Callable[[Path, str], None]:
    """What puts the node's own ledger into a new run folder, where the node adds the noise."""

    def make(folder: Path, name: str) -> None:
        if plan.trust.is_noised_by_nodes:
            Ledger.create(folder / NODE_LEDGER_NAME, plan_row(plan, name))

    return make


def _own_noise(run: Run) -> AbstractContextManager[OwnNoise | None]:
    if not run.plan.trust.is_noised_by_nodes:
        return nullcontext()
    ledger_path = run.path / NODE_LEDGER_NAME
    return open_own_noise(run.plan, ledger_path=ledger_path, run=run.name, name=str(Part()))


def keep_command(path: Path, command: str) -> None:
    """Adds a command line to those that made a run; "" is none."""
    if command:
        with (path / COMMAND_NAME).open("a", encoding="utf-8") as file:
            file.write(command + "\n")


def _build_node(
    config: RunConfig,
    base: BaseModel,
    layout: AdapterLayout,
    users: Users,
    evaluation_users: Users,
    own_noise: OwnNoise | None,
) -> Node | ShardedNode:
    if config.nodes.workers > 1:
        return build_part(config, Part(), own_noise=own_noise)
    return build_node(config, base, layout, users, evaluation_users, own_noise)


def _train(
    run: Run,
    node: Node | ShardedNode,
    layout: AdapterLayout,
    is_comparing: bool,
    non_private_path: Path | None,
    is_new_segment: bool = False,
) -> int:
    started = time.monotonic()
    progress = Progress(run.plan, epsilon_curve_of(run.plan).tolist())
    with stop_on_interrupt() as is_stopped:
        outcome = train(
            run,
            LocalNodes([node], dropout=run.config.nodes.dropout),
            initial=layout.initial(),
            show=progress.show,
            is_stopped=is_stopped,
            is_new_segment=is_new_segment,
        )
        progress.close()
        if not outcome.is_complete:
            print(
                f"Stopped after round {outcome.state.round} of {run.plan.num_rounds}. Continue "
                f"with `feddp simulate --resume {run.path}`; the promise stays "
                f"epsilon <= {epsilon_text(run.plan.epsilon)}."
            )
            return INTERRUPTED
        if is_comparing and isinstance(node, Node):
            outcome = _compare(run, node, layout, outcome, non_private_path, is_stopped)
    finish_run(
        run,
        outcome,
        layout=layout,
        not_covered=not_covered(
            describe_evaluation(run.config), is_generated=run.config.is_generated
        ),
    )
    leave_curves(run.path, run.plan)
    print("\n".join(["", *result_lines(outcome.results, run.plan)]))
    print(f"\n  {run.path}  ({time.monotonic() - started:.0f} s)")
    print(f"  try: feddp chat {run.path}")
    return 0


def _compare(
    run: Run,
    node: Node,
    layout: AdapterLayout,
    outcome: Outcome,
    non_private_path: Path | None,
    is_stopped: Callable[[], bool],
) -> Outcome:
    """The outcome with the non-private ceiling: in result.json for generated users, else apart."""
    print("\nThe same rounds without privacy, to compare ...", flush=True)
    _, evaluation = train_without_privacy(
        node,
        layout.initial(),
        num_rounds=run.plan.num_rounds,
        sampling_probability=run.plan.sampling_probability,
        optimizer=optimizer_from_config(run.config),
        layout_sha256=layout.sha256,
        seed=run.plan.seed,
        is_stopped=is_stopped,
    )
    metrics = metrics_of(evaluation, task=run.config.model.task)
    if non_private_path is not None:
        non_private_path.mkdir(parents=True, exist_ok=True)
        note = "NOT PRIVATE. Publishing this beside the private run voids its promise."
        content = {"note": note, "run": run.path.name, "non_private": metrics}
        (non_private_path / f"{run.path.name}.json").write_text(
            json.dumps(content, indent=2) + "\n"
        )
    return Outcome(outcome.is_complete, outcome.state, {**outcome.results, "non_private": metrics})


def _check_comparison(config: RunConfig, is_comparing: bool, non_private_path: Path | None) -> None:
    if is_comparing and config.nodes.workers > 1:
        raise ConfigError(["--with-non-private: needs nodes.workers = 1."])
    if not is_comparing or config.is_generated:
        return
    if non_private_path is None:
        raise ConfigError(
            [
                "--with-non-private: on real data a result without privacy voids the promise if "
                "it is published. If you want it for your eyes only, name a folder for it outside "
                "the run: --non-private-dir FOLDER."
            ]
        )
    if non_private_path.resolve().is_relative_to(Path(config.run.output_dir).resolve()):
        raise ConfigError(
            [f"--non-private-dir {non_private_path}: must lie outside {config.run.output_dir}."]
        )


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for a stop, which the round loop grants after its bookkeeping; twice insists."""
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print("\nStopping after this round's bookkeeping; Ctrl-C again: at once.", flush=True)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
