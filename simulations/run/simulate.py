"""feddp.simulate and feddp.resume: many users on one machine, in one process."""

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from feddp.client.assembly import build_node, build_part
from feddp.client.node import Node
from feddp.client.own_noise import OwnNoise, open_own_noise
from feddp.client.sharding import ShardedNode
from feddp.common.assembly import (
    Part,
    columns_of,
    describe_evaluation,
    load_model,
    load_users,
    pin_threads,
    plan_from_config,
)
from feddp.common.config.run_config import RunConfig
from feddp.common.data.users import Users as Table
from feddp.common.disk import remove_times
from feddp.common.errors import ConfigError, DataError
from feddp.common.evaluation import metrics_of
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import not_covered
from feddp.server import run as folder
from feddp.server.export import finish_run
from feddp.server.rounds import RoundReport
from feddp.server.run import Outcome, check_run_model, create_run, optimizer_from_config, train
from feddp.server.run_secrets import NODE_LEDGER, secret_path, secrets_folder
from feddp.simulations.run.data_problems import data_problems
from feddp.simulations.run.local_nodes import LocalNodes
from feddp.simulations.run.non_private import train_without_privacy
from feddp.simulations.run.pictures import leave_curves
from feddp.simulations.run.progress import Bar, Listener, Meter, ignore, never
from feddp.simulations.run.run import Run, describe_run, path_of
from feddp.simulations.run.users import Users, declare_users

COMMAND_NAME = "command.txt"
NON_PRIVATE_NOTE = "NOT PRIVATE. Publishing this beside the private run voids its promise."


def simulate(
    config: RunConfig,
    users: Users | None = None,
    *,
    evaluation_users: Users | None = None,
    on_round: Callable[[RoundReport], None] = ignore,
    is_stopped: Callable[[], bool] = never,
    progress: bool | Listener = False,
    is_comparing: bool = False,
    non_private_path: Path | None = None,
    command: str = "",
) -> Run:
    """Plans, trains and exports a new run, in this process.

    Ctrl-C, or a notebook's stop button, stops the run after the bookkeeping of its round; pressed
    twice, it stops at once. Either way, `resume` can continue the run. Signals only reach the main
    thread; in others, use `is_stopped`.

    Args:
      config: of the run; `privacy.num-users` is declared unless the users are the demo's.
      users: all users, evaluation users included; None: those of `data.path`.
      evaluation_users: public or consenting, and none of `users`; None: those that the
        configuration holds out or names.
      on_round: called with the report of every released round, once durable. If it raises, the call
        ends, and `resume` can continue the run.
      is_stopped: called before each round; True stops the run.
      progress: True shows a bar; a `Listener` gets more events.
      is_comparing: also train the same rounds without clip and noise.
      non_private_path: where that result goes; required unless the users are generated, because
        publishing a result without privacy voids the promise of the private one.
      command: the command line; it is kept in the run folder, and as public as the config.

    Returns:
      The run; `is_complete` unless it was stopped.

    Raises:
      ConfigError: config and users contradict each other, or the run's folder exists.
      DataError: the users cannot be trained on; all problems at once.
      ModelError: the base model cannot be loaded.
      BudgetSpentError, PlanDiffersError, LedgerLockedError: the population's ledger refuses.
      DiskError: a write failed.
    """
    config = declare_users(config, users, evaluation_users)
    _check_comparison(config, is_comparing, non_private_path)
    listener = _listener(progress)
    with pinned_threads(config):
        base, layout = load_model(config)
        training, evaluation = load_given(config, users, evaluation_users)
        plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
        if problems := data_problems(config, training, evaluation, base):
            raise DataError(problems)
        listener.on_plan(plan)
        run = create_run(config, plan, add_secrets=_node_ledger_maker(plan))
        keep_command(run.path, command)
        with _opened_node(run, base, layout, training, evaluation) as node:
            return _train(
                run,
                node,
                layout,
                listener=listener,
                on_round=on_round,
                is_stopped=is_stopped,
                is_comparing=is_comparing,
                non_private_path=non_private_path,
            )


def resume(
    run: Run | Path | str,
    users: Users | None = None,
    *,
    evaluation_users: Users | None = None,
    on_round: Callable[[RoundReport], None] = ignore,
    is_stopped: Callable[[], bool] = never,
    progress: bool | Listener = False,
    is_new_segment: bool = False,
    command: str = "",
) -> Run:
    """Continues a run where its ledger says it stopped; a finished run is exported again.

    Args:
      run: the run, or its folder.
      users: the same as before, if they were given in Python.
      evaluation_users: the same as before, if they were given in Python.
      on_round: see `simulate`.
      is_stopped: see `simulate`.
      progress: see `simulate`.
      is_new_segment: continue although the master key of the correlated noise is lost.
      command: see `simulate`.

    Raises:
      ConfigError: there is no run, or these are not its users.
      PlanDiffersError: the folder, its base model or its ledger does not match the plan.
      LedgerDamagedError, LedgerLockedError, RolledBackError, BudgetSpentError, DiskError: see
        `server.run.train`.
    """
    stored = folder.load_run(path_of(run))
    check_users(stored.config, users, evaluation_users)
    keep_command(stored.path, command)
    listener = _listener(progress)
    with pinned_threads(stored.config):
        base, layout = load_model(stored.config)
        check_run_model(stored, base=base, layout=layout)
        training, evaluation = load_given(stored.config, users, evaluation_users)
        with _opened_node(stored, base, layout, training, evaluation) as node:
            listener.on_resume(stored.path, stored.plan)
            return _train(
                stored,
                node,
                layout,
                listener=listener,
                on_round=on_round,
                is_stopped=is_stopped,
                is_new_segment=is_new_segment,
            )


def check_users(
    config: RunConfig, users: Users | None, evaluation_users: Users | None = None
) -> None:
    """Refuses users whose columns or source differ from the run's."""
    if declare_users(config, users, evaluation_users) != config:
        raise ConfigError(
            [
                f"users: {users!r} are not those of the run, which reads "
                f"{columns_of(config)} of {config.data.path}. Give the same as before."
            ]
        )


def load_given(
    config: RunConfig, users: Users | None = None, evaluation_users: Users | None = None
) -> tuple[Table, Table]:
    """(training users, evaluation users): those given in Python, or else the configuration's."""
    everyone, evaluation = (
        None if given is None else given.table for given in (users, evaluation_users)
    )
    return load_users(config, everyone=everyone, evaluation=evaluation)


def _listener(progress: bool | Listener) -> Listener:
    if isinstance(progress, Listener):
        return progress
    return Listener(meter=Bar) if progress else Listener()


@contextmanager
def pinned_threads(config: RunConfig) -> Iterator[None]:
    """Sets torch's threads as the run asks, and restores them afterwards."""
    before = torch.get_num_threads()
    pin_threads(config)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _node_ledger_maker(plan: PrivacyPlan) -> Callable[[Path, str], None]:
    """What adds the node's own ledger to a new run's secrets, if the node adds the noise."""

    def make(folder: Path, name: str) -> None:
        """The ledger that a node with its own noise keeps."""
        if plan.trust.is_noised_by_nodes:
            Ledger.create(folder / NODE_LEDGER, plan_row(plan, name))

    return make


def _own_noise(run: folder.Run) -> AbstractContextManager[OwnNoise | None]:
    if not run.plan.trust.is_noised_by_nodes:
        return nullcontext()
    ledger_path = secret_path(run.path, NODE_LEDGER)
    if not ledger_path.exists() and not secrets_folder(run.path).exists():
        return nullcontext()  # the run has ended: nothing is asked for any more
    return open_own_noise(run.plan, ledger_path=ledger_path, run=run.name, name=str(Part()))


def keep_command(path: Path, command: str) -> None:
    """Adds a command line to those that made a run, unless it is empty."""
    if command:
        with (path / COMMAND_NAME).open("a", encoding="utf-8") as file:
            file.write(command + "\n")


@contextmanager
def _opened_node(
    run: folder.Run, base: BaseModel, layout: AdapterLayout, users: Table, evaluation_users: Table
) -> Iterator[Node | ShardedNode]:
    """The one node of a run; its ledger and its processes are closed afterwards."""
    config = run.config
    with _own_noise(run) as own_noise, ExitStack() as stack:
        if config.nodes.workers == 1:
            yield build_node(config, base, layout, users, evaluation_users, own_noise)
            return
        node = build_part(config, Part(), own_noise=own_noise)
        if isinstance(node, ShardedNode):
            stack.callback(node.close)
        yield node


def _train(
    run: folder.Run,
    node: Node | ShardedNode,
    layout: AdapterLayout,
    *,
    listener: Listener,
    on_round: Callable[[RoundReport], None],
    is_stopped: Callable[[], bool],
    is_comparing: bool = False,
    non_private_path: Path | None = None,
    is_new_segment: bool = False,
) -> Run:
    with stop_on_interrupt(listener.on_stopping) as is_interrupted:

        def has_to_stop() -> bool:
            """Whether a signal or the caller asks to stop."""
            return is_interrupted() or is_stopped()

        outcome = _run_rounds(
            run, node, layout, listener.meter, on_round, has_to_stop, is_new_segment
        )
        if not outcome.is_complete:
            remove_times(run.path)
            return describe_run(run)
        if is_comparing and isinstance(node, Node):
            listener.on_comparing()
            metrics = _without_privacy(run, node, layout, has_to_stop)
            listener.on_non_private(metrics)
            if non_private_path is None:
                outcome = replace(outcome, results={**outcome.results, "non_private": metrics})
            else:
                _write_non_private(non_private_path, run.path.name, metrics)
    outside = not_covered(describe_evaluation(run.config), is_generated=run.config.is_generated)
    finish_run(run, outcome, layout=layout, not_covered=outside)
    leave_curves(run.path, run.plan)
    remove_times(run.path)
    return describe_run(run)


def _run_rounds(
    run: folder.Run,
    node: Node | ShardedNode,
    layout: AdapterLayout,
    open_meter: Callable[[PrivacyPlan], Meter | None],
    on_round: Callable[[RoundReport], None],
    is_stopped: Callable[[], bool],
    is_new_segment: bool,
) -> Outcome:
    with ExitStack() as stack:
        meter = open_meter(run.plan)
        if meter is not None:
            stack.callback(meter.close)

        def show(report: RoundReport, num_charges: int) -> None:
            """Shows a released round and tells the caller."""
            if meter is not None:
                meter.show(report, num_charges)
            on_round(report)

        return train(
            run,
            LocalNodes([node], dropout=run.config.nodes.dropout),
            initial=layout.initial(),
            show=show,
            is_stopped=is_stopped,
            is_new_segment=is_new_segment,
        )


def _without_privacy(
    run: folder.Run, node: Node, layout: AdapterLayout, is_stopped: Callable[[], bool]
) -> Mapping[str, float]:
    """Metrics of the same rounds without clip and noise, to compare the private run with."""
    _, evaluation = train_without_privacy(
        node,
        layout,
        num_rounds=run.plan.num_rounds,
        sampling_probability=run.plan.sampling_probability,
        optimizer=optimizer_from_config(run.config),
        seed=run.plan.seed,
        is_stopped=is_stopped,
    )
    return metrics_of(evaluation, task=run.config.model.task)


def _write_non_private(path: Path, name: str, metrics: Mapping[str, float]) -> None:
    """Writes real users' result without privacy into its own folder, never into the run's."""
    path.mkdir(parents=True, exist_ok=True)
    content = {"note": NON_PRIVATE_NOTE, "run": name, "non_private": metrics}
    (path / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


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
def stop_on_interrupt(tell: Callable[[], None] = ignore) -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C into a request to stop after the round's bookkeeping; twice stops at once.

    Signals only reach the main thread; in any other this does nothing.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: object) -> None:
        """Asks to stop; a second signal interrupts at once."""
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        tell()

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous or signal.SIG_DFL)
