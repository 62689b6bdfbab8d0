"""Statistics of public users, measured with the engine that trains."""

import json
from pathlib import Path

import numpy as np
import pytest

from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.users import UsersView
from feddp.common.errors import ConfigError
from feddp.simulations.group_size.proxy import (
    Proxy,
    clipping_norm_of,
    measure_proxy,
    public_users,
    warm_adapter,
)

CONFIG = from_flat({"nodes.threads": 1})


@pytest.fixture(scope="module")
def measured() -> tuple[Proxy, float, float]:
    users = public_users(CONFIG, None)
    users = UsersView(users, np.arange(10))
    adapter = warm_adapter(CONFIG, users)
    norms = [
        clipping_norm_of(CONFIG, users, adapter, unit="user", group_size=size) for size in (1, 4)
    ]
    return measure_proxy(CONFIG, users, adapter), norms[0], norms[1]


def test_means_of_a_users_updates_are_shorter_than_one_of_them(
    measured: tuple[Proxy, float, float],
) -> None:
    proxy, _, _ = measured
    assert len(proxy.counts) == 10
    assert 0 < proxy.correlation < 1
    assert proxy.norm(8) < proxy.norm(2) < proxy.norm(1)


def test_predicted_norms_are_those_of_real_updates(measured: tuple[Proxy, float, float]) -> None:
    proxy, one, four = measured
    assert one == pytest.approx(proxy.norm(1), rel=0.25)  # one example of each user, not all
    assert four == pytest.approx(proxy.norm(4), rel=0.25)
    assert four < one


def test_generated_public_users_are_none_of_the_demos() -> None:
    base, _ = load_model(CONFIG)
    assert base.task == "causal-lm"
    from feddp.common.assembly import load_users

    texts = {e.text for user in range(3) for e in public_users(CONFIG, None).examples(user)}
    training, _ = load_users(CONFIG)
    everyone = {e.text for user in range(training.num_users) for e in training.examples(user)}
    assert not texts & everyone


def write(path: Path, num_users: int) -> str:
    rows = [{"user_id": f"u{index % num_users}", "text": f"row {index}"} for index in range(40)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_a_declared_public_file_is_read_whole(tmp_path: Path) -> None:
    assert public_users(CONFIG, write(tmp_path / "public.jsonl", 12)).num_users == 12


@pytest.mark.parametrize(
    ("flat", "part"),
    [
        ({}, "needs at least 8"),
        ({"data.path": "few.jsonl", "privacy.num-users": 40}, "whose users are protected"),
    ],
)
def test_private_data_and_too_few_users_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: dict[str, object], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("few.jsonl"), 3)
    with pytest.raises(ConfigError, match=part):
        public_users(from_flat(flat), "few.jsonl")


def test_classes_need_a_file() -> None:
    config: RunConfig = from_flat(
        {
            "model.task": "classification",
            "data.path": "x.jsonl",
            "data.label-column": "label",
            "data.labels": "a,b",
            "privacy.num-users": 40,
        }
    )
    with pytest.raises(ConfigError, match="--proxy"):
        public_users(config, None)
