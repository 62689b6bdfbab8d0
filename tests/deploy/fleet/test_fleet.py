import shutil
import tomllib
from pathlib import Path

import pytest

from feddp.common.assembly import Part
from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.wire.node_registry import read_registry
from feddp.deploy.fleet.fleet import Fleet
from feddp.deploy.fleet.flower_app import write_app
from feddp.deploy.fleet.run import located, resuming
from feddp.deploy.fleet.shares import Share


def fleet(folder: Path, *, is_sealed: bool = True) -> Fleet:
    return Fleet(
        folder, RunConfig(), [Share(Part(0, 2), 4), Share(Part(1, 2), 6)], is_sealed=is_sealed
    )


def test_the_app_that_nodes_are_sent_has_the_three_packages_and_all_defaults(
    tmp_path: Path,
) -> None:
    write_app(tmp_path / "feddp")
    folders = {path.name for path in (tmp_path / "feddp").iterdir()}
    assert folders == {"feddp", "client", "common", "server", "pyproject.toml"}
    project = tomllib.loads((tmp_path / "feddp" / "pyproject.toml").read_text())
    defaults = {
        f"{section}.{key}": value
        for section, entries in project["tool"]["flwr"]["app"]["config"].items()
        for key, value in entries.items()
    }
    assert defaults == to_flat(RunConfig())


def test_a_fleet_has_an_identity_for_each_node_and_nothing_open(tmp_path: Path) -> None:
    one = fleet(tmp_path)
    one._prepare()
    entries = read_registry(one.registry_path).active
    assert {name: entry.users for name, entry in entries.items()} == {"node-0": 4, "node-1": 6}
    private = [p for p in (tmp_path / "keys").iterdir() if p.suffix != ".pub"]
    assert len(private) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*private, tmp_path])


def test_a_run_on_a_fleet_keeps_its_settings_and_gains_places(tmp_path: Path) -> None:
    config = from_flat({"run.rounds": 3, "run.output-dir": str(tmp_path)})
    sealed, unsealed = (located(config, fleet(tmp_path, is_sealed=s)) for s in (True, False))
    assert sealed.nodes.registry == str(tmp_path / "nodes.toml")
    assert unsealed.nodes.registry == ""
    assert (sealed.run.rounds, sealed.nodes.minimum) == (3, 2)
    again = resuming(config, tmp_path / "r", fleet(tmp_path))
    assert again.run.resume == str(tmp_path / "r")


def test_an_executor_finds_the_programs_of_flower_where_no_environment_is_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = fleet(tmp_path)._environment("n0")
    for name in ("flwr-serverapp", "flwr-clientapp", "flower-superexec"):
        assert shutil.which(name, path=environment["PATH"]) is not None
