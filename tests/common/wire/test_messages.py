import dataclasses

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from small_messages import CLAIM, TURNS, P, headed, reply, request

from feddp.common.evaluation import Evaluation
from feddp.common.privacy.ledger.remembered_head import MAX_PROOF_ROWS
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import (
    DIGESTS,
    FLAT_INT64,
    LEDGER,
    PROOF,
    VERSION,
    EvaluateRequest,
    decode_evaluate_reply,
    decode_evaluate_request,
    decode_train_reply,
    decode_train_request,
    encode_evaluate_reply,
    encode_evaluate_request,
    encode_train_request,
)
from feddp.common.wire.records import MessageError

FIXED = Draw(cohort_size=3, num_units=40)


def test_a_request_carries_the_head_of_its_ledger() -> None:
    assert decode_train_request(headed(), dimension=P).head == CLAIM
    assert decode_train_request(encode_train_request(request()), dimension=P).head is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("population", ""),
        ("population", "p" * 1001),
        ("epoch", 0),
        ("epoch", 6),
        ("seq", 2),
        ("seq", 1 << 63),
        ("seq", "5"),
        ("head", "A" * 64),
        ("head", "ab" * 31),
        ("signature", "ab" * 63 + " a"),
        ("extra", 1),
    ],
)
def test_a_claim_outside_the_contract_is_refused(name: str, value: str | int) -> None:
    content = headed()
    content.config_records[LEDGER][name] = value
    with pytest.raises(MessageError):
        decode_train_request(content, dimension=P)


@pytest.mark.parametrize(
    "proof",
    [
        None,
        Array("uint8", (0, 32), DIGESTS, b""),
        Array("uint8", (3, 32), DIGESTS, bytes(95)),
        Array("uint8", (96,), DIGESTS, bytes(96)),
        Array("uint8", (3, 32), FLAT_INT64, bytes(96)),
        Array("uint8", (6, 32), DIGESTS, bytes(192)),
    ],
    ids=["absent", "empty", "short", "flat", "type", "longer than the ledger"],
)
def test_a_proof_outside_the_contract_is_refused(proof: Array | None) -> None:
    content = headed()
    del content[PROOF]
    if proof is not None:
        content[PROOF] = ArrayRecord({"vector": proof})
    with pytest.raises(MessageError):
        decode_train_request(content, dimension=P)


def test_a_proof_has_a_greatest_size() -> None:
    rows = tuple(bytes(32) for _ in range(MAX_PROOF_ROWS + 1))
    claim = dataclasses.replace(CLAIM, seq=1 << 20, proof=rows)
    for proof, is_good in ((rows, False), (rows[1:], True)):
        asked = dataclasses.replace(request(), head=dataclasses.replace(claim, proof=proof))
        content = encode_train_request(asked)
        if is_good:
            decode_train_request(content, dimension=P)
            continue
        with pytest.raises(MessageError):
            decode_train_request(content, dimension=P)


@pytest.mark.parametrize("draw", [TURNS, FIXED], ids=["turns", "fixed size"])
@pytest.mark.parametrize("seed", [None, 0, 2**80])
def test_train_request_round_trips(seed: int | None, draw: Draw) -> None:
    sent = request(seed, draw)
    got = decode_train_request(encode_train_request(sent), dimension=P)
    np.testing.assert_array_equal(got.adapter, sent.adapter)
    assert got.adapter.dtype == np.float32
    names = [name for name in vars(sent) if name != "adapter"]
    assert [getattr(got, name) for name in names] == [getattr(sent, name) for name in names]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=P, max_size=P))
def test_train_reply_round_trips_exactly(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    got = decode_train_reply(reply(array), dimension=P)
    np.testing.assert_array_equal(got.total.total, array)
    assert (got.round, got.layout_sha256) == (2, "ab")


def test_replies_have_one_size_whoever_was_drawn() -> None:
    nobody, somebody = reply(np.zeros(P, np.int64)), reply(np.full(P, 2**40))
    sizes = [len(r.array_records["sum"]["vector"].data) for r in (nobody, somebody)]
    assert sizes == [8 * P, 8 * P]
    assert set(somebody) == {"sum", "config"}
    assert set(somebody.config_records["config"]) == {"version", "round", "layout"}


def test_evaluation_round_trips() -> None:
    sent = EvaluateRequest(np.ones(P, np.float32), "ab")
    got = decode_evaluate_request(encode_evaluate_request(sent), dimension=P)
    np.testing.assert_array_equal(got.adapter, sent.adapter)
    answer = Evaluation(1.5, 10, 3)
    assert decode_evaluate_reply(encode_evaluate_reply(answer)) == answer


def hostile_replies() -> dict[str, RecordDict]:
    good = np.arange(P, dtype=np.int64)

    def vector(shape: tuple[int, ...], stype: str, content: bytes) -> ArrayRecord:
        return ArrayRecord({"vector": Array("int64", shape, stype, content)})

    replies = {name: reply(good) for name in ("extra record", "no config", "version", "round type")}
    replies["extra record"]["more"] = MetricRecord({"count": 3})
    del replies["no config"]["config"]
    replies["version"].config_records["config"]["version"] = VERSION + 1
    replies["round type"].config_records["config"]["round"] = "2"
    config = ConfigRecord(dict(reply(good).config_records["config"]))
    for name, record in {
        "longer": vector((P + 1,), FLAT_INT64, bytes(8 * P + 8)),
        "short payload": vector((P,), FLAT_INT64, bytes(8 * P - 8)),
        "long payload": vector((P,), FLAT_INT64, bytes(8 * P + 8)),
        "matrix": vector((P, 1), FLAT_INT64, bytes(8 * P)),
        "foreign type": vector((P,), "numpy.ndarray", bytes(8 * P)),
        "two vectors": ArrayRecord(
            {n: Array("int64", (P,), FLAT_INT64, bytes(8 * P)) for n in ("vector", "w")}
        ),
    }.items():
        replies[name] = RecordDict({"sum": record, "config": config})
    return replies


@pytest.mark.parametrize("name", hostile_replies())
def test_replies_outside_the_contract_are_refused(name: str) -> None:
    with pytest.raises(MessageError):
        decode_train_reply(hostile_replies()[name], dimension=P)


@pytest.mark.parametrize(
    "sums",
    [
        {"loss-sum": float("nan"), "num-targets": 1, "num-correct": 0},
        {"loss-sum": 1.0, "num-targets": 1, "num-correct": 2},
        {"loss-sum": 1.0, "num-targets": 1.0, "num-correct": 0},
        {"loss-sum": 1.0, "num-targets": 1},
    ],
)
def test_evaluations_outside_the_contract_are_refused(sums: dict[str, float]) -> None:
    content = RecordDict(
        {"evaluation": MetricRecord(sums), "config": ConfigRecord({"version": VERSION})}
    )
    with pytest.raises(MessageError):
        decode_evaluate_reply(content)
