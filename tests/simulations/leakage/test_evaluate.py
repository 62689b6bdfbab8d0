"""Who is attacked, what is written, and both controls of the suite."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from feddp.common.assembly import load_model, load_users
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.poisoned_users import PoisonedUsers, is_in, planted_ending
from feddp.common.data.users import Example, InMemoryUsers, UsersView
from feddp.common.errors import ConfigError
from feddp.common.model.lora import save_adapter
from feddp.simulations.leakage.evaluate import (
    Extent,
    choose_subjects,
    measure_adapter,
)
from feddp.simulations.leakage.scoring import Scorer
from feddp.simulations.leakage.suite import Ceilings, Subjects
from feddp.simulations.leakage.table import read_leakage, write_leakage

EXTENT = Extent(num_users=6, num_secrets=0, seed=3)


@pytest.fixture(scope="module")
def adapter_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    base, layout = load_model(RunConfig())
    moved = layout.start + np.random.default_rng(0).normal(0, 0.01, layout.dimension)
    save_adapter(folder, moved.astype(np.float32), layout, base)
    return folder


@pytest.fixture(scope="module")
def scorer(adapter_path: Path) -> Scorer:
    return Scorer(load_model(RunConfig())[0], adapter_path, max_tokens=128)


def chosen(config: RunConfig, scorer: Scorer, extent: Extent = EXTENT) -> Subjects:
    training, evaluation = load_users(config)
    return choose_subjects(config, training, evaluation, scorer, extent)


def test_members_are_training_users_and_the_others_are_held_out(scorer: Scorer) -> None:
    training, evaluation = load_users(RunConfig())
    sides = [
        {e.text for i in range(users.num_users) for e in users.examples(i)}
        for users in (training, evaluation)
    ]
    subjects = chosen(RunConfig(), scorer)
    assert len(subjects.members) == len(subjects.non_members) == 6
    for side, users in zip(sides, (subjects.members, subjects.non_members), strict=True):
        assert all(example.text in side for user in users for example in user.own)


def test_the_choice_is_a_function_of_the_seed(scorer: Scorer) -> None:
    first, again = chosen(RunConfig(), scorer), chosen(RunConfig(), scorer)
    assert first == again
    assert chosen(RunConfig(), scorer, replace(EXTENT, seed=4)) != first


def test_users_are_asked_about_messages_that_they_did_not_send(scorer: Scorer) -> None:
    for user in chosen(RunConfig(), scorer).members:
        assert user.fresh
        assert not {e.text for e in user.fresh} <= {e.text for e in user.own}


def test_marked_users_are_told_apart_by_their_coin_and_those_in_are_no_members(
    scorer: Scorer,
) -> None:
    everybody, evaluation = load_users(RunConfig())
    training = PoisonedUsers(UsersView(everybody, np.arange(40)), 12)
    extent = Extent(num_users=40, num_secrets=0)
    subjects = choose_subjects(RunConfig(), training, evaluation, scorer, extent)
    marked = np.sort(training.keys)[:12]
    num_in = sum(is_in(int(key)) for key in marked)
    assert len(subjects.poisoned_in) == num_in
    assert len(subjects.poisoned_out) == 12 - num_in
    assert 0 < num_in < 12
    endings = {planted_ending(int(key)) for key in marked}
    for user in (*subjects.poisoned_in, *subjects.poisoned_out):
        assert all(any(e.text.endswith(text) for text in endings) for e in user.ending)
        assert not any(e.text.endswith(text) for e in user.fresh for text in endings)
    assert not any(
        e.text.endswith(text) for user in subjects.members for e in user.own for text in endings
    )
    assert len(subjects.members) == 40 - num_in


def test_who_has_nothing_to_score_is_left_out(scorer: Scorer) -> None:
    config = from_flat({"data.path": "x.jsonl", "privacy.num-users": 3})
    training = InMemoryUsers([("a", [Example(" ")]), ("b", [Example("hello there")])])
    held_out = InMemoryUsers([("c", [Example("good morning"), Example("")])])
    found = choose_subjects(config, training, held_out, scorer, EXTENT)
    assert [[e.text for e in user.own] for user in found.members] == [["hello there"]]
    assert [[e.text for e in user.own] for user in found.non_members] == [["good morning"]]
    assert found.members[0].fresh == found.members[0].own


def test_without_users_who_were_not_trained_on_there_is_nothing_to_compare_with(
    scorer: Scorer,
) -> None:
    config = from_flat({"data.path": "x.jsonl", "privacy.num-users": 3})
    training = InMemoryUsers([("a", [Example("good day")]), ("b", [Example("hello there")])])
    with pytest.raises(ConfigError, match=r"there are 2 and 0 .*data\.evaluation-path"):
        choose_subjects(config, training, InMemoryUsers([]), scorer, EXTENT)


def test_what_is_written_is_json_with_every_figure_and_its_ceiling(
    adapter_path: Path, tmp_path: Path
) -> None:
    models = measure_adapter(RunConfig(), adapter_path, EXTENT, has_control=False)
    assert list(models) == ["private"]
    write_leakage(tmp_path / "deep" / "leakage.json", models, Ceilings(2.0, 1e-5), asdict(EXTENT))
    content = json.loads((tmp_path / "deep" / "leakage.json").read_text())
    assert content["models"]["private"]["user_inference"]["auc"]["value"] == pytest.approx(
        models["private"].user_inference.auc.value
    )
    assert content["ceilings"]["auc"] == pytest.approx(Ceilings(2.0, 1e-5).auc)
    assert content["extent"]["num_users"] == 6
    assert read_leakage(tmp_path / "deep" / "leakage.json") == (models, Ceilings(2.0, 1e-5))


@pytest.mark.slow
def test_before_training_every_attack_is_at_chance(adapter_path: Path) -> None:
    config = from_flat({"evaluation.poison-users": 40, "nodes.threads": 1})
    extent = Extent(num_users=100, num_secrets=10, num_unknown_digits=2)
    base = measure_adapter(config, adapter_path, extent)["base"]
    attacks = [base.user_inference, *base.membership.values()]
    assert all(attack.auc.low <= 0.5 <= attack.auc.high for attack in attacks)
    assert base.exposure is not None
    assert base.exposure.mean.low <= 1.443 <= base.exposure.mean.high
    assert base.poison_gap is not None
    assert base.poison_gap.low <= 0 <= base.poison_gap.high
    assert base.sensitive_tokens is not None
    gain = base.sensitive_tokens.controlled_gain
    assert gain.low <= 0 <= gain.high
