import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import RecordDict
from small_ledger import HeadedLedger

from feddp.client.assembly import build_node
from feddp.client.node import Node
from feddp.client.refusal import RefusedError
from feddp.client.service.answer import Identity, Memory, answer
from feddp.client.service.known_ledgers import KnownLedgers
from feddp.common.assembly import load_model, load_users
from feddp.common.config.run_config import from_flat
from feddp.common.data.users import UsersView
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import (
    TrainRequest,
    decode_train_reply,
    decode_train_request,
    encode_train_request,
)
from feddp.common.wire.records import MessageError, opaque, pack, read_opaque, unpack
from feddp.common.wire.sealing import Ask, SealError, open_reply, sign_request

SERVER, NODE = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))
SEAL = X25519PrivateKey.from_private_bytes(b"x" * 32)


@pytest.fixture(scope="module")
def node() -> Node:
    config = from_flat({"data.max-examples-per-user": 1, "model.max-tokens": 32})
    base, layout = load_model(config)
    users, held_out = load_users(config)
    return build_node(config, base, layout, UsersView(users, np.arange(3)), held_out)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity("node-0", NODE, SERVER.public_key(), Memory(tmp_path / "seen.json"))


def ask(asker: Node, **changes: object) -> Ask:
    fields: dict[str, object] = {
        "kind": "train",
        "population": "p",
        "run": "r",
        "plan": "1" * 64,
        "head": "2" * 64,
        "epoch": 1,
        "number": 1,
        "round": 1,
        "node": "node-0",
        "nonce": "3" * 64,
        "layout": asker._layout_sha256,
        "seal_key": SEAL.public_key().public_bytes_raw().hex(),
        "reply_bytes": 8 * asker.dimension + 4096,
    }
    return Ask(**{**fields, **changes})  # type: ignore[arg-type]


def request(node: Node) -> RecordDict:
    adapter = np.zeros(node.dimension, np.float32)
    draw = Draw(probability=1.0)
    return encode_train_request(
        TrainRequest(1, adapter, node._layout_sha256, draw, 1.0, 1 << 20, 0, 0, 7)
    )


def signed(asker: Node, key: Ed25519PrivateKey = SERVER, **changes: object) -> RecordDict:
    return opaque(sign_request(ask(asker, **changes), pack(request(asker)), server_key=key))


def test_a_signed_request_is_answered_under_the_seal_with_the_same_sum(
    node: Node, identity: Identity
) -> None:
    reply = answer(node, "train", signed(node), identity)
    blob = read_opaque(reply, most_bytes=1 << 24)
    body = open_reply(blob, ask(node), seal_key=SEAL, node_key=NODE.public_key())
    plain = answer(node, "train", request(node), None)
    assert pack(unpack(body)) == pack(plain)
    assert np.any(decode_train_reply(plain, dimension=node.dimension, is_noised=False).total.total)


def test_a_node_with_an_identity_answers_nothing_unsigned_or_meant_for_another(
    node: Node, identity: Identity
) -> None:
    stranger = Ed25519PrivateKey.generate()
    refused = [
        ("train", request(node)),
        ("train", signed(node, key=stranger)),
        ("train", signed(node, node="node-1")),
        ("train", signed(node, kind="evaluate")),
        ("evaluate", signed(node)),
        ("train", opaque(b"")),
    ]
    for kind, content in refused:
        with pytest.raises(MessageError):
            answer(node, kind, content, identity)


def headed(node: Node, ledger: HeadedLedger, **changes: object) -> RecordDict:
    """A signed request of the server app that holds this ledger."""
    claim = ledger.claim()
    plain = decode_train_request(request(node), dimension=node.dimension)
    body = pack(encode_train_request(dataclasses.replace(plain, head=claim)))
    said = {"population": claim.population, "epoch": claim.epoch, "head": claim.head.hex()}
    return opaque(sign_request(ask(node, **{**said, **changes}), body, server_key=SERVER))


def test_a_node_trains_for_a_ledger_that_goes_on_and_not_for_an_older_one(
    node: Node, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, known_ledgers, trained = HeadedLedger(tmp_path / "l.sqlite"), KnownLedgers(tmp_path), []
    train = node.train
    monkeypatch.setattr(node, "train", lambda asked: trained.append(asked.head) or train(asked))
    shutil.copy(ledger.path, tmp_path / "old")
    for number in (1, 2):
        ledger.grow(1)
        answer(
            node,
            "train",
            headed(node, ledger, number=number, round=number),
            identity,
            known_ledgers,
        )
    shutil.copy(tmp_path / "old", ledger.path)
    replayed = headed(node, ledger, epoch=9, number=3, round=2)
    with pytest.raises(SealError, match="head"):
        answer(node, "train", replayed, identity, known_ledgers)
    fresh = dataclasses.replace(identity, memory=Memory(tmp_path / "other.json"))
    with pytest.raises(RefusedError, match="rolled-back"):
        answer(node, "train", headed(node, ledger, number=3), fresh, known_ledgers)
    with pytest.raises(RefusedError, match="no-head"):
        answer(node, "train", request(node), None, known_ledgers)
    assert len(trained) == 2


@pytest.mark.parametrize(
    "changes", [{"population": "q"}, {"epoch": 7}, {"head": "4" * 64}], ids=str
)
def test_header_and_claim_must_speak_of_the_same_head(
    node: Node, identity: Identity, tmp_path: Path, changes: dict[str, object]
) -> None:
    ledger = HeadedLedger(tmp_path / "l.sqlite")
    with pytest.raises(SealError, match="head"):
        answer(node, "train", headed(node, ledger, **changes), identity)


def test_hello_tells_the_name(node: Node, identity: Identity) -> None:
    reply = answer(node, "hello", RecordDict(), identity)
    assert reply.config_records["config"]["name"] == "node-0"


def accepted(memory: Memory, question: Ask) -> bool:
    try:
        memory.accept(question)
    except SealError:
        return False
    return True


def test_no_question_is_accepted_twice_even_after_a_restart(node: Node, tmp_path: Path) -> None:
    path, question = tmp_path / "seen.json", ask(node, number=5)
    assert accepted(Memory(path), question)
    for number, expected in ((5, False), (4, False), (6, True), (6, False)):
        assert accepted(Memory(path), dataclasses.replace(question, number=number)) is expected


def test_a_server_app_that_was_rolled_back_is_refused(node: Node, tmp_path: Path) -> None:
    memory, last = Memory(tmp_path / "seen.json"), ask(node, epoch=3, number=9, round=5)
    assert accepted(memory, last)
    refused = [
        {"epoch": 2, "number": 10},
        {"epoch": 3, "number": 10, "seal_key": "9" * 64},
        {"epoch": 4, "number": 1, "round": 4},
    ]
    for changes in refused:
        assert not accepted(memory, dataclasses.replace(last, **changes))  # type: ignore[arg-type]
    looked = dataclasses.replace(last, kind="evaluate", epoch=4, number=1, round=0)
    assert accepted(memory, looked)
    assert accepted(memory, dataclasses.replace(last, epoch=5, number=1))
    assert not accepted(memory, dataclasses.replace(last, epoch=6, number=1, round=4))
    assert accepted(memory, dataclasses.replace(last, run="other", epoch=1, number=1, round=1))
