from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from feddp.common.wire.messages import EvaluateRequest, encode_evaluate_request
from feddp.common.wire.node_registry import Registry
from feddp.common.wire.records import pack, read_opaque
from feddp.common.wire.sealing import Ask, verify_request
from feddp.server.sealer import PADDING, Sealer

SERVER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
REQUEST = encode_evaluate_request(EvaluateRequest(np.zeros(4, np.float32), "a" * 64))


def sealer(path: Path) -> Sealer:
    return Sealer(path, SERVER, "pop", "run", "b" * 64, "c" * 64, epoch=3, round=5)


def questions(one: Sealer, num_numbers: int = 0) -> list[Ask]:
    entry = Registry({}).enroll("a", SERVER.public_key(), 2).active["a"]
    asked = one.questions(
        "evaluate",
        REQUEST,
        entries=[("a", entry), ("b", entry)],
        layout="a" * 64,
        num_numbers=num_numbers,
    )
    for question in asked:
        blob = read_opaque(question.content, most_bytes=1 << 16)
        signed = verify_request(blob, server_key=SERVER.public_key())
        assert signed == (question.ask, pack(REQUEST))
    return [question.ask for question in asked]


def test_each_question_of_a_start_has_its_own_number_and_nonce(tmp_path: Path) -> None:
    one = sealer(tmp_path)
    asks = questions(one) + questions(one)
    assert [ask.number for ask in asks] == [1, 2, 3, 4]
    assert len({ask.nonce for ask in asks}) == 4
    assert {(ask.epoch, ask.round) for ask in asks} == {(3, 5)}
    assert [ask.node for ask in asks] == ["a", "b", "a", "b"]


def test_each_start_has_its_own_seal_key(tmp_path: Path) -> None:
    first, second = questions(sealer(tmp_path)), questions(sealer(tmp_path))
    assert first[0].seal_key == first[1].seal_key != second[0].seal_key


def test_a_reply_has_room_for_its_numbers_and_a_fixed_rest(tmp_path: Path) -> None:
    assert questions(sealer(tmp_path), 1000)[0].reply_bytes == 8000 + PADDING
