import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from flat_plan import changed, flat_plan
from fuzz.changes import change_bytes, change_tree

from feddp.common.assembly import config_sha256
from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.errors import ConfigError, DiskError, PlanDiffersError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.plan import PrivacyPlan, planned_curve
from feddp.server.run import (
    create_run,
    load_run,
    max_units_per_node,
    measured,
)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return from_flat({"run.name": "a", "run.output-dir": str(tmp_path)})


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    config = from_flat({})  # its hash leaves out what a run is called and where it lies
    return flat_plan(
        num_users=1000,
        target_epsilon=8.0,
        target_delta=None,
        noise_multiplier=2.0,
        clipping_norm=1.0,
        num_rounds=4,
        expected_cohort_size=None,
        dimension=10,
        trust="simulation",
        seed=None,
        details={
            "config_sha256": config_sha256(to_flat(config)),
            "base_sha256": "b",
            "layout_sha256": "l",
        },
    )


def test_a_run_folder_reads_back_what_it_was_made_with(
    config: RunConfig, plan: PrivacyPlan
) -> None:
    made = create_run(config, plan)
    found = load_run(made.path)
    assert found.plan == plan
    assert found.plan.sha256 == plan.sha256
    assert Ledger.read(made.path / "ledger.sqlite").plan["plan_sha256"] == plan.sha256


def test_a_moved_run_folder_still_loads(
    config: RunConfig, plan: PrivacyPlan, tmp_path: Path
) -> None:
    made = create_run(config, plan)
    moved = made.path.rename(tmp_path / "b")
    assert load_run(moved).plan == plan


def test_a_node_may_hold_the_examples_of_its_registered_users(plan: PrivacyPlan) -> None:
    deployed = changed(plan, model="server")
    by_users = changed(deployed, sampling_unit="example", num_examples=9000)
    bounded = changed(by_users, max_examples_per_user=9)
    assert max_units_per_node(deployed, None) == 1000
    assert max_units_per_node(deployed, 3) == 3
    assert max_units_per_node(bounded, 3) == 27
    # Nothing bounds the examples of a user who is not the unit.
    assert max_units_per_node(changed(by_users, unit="example"), 3) == 9000


def test_a_simulated_node_stands_for_all_nodes(plan: PrivacyPlan) -> None:
    assert max_units_per_node(plan, 1) == 1000


def test_automatic_names_never_collide(config: RunConfig, plan: PrivacyPlan) -> None:
    nameless = dataclasses.replace(config, run=dataclasses.replace(config.run, name=None))
    paths = {create_run(nameless, plan).path for _ in range(5)}
    assert len(paths) == 5


def test_an_existing_folder_is_refused_and_kept(
    config: RunConfig, plan: PrivacyPlan, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="never overwrites"):
        create_run(config, plan)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_nothing(
    config: RunConfig, plan: PrivacyPlan, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    section = dataclasses.replace(config.run, output_dir=str(tmp_path / "file"))
    with pytest.raises(DiskError, match="Nothing was spent"):
        create_run(dataclasses.replace(config, run=section), plan)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run here"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"details": {', '"details": {}, "reasons_": {'),
        lambda text: text.replace('"num_rounds": 4', '"num_rounds": "4"'),
        lambda text: text.replace('"num_rounds": 4', '"num_rounds": 4.0'),
        lambda text: text.replace('"num_rounds": 4,', ""),
        lambda text: text.replace('"charges": [', '"charges": [1, '),
        lambda text: text.replace('"quantile": null', '"quantile": {"share": 1}'),
        lambda text: text.replace('"matrix": null', '"matrix": {"shift": 1}'),
        lambda text: text.replace('"matrix": null', '"matrix": 1'),
        *(
            lambda text, name=name: text.replace(f'"{name}"', f'"{name}_"')
            for name in ("config_sha256", "base_sha256", "layout_sha256")
        ),
    ],
)
def test_a_damaged_plan_is_refused(
    config: RunConfig, plan: PrivacyPlan, damage: Callable[[str], str]
) -> None:
    path = create_run(config, plan).path
    text = (path / "plan.json").read_text()
    assert damage(text) != text
    (path / "plan.json").write_text(damage(text))
    with pytest.raises(PlanDiffersError, match=r"plan\.json: missing or damaged\."):
        load_run(path)


def test_a_plan_without_its_fingerprints_is_refused(config: RunConfig, plan: PrivacyPlan) -> None:
    path = create_run(config, plan).path
    content = json.loads((path / "plan.json").read_text())
    (path / "plan.json").write_text(json.dumps(content | {"details": {}}))
    with pytest.raises(PlanDiffersError, match="missing or damaged"):
        load_run(path)


@pytest.mark.parametrize("name", ["plan.json", "config.toml"])
def test_any_damage_is_refused_in_one_line_or_shows_in_the_hash_of_the_plan(
    config: RunConfig, plan: PrivacyPlan, name: str
) -> None:
    """What is still a plan is another one, which the ledger does not open for."""
    run = create_run(config, plan)
    content, rng, refusals = (run.path / name).read_bytes(), Random(0), []
    for number in range(120):
        if name == "plan.json" and number % 2:
            damaged = json.dumps(change_tree(rng, json.loads(content))).encode()
        else:
            damaged = change_bytes(rng, content)
        (run.path / name).write_bytes(damaged)
        try:
            found = load_run(run.path).plan
        except (PlanDiffersError, ConfigError) as error:
            refusals.append(error)
        else:
            is_same = found == dataclasses.replace(plan, reasons=found.reasons)
            assert is_same or found.sha256 != plan.sha256
    assert len(refusals) > 60
    told = [str(error) for error in refusals if isinstance(error, PlanDiffersError)]
    assert all("\n" not in text for text in told)


def test_a_configuration_changed_after_the_plan_is_refused(
    config: RunConfig, plan: PrivacyPlan
) -> None:
    made = create_run(config, plan)
    path = made.path / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("clipping-norm = 0.5", "clipping-norm = 0.6"))
    assert path.read_text() != text
    with pytest.raises(PlanDiffersError, match="changed after the plan"):
        load_run(made.path)


def test_the_curve_ends_at_the_promise(plan: PrivacyPlan) -> None:
    curve = planned_curve(plan)
    assert len(curve) == plan.num_charges
    assert curve[-1] == plan.epsilon


def test_results_are_the_first_and_the_last_round(tmp_path: Path) -> None:
    lines = ['{"round": 0, "epsilon": 0, "evaluation_loss": 3.0}', '{"round": 2, "epsilon": 1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert measured(tmp_path, 2) == {"base": {"loss": 3.0}, "private": None, "non_private": None}
