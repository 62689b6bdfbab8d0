from pathlib import Path

import pytest

from feddp.common.config.run_config import RunConfig
from feddp.common.errors import ConfigError
from feddp.simulations.commands.config_options import config_of, overrides_of


def test_without_words_it_is_the_demo() -> None:
    assert config_of(None, None) == RunConfig()


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[run]\nrounds = 7\nname = 'mine'\n[data]\npath = 'demo'\n")
    settings = ["run.rounds=3", "privacy.num-users=10", "run.output-dir=elsewhere"]
    config = config_of(tmp_path / "my.toml", settings, output_dir=str(tmp_path), data_path="true")
    assert (config.run.rounds, config.run.name) == (3, "mine")
    assert config.run.output_dir == str(tmp_path.resolve())
    assert config.data.path == "true"  # a text, whatever TOML would read


def test_the_last_value_of_a_setting_counts() -> None:
    assert overrides_of(["run.rounds=3", "run.rounds=4"]) == {"run.rounds": 4}


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set run\.rounds: write section\.key=value"):
        overrides_of(["run.rounds"])
