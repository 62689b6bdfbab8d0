"""RecordDict <-> bytes: one strict, canonical encoding for sockets, signatures and seals."""

import json
import struct
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

MAGIC = b"feddp-records-1\n"
SEALED = "feddp.sealed.v1"
MAX_HEADER_BYTES = 1 << 16
_LENGTH = struct.Struct(">I")


class MessageError(ValueError):
    """A message that does not follow the contract; its text names the rule, never the content."""


def pack(content: RecordDict) -> bytes:
    """Records of scalars and arrays -> bytes: a canonical JSON header, then the arrays' data.

    Raises:
      MessageError: a value that JSON cannot hold exactly.
    """
    arrays = [
        (record, key, array)
        for record, entries in sorted(content.array_records.items())
        for key, array in sorted(entries.items())
    ]
    header = {
        "arrays": [[r, k, a.dtype, list(a.shape), a.stype, len(a.data)] for r, k, a in arrays],
        "configs": {name: dict(record) for name, record in content.config_records.items()},
        "metrics": {name: dict(record) for name, record in content.metric_records.items()},
    }
    text = canonical(header)
    return b"".join([frame(MAGIC, text), *(a.data for _, _, a in arrays)])


def unpack(packed: bytes) -> RecordDict:
    """Bytes -> records, or MessageError; whatever is accepted packs to the same bytes again."""
    text, data = split_frame(packed, MAGIC)
    header = read_canonical(text)
    try:
        content = _records(header, data)
        is_same = pack(content) == packed
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise MessageError("records of the wrong form") from error
    if not is_same:
        raise MessageError("records in another than the canonical form")
    return content


def opaque(blob: bytes) -> RecordDict:
    """Sealed or signed bytes as the only array of a message; numpy never parses them."""
    array = Array("uint8", (len(blob),), SEALED, blob)
    return RecordDict({"sealed": ArrayRecord({"blob": array})})


def read_opaque(content: RecordDict, *, most_bytes: int) -> bytes:
    """The bytes in an opaque message of at most `most_bytes`, or MessageError."""
    record = content.array_records.get("sealed")
    if list(content) != ["sealed"] or record is None or list(record) != ["blob"]:
        raise MessageError("not one sealed array")
    array = record["blob"]
    if array.stype != SEALED or len(array.data) > most_bytes:
        raise MessageError("sealed array of the wrong type or size")
    return bytes(array.data)


def canonical(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
      MessageError: JSON cannot hold it.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError("a value that has no canonical JSON") from error
    return text.encode("ascii")


def read_canonical(text: bytes) -> Any:
    """The value of a canonical JSON text, or MessageError; another spelling is refused."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError("header is not JSON") from error
    if canonical(value) != text:
        raise MessageError("header is not in canonical form")
    return value


def frame(magic: bytes, text: bytes) -> bytes:
    """The start of a message: its magic, the length of its header, its header."""
    return magic + _LENGTH.pack(len(text)) + text


def split_frame(packed: bytes, magic: bytes) -> tuple[bytes, bytes]:
    """(header, rest) of a framed message, or MessageError; sizes are proven before a slice."""
    start = len(magic) + _LENGTH.size
    if not packed.startswith(magic) or len(packed) < start:
        raise MessageError("not a message of this version")
    (length,) = _LENGTH.unpack_from(packed, len(magic))
    if length > MAX_HEADER_BYTES or start + length > len(packed):
        raise MessageError("header of the wrong size")
    return packed[start : start + length], packed[start + length :]


def _records(header: Any, data: bytes) -> RecordDict:
    content = RecordDict()
    for name, values in header["configs"].items():
        content[name] = ConfigRecord(values)
    for name, values in header["metrics"].items():
        content[name] = MetricRecord(values)
    position = 0
    arrays: dict[str, dict[str, Array]] = {}
    for record, key, dtype, shape, stype, length in header["arrays"]:
        if type(length) is not int or not 0 <= length <= len(data) - position:
            raise MessageError("array of the wrong size")
        part = data[position : position + length]
        arrays.setdefault(record, {})[key] = Array(dtype, tuple(shape), stype, part)
        position += length
    for name, entries in arrays.items():
        content[name] = ArrayRecord(entries)
    return content
