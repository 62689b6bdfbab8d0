"""What the command line prints of the rounds."""

import pytest

from feddp.common.assembly import load_model, plan_from_config
from feddp.common.config.run_config import from_flat
from feddp.common.evaluation import Evaluation
from feddp.server.rounds import RoundReport
from feddp.simulations.run.terminal import Lines


def test_without_a_terminal_evaluated_rounds_are_plain_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = from_flat({"run.rounds": 4})
    base, layout = load_model(config)
    lines = Lines(plan_from_config(config, trust="simulation", base=base, layout=layout))
    lines.show(RoundReport(0, 0.0, Evaluation(27.0, 9, 1)), 0)
    lines.show(RoundReport(1, 1.0, None), 1)
    lines.show(RoundReport(2, 1.0, Evaluation(26.1, 9, 1)), 2)
    lines.show(RoundReport(4, 1.0, Evaluation(22.5, 9, 2)), 4)
    lines.close()
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert shown[0] == "round    0/4  loss 3.0000  epsilon 0.00/8"  # nothing to time yet
    assert shown[1].endswith("s left")
    assert shown[2].startswith("round    4/4  loss 2.5000  epsilon")
    assert "left" not in shown[2]
