import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from data_files import (
    COLUMNS,
    FORMATS,
    ROWS,
    everything,
    in_memory,
    write_jsonl,
    write_parquet,
)

from feddp.common.data.user_index import open_users
from feddp.common.data.users import Columns, Example
from feddp.common.errors import DataError


def problem(path: Path | str, cache_path: Path, columns: Columns = COLUMNS) -> str:
    """The one line that a person gets; nothing is left in the cache."""
    with pytest.raises(DataError) as caught:
        open_users(str(path), columns=columns, cache_path=cache_path)
    assert [p for p in cache_path.glob("*") if not p.name.endswith(".lock")] == []
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_give_the_same_users(name: str, tmp_path: Path) -> None:
    path = FORMATS[name](tmp_path / name, ROWS)
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert everything(users) == everything(in_memory(ROWS))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "saved"])
def test_whole_numbers_are_users_and_labels_by_their_digits(name: str, tmp_path: Path) -> None:
    rows = [{"user_id": 7 * i**9, "text": "t", "label": i % 2} for i in range(1, 40)]
    path = FORMATS[name](tmp_path / name, rows)
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    texts = [{**row, "label": str(row["label"])} for row in rows]
    assert everything(users) == everything(in_memory(texts))


TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ja, ünd?"}]


@pytest.mark.parametrize("turns", [TURNS, json.dumps(TURNS)], ids=["list", "json"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "saved"])
def test_messages_are_read_as_a_list_or_its_json(name: str, turns: object, tmp_path: Path) -> None:
    path = FORMATS[name](tmp_path / name, [{"user_id": 1, "chat": turns}])
    columns = Columns(messages="chat")
    users = open_users(str(path), columns=columns, cache_path=tmp_path / "cache")
    assert users.examples(0) == [Example(messages=tuple(TURNS))]


def test_prompt_and_completion_are_read(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"user_id": 1, "q": "Why?", "a": "So."}])
    columns = Columns(prompt="q", completion="a")
    users = open_users(str(path), columns=columns, cache_path=tmp_path / "cache")
    assert users.examples(0) == [Example(text="So.", prompt="Why?")]


def test_dictionary_encoded_parquet_is_plain_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": pa.array(["a", "b", "a"]).dictionary_encode(),
            "text": pa.array(["x", "y", "z"], pa.large_string()),
            "label": pa.array(["u", None, "u"]).dictionary_encode(),
        }
    )
    pa.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=1)
    users = open_users(
        str(tmp_path / "rows.parquet"), columns=COLUMNS, cache_path=tmp_path / "c", batch_rows=1
    )
    rows = [{"user_id": u, "text": t} for u, t in zip("aba", "xyz", strict=True)]
    labelled = [{**row, "label": "u" if row["user_id"] == "a" else None} for row in rows]
    assert everything(users) == everything(in_memory(labelled))


def test_an_optional_column_may_be_absent_from_the_first_row(tmp_path: Path) -> None:
    rows = [{"user_id": 1, "text": "a"}, {"user_id": 1, "text": "b", "label": "good"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert [row.label for row in users.examples(0)] == [None, "good"]


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"user_id": "a", "text": "t", "label": "l"}\r\n\r\n \n')
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert users.examples(0) == [Example("t", label="l")]


def test_a_lone_surrogate_in_a_text_becomes_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"user_id": "a", "text": "x\\ud800y", "label": "l"}\n')
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert users.examples(0) == [Example("x?y", label="l")]


def test_other_csv_columns_are_not_even_parsed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    filler = "".join(f"u{i},t,l,{i}\n" for i in range(200_000))  # Arrow guesses whole numbers
    path.write_text(f"user_id,text,label,other\n{filler * 4}last,t,l,a word\n")
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert users.num_users == 200_001


SECRET = "my-secret"
BROKEN = {
    "malformed": (
        b'{"user_id": 1, "text": "a", "label": "l"}\n{"user_id": my-secret\n',
        "line 2: not a JSON object. Write one JSON object on each line",
    ),
    "deep": (b'{"user_id": ' + b"[" * 100_000 + b"\n", "line 1: not a JSON object"),
    "array": (b'[{"user_id": "my-secret", "text": "a"}]', "line 1: a JSON array"),
    "long array": (b'[\n{"user_id": "my-secret", "text": "a"}\n]', "line 1: a JSON array"),
    "number": (b"3\n", "line 1: not a JSON object"),
    "bytes": (
        b'{"user_id": 1, "text": "a", "label": "l"}\n{"user_id": "my-secret\xff"}\n',
        "line 2: not UTF-8 (byte 22). Convert the file.",
    ),
    "null user": (
        b'\n{"user_id": null, "text": "my-secret", "label": "l"}\n',
        'line 2: the user is missing (column "user_id").',
    ),
    "empty user": (b'{"user_id": "", "text": "my-secret", "label": 1}', "the user is missing"),
    "absent user": (
        b'{"user_id": 1, "text": "", "label": 1}\n{"text": "my-secret"}',
        "line 2: the user is missing",
    ),
    "float user": (b'{"user_id": 1.5, "text": "my-secret", "label": 1}', "text or a whole number"),
    "true user": (b'{"user_id": true, "text": "", "label": 1}', "text or a whole number"),
    "surrogate user": (
        b'{"user_id": "my-secret\\ud800", "text": "", "label": 1}',
        "line 1: the user is not valid Unicode",
    ),
    "empty": (b"", "no rows; the file is empty"),
    "blank": (b"\n\n", "no rows."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_jsonl_is_one_line_with_its_place_and_without_its_content(
    name: str, tmp_path: Path
) -> None:
    content, expected = BROKEN[name]
    (tmp_path / "rows.jsonl").write_bytes(content)
    found = problem(tmp_path / "rows.jsonl", tmp_path / "cache")
    assert expected in found
    assert SECRET not in found


BROKEN_CSV = {
    "columns": (b"user_id,text,label\na,b,c\na,my-secret\n", "Expected 3 columns, got 2"),
    "bytes": (b"user_id,text,label\na,my-secret\xff,c\n", "not UTF-8"),
    "quote": (b'user_id,text,label\na,"my-secret,c\n' + b"x" * (17 << 20), "row is longer"),
    "user": (b"user_id,text,label\na,b,c\n,my-secret,c\n", "row 2: the user is missing"),
    "empty": (b"", "the file is empty"),
    "header": (b"user_id,text,label\n", "no rows."),
    "twice": (b"user_id,text,label,text\na,b,c,d\n", 'column "text" is there 2 times'),
}


@pytest.mark.parametrize("name", BROKEN_CSV)
def test_broken_csv_is_one_line_without_its_content(name: str, tmp_path: Path) -> None:
    content, expected = BROKEN_CSV[name]
    (tmp_path / "rows.csv").write_bytes(content)
    found = problem(tmp_path / "rows.csv", tmp_path / "cache")
    assert expected in found
    assert SECRET not in found


def test_broken_parquet_is_one_line(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", ROWS)
    whole = path.read_bytes()
    for content in (b"", b"no parquet", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert str(path) in problem(path, tmp_path / "cache")
    (tmp_path / "folder").mkdir()
    assert "no data set" in problem(tmp_path / "folder", tmp_path / "cache")


@pytest.mark.parametrize("users", [["a", None], ["a", ""], [1, None]])
def test_a_missing_user_in_parquet_is_named_by_its_row(users: list[Any], tmp_path: Path) -> None:
    rows = [{"user_id": user, "text": SECRET, "label": "l"} for user in users]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    assert "row 2: the user is missing" in problem(path, tmp_path / "cache")


def test_users_who_are_floats_are_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [{"user_id": 1.0, "text": "", "label": ""}])
    assert "holds double; a user must be a text or a whole" in problem(path, tmp_path / "cache")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "saved"])
def test_a_missing_column_is_named_with_the_nearest_one(name: str, tmp_path: Path) -> None:
    path = FORMATS[name](tmp_path / name, ROWS)
    found = problem(path, tmp_path / "cache", Columns(text="txt", label="label"))
    assert 'no column "txt". Did you mean "text"?' in found


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError) as caught:
        open_users(str(path), columns=Columns("usr", "txt"), cache_path=tmp_path / "cache")
    assert len(caught.value.problems) == 2


def test_paths_that_cannot_be_data_are_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "rows.txt").write_text("x")
    assert 'unknown kind of file ".txt"' in problem(tmp_path / "rows.txt", cache)
    for path in (tmp_path / "none.jsonl", tmp_path / "none", "none.csv", "a/b/c"):
        assert "no such file or folder." in problem(path, cache)


def test_a_hub_id_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    found = problem("nobody/nothing-of-that-name", tmp_path / "cache")
    assert "no such file or folder, and not loaded from the hub" in found


def test_splits_without_train_are_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"x": part, "y": part}).save_to_disk(str(tmp_path / "splits"))
    assert 'no split "train". There are: x, y.' in problem(tmp_path / "splits", tmp_path / "cache")
