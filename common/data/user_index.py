"""A data set -> a table grouped by user on disk, built out of core and kept.

Rows are streamed in batches and spilled to buckets by the hash of their user; each bucket is then
sorted by user and appended to one Arrow file. Memory holds one batch or one bucket, never the data.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from feddp.common.data.sources import locate, read_batches
from feddp.common.data.users import (
    BATCH_ENDS_NAME,
    DIGEST_BYTES,
    DIGESTS_NAME,
    KEYS_NAME,
    ROWS_NAME,
    USER_ENDS_NAME,
    Columns,
    UserTable,
    keys_of,
    user_digest,
)
from feddp.common.disk import Disk
from feddp.common.errors import DataError

FORMAT = "users-2"
BATCH_ROWS = 8192
BUCKET_BYTES = 16 << 20
MAX_BUCKETS = 64  # each is an open file while rows are spilled
OUT_ROWS = 1024
DIGEST = "__digest__"

OnProgress = Callable[[str, int], None]


def open_users(
    path: str,
    *,
    columns: Columns,
    cache_path: Path | None = None,
    on_progress: OnProgress = lambda _stage, _rows: None,
    batch_rows: int = BATCH_ROWS,
    bucket_bytes: int = BUCKET_BYTES,
) -> UserTable:
    """Opens a data set as users; the first time, groups it by user on disk.

    The grouped copy is private data: it lies in a folder that only its owner can enter, and goes
    when the data set has changed and is opened again.

    Args:
      path: JSONL, CSV or Parquet file, a dataset folder (`save_to_disk`, or Parquet files), or a
        hub id.
      cache_path: where the grouped copy is kept. Default: feddp below the user's cache folder.
      on_progress: called with the stage and the rows so far while the copy is built.

    Raises:
      DataError: with every problem that was found; no message holds a row's content.
    """
    cache = (
        cache_path or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "feddp"
    )
    source = locate(path)
    name, state = _fingerprint(source, columns)
    folder = cache / f"{name}-{state}"
    if folder.is_dir():
        return UserTable(folder, columns)
    with _written(cache):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(cache / f"{name}.lock"):  # one builder; the others find its result
            if not folder.is_dir():
                making = cache / f"{name}.building"
                shutil.rmtree(making, ignore_errors=True)  # of a builder that was killed
                making.mkdir(mode=0o700)
                try:
                    batches = read_batches(source, columns, batch_rows)
                    _build(batches, making, bucket_bytes, on_progress, f'data.path = "{path}"')
                    for outdated in cache.glob(f"{name}-*"):
                        shutil.rmtree(outdated, ignore_errors=True)
                    Disk().place_folder(making, folder)
                finally:
                    shutil.rmtree(making, ignore_errors=True)
            return UserTable(folder, columns)


def group_users(
    batches: Iterable[pa.RecordBatch], folder: Path, *, columns: Columns, source: str
) -> UserTable:
    """Users of batches that no path names, grouped in an empty folder of the caller's.

    Args:
      batches: of `sources`, in which every user is valid.
      folder: as private as the data; the table needs it until it is opened.
      source: what the batches are, for the message when there are none.

    Raises:
      DataError: there is no row, or the folder cannot be written.
    """
    with _written(folder):
        _build(batches, folder, BUCKET_BYTES, lambda _stage, _rows: None, source)
    return UserTable(folder, columns)


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: the index of the users cannot be written ({error.strerror or error})."
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _fingerprint(source: Path | str, columns: Columns) -> tuple[str, str]:
    """(name of a source with the columns read from it, its state), without reading it."""

    def short(content: list[Any]) -> str:
        """24 hex digits of a digest."""
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]

    if isinstance(source, str):
        return f"{FORMAT}-{short(['hub', columns.used(), source])}", "hub"
    place = source.resolve()
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    found = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return f"{FORMAT}-{short([columns.used(), str(place)])}", short(found)


def _build(
    batches: Iterable[pa.RecordBatch],
    folder: Path,
    bucket_bytes: int,
    on_progress: OnProgress,
    source: str,
) -> None:
    """Spills rows to buckets, then writes the files of a table, bucket by bucket."""
    spilled = folder / "spilled"
    spilled.mkdir()
    schema, num_rows = None, 0

    def digested() -> Iterator[pa.RecordBatch]:
        """The batches with a digest per row, counted as they pass."""
        nonlocal schema, num_rows
        for batch in batches:
            rows = _with_digest(batch)
            schema, num_rows = rows.schema, num_rows + rows.num_rows
            on_progress("reading", num_rows)
            yield rows

    _spill(digested(), spilled, 0, (1 << 64) - 1)
    if schema is None or num_rows == 0:
        raise DataError(f"{source}: no rows.")
    with _TableWriter(folder, schema) as out:
        for path in sorted(spilled.iterdir()):
            _append_bucket(path, out, bucket_bytes, on_progress)
    spilled.rmdir()


def _spill(batches: Iterable[pa.RecordBatch], folder: Path, low: int, high: int) -> None:
    """Writes every row to the bucket of its user's key: equal ranges of low..high, in order.

    So the buckets in the order of their names, each sorted, are all users sorted.
    """
    width = (high - low) // MAX_BUCKETS + 1
    with contextlib.ExitStack() as stack:
        writers: dict[int, Any] = {}
        for rows in batches:
            bucket = (_keys(rows) - np.uint64(low)) // np.uint64(width)
            order = np.argsort(bucket, kind="stable")
            numbers, starts = np.unique(bucket[order], return_index=True)
            sorted_rows = rows.take(pa.array(order))
            ends = np.append(starts[1:], len(order))
            for number, start, end in zip(numbers.tolist(), starts, ends, strict=True):
                if number not in writers:
                    sink = stack.enter_context(pa.OSFile(str(folder / f"{number:02d}"), "wb"))
                    writers[number] = stack.enter_context(pa.ipc.new_stream(sink, rows.schema))
                writers[number].write_batch(sorted_rows.slice(start, end - start))


def _append_bucket(
    path: Path, out: "_TableWriter", bucket_bytes: int, on_progress: OnProgress
) -> None:
    """Sorts and appends one bucket and deletes it; one that is too large is split first."""
    with pa.memory_map(str(path)) as source:
        if path.stat().st_size <= bucket_bytes:
            out.write(_sorted(pa.ipc.open_stream(source).read_all()))
            on_progress("grouping", out.num_rows)
            path.unlink()
            return
        low, high = _key_range(pa.ipc.open_stream(source))
        source.seek(0)
        rows = pa.ipc.open_stream(source)
        if low == high:  # one user, however many rows: they are in order already
            for batch in rows:
                out.write(pa.Table.from_batches([batch]))
                on_progress("grouping", out.num_rows)
            path.unlink()
            return
        parts = path.with_suffix(".parts")
        parts.mkdir()
        _spill(rows, parts, low, high)
    path.unlink()
    for part in sorted(parts.iterdir()):
        _append_bucket(part, out, bucket_bytes, on_progress)
    parts.rmdir()


def _with_digest(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its first column, the user, replaced by the SHA-256 of the id."""
    encoded = batch.column(0).dictionary_encode()
    distinct = [user_digest(user_id) for user_id in encoded.dictionary.to_pylist()]
    digests = pa.array(distinct, pa.binary(DIGEST_BYTES)).take(encoded.indices)
    return pa.RecordBatch.from_arrays(
        [digests, *batch.columns[1:]], names=[DIGEST, *batch.schema.names[1:]]
    )


def _digests(rows: pa.RecordBatch) -> NDArray[np.uint8]:
    """uint8, shape (rows, 32): a view of the first column."""
    column = rows.column(0)
    flat = np.frombuffer(column.buffers()[1], dtype=np.uint8).reshape(-1, DIGEST_BYTES)
    return flat[column.offset : column.offset + len(column)]


def _keys(rows: pa.RecordBatch) -> NDArray[np.uint64]:
    return keys_of(_digests(rows))


def _key_range(batches: Iterable[pa.RecordBatch]) -> tuple[int, int]:
    ranges = [(int(keys.min()), int(keys.max())) for keys in map(_keys, batches)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _sorted(table: pa.Table) -> pa.Table:
    """Rows by digest; those of one user keep their order."""
    table = table.combine_chunks()
    order = pa.compute.sort_indices(
        table.append_column("__row__", pa.array(np.arange(table.num_rows))),
        sort_keys=[(DIGEST, "ascending"), ("__row__", "ascending")],
    )
    return table.take(order)


class _TableWriter:
    """Appends rows that come sorted by user; keeps only the last user's digest in memory."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.num_rows = 0
        self._folder, self._schema = folder, schema
        self._last: bytes | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_TableWriter":
        sink = self._stack.enter_context(pa.OSFile(str(self._folder / ROWS_NAME), "wb"))
        schema = self._schema.remove(0)
        self._rows = self._stack.enter_context(pa.ipc.new_file(sink, schema))
        self._digests = self._open(DIGESTS_NAME)
        self._keys = self._open(KEYS_NAME)
        self._user_ends = self._open(USER_ENDS_NAME)
        self._batch_ends = self._open(BATCH_ENDS_NAME)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._user_ends.write(np.int64(self.num_rows).tobytes())
        self._stack.close()

    def write(self, table: pa.Table) -> None:
        """Appends rows whose users are the last one or come after all before."""
        for batch in table.combine_chunks().to_batches(max_chunksize=OUT_ROWS):
            digests = _digests(batch)
            is_first = np.ones(len(digests), dtype=bool)
            is_first[1:] = (digests[1:] != digests[:-1]).any(axis=1)
            is_first[0] = digests[0].tobytes() != self._last
            starts = np.flatnonzero(is_first)
            # A user begins where the one before ends; the first has none before it.
            ends = self.num_rows + (starts if self._last is not None else starts[1:])
            self._user_ends.write(ends.astype(np.int64).tobytes())
            self._digests.write(digests[starts].tobytes())
            self._keys.write(keys_of(digests[starts]).tobytes())
            self._last = digests[-1].tobytes()
            self._rows.write_batch(batch.remove_column(0))
            self.num_rows += batch.num_rows
            self._batch_ends.write(np.int64(self.num_rows).tobytes())

    def _open(self, name: str) -> BinaryIO:
        return self._stack.enter_context((self._folder / name).open("wb"))
