"""JSONL, CSV, Parquet, Hugging Face datasets, frames and rows -> batches of text columns."""

import contextlib
import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from feddp.common.data.users import Columns
from feddp.common.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pandas

MEMORY = "memory"
"""What `data.path` says of users that were given in Python."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
HUGGING_FACE_NAMES = ("state.json", "dataset_dict.json")
CSV_BLOCK_BYTES = 8 << 20  # no row of a CSV file may be longer
# What Arrow says about a broken file ends in the content that it quotes; these parts do not.
HARMLESS = re.compile(r"(Row #\d+: )?Expected \d+ columns, got \d+|straddling object")


def locate(path: str) -> Path | str:
    """A local path, or the text of a hub id.

    Raises:
      DataError: no such file, of an unknown kind, or nothing that a path can name.
    """
    if path == MEMORY:
        raise DataError(
            f'data.path = "{MEMORY}": the users of this run were given in Python, and are kept '
            "nowhere. Give them again, as in `feddp.resume(path, users=users)`."
        )
    local = Path(path).expanduser()
    if local.is_file() and local.suffix not in SUFFIXES:
        raise DataError(
            f'data.path = "{path}": unknown kind of file "{local.suffix}". Allowed: '
            f"{', '.join(SUFFIXES)}, a dataset folder, or a hub id."
        )
    if local.exists():
        return local
    if path.startswith((".", "/", "~")) or local.suffix in SUFFIXES or path.count("/") > 1:
        raise DataError(f'data.path = "{path}": no such file or folder.')
    return path


def read_batches(source: Path | str, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of the used columns, in the order of the source.

    Every column is text, whatever the source's types are: whole numbers as their digits, messages
    as JSON. So a user, a label and a text are the same in every format.

    Raises:
      DataError: what is wrong and where; no row's content.
    """
    with _named_problems(source):
        yield from _reader_of(source)(source, columns, batch_rows)


def read_dataset(
    found: "datasets.Dataset | datasets.DatasetDict", columns: Columns, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of a data set that is open already. Same contract as `read_batches`."""
    source = "the dataset"
    with _named_problems(source):
        yield from _read_dataset(found, source, columns, batch_rows)


def read_frame(
    frame: "pandas.DataFrame", columns: Columns, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of a pandas frame. Same contract as `read_batches`."""
    source, used = "the frame", columns.used()
    _check_columns(source, [str(name) for name in frame.columns], columns)
    for start in range(0, len(frame), batch_rows):
        part = frame.iloc[start : start + batch_rows]
        arrays = [_frame_column(part[name]) for name in used]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(used))
        yield _normalised(batch, columns, source, start)


def _frame_column(series: "pandas.Series[Any]") -> pa.Array:
    """One column; whole numbers and texts side by side, which Arrow refuses, as texts."""
    try:
        array = pa.Array.from_pandas(series)
    except pa.ArrowException:
        values = [None if value is None or value != value else value for value in series]
        return _as_texts(values)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def read_rows(
    rows: Iterable[Mapping[str, Any]], columns: Columns, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of rows in memory. Same contract as `read_batches`."""
    source = "the rows"

    def numbered() -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Rows with their numbers, from 1."""
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise DataError(f"{source}, row {number}: not a mapping of columns to values.")
            yield number, row

    yield from _row_batches(numbered(), source, "row", columns, batch_rows)


@contextlib.contextmanager
def _named_problems(source: Path | str) -> Iterator[None]:
    """What Arrow and the disk complain about, with its source and without any content."""
    try:
        yield
    except pa.ArrowException as error:
        raise DataError(f"{source}: {_what_is_wrong(error)}") from error
    except UnicodeDecodeError as error:  # of the name of a column
        raise DataError(f"{source}: not UTF-8. Convert the file.") from error
    except OSError as error:  # Arrow raises this for damaged files too, without a strerror
        raise DataError(
            f"{source}: cannot be read ({error.strerror or 'damaged'}). Restore the file."
        ) from error


def _reader_of(source: Path | str) -> Callable[..., Iterator[pa.RecordBatch]]:
    if isinstance(source, str):
        return _read_hub
    if source.is_dir():
        is_saved = any((source / name).exists() for name in HUGGING_FACE_NAMES)
        return _read_saved if is_saved else _read_parquet
    if source.stat().st_size == 0:
        raise DataError(f"{source}: no rows; the file is empty.")
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    return readers.get(source.suffix, _read_jsonl)


def _read_jsonl(path: Path, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """JSON Lines, line by line, so that every problem has the number of its line."""
    with path.open("rb") as lines:
        yield from _row_batches(_json_rows(path, lines), path, "line", columns, batch_rows)


def _row_batches(
    rows: Iterator[tuple[int, Mapping[str, Any]]],
    source: Path | str,
    unit: str,
    columns: Columns,
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    """Batches of numbered rows; `unit` is what the numbers count."""
    used, is_first = columns.used(), True
    while batch := list(itertools.islice(rows, batch_rows)):
        if is_first:  # an optional column may be absent from the first row alone
            names = dict.fromkeys(itertools.chain.from_iterable(row for _, row in batch))
            _check_columns(source, list(names), columns)
            is_first = False
        for number, row in batch:
            _check_user(row.get(columns.user), f"{source}, {unit} {number}", columns.user)
        yield pa.RecordBatch.from_arrays(
            [_as_texts([row.get(name) for _, row in batch]) for name in used], names=list(used)
        )


def _json_rows(path: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, object on it); blank lines are skipped."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not UTF-8 (byte {error.start}). Convert the file."
            ) from error
        except (ValueError, RecursionError) as error:
            is_array = number == 1 and line.lstrip()[:1] == b"["
            raise DataError(_not_an_object(path, number, is_array=is_array)) from error
        if not isinstance(row, dict):
            raise DataError(_not_an_object(path, number, is_array=isinstance(row, list)))
        yield number, row


def _not_an_object(path: Path, number: int, *, is_array: bool) -> str:
    found = "a JSON array" if is_array else "not a JSON object"
    return f"{path}, line {number}: {found}. Write one JSON object on each line (JSON Lines)."


def _check_user(user: object, place: str, column: str) -> None:
    if user is None or user == "":
        raise DataError(f'{place}: the user is missing (column "{column}").')
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise DataError(f'{place}: the user must be a text or a whole number ("{column}").')
    if isinstance(user, str) and any("\ud800" <= letter <= "\udfff" for letter in user):
        raise DataError(f'{place}: the user is not valid Unicode (column "{column}").')


def _read_csv(path: Path, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """CSV; its blocks are bounded in bytes, and `batch_rows` only cuts them further."""
    used = columns.used()
    read = pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        _check_columns(path, reader.schema.names, columns)
    # Other columns are left out, not dropped: Arrow would guess their types and fail on a value.
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(used, pa.string()),
        include_columns=used,
        strings_can_be_null=False,
    )
    rows_before = 0
    with pa.csv.open_csv(
        path, read_options=read, parse_options=parse, convert_options=convert
    ) as reader:
        for block in reader:
            for batch in pa.Table.from_batches([block]).to_batches(max_chunksize=batch_rows):
                yield _normalised(batch, columns, path, rows_before)
                rows_before += batch.num_rows


def _read_parquet(path: Path, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """One Parquet file, or all below a folder in the order of their names."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path}: no data set. Allowed: a folder of `save_to_disk`, or of Parquet files."
        )
    for file in files:
        with pa.parquet.ParquetFile(file) as parquet:
            _check_columns(file, parquet.schema_arrow.names, columns)
            rows_before = 0
            for batch in parquet.iter_batches(batch_size=batch_rows, columns=list(columns.used())):
                yield _normalised(batch, columns, file, rows_before)
                rows_before += batch.num_rows


def _read_saved(path: Path, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: is not a whole data set of `save_to_disk`.") from error
    yield from _read_dataset(found, path, columns, batch_rows)


def _read_hub(name: str, columns: Columns, batch_rows: int) -> Iterator[pa.RecordBatch]:
    import datasets

    try:
        found = datasets.load_dataset(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(
            f'data.path = "{name}": no such file or folder, and not loaded from the hub: {reason}'
        ) from error
    yield from _read_dataset(found, name, columns, batch_rows)


def _training_split(source: Path | str, found: Any) -> Any:
    """The data set itself, its split "train", or its only split."""
    if not isinstance(found, dict):
        return found
    if "train" in found or len(found) == 1:
        return found["train"] if "train" in found else next(iter(found.values()))
    raise DataError(f'{source}: no split "train". There are: {", ".join(found)}. Save one alone.')


def _read_dataset(
    found: Any, source: Path | str, columns: Columns, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """A `datasets.Dataset`, or a split of a `DatasetDict`, from its memory-mapped Arrow files."""
    found = _training_split(source, found)
    _check_columns(source, found.column_names, columns)
    rows_before = 0
    chosen = found.select_columns(list(columns.used())).with_format("arrow")
    for table in chosen.iter(batch_size=batch_rows):
        for batch in table.to_batches():
            yield _normalised(batch, columns, source, rows_before)
            rows_before += batch.num_rows


def _check_columns(source: Path | str, names: Sequence[str], columns: Columns) -> None:
    problems = []
    for name in columns.used():
        if names.count(name) > 1:
            problems.append(f'{source}: column "{name}" is there {names.count(name)} times.')
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        problems.append(f'{source}: no column "{name}".{hint} There are: {", ".join(names)}.')
    if problems:
        raise DataError(problems)


def _normalised(
    batch: pa.RecordBatch, columns: Columns, source: Path | str, rows_before: int
) -> pa.RecordBatch:
    """The used columns as text; refuses a user who is missing or of a type that may collide."""
    used = columns.used()
    arrays = [_as_text_array(batch.column(name)) for name in used]
    kind = _plain_type(batch.column(columns.user).type)
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(
            f'{source}: column "{columns.user}" holds {kind}; a user must be a text or a whole '
            "number."
        )
    is_missing = pa.compute.equal(pa.compute.fill_null(arrays[0], ""), "")
    if (row := pa.compute.index(is_missing, True).as_py()) >= 0:
        raise DataError(
            f'{source}, row {rows_before + row + 1}: the user is missing ("{columns.user}").'
        )
    return pa.RecordBatch.from_arrays(arrays, names=used)


def _as_text_array(array: pa.Array) -> pa.Array:
    kind = _plain_type(array.type)
    if _is_text(kind) or pa.types.is_integer(kind):
        return array.cast(kind).cast(pa.string())
    return _as_texts(array.to_pylist())


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _as_texts(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowException, UnicodeEncodeError, TypeError):
        return pa.array([_as_text(value) for value in values], pa.string())


def _as_text(value: Any) -> str | None:
    """One value as text: lists and objects as JSON; a lone surrogate becomes a question mark."""
    if value is None:
        return None
    text = json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
    return text.encode("utf-8", "replace").decode()


def _what_is_wrong(error: pa.ArrowException) -> str:
    """Arrow's complaint without the content that it quotes."""
    text = str(error)
    if "utf8" in text.lower():
        return "not UTF-8. Convert the file."
    if found := HARMLESS.search(text):
        if found.group() == "straddling object":
            return f"a row is longer than {CSV_BLOCK_BYTES >> 20} MiB, or a quote is not closed."
        return f"{found.group()}."
    return "damaged, or not the kind of file that its name says."
