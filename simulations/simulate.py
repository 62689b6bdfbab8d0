"""feddp simulate: many users on one machine, in one process."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.build import build_node, describe_evaluation, load_model, open_users_of, pin_threads
from client.node import Node
from common.adapter import AdapterLayout
from common.config import RunConfig
from common.errors import ConfigError
from common.model import BaseModel
from common.privacy.statement import guarantee_line
from server.aggregation import Evaluation
from server.export import finish_run, metrics_of, write_result
from server.rounds import RoundReport
from server.run import (
    Outcome,
    Run,
    check_run_model,
    create_run,
    epsilon_curve_of,
    load_run,
    plan_from_config,
    train,
)
from simulations.console import Progress, plan_lines, result_lines
from simulations.local import LocalNodes
from simulations.non_private import train_without_privacy

INTERRUPTED = 130


def simulate(config: RunConfig, *, is_comparing: bool, non_private_path: Path | None) -> int:
    """Plans, trains and exports a new run; prints the plan, the progress and the table.

    Args:
      config: the run.
      is_comparing: also train the same rounds without clip and noise, for the table.
      non_private_path: where that result goes; required unless the users are generated, because a
        result without privacy, once published, voids the promise of the private one.

    Returns:
      The exit code: 0 when all rounds are released, 130 when a person stopped the run.
    """
    _check_comparison(config, is_comparing, non_private_path)
    pin_threads(config)
    base, layout = load_model(config)
    users, evaluation_users = open_users_of(config)
    num_users = config.privacy.num_users or users.num_users
    plan = plan_from_config(config, num_users=num_users, base=base, layout=layout)
    print("\n".join(["Plan", *plan_lines(plan), "", guarantee_line(plan), ""]), flush=True)
    run = create_run(config, plan)
    node = build_node(config, base, layout, users, evaluation_users)
    return _train(run, node, base, layout, is_comparing, non_private_path)


def resume(path: Path) -> int:
    """Continues a run folder where its ledger says it stopped; a finished run is exported again."""
    run = load_run(path)
    pin_threads(run.config)
    base, layout = load_model(run.config)
    check_run_model(run, base=base, layout=layout)
    users, evaluation_users = open_users_of(run.config)
    node = build_node(run.config, base, layout, users, evaluation_users)
    print(f"Resuming {path}\n{guarantee_line(run.plan)}\n", flush=True)
    return _train(run, node, base, layout, is_comparing=False, non_private_path=None)


def _train(
    run: Run,
    node: Node,
    base: BaseModel,
    layout: AdapterLayout,
    is_comparing: bool,
    non_private_path: Path | None,
) -> int:
    started = time.monotonic()
    progress = Progress(run.plan, epsilon_curve_of(run.plan).tolist())
    with stop_on_interrupt() as is_stopped:
        outcome = train(
            run,
            LocalNodes([node]),
            initial=layout.initial(),
            show=progress.show,
            is_stopped=is_stopped,
        )
        progress.close()
        if not outcome.is_complete:
            print(
                f"Stopped after round {outcome.state.round} of {run.plan.num_rounds}. Continue with "
                f"`feddp simulate --resume {run.path}`; the promise stays {run.plan.epsilon:.3f}."
            )
            return INTERRUPTED
        if is_comparing:
            outcome = _compare(run, node, layout, outcome, non_private_path, is_stopped)
    finish_run(
        run,
        outcome,
        base=base,
        layout=layout,
        engine_logits=lambda row: node.engine.logits(outcome.state.adapter, row),
        evaluation=describe_evaluation(run.config),
    )
    print("\n".join(["", *result_lines(outcome.results, run.plan)]))
    print(f"\n  {run.path}  ({time.monotonic() - started:.0f} s)")
    print(f"  try: feddp chat {run.path}")
    return 0
