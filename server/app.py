"""ServerApp: the run on one screen."""

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.build import describe_evaluation, load_model
from common.config import from_flat
from common.privacy.statement import guarantee_line, not_covered
from server.export import finish_run
from server.nodes import FlowerNodes
from server.rounds import RoundReport
from server.run import create_run, plan_from_config, train

log = logging.getLogger("feddp.server")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Plans the run, waits for the nodes, runs the rounds and exports the adapter."""
    config = from_flat(context.run_config)
    base, layout = load_model(config)
    plan = plan_from_config(config, trust=config.privacy.trust, base=base, layout=layout)
    run = create_run(config, plan)
    print(f"{run.path}: {guarantee_line(plan)}", flush=True)

    nodes = FlowerNodes(grid, layout.dimension, config.nodes.deadline_seconds)
    nodes.wait_for_nodes(config.nodes.minimum)

    def show(report: RoundReport, num_charges: int) -> None:
        loss = f", loss {report.evaluation.loss:.4f}" if report.evaluation else ""
        print(f"round {report.round}/{plan.num_rounds}{loss}", flush=True)

    outcome = train(run, nodes, initial=layout.initial(), show=show, is_stopped=lambda: False)
    outside = not_covered(describe_evaluation(config), is_generated=config.is_generated)
    finish_run(run, outcome, layout=layout, not_covered=outside)
    print(f"{run.path}: done", flush=True)
