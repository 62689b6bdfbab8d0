"""The choice of unit, group size and clipping norm, from public users to a picture."""

from pathlib import Path

import pytest

from feddp.common.config.run_config import from_flat
from feddp.simulations.cli import main
from feddp.simulations.group_size.choice import choose_grouping
from feddp.simulations.group_size.planner import Setting


@pytest.mark.slow
def test_the_choice_is_made_and_drawn_on_generated_users(tmp_path: Path) -> None:
    config = from_flat({"run.output-dir": str(tmp_path), "nodes.threads": 1})
    setting = Setting(3000, 10, 400.0, 8.0, 1e-5)
    text = "\n".join(choose_grouping(config, setting, most=4, proxy_path=None))
    assert "300 examples a round" in text  # few users have four
    assert "generated users of the demo, 48 of them measured" in text
    assert 'sampling.unit = "' in text
    assert "nan" not in text
    for ending in ("svg", "png"):
        assert (tmp_path / "plan" / f"group-size.{ending}").stat().st_size > 1000


def test_a_proxy_that_nothing_reads_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--proxy", "public.jsonl"]) != 0
    assert "Add --group-size" in capsys.readouterr().err
