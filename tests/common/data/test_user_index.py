import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_files import (
    COLUMNS,
    ROWS,
    Row,
    everything,
    in_memory,
    write_jsonl,
)
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.data.user_index import open_users
from feddp.common.data.users import Columns, Users
from feddp.common.errors import DataError


@given(
    users=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    batch_rows=st.integers(1, 20),
    bucket_bytes=st.sampled_from([1, 700, 5000, 1 << 24]),
    random=st.randoms(),
)
def test_grouping_equals_a_dict_for_any_order_batch_and_bucket(
    users: list[int],
    batch_rows: int,
    bucket_bytes: int,
    random: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rows = [{"user_id": f"u{n}", "text": str(i)} for i, n in enumerate(users)]
    random.shuffle(rows)
    folder = tmp_path_factory.mktemp("any")
    found = open_users(
        str(write_jsonl(folder / "rows.jsonl", rows)),
        columns=Columns(text="text"),
        cache_path=folder / "cache",
        batch_rows=batch_rows,
        bucket_bytes=bucket_bytes,
    )
    assert everything(found) == everything(in_memory(rows))
    assert found.held_out(3).tolist() == in_memory(rows).held_out(3).tolist()


def many_rows(num_rows: int, num_users: int) -> Iterator[Row]:
    for i in range(num_rows):
        yield {"user_id": f"user-{i * 7919 % num_users}", "text": f"text {i}"}


@pytest.mark.parametrize("bucket_bytes", [2000, 1 << 24])
def test_many_users_over_many_buckets_are_all_there(bucket_bytes: int, tmp_path: Path) -> None:
    rows = list(many_rows(9000, 3000))
    users = open_users(
        str(write_jsonl(tmp_path / "rows.jsonl", rows)),
        columns=Columns(text="text"),
        cache_path=tmp_path / "cache",
        batch_rows=500,
        bucket_bytes=bucket_bytes,
    )
    assert everything(users) == everything(in_memory(rows))
    (folder,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert {path.suffix for path in folder.iterdir()} == {".u8", ".u64", ".i64", ".arrow"}


def test_no_more_rows_are_sorted_at_once_than_fit_into_a_bucket(tmp_path: Path) -> None:
    grouped = [0]
    rows = [{"user_id": f"u{i}", "text": "x" * 100} for i in range(6000)]
    open_users(
        str(write_jsonl(tmp_path / "rows.jsonl", rows)),
        columns=Columns(text="text"),
        cache_path=tmp_path / "cache",
        bucket_bytes=6000,
        on_progress=lambda stage, count: grouped.append(count) if stage == "grouping" else None,
    )
    assert grouped[-1] == 6000
    assert max(b - a for a, b in itertools.pairwise(grouped)) * 100 < 6000


def test_a_user_larger_than_a_bucket_keeps_all_rows_in_order(tmp_path: Path) -> None:
    rows = [{"user_id": "heavy" if i % 3 else f"u{i}", "text": f"{i}"} for i in range(6000)]
    users = open_users(
        str(write_jsonl(tmp_path / "rows.jsonl", rows)),
        columns=Columns(text="text"),
        cache_path=tmp_path / "cache",
        batch_rows=64,
        bucket_bytes=4000,
    )
    assert everything(users) == everything(in_memory(rows))
    assert users.counts.max() == 4000


def test_an_unreadable_cache_is_one_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="index of the users cannot be written"):
        open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "file" / "cache")


def test_the_cache_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    previous = os.umask(0)
    try:
        open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    finally:
        os.umask(previous)
    found = [tmp_path / "cache", *(tmp_path / "cache").iterdir()]
    assert len(found) == 3
    assert all(place.stat().st_mode & 0o077 == 0 for place in found)


def test_opening_again_reads_neither_source_nor_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    stages: list[str] = []

    def open_again() -> Users:
        return open_users(
            str(path),
            columns=COLUMNS,
            cache_path=tmp_path / "cache",
            on_progress=lambda stage, _: stages.append(stage),
        )

    open_again()
    assert set(stages) == {"reading", "grouping"}
    stages.clear()
    state = path.stat()
    path.write_bytes(b"?" * state.st_size)  # neither size nor time changes: nobody may look
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    users = open_again()
    assert stages == []
    (rows,) = (tmp_path / "cache").glob("*/rows.arrow")
    content = rows.read_bytes()
    with rows.open("r+b") as sink:  # texts are only mapped: a change on disk is seen later
        sink.seek(content.index(b"two\nlines"))
        sink.write(b"TWO\nLINES")
    texts = [row.text for user in range(users.num_users) for row in users.examples(user)]
    assert "TWO\nLINES" in texts


def test_a_changed_source_is_read_again_and_the_old_copy_goes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    write_jsonl(path, ROWS[:1])
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert everything(users) == everything(in_memory(ROWS[:1]))
    copies = [p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert not any(b"two\nlines" in copy for copy in copies)


def test_a_change_that_keeps_the_size_is_seen_by_its_time(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    state = path.stat()
    path.write_bytes(path.read_bytes().replace(b"bob", b"eve"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    renamed = [{**row, "user_id": row["user_id"].replace("bob", "eve")} for row in ROWS]
    assert everything(users) == everything(in_memory(renamed))


def test_other_columns_are_another_index(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    for columns in (COLUMNS, Columns(text="label"), COLUMNS):
        users = open_users(str(path), columns=columns, cache_path=tmp_path / "cache")
        assert users.num_users == 4
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 2


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    (built,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    lock = next((tmp_path / "cache").glob("*.lock"))
    built.rename(lock.with_suffix(".building"))
    users = open_users(str(path), columns=COLUMNS, cache_path=tmp_path / "cache")
    assert everything(users) == everything(in_memory(ROWS))
    assert not lock.with_suffix(".building").exists()


def _count(path: str, cache: str, barrier: Any, answers: Any) -> None:
    built = []
    barrier.wait()
    users = open_users(
        path,
        columns=Columns(text="text"),
        cache_path=Path(cache),
        on_progress=lambda stage, rows: built.append(stage),
    )
    answers.put((users.num_users, len(everything(users)), bool(built)))


def test_concurrent_builders_build_once_and_see_the_same_users(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", list(many_rows(3000, 1000)))
    context = multiprocessing.get_context("spawn")
    answers, barrier = context.Queue(), context.Barrier(3)
    arguments = (str(path), str(tmp_path / "cache"), barrier, answers)
    workers = [context.Process(target=_count, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = sorted(answers.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == [(1000, 1000, False), (1000, 1000, False), (1000, 1000, True)]


MEASURE = """
import resource, sys, time
from pathlib import Path
from feddp.common.data.user_index import open_users
from feddp.common.data.users import Columns
started = time.monotonic()
users = open_users(sys.argv[1], columns=Columns(text="text"), cache_path=Path(sys.argv[2]))
print(users.num_users, time.monotonic() - started,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(folder: Path, num_users: int) -> tuple[int, float, float]:
    """(users, seconds, peak MB) of a fresh process that opens as many users with one row each."""
    path = folder / f"{num_users}.jsonl"
    with path.open("w") as sink:
        for i in range(num_users):  # an order that no sorting helps
            user = i * 7_368_787 % num_users
            sink.write(f'{{"user_id": "user-{user}", "text": "row {i} {"word " * 20}"}}\n')
    command = [sys.executable, "-c", MEASURE, str(path), str(folder / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    users, seconds, kilobytes = done.stdout.split()
    return int(users), float(seconds), int(kilobytes) / 1024


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_users(tmp_path: Path) -> None:
    few, many = measure(tmp_path, 100_000), measure(tmp_path, 1_000_000)
    assert (few[0], many[0]) == (100_000, 1_000_000)
    assert many[2] - few[2] < 150
