import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.config.run_config import (
    RunConfig,
    from_flat,
    load_config,
    parse_override,
    settings,
    to_flat,
    to_toml,
)
from feddp.common.errors import ConfigError

ROOT = Path(__file__).parents[3]


def problems_of(flat: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        from_flat(flat)
    return caught.value.problems


def test_flower_defaults_equal_run_config() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sections = project["tool"]["flwr"]["app"]["config"]
    flat = {
        f"{s}.{key}": value for s, entries in sections.items() for key, value in entries.items()
    }
    assert flat == to_flat(RunConfig())


def test_toml_round_trip_keeps_every_setting(tmp_path: Path) -> None:
    config = from_flat(
        {
            "privacy.num-users": 12,
            "data.path": 'a "quoted" näme',
            "run.seed": 3,
            "run.output-dir": "/x",
        }
    )
    (tmp_path / "x.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(tmp_path / "x.toml") == config


def test_all_problems_are_reported_at_once() -> None:
    problems = problems_of(
        {
            "privacy.noise_multiplier": 1.0,
            "privacy.clipping-norm": -1.0,
            "privacy.target-epsilon": float("inf"),
            "local.learning-rate": float("nan"),
            "run.rounds": "many",
            "run.seed": True,
            "model.task": "poetry",
        }
    )
    assert problems == (
        'Unknown key "privacy.noise_multiplier". Did you mean "privacy.noise-multiplier"?',
        "privacy.clipping-norm = -1.0: must be a number > 0.",
        "privacy.target-epsilon = inf: must be a number > 0 and <= 100.",
        "local.learning-rate = nan: must be a number > 0.",
        'run.rounds = "many": must be a whole number >= 1, or "auto".',
        'run.seed = True: must be a whole number >= 0, or "auto".',
        'model.task = "poetry": must be one of "causal-lm", "classification".',
    )


def test_a_filter_belongs_to_the_ledger_of_a_population_and_the_refusal_says_how() -> None:
    (problem,) = problems_of({"privacy.filter": "adaptive"})
    assert problem.startswith('Unknown key "privacy.filter".')
    assert "feddp ledger create --filter adaptive" in problem


@pytest.mark.parametrize(
    ("flat", "part"),
    [
        ({"data.path": "x.jsonl"}, "privacy.num-users"),
        ({"data.prompt-column": "p"}, "give both or neither"),
        (
            {"data.messages-column": "m", "data.prompt-column": "p", "data.completion-column": "c"},
            "give one of them",
        ),
        ({"model.task": "classification", "data.label-column": "l"}, "data.labels"),
        ({"sampling.by": "server"}, "nodes.users-per-node = 1, and not auto"),
        ({"sampling.by": "server", "nodes.users-per-node": 2}, "and not 2"),
        ({"sampling.ask": "all"}, 'sampling.by = "server" alone'),
        ({"privacy.num-users": 10, "sampling.expected-cohort-size": 11.0}, "must be at most"),
        *(
            (
                {"privacy.unit": "example", "sampling.unit": "example", "data.selection": name},
                "decide about another",
            )
            for name in ("longest", "shortest", "random-chunk", "perplexity-high", "perplexity-low")
        ),
        ({"sampling.unit": "example", "data.selection": "random-chunk"}, "of a drawn user"),
        ({"data.messages-column": "m", "data.selection": "random-chunk"}, "of a drawn user"),
        ({"data.selection": "random-chunk", "data.chunk-tokens": 256}, "data.chunk-tokens = 256"),
    ],
)
def test_contradictions_are_named(flat: dict[str, object], part: str) -> None:
    assert any(part in problem for problem in problems_of(flat))


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    (tmp_path / "x.toml").write_text('[data]\npath = "data.jsonl"\n[privacy]\nnum-users = 5\n')
    assert load_config(tmp_path / "x.toml").data.path == str(tmp_path / "data.jsonl")


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[run]\nrounds = 5\n")
    config = load_config(tmp_path / "x.toml", dict([parse_override("run.rounds=7")]))
    assert config.run.rounds == 7


@pytest.mark.parametrize("content", ["run = [", "\xff\xfe"])
def test_broken_files_are_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(tmp_path / "x.toml")


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


def test_every_default_passes_its_own_check() -> None:
    assert from_flat(to_flat(RunConfig())) == RunConfig()
    assert all(about.doc for about in settings().values())


@given(
    st.dictionaries(
        st.sampled_from([*settings(), "run.x", "y"]),
        st.one_of(st.text(max_size=5), st.integers(), st.floats(), st.booleans(), st.none()),
        max_size=6,
    )
)
def test_any_values_give_a_config_or_a_config_error(flat: dict[str, object]) -> None:
    try:
        config = from_flat(flat)
    except ConfigError:
        return
    assert from_flat(to_flat(config)) == config


REAL = {"data.path": "users.jsonl", "privacy.num-users": 100}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"data.evaluation-users": 0},
        {"data.evaluation-path": "public.jsonl", "data.evaluation-users": 5},
        {"data.evaluation-users": 5, "evaluation.consent": "declared"},
    ],
)
def test_real_users_are_measured_only_where_somebody_says_that_they_may(
    settings: dict[str, object],
) -> None:
    config = from_flat(REAL | settings)
    assert config.evaluation_one_in == settings.get("data.evaluation-users", 0)


def test_holding_real_users_out_without_their_consent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluation-users = 5: .*evaluation\.consent"):
        from_flat(REAL | {"data.evaluation-users": 5})
    assert from_flat({}).evaluation_one_in == 10
    assert from_flat({"data.evaluation-users": 5}).evaluation_one_in == 5


def test_a_retired_key_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="A burned attempt is its round"):
        from_flat({"privacy.spare-attempts": 3})
