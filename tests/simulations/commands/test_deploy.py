"""feddp deploy: what is refused, and what a fleet leaves when it has finished a run."""

import json
from pathlib import Path

import pytest
from flat_plan import flat_plan

from feddp.common.assembly import config_sha256
from feddp.common.config.run_config import from_flat, to_flat
from feddp.server.publisher import METRICS_NAME
from feddp.server.run import create_run
from feddp.simulations.cli import main
from feddp.simulations.commands.deploy import _show_end


def test_a_run_on_a_fleet_has_its_curves_as_one_in_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = from_flat({"run.name": "a", "run.output-dir": str(tmp_path)})
    plan = flat_plan(
        num_users=1000,
        target_epsilon=8.0,
        target_delta=None,
        noise_multiplier=2.0,
        clipping_norm=1.0,
        num_rounds=4,
        expected_cohort_size=None,
        trust="server",
        dimension=8,
        details={
            "config_sha256": config_sha256(to_flat(config)),
            "base_sha256": "",
            "layout_sha256": "",
        },
    )
    path = create_run(config, plan).path
    lines = [{"round": r, "epsilon": float(r), "evaluation_loss": 4.0 - r} for r in range(3)]
    (path / METRICS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    _show_end(path)
    assert (path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"feddp chat {path}" in capsys.readouterr().out


def test_a_deployment_without_nodes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "local", "--nodes", "0"]) == 2
    assert "--nodes 0" in capsys.readouterr().err
    assert main(["deploy", "resume", "/nowhere"]) == 2


def test_what_is_no_setting_is_refused_before_a_fleet_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["deploy", "local", "--set", "run.round=1"]) == 2
    assert "run.rounds" in capsys.readouterr().err
