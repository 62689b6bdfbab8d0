"""Small data sets of every kind, and the oracle that they are compared with."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from feddp.common.data.users import Columns, Example, InMemoryUsers, Users

COLUMNS = Columns(text="text", label="label")
Row = dict[str, Any]
ROWS: list[Row] = [
    {"user_id": "ann", "text": 'a "quoted", text', "label": "good"},
    {"user_id": "bob", "text": "two\nlines", "label": "bad"},
    {"user_id": "ann", "text": "ünïcödé ☃", "label": "bad"},
    {"user_id": "ćirilo", "text": "", "label": "good"},
    {"user_id": "7", "text": "x" * 5000, "label": "good"},
]


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, ["other", *rows[0]])
        writer.writeheader()
        writer.writerows({"other": i, **row} for i, row in enumerate(rows))
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_parquet_folder(path: Path, rows: list[Row]) -> Path:
    (path / "deep").mkdir(parents=True)
    write_parquet(path / "a.parquet", rows[:2])
    write_parquet(path / "deep" / "b.parquet", rows[2:])
    return path


def write_saved(path: Path, rows: list[Row]) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


def write_saved_splits(path: Path, rows: list[Row]) -> Path:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"test": whole.select([0]), "train": whole}).save_to_disk(str(path))
    return path


FORMATS = {
    "rows.jsonl": write_jsonl,
    "rows.json": write_jsonl,
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
    "folder.parquet": write_parquet_folder,
    "saved": write_saved,
    "splits": write_saved_splits,
}


def in_memory(rows: list[Row]) -> InMemoryUsers:
    """The oracle: rows grouped by a dict."""
    grouped: dict[str, list[Example]] = {}
    for row in rows:
        example = Example(text=row["text"], label=row.get("label"))
        grouped.setdefault(str(row["user_id"]), []).append(example)
    return InMemoryUsers(list(grouped.items()))


def everything(users: Users) -> list[tuple[int, list[Example]]]:
    """(key, rows) of each user; `counts` have to agree with the rows."""
    rows = [users.examples(user) for user in range(users.num_users)]
    assert users.counts.tolist() == [len(r) for r in rows]
    return list(zip(users.keys.tolist(), rows, strict=True))
