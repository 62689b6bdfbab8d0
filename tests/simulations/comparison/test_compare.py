"""The grid that a configuration asks for; a whole cell runs in the slow suite."""

from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from feddp.simulations.comparison.compare import read_comparison


def test_wrong_keys_of_the_grid_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[compare]\nmethod = "uls"\n')
    with pytest.raises(ConfigError, match=r"compare\.method"):
        read_comparison(path, {})
    path.write_text('[compare]\nepsilons = "1,two"\n')
    with pytest.raises(ConfigError, match="two"):
        read_comparison(path, {})
    path.write_text('[compare]\nmethods = "uls,dp"\n')
    with pytest.raises(ConfigError, match='"dp"'):
        read_comparison(path, {})


def test_drawn_examples_of_real_users_are_declared_for_every_group_size(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    text = '[data]\npath = "x.jsonl"\n[privacy]\nnum-users = 9\n[compare]\nmethods = "els"\n'
    path.write_text(text + 'num-examples-by-group-size = "1:9"\n')
    with pytest.raises(ConfigError, match="at most 4 of each user"):
        read_comparison(path, {})
    _, grid = read_comparison(path, {"compare.num-examples-by-group-size": "1:9, 4:20"})
    assert grid.num_examples == {1: 9, 4: 20}


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("learning-rates", "ia3:0.5", "none of compare.adapters"),
        ("learning-rates", "ia3=0.5", "no pair"),
        ("num-examples-by-group-size", "1:many", "many"),
    ],
)
def test_pairs_of_the_grid_that_do_not_read_are_named(
    tmp_path: Path, key: str, value: str, part: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'[compare]\n{key} = "{value}"\n')
    with pytest.raises(ConfigError, match=part):
        read_comparison(path, {})


def test_presets_read(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.resources import files

    for name in ("compare.toml", "airline-compare.toml", "adapters.toml"):
        config, grid = read_comparison(Path(str(files("simulations"))) / "presets" / name, {})
        assert config.run.rounds in (15, 20)
        assert {1.0, 8.0} <= set(grid.epsilons)
