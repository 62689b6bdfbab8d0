import io
from contextlib import redirect_stderr

from feddp.common.assembly import load_model, plan_from_config
from feddp.common.config.run_config import from_flat
from feddp.common.evaluation import Evaluation
from feddp.server.rounds import RoundReport
from feddp.simulations.run.progress import Bar


def test_a_bar_shows_loss_and_epsilon_and_counts_rounds_that_were_done_before() -> None:
    config = from_flat({"run.rounds": 4})
    base, layout = load_model(config)
    plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
    text = io.StringIO()
    with redirect_stderr(text):
        bar = Bar(plan)
        bar.show(RoundReport(3, 0.0, Evaluation(27.0, 9, 1)), 3)
        bar.show(RoundReport(4, 0.0, None), 4)
        bar.close()
    last = text.getvalue().split("\r")[-1]
    assert "4/4" in last
    assert "loss 3.0000, epsilon" in last
