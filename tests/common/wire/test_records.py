import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.wire.records import MAGIC, MessageError, opaque, pack, read_opaque, unpack

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)


def records(data: bytes = b"\x01\x02\x03\x04") -> RecordDict:
    array = Array("float32", (len(data) // 4,), "feddp.float32.v1", data)
    return RecordDict(
        {
            "adapter": ArrayRecord({"vector": array}),
            "config": ConfigRecord({"round": 3, "norm": 0.1, "seed": "auto", "is": True}),
            "evaluation": MetricRecord({"loss": 1.5, "count": 7}),
        }
    )


def test_records_come_back_as_they_were() -> None:
    found = unpack(pack(records()))
    assert dict(found.config_records["config"]) == dict(records().config_records["config"])
    assert dict(found.metric_records["evaluation"]) == {"loss": 1.5, "count": 7}
    array = found.array_records["adapter"]["vector"]
    assert (array.data, array.shape, array.stype) == (b"\1\2\3\4", (1,), "feddp.float32.v1")


@given(st.dictionaries(st.text(min_size=1, max_size=5), SCALARS, max_size=4), st.binary())
def test_what_is_packed_unpacks_to_the_same_bytes(values: dict[str, object], blob: bytes) -> None:
    content = opaque(blob)
    content["config"] = ConfigRecord(values)  # type: ignore[arg-type]
    packed = pack(content)
    assert pack(unpack(packed)) == packed


@given(st.binary(max_size=200))
def test_any_bytes_unpack_or_are_refused_in_one_way(tail: bytes) -> None:
    for packed in (tail, MAGIC + tail, MAGIC + len(tail).to_bytes(4, "big") + tail):
        with pytest.raises(MessageError):
            unpack(packed)


@given(st.data())
def test_a_changed_byte_is_refused_or_is_other_content(data: st.DataObject) -> None:
    packed = bytearray(pack(records()))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    try:
        content = unpack(bytes(packed))
    except MessageError:
        return
    assert pack(content) == bytes(packed)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 60000,
        b'{"arrays":[],"configs":{},"metrics":{} }',
        b'{"arrays":[["a","b","uint8",[1],"s",-1]],"configs":{},"metrics":{}}',
        b'{"arrays":[["a","b","uint8",[1],"s",true]],"configs":{},"metrics":{}}',
        b'{"arrays":[["a","b","uint8",[1],"s",9999]],"configs":{},"metrics":{}}',
        b'{"arrays":[],"configs":{"c":{"x":NaN}},"metrics":{}}',
        b'{"arrays":[],"configs":{"c":{"x":null}},"metrics":{}}',
        b'{"arrays":[],"configs":{"c":{"x":[1,"a"]}},"metrics":{}}',
        b'{"arrays":[],"configs":{},"metrics":{"m":{"x":"text"}}}',
        b'{"arrays":{},"configs":[],"metrics":1}',
        b"{}",
        b"7",
    ],
)
def test_hostile_headers_are_refused(header: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(MAGIC + len(header).to_bytes(4, "big") + header + b"x")


def test_not_a_number_cannot_be_packed() -> None:
    with pytest.raises(MessageError):
        pack(RecordDict({"config": ConfigRecord({"loss": float(np.nan)})}))


def test_an_opaque_message_holds_one_array_of_its_own_type_and_bounded_size() -> None:
    assert read_opaque(opaque(b"abc"), most_bytes=3) == b"abc"
    wrong = [
        opaque(b"abcd"),
        RecordDict(),
        records(),
        RecordDict({"sealed": ArrayRecord({"blob": Array("uint8", (1,), "numpy", b"a")})}),
        RecordDict({"sealed": ConfigRecord({"blob": "abc"})}),
    ]
    for content in wrong:
        with pytest.raises(MessageError):
            read_opaque(content, most_bytes=3)
