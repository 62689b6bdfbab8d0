import shutil
from pathlib import Path

import pytest

from feddp.common.assembly import Part
from feddp.common.config.run_config import RunConfig
from feddp.common.wire.node_registry import read_registry
from feddp.deploy.fleet.fleet import Fleet
from feddp.deploy.fleet.shares import Share


def fleet(folder: Path, *, is_sealed: bool = True) -> Fleet:
    return Fleet(
        folder, RunConfig(), [Share(Part(0, 2), 4), Share(Part(1, 2), 6)], is_sealed=is_sealed
    )


def test_a_fleet_has_an_identity_for_each_node_and_nothing_open(tmp_path: Path) -> None:
    one = fleet(tmp_path)
    one._prepare()
    entries = read_registry(one.registry_path).active
    assert {name: entry.users for name, entry in entries.items()} == {"node-0": 4, "node-1": 6}
    private = [p for p in (tmp_path / "keys").iterdir() if p.suffix != ".pub"]
    assert len(private) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*private, tmp_path])


def test_an_executor_finds_the_programs_of_flower_where_no_environment_is_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = fleet(tmp_path)._environment("n0")
    for name in ("flwr-serverapp", "flwr-clientapp", "flower-superexec"):
        assert shutil.which(name, path=environment["PATH"]) is not None
