"""JSONL, CSV, Parquet, Hugging Face datasets -> a table grouped by user, built out of core.

Rows are streamed in batches and spilled to buckets by the hash of their user; each bucket is then
sorted by user and appended to one Arrow file. Memory holds one batch or one bucket, never the data.
"""

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from common.errors import DataError
from common.users import DIGEST_BYTES, Columns, UserTable, keys_of, user_digest

FORMAT = "feddp-users-1"
BATCH_ROWS = 8192
BUCKET_BYTES = 64 << 20
MAX_BUCKETS = 256
DIGEST = "__digest__"
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

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

    Args:
      path: JSONL, CSV or Parquet file, a dataset folder (`save_to_disk`, or Parquet files), or a
        hub id.
      columns: which columns are read.
      cache_path: where the grouped copy is kept: private data, in a folder that only its owner can
        enter. Default: feddp below the user's cache folder.
      on_progress: told the stage and the rows so far while the index is built.
      batch_rows: rows held in memory while reading.
      bucket_bytes: aimed size of a bucket, which is held in memory while it is sorted.

    Raises:
      DataError: with every problem that was found; no message holds a row's content.
    """
    cache = cache_path or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "feddp"
    source = _locate(path)
    folder = cache / f"{FORMAT}-{_fingerprint(source, columns)}"
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            making = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
            try:
                batches = _read_batches(source, columns, batch_rows)
                _build(batches, making, _num_buckets(source, bucket_bytes), on_progress, path)
                with contextlib.suppress(FileExistsError, OSError):
                    making.rename(folder)  # another process may have built the same index
            finally:
                shutil.rmtree(making, ignore_errors=True)
        except OSError as error:
            raise DataError(
                [f"{cache}: the index of the users cannot be written ({error.strerror or error})."]
            ) from error
    return UserTable(folder, columns)


def _locate(path: str) -> Path | str:
    """A local path, or the text of a hub id."""
    local = Path(path).expanduser()
    if local.is_file() and local.suffix not in SUFFIXES:
        raise DataError(
            [
                f'data.path = "{path}": unknown kind of file "{local.suffix}". Allowed: '
                f"{', '.join(SUFFIXES)}, a dataset folder, or a hub id."
            ]
        )
    if local.exists():
        return local
    if path.startswith((".", "/", "~")) or local.suffix in SUFFIXES or path.count("/") > 1:
        raise DataError([f'data.path = "{path}": no such file or folder.'])
    return path


def _fingerprint(source: Path | str, columns: Columns) -> str:
    """Identifies a source and the columns read from it, without reading it."""
    content: list[Any] = [FORMAT, columns.used(), str(source)]
    if isinstance(source, Path):
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        content = [FORMAT, columns.used(), str(source.resolve())]
        content += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _num_buckets(source: Path | str, bucket_bytes: int) -> int:
    if isinstance(source, str):
        return MAX_BUCKETS
    files = source.rglob("*") if source.is_dir() else [source]
    size = sum(f.stat().st_size for f in files if f.is_file())
    expansion = 4 if source.suffix == ".parquet" else 1  # compressed columns grow when read
    return max(1, min(MAX_BUCKETS, -(-size * expansion // bucket_bytes)))


def _read_batches(
    source: Path | str, columns: Columns, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of the used columns, in the order of the source."""
    if isinstance(source, Path) and source.suffix in (".jsonl", ".json"):
        yield from _read_jsonl(source, columns, batch_rows)
        return
    try:
        if isinstance(source, Path) and source.suffix == ".csv":
            reader = pa.csv.open_csv(
                source,
                read_options=pa.csv.ReadOptions(block_size=1 << 20),
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(columns.used(), pa.string()),
                    strings_can_be_null=False,
                ),
            )
            _check_columns(source, reader.schema.names, columns)
            yield from (batch.select(columns.used()) for batch in reader)
        elif isinstance(source, Path) and source.suffix == ".parquet":
            parquet = pa.parquet.ParquetFile(source)
            _check_columns(source, parquet.schema_arrow.names, columns)
            yield from parquet.iter_batches(batch_size=batch_rows, columns=list(columns.used()))
        else:
            yield from _read_dataset(source, columns, batch_rows)
    except pa.ArrowInvalid as error:
        raise DataError([f"{source}: {_what_is_wrong(error)}"]) from error


def _read_jsonl(path: Path, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """JSON Lines, line by line, so that every problem has the number of its line."""
    rows: list[dict[str, Any]] = []
    is_checked = False
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(
                    [f"{path}, line {number}: not UTF-8 (byte {error.start}). Convert the file."]
                ) from error
            except ValueError as error:
                raise DataError([f"{path}, line {number}: not JSON."]) from error
            if not isinstance(row, dict):
                raise DataError([f"{path}, line {number}: not a JSON object."])
            if not is_checked:
                _check_columns(path, list(row), columns)
                is_checked = True
            rows.append({name: row.get(name) for name in columns.used()})
            if len(rows) == batch_rows:
                yield _to_batch(rows, columns)
                rows = []
    if rows:
        yield _to_batch(rows, columns)


def _read_dataset(
    source: Path | str, columns: Columns, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """A dataset folder or a hub id, through the datasets library; streamed from its Arrow files."""
    import datasets

    try:
        if isinstance(source, Path) and any(source.glob("**/state.json")):
            found = datasets.load_from_disk(str(source))
        elif isinstance(source, Path):
            files = [str(f) for f in sorted(source.glob("**/*.parquet"))]
            if not files:
                raise DataError([f"{source}: neither a saved dataset nor Parquet files in it."])
            found = datasets.load_dataset(
                "parquet", data_files=files, split="train", streaming=True
            )
        else:
            found = datasets.load_dataset(source, split="train")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError([f'data.path = "{source}": cannot be loaded ({reason}).']) from error
    if isinstance(found, datasets.DatasetDict):
        found = found["train"] if "train" in found else next(iter(found.values()))
    _check_columns(source, list(found.column_names or next(iter(found))), columns)
    for batch in found.iter(batch_size=batch_rows):
        rows = [
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        yield _to_batch(rows, columns)


def _check_columns(source: Path | str, names: list[str], columns: Columns) -> None:
    problems = []
    for name in columns.used():
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        problems.append(f'{source}: no column "{name}".{hint} There are: {", ".join(names)}.')
    if problems:
        raise DataError(problems)


def _to_batch(rows: list[dict[str, Any]], columns: Columns) -> pa.RecordBatch:
    """Rows as columns of text; messages as JSON, so that every batch has the same types."""
    return pa.RecordBatch.from_pydict(
        {
            name: pa.array(
                [_as_text(row[name], name == columns.messages) for row in rows], pa.string()
            )
            for name in columns.used()
        }
    )


def _as_text(value: Any, is_messages: bool) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else value.encode("utf-8", "replace").decode()
    return json.dumps(value) if is_messages or isinstance(value, list | dict) else str(value)


def _build(
    batches: Iterator[pa.RecordBatch],
    folder: Path,
    num_buckets: int,
    on_progress: OnProgress,
    source: str,
) -> None:
    """Spills rows to buckets, then writes rows.arrow and its flat arrays, bucket by bucket."""
    schema, num_rows = _spill(batches, folder, num_buckets, on_progress, source)
    digests: list[np.ndarray[Any, Any]] = []
    counts: list[np.ndarray[Any, Any]] = []
    batch_ends: list[int] = []
    written = 0
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for bucket in range(num_buckets):
            path = folder / f"bucket-{bucket}"
            if not path.exists():
                continue
            rows, found, sizes = _sorted_bucket(path)
            digests.append(found)
            counts.append(sizes)
            for batch in rows.to_batches(max_chunksize=1024):
                out.write_batch(batch)
                written += batch.num_rows
                batch_ends.append(written)
            path.unlink()
            on_progress("grouping", written)
    assert written == num_rows
    all_digests = np.concatenate(digests)
    np.save(folder / "digests.npy", all_digests)
    np.save(folder / "keys.npy", keys_of(all_digests))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(counts))]))
    np.save(folder / "batch_ends.npy", np.asarray(batch_ends, dtype=np.int64))


def _spill(
    batches: Iterator[pa.RecordBatch],
    folder: Path,
    num_buckets: int,
    on_progress: OnProgress,
    source: str,
) -> tuple[pa.Schema, int]:
    """Writes every row to the bucket of its user's digest; the digest replaces the id."""
    schema, num_rows = None, 0
    with contextlib.ExitStack() as stack:
        writers: dict[int, Any] = {}
        for batch in batches:
            rows = _with_digest(batch, num_rows, source)
            schema = rows.schema
            first = np.frombuffer(rows.column(DIGEST).buffers()[1], dtype=np.uint8)
            high = first.reshape(-1, DIGEST_BYTES)[:, :2].astype(np.int64)
            # Buckets are ranges of the digest: in their order, sorted, all users are sorted.
            bucket = (high[:, 0] * 256 + high[:, 1]) * num_buckets // 65536
            for number in np.unique(bucket):
                if number not in writers:
                    sink = stack.enter_context(pa.OSFile(str(folder / f"bucket-{number}"), "wb"))
                    writers[number] = stack.enter_context(pa.ipc.new_stream(sink, schema))
                writers[number].write_batch(rows.filter(pa.array(bucket == number)))
            num_rows += batch.num_rows
            on_progress("reading", num_rows)
    if schema is None:
        raise DataError([f'data.path = "{source}": no rows.'])
    return schema, num_rows


def _with_digest(batch: pa.RecordBatch, rows_before: int, source: str) -> pa.RecordBatch:
    """The batch with its first column, the user, replaced by the SHA-256 of the id."""
    ids = batch.column(0).cast(pa.string())
    if ids.null_count:
        row = rows_before + ids.is_null().to_pylist().index(True) + 1
        raise DataError([f'data.path = "{source}", row {row}: the user is missing.'])
    encoded = ids.dictionary_encode()
    distinct = [user_digest(user_id) for user_id in encoded.dictionary.to_pylist()]
    digests = pa.array(distinct, pa.binary(DIGEST_BYTES)).take(encoded.indices)
    others = {name: batch.column(name) for name in batch.schema.names[1:]}
    return pa.RecordBatch.from_pydict({DIGEST: digests, **others})


def _sorted_bucket(path: Path) -> tuple[pa.Table, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(rows sorted by user without the digest, distinct digests, rows of each)."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    order = pa.compute.sort_indices(
        table.append_column("__row__", pa.array(np.arange(table.num_rows))),
        sort_keys=[(DIGEST, "ascending"), ("__row__", "ascending")],
    )
    table = table.take(order).combine_chunks()
    flat = np.frombuffer(b"".join(table.column(DIGEST).to_pylist()), dtype=np.uint8)
    digests = flat.reshape(-1, DIGEST_BYTES)
    is_first = np.ones(len(digests), dtype=bool)
    is_first[1:] = (digests[1:] != digests[:-1]).any(axis=1)
    starts = np.flatnonzero(is_first)
    return table, digests[starts], np.diff(np.append(starts, len(digests)))


def _what_is_wrong(error: pa.ArrowInvalid) -> str:
    """Arrow's complaint without the content that it quotes."""
    text = str(error).splitlines()[0]
    if "UTF8" in text or "utf8" in text.lower():
        return "not UTF-8. Convert the file."
    return text.split(": ")[0][:120] + "."
