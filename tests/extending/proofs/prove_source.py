from dataclasses import replace
from pathlib import Path

import pytest
from extending.proofs.small_run import NUM_USERS, rows_of_users, run, small_config

from feddp.common.assembly import load_users
from feddp.common.errors import DataError


def write_tsv(path: Path) -> Path:
    lines = ["user_id\ttext", *("\t".join(row) for row in rows_of_users())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_its_users_are_those_of_another_format_and_can_be_trained(tmp_path: Path) -> None:
    jsonl = small_config(tmp_path)
    tsv = replace(jsonl, data=replace(jsonl.data, path=str(write_tsv(tmp_path / "users.tsv"))))
    expected, found = (load_users(config)[0] for config in (jsonl, tsv))
    assert expected.keys.tolist() == found.keys.tolist()
    for user in range(NUM_USERS):
        assert expected.examples(user) == found.examples(user)
    assert (run(tsv) / "adapter").is_dir()


def test_a_missing_user_is_refused_by_its_row_and_not_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "users.tsv"
    path.write_text("user_id\ttext\na\tw3 w4\n\tsecret\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the user is missing") as refused:
        load_users(small_config(tmp_path, data__path=str(path)))
    assert "secret" not in str(refused.value)
