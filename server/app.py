"""The ServerApp: a whole run, step by step."""

import dataclasses
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from feddp.common.allocator import keep_freed_memory
from feddp.common.assembly import describe_evaluation, load_model, plan_from_config
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.errors import ConfigError
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.plan.statement import guarantee_line, not_covered
from feddp.common.wire.identity_keys import read_private_key
from feddp.common.wire.node_registry import read_registry
from feddp.server.cohort_draw import ServerDraw
from feddp.server.export import finish_run
from feddp.server.nodes import FlowerNodes
from feddp.server.rounds import RoundReport
from feddp.server.run import (
    Outcome,
    Run,
    burned_text,
    check_run_model,
    create_run,
    ended,
    load_run,
    train,
)
from feddp.server.run_secrets import POPULATION, secret_path
from feddp.server.sealed_nodes import SealedNodes
from feddp.server.sealer import Sealer

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Plans or resumes the run, waits for the nodes, runs the rounds and exports the adapter."""
    keep_freed_memory()
    config = from_flat(context.run_config)
    resumed = load_run(Path(config.run.resume)) if config.run.resume else None
    if resumed:  # only the nodes and their registry may change in a run
        given = config.nodes
        kept = dataclasses.replace(
            resumed.config.nodes,
            minimum=given.minimum,
            registry=given.registry,
            server_key=given.server_key,
        )
        config = dataclasses.replace(resumed.config, nodes=kept)
    mechanism = MECHANISMS[config.privacy.mechanism]
    if mechanism.needs_one_node and config.nodes.minimum > 1:
        raise ConfigError(
            f'privacy.mechanism = "{mechanism.name}": is drawn by one node that has all users. '
            'Set nodes.minimum = 1, or privacy.mechanism = "poisson".'
        )
    base, layout = load_model(config)
    if resumed:
        check_run_model(resumed, base=base, layout=layout)
        run = resumed
    else:
        run = create_run(
            config, plan_from_config(config, trust=config.privacy.trust, base=base, layout=layout)
        )
    plan = run.plan
    print(f"{run.path}: {guarantee_line(plan)}", flush=True)
    if (outcome := ended(run)) is not None:
        _finish(run, outcome, layout)
        return

    server_draw = _server_draw(config, run) if config.sampling.by == "server" else None
    nodes = _sealed(grid, config, run, layout, server_draw) if config.nodes.registry else None
    deadline_seconds = config.nodes.deadline_seconds
    asked = nodes or FlowerNodes(grid, layout.dimension, deadline_seconds, server_draw=server_draw)
    asked.wait_for_nodes(config.nodes.minimum)
    if server_draw is not None and len(server_draw.population) > plan.num_users:
        raise ConfigError(
            f"{len(server_draw.population)} nodes of one user each are there, and the plan is "
            f"for {plan.num_users}. Declare all of them in privacy.num-users, in a new run."
        )

    def show(report: RoundReport, num_charges: int) -> None:
        """A line for a released round."""
        loss = f", loss {report.evaluation.loss:.4f}" if report.evaluation else ""
        print(f"round {report.round}/{plan.num_rounds}{loss}, {report.seconds:.1f} s", flush=True)

    outcome = train(
        run,
        asked,
        initial=layout.initial(),
        show=show,
        is_stopped=lambda: False,
        measure_nodes=asked.measure,
    )
    _finish(run, outcome, layout)


def _finish(run: Run, outcome: Outcome, layout: AdapterLayout) -> None:
    """Exports the adapter and says so."""
    config = run.config
    outside = not_covered(describe_evaluation(config), is_generated=config.is_generated)
    finish_run(run, outcome, layout=layout, not_covered=outside)
    if burned := burned_text(outcome.num_burned, run.plan.num_rounds):
        print(burned, flush=True)
    print(f"{run.path}: done", flush=True)


def _server_draw(config: RunConfig, run: Run) -> ServerDraw:
    """What draws the cohort if every node has one user."""
    if config.sampling.ask == "all" and not config.nodes.registry:
        raise ConfigError(
            'sampling.ask = "all": hides the cohort only where replies are sealed. Give '
            'nodes.registry and nodes.server-key, or set sampling.ask = "drawn".'
        )
    known = Ledger.read(run.ledger_path).runs.get(run.name)
    return ServerDraw(
        secret_path(run.path, POPULATION),
        separation=run.plan.cohorts.separation,
        has_begun=known is not None and known.num_charges > 0,
    )


def _sealed(
    grid: Grid, config: RunConfig, run: Run, layout: AdapterLayout, server_draw: ServerDraw | None
) -> SealedNodes:
    """The enrolled nodes, asked under the epoch that opening the ledger will write."""
    plan = run.plan
    registry_path = Path(config.nodes.registry)
    users = [entry.users for entry in read_registry(registry_path).active.values()]
    if server_draw is not None and any(number != 1 for number in users):
        raise ConfigError(
            f'{registry_path}: sampling.by = "server" draws nodes of one user each. Enroll '
            "every node with --users 1."
        )
    num_enrolled = sum(users)
    if num_enrolled > plan.num_users:
        raise ConfigError(
            f"{registry_path}: {num_enrolled} users are enrolled, and the plan is for "
            f"{plan.num_users}. Declare all of them in privacy.num-users, in a new run."
        )
    history = Ledger.read(run.ledger_path)
    sealer = Sealer(
        registry_path=registry_path,
        server_key=read_private_key(Path(config.nodes.server_key)),
        population=str(history.plan["population"]),
        run=run.name,
        plan_sha256=plan.sha256,
        head=history.head.hex(),
        epoch=history.num_opened + 1,
    )
    is_example = config.sampling.unit == "example"
    is_bounded = config.privacy.unit == "user"
    per_user = (config.data.max_examples_per_user if is_bounded else None) if is_example else 1
    return SealedNodes(
        grid,
        layout.dimension,
        config.nodes.deadline_seconds,
        sealer,
        units_per_user=per_user,
        server_draw=server_draw,
        is_asking_everyone=config.sampling.ask == "all",
    )
