import os
import signal
from pathlib import Path

import pytest

from feddp.common.assembly import Part
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.errors import ConfigError
from feddp.deploy.fleet.fleet import Fleet
from feddp.deploy.fleet.run import (
    StoppedError,
    _interrupted_by_sigterm,
    _show,
    finished_run,
    fleet_of,
    located,
    named,
    resuming,
)
from feddp.deploy.fleet.shares import Share
from feddp.server.export import RESULT_NAME
from feddp.server.run import CONFIG_NAME


def fleet(folder: Path, *, is_sealed: bool = True) -> Fleet:
    return Fleet(
        folder, RunConfig(), [Share(Part(0, 2), 4), Share(Part(1, 2), 6)], is_sealed=is_sealed
    )


def test_a_run_on_a_fleet_keeps_its_settings_and_gains_places(tmp_path: Path) -> None:
    config = from_flat({"run.rounds": 3, "run.output-dir": str(tmp_path)})
    sealed, unsealed = (located(config, fleet(tmp_path, is_sealed=s)) for s in (True, False))
    assert sealed.nodes.registry == str(tmp_path / "nodes.toml")
    assert unsealed.nodes.registry == ""
    assert (sealed.run.rounds, sealed.nodes.minimum) == (3, 2)
    again = resuming(config, tmp_path / "r", fleet(tmp_path))
    assert again.run.resume == str(tmp_path / "r")


def test_a_run_without_a_name_gets_one_and_a_given_name_stays() -> None:
    assert named(RunConfig()).run.name
    assert named(from_flat({"run.name": "mine"})).run.name == "mine"


def test_a_folder_that_exists_is_never_taken_for_a_fleet(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="exists already"),
        fleet_of(RunConfig(), shares=[Share(Part(0, 1), 1)], folder=tmp_path),
    ):
        pass


def test_a_run_is_finished_once_its_result_is_there(tmp_path: Path) -> None:
    config = from_flat({"run.name": "r", "run.output-dir": str(tmp_path)})
    with pytest.raises(StoppedError, match="did not start"):
        finished_run(config)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / CONFIG_NAME).touch()
    with pytest.raises(StoppedError, match=f"feddp deploy resume {tmp_path}/r"):
        finished_run(config)
    (tmp_path / "r" / RESULT_NAME).touch()
    assert finished_run(config) == tmp_path / "r"


def test_a_log_is_shown_from_where_it_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.log"
    assert _show(log, 0) == 0
    log.write_text("one\n")
    end = _show(log, 0)
    with log.open("a") as file:
        file.write("two\n")
    assert _show(log, end) == 8
    assert capsys.readouterr().out == "one\ntwo\n"


def test_sigterm_takes_everything_down_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _interrupted_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
