"""Users of frames, datasets, rows and files: the same users, and what is refused."""

import gc
import json
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.data.users import Example
from feddp.common.errors import ConfigError, DataError
from feddp.simulations.run.users import Users, declare_users

ROWS = [{"who": n % 3, "says": f"text {n}", "class": "good"} for n in range(7)]
NAMED = {"user": "who", "text": "says", "label": "class"}


def test_every_source_gives_the_same_users(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    dataset = datasets.Dataset.from_list(ROWS)
    found = [
        Users.from_rows(iter(ROWS), **NAMED),
        Users.from_pandas(pd.DataFrame(ROWS), **NAMED),
        Users.from_dataset(dataset, **NAMED),
        Users.from_dataset(datasets.DatasetDict({"train": dataset}), **NAMED),
        Users.from_files(path, **NAMED),
    ]
    assert [users.path for users in found] == ["memory"] * 4 + [str(path)]
    for users in found:
        assert users.count() == 3
        np.testing.assert_array_equal(users.table.keys, found[0].table.keys)
        assert [users.table.examples(i) for i in range(3)] == [
            found[0].table.examples(i) for i in range(3)
        ]
    assert any(Example("text 0", label="good") in found[0].table.examples(i) for i in range(3))


def test_a_frame_may_hold_numbers_beside_texts_gaps_and_chats() -> None:
    mixed = pd.DataFrame({"u": [1, "2", "1"], "t": ["a", None, "c"]})
    assert Users.from_pandas(mixed, user="u", text="t").count() == 2
    turns = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]]
    chats = Users.from_pandas(pd.DataFrame({"u": ["a"], "m": turns}), user="u", messages="m")
    assert chats.table.examples(0) == [Example(messages=tuple(turns[0]))]


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ({"who": ["a", None], "says": ["b", "c"]}, "the frame, row 2: the user is missing"),
        ({"who": [1.5], "says": ["b"]}, "a user must be a text or a whole number"),
        ({"whom": ["a"], "says": ["secret"]}, 'no column "who". Did you mean "whom"'),
        ({"who": [], "says": []}, "the frame: no rows"),
    ],
)
def test_what_is_wrong_is_named_without_content(frame: dict[str, list[str]], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        Users.from_pandas(pd.DataFrame(frame), user="who", text="says")
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_columns_that_go_together_are_asked_for() -> None:
    for named in ({}, {"text": "a", "messages": "b"}, {"prompt": "a"}):
        with pytest.raises(ConfigError, match="prompt"):
            Users.from_rows(ROWS, user="who", **named)


def test_the_text_of_users_shows_no_count_and_their_folder_goes_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    users = Users.from_rows(ROWS, **NAMED)
    assert repr(users) == 'Users(from rows: user="who", text="says", label="class")'
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    del users
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_says_of_which_users_a_run_is_and_never_counts_them() -> None:
    users = Users.from_rows(ROWS, user="who", text="says")
    with pytest.raises(ConfigError, match=r"privacy\.num-users"):
        declare_users(RunConfig(), users)
    declared = declare_users(from_flat({"privacy.num-users": 9}), users)
    assert (declared.data.path, declared.data.user_column, declared.data.text_column) == (
        "memory",
        "who",
        "says",
    )
    assert declared.privacy.num_users == 9
    assert declare_users(declared, users) == declared
    assert declare_users(RunConfig(), Users.demo()) == RunConfig()


def test_users_who_contradict_the_configuration_are_refused() -> None:
    users = Users.from_rows(ROWS, user="who", text="says")
    other = Users.from_rows(ROWS, user="who", text="class")
    named = from_flat({"data.path": "x.jsonl", "privacy.num-users": 9})
    for config, *given in (
        (named, users),
        (named, Users.demo()),
        (from_flat({"privacy.num-users": 9, "nodes.workers": 2}), users),
        (from_flat({"privacy.num-users": 9}), users, other),
    ):
        with pytest.raises(ConfigError):
            declare_users(config, *given)
