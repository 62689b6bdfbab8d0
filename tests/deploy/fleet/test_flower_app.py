import tomllib
from pathlib import Path

from feddp.common.config.run_config import RunConfig, to_flat
from feddp.deploy.fleet.flower_app import write_app

ROOT = Path(__file__).parents[3]


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


def test_the_app_of_a_fleet_is_declared_as_the_repositorys_own(tmp_path: Path) -> None:
    write_app(tmp_path / "feddp")
    project, own = (
        tomllib.loads((folder / "pyproject.toml").read_text())
        for folder in (tmp_path / "feddp", ROOT)
    )
    app, own_app = project["tool"]["flwr"]["app"], own["tool"]["flwr"]["app"]
    assert app["components"] == own_app["components"]
    assert app["fab-include"] == own_app["fab-include"]
    assert project["project"]["license"] == own["project"]["license"]


def test_nothing_that_was_compiled_is_sent(tmp_path: Path) -> None:
    write_app(tmp_path / "feddp")
    files = [path for path in (tmp_path / "feddp").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".toml"}
