import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from feddp.common.assembly import Part, describe_evaluation, load_model, load_users, pin_threads
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.users import Example, Users
from feddp.common.errors import DataError, ModelError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, num_users: int, prefix: str = "u", **columns: Any) -> str:
    rows = [{"user_id": f"{prefix}{i}", **columns} for i in range(num_users) for _ in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(path: str, **changes: object) -> RunConfig:
    named = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return from_flat({"data.path": path, "privacy.num-users": 100, **named})


def keys(users: Users) -> set[int]:
    return set(users.keys.tolist())


def test_demo_users_are_told_apart_by_the_hash_of_their_ids() -> None:
    training, evaluation = load_users(RunConfig())
    assert not keys(training) & keys(evaluation)
    assert training.num_users == 3000
    assert evaluation.held_out(10).all()
    assert not training.held_out(10).any()


def test_no_evaluation_users_when_none_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 50, text="t")
    training, evaluation = load_users(config(path, data__evaluation_users=0))
    assert (training.num_users, evaluation.num_users) == (50, 0)


def test_an_evaluation_path_leaves_all_users_of_the_data_to_training(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 50, text="t")
    other = write(tmp_path / "public.jsonl", 7, prefix="volunteer", text="public")
    training, evaluation = load_users(config(path, data__evaluation_path=other))
    assert (training.num_users, evaluation.num_users) == (50, 7)
    assert evaluation.examples(0) == [Example("public")] * 2


def test_nobody_is_protected_and_measured_without_noise_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 50, text="t")
    other = write(tmp_path / "public.jsonl", 7, text="public")
    both = config(path, data__evaluation_path=other)
    for part in (Part(), Part(1, 3)):
        with pytest.raises(DataError, match=r"has users of data\.path") as refused:
            load_users(both, part)
        assert "u0" not in str(refused.value)


def test_a_user_is_never_both_even_where_only_examples_are_protected(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 50, text="t")
    other = write(tmp_path / "public.jsonl", 7, text="public")
    by_example = {"privacy__unit": "example", "sampling__unit": "example"}
    settings = config(path, data__evaluation_path=other, privacy__num_examples=100, **by_example)
    with pytest.raises(DataError, match=r"has users of data\.path"):
        load_users(settings)


def test_nobody_is_held_out_by_default_but_generated_users(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 50, text="t")
    training, evaluation = load_users(config(path))
    assert (training.num_users, evaluation.num_users) == (50, 0)
    assert load_users(from_flat({}))[1].num_users > 0
    asked = config(path, data__evaluation_users=5, evaluation__consent="declared")
    assert load_users(asked)[1].num_users > 0


@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_parts_are_disjoint_and_together_everyone(num_parts: int, tmp_path: Path) -> None:
    settings = config(write(tmp_path / "rows.jsonl", 80, text="t"))
    for side, everyone in enumerate(load_users(settings)):
        parts = [load_users(settings, Part(i, num_parts))[side] for i in range(num_parts)]
        found = np.concatenate([part.keys for part in parts])
        assert sorted(found.tolist()) == everyone.keys.tolist()


def test_columns_come_from_the_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 3, q="Why?", a="So.", text="unused")
    both = config(
        path,
        data__prompt_column="q",
        data__completion_column="a",
        data__evaluation_users=0,
    )
    assert load_users(both)[0].examples(0) == [Example("So.", prompt="Why?")] * 2
    turns = [{"role": "assistant", "content": "Hi"}]
    path = write(tmp_path / "chats.jsonl", 3, chat=turns)
    chats = config(path, data__messages_column="chat", data__evaluation_users=0)
    assert load_users(chats)[0].examples(0) == [Example(messages=tuple(turns))] * 2
    path = write(tmp_path / "posts.jsonl", 3, post="Fine", mood="good")
    posts = config(
        path,
        model__task="classification",
        data__text_column="post",
        data__label_column="mood",
        data__labels="good,bad",
        data__evaluation_users=0,
    )
    assert load_users(posts)[0].examples(0) == [Example("Fine", label="good")] * 2


def test_data_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_users(config(str(tmp_path / "none.jsonl")))


def test_target_modules_may_be_written_with_spaces() -> None:
    named = from_flat({"adapter.target-modules": " q_proj , v_proj"})
    _, layout = load_model(named)
    assert {name.split(".")[-1] for name in layout.frozen} == {"q_proj", "v_proj"}
    with pytest.raises(ModelError, match="q_proj"):
        load_model(from_flat({"adapter.target-modules": "c_attn"}))


def test_evaluation_users_are_described_as_the_split_is(tmp_path: Path) -> None:
    assert "one in 10 (SHA-256" in describe_evaluation(RunConfig())
    assert describe_evaluation(from_flat({"data.evaluation-users": 0})).endswith("none")
    public = from_flat({"data.evaluation-path": "public.jsonl"})
    assert "data.evaluation-path" in describe_evaluation(public)


def test_threads_are_pinned_to_the_configured_number() -> None:
    before = torch.get_num_threads()
    try:
        pin_threads(from_flat({"nodes.threads": 3}))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
