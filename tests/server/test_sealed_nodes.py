"""Hostile, late and honest nodes behind a relay, against the server app's side of the seal."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flower_grid import InProcessGrid
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from feddp.common.evaluation import Evaluation
from feddp.common.privacy.ledger.remembered_head import HeadClaim
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import (
    EvaluateRequest,
    TrainReply,
    TrainRequest,
    encode_evaluate_reply,
    encode_train_reply,
)
from feddp.common.wire.node_registry import Registry, read_registry, write_registry
from feddp.common.wire.records import SEALED, opaque, pack, read_opaque
from feddp.common.wire.sealing import Ask, seal_reply, verify_request
from feddp.server.cohort_draw import ServerDraw
from feddp.server.metrics import Metrics
from feddp.server.sealed_nodes import SealedNodes
from feddp.server.sealer import Sealer

P, K = 4, 1 << 20
SERVER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in range(1, 9)]
REQUEST = TrainRequest(1, np.zeros(P, np.float32), "a" * 64, Draw(), 1.0, K, 0, 0, 1)
Behaviour = Callable[[Ask, Ed25519PrivateKey], RecordDict]


def reply(round: int = 1, value: int = 7, dimension: int = P) -> bytes:
    total = UpdateSum(np.full(dimension, value, np.int64))
    return pack(encode_train_reply(TrainReply(round, "a" * 64, total)))


def honest(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
    if ask.kind == "evaluate":
        return opaque(seal_reply(ask, pack(encode_evaluate_reply(EVALUATED)), node_key=key))
    return opaque(seal_reply(ask, reply(ask.round), node_key=key))


EVALUATED = Evaluation(1.0, 2, 1)


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feddp.server.sealed_nodes.POLL_SECONDS", 0.0)


def fleet(
    tmp_path: Path, behaviours: list[Behaviour], *, users: int = 1, names: list[str] | None = None
) -> SealedNodes:
    """Nodes node-0, node-1, ... that are enrolled with KEYS in this order."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        record = ConfigRecord({"name": context.node_config["name"]})
        return Message(RecordDict({"config": record}), reply_to=message)

    def answer(message: Message, context: Context) -> Message:
        index = int(context.node_config["index"])
        blob = read_opaque(message.content, most_bytes=1 << 20)
        ask, _ = verify_request(blob, server_key=SERVER.public_key())
        return Message(behaviours[index](ask, KEYS[index]), reply_to=message)

    app.train("round")(answer)
    app.evaluate("users")(answer)
    registry = Registry({})
    for i in range(len(behaviours)):
        registry = registry.enroll(f"node-{i}", KEYS[i].public_key(), users)
    write_registry(tmp_path / "nodes.toml", registry)
    claimed = names or [f"node-{i}" for i in range(len(behaviours))]
    grid = InProcessGrid(app, [{"name": n, "index": i} for i, n in enumerate(claimed)], {})
    sealer = Sealer(tmp_path / "nodes.toml", SERVER, "pop", "run", "b" * 64, "c" * 64, epoch=1)
    nodes = SealedNodes(grid, P, 0.3, sealer)
    nodes.wait_for_nodes(len(set(claimed) & registry.active.keys()))
    return nodes


def values(replies: list[TrainReply]) -> list[int]:
    return [int(r.total.total[0]) for r in replies]


def test_honest_nodes_are_counted_once_each(tmp_path: Path) -> None:
    nodes = fleet(tmp_path, [honest] * 3)
    assert values(nodes.train(REQUEST)) == [7, 7, 7]
    assert not nodes.reasons


def test_what_is_signed_names_the_head_that_the_request_claims(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []

    def watch(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        seen.append((ask.epoch, ask.head))
        return honest(ask, key)

    nodes = fleet(tmp_path, [watch])
    claim = HeadClaim("pop", 4, 9, b"h" * 32, b"s" * 64, (b"d" * 32,))
    assert values(nodes.train(dataclasses.replace(REQUEST, head=claim))) == [7]
    nodes.evaluate(EvaluateRequest(REQUEST.adapter, "a" * 64))
    assert seen == [(4, (b"h" * 32).hex())] * 2


def test_evaluations_travel_under_the_seal(tmp_path: Path) -> None:
    nodes = fleet(tmp_path, [honest] * 2)
    assert nodes.evaluate(EvaluateRequest(REQUEST.adapter, "a" * 64)) == [EVALUATED] * 2


def with_ask(**changes: object) -> Behaviour:
    def behave(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        return honest(dataclasses.replace(ask, **changes), key)  # type: ignore[arg-type]

    return behave


def body(content: bytes) -> Behaviour:
    return lambda ask, key: opaque(seal_reply(ask, content, node_key=key))


def plain(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
    total = UpdateSum(np.full(P, 7, np.int64))
    return encode_train_reply(TrainReply(1, "a" * 64, total))


def impersonate(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
    return honest(ask, KEYS[-1])


def flipped(position: int) -> Behaviour:
    def behave(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        blob = bytearray(read_opaque(honest(ask, key), most_bytes=1 << 20))
        blob[position] ^= 1
        return opaque(bytes(blob))

    return behave


def of_type(stype: str) -> Behaviour:
    def behave(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        blob = read_opaque(honest(ask, key), most_bytes=1 << 20)
        return RecordDict(
            {"sealed": ArrayRecord({"blob": Array("uint8", (len(blob),), stype, blob)})}
        )

    return behave


def raising(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
    return RecordDict({"sealed": ConfigRecord({"blob": "x"})})


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (with_ask(round=2), "seal"),
        (with_ask(epoch=2), "seal"),
        (with_ask(number=99), "seal"),
        (with_ask(nonce="d" * 64), "seal"),
        (with_ask(node="node-0"), "seal"),
        (with_ask(run="other"), "seal"),
        (with_ask(plan="d" * 64), "seal"),
        (with_ask(layout="d" * 64), "seal"),
        (with_ask(seal_key=b"9".hex() * 32), "seal"),
        (with_ask(reply_bytes=4096), "size"),
        (with_ask(reply_bytes=9000), "malformed"),
        (impersonate, "signature"),
        (flipped(0), "malformed"),
        (flipped(20), "seal"),
        (flipped(60), "seal"),
        (flipped(-1), "seal"),
        (body(b""), "malformed"),
        (body(b"x" * 50), "malformed"),
        (body(reply(dimension=P + 1)), "malformed"),
        (body(reply(value=K + 1)), "norm"),
        (body(reply(value=-(2**63))), "norm"),
        (body(reply(value=K // 2 + 1)), "norm"),
        (plain, "malformed"),
        (of_type("numpy.ndarray"), "malformed"),
        (raising, "malformed"),
        (lambda ask, key: opaque(b""), "size"),
        (lambda ask, key: opaque(bytes(1 << 16)), "malformed"),
        (lambda ask, key: RecordDict(), "malformed"),
    ],
)
def test_a_hostile_reply_is_zero_and_the_others_count(
    tmp_path: Path, behaviour: Behaviour, reason: str
) -> None:
    nodes = fleet(tmp_path, [honest, behaviour, honest])
    assert values(nodes.train(REQUEST)) == [7, 7]
    assert dict(nodes.reasons) == {reason: 1}


@pytest.mark.parametrize("is_operator", [False, True])
def test_refused_replies_and_online_nodes_are_told_to_an_operator_alone(
    tmp_path: Path, is_operator: bool
) -> None:
    nodes = fleet(tmp_path, [honest, impersonate, lambda ask, key: RecordDict()])
    metrics = Metrics("run", 8.0, tmp_path, is_operator)
    nodes.measure(metrics)
    nodes.train(REQUEST)
    nodes.measure(metrics)
    nodes.grid.get_node_ids = lambda: [1001, 1002, 4711]  # type: ignore[method-assign]
    nodes.measure(metrics)
    sample = metrics.registry.get_sample_value
    found = [
        sample("feddp_replies_invalid_total", {"run": "run", "reason": reason})
        for reason in ("signature", "malformed", "late")
    ]
    online = sample("feddp_nodes_online", {"run": "run"})
    assert [*found, online] == ([1, 1, 0, 2] if is_operator else [None] * 4)


def test_an_answer_that_is_sent_again_in_the_next_round_is_zero(tmp_path: Path) -> None:
    kept: list[RecordDict] = []

    def replay(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        kept.append(honest(ask, key))
        return kept[0]

    nodes = fleet(tmp_path, [replay, honest])
    assert values(nodes.train(REQUEST)) == [7, 7]
    assert values(nodes.train(dataclasses.replace(REQUEST, round=2))) == [7]
    assert dict(nodes.reasons) == {"seal": 1}


def test_the_norm_of_a_silo_is_bounded_by_its_registered_users(tmp_path: Path) -> None:
    silo = body(reply(value=K))  # norm 2 K
    assert values(fleet(tmp_path, [silo], users=2).train(REQUEST)) == [K]
    path = tmp_path / "device"
    path.mkdir()
    assert values(fleet(path, [silo], users=1).train(REQUEST)) == []


def test_who_claims_the_name_of_another_takes_nothing_from_her(tmp_path: Path) -> None:
    nodes = fleet(tmp_path, [honest, honest], names=["node-1", "node-1"])
    assert values(nodes.train(REQUEST)) == [7]
    assert dict(nodes.reasons) == {"signature": 1}


def test_a_second_good_reply_of_one_node_is_a_duplicate(tmp_path: Path) -> None:
    def twice(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        return honest(ask, KEYS[0])

    nodes = fleet(tmp_path, [twice, twice], names=["node-0", "node-0"])
    assert values(nodes.train(REQUEST)) == [7]
    assert dict(nodes.reasons) == {"duplicate": 1}


def test_a_revoked_node_is_neither_asked_nor_believed_from_the_next_round_on(
    tmp_path: Path,
) -> None:
    nodes = fleet(tmp_path, [honest, honest])
    assert len(nodes.train(REQUEST)) == 2
    path = tmp_path / "nodes.toml"
    write_registry(path, read_registry(path).revoke("node-1"))
    assert len(nodes.train(dataclasses.replace(REQUEST, round=2))) == 1


def test_a_rotated_key_is_believed_and_the_old_one_is_not(tmp_path: Path) -> None:
    nodes = fleet(tmp_path, [honest, impersonate])
    path = tmp_path / "nodes.toml"
    write_registry(path, read_registry(path).rotate("node-1", KEYS[-1].public_key()))
    assert len(nodes.train(REQUEST)) == 2
    write_registry(path, read_registry(path).rotate("node-0", KEYS[-2].public_key()))
    assert len(nodes.train(dataclasses.replace(REQUEST, round=2))) == 1
    assert dict(nodes.reasons) == {"signature": 1}


@pytest.mark.parametrize("is_asking_everyone", [False, True])
def test_the_server_counts_the_drawn_nodes_and_asks_these_or_everyone(
    tmp_path: Path, is_asking_everyone: bool
) -> None:
    asked: list[str] = []

    def watch(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        asked.append(ask.node)
        return honest(ask, key)

    nodes = fleet(tmp_path, [watch] * 6)
    nodes.server_draw = ServerDraw(tmp_path / "p", separation=1, has_begun=False)
    nodes.is_asking_everyone = is_asking_everyone
    nodes.wait_for_nodes(6)
    everyone = [f"node-{i}" for i in range(6)]
    assert nodes.server_draw.population == everyone
    request = dataclasses.replace(REQUEST, draw=Draw(probability=0.5))
    drawn, _ = nodes.server_draw.draw(request)
    assert 0 < len(drawn) < 6
    assert len(nodes.train(request)) == len(drawn)
    assert sorted(asked) == (everyone if is_asking_everyone else drawn)


def test_requests_to_drawn_and_undrawn_nodes_say_the_same_and_replies_have_one_size(
    tmp_path: Path,
) -> None:
    bodies: set[bytes] = set()
    sizes: set[int] = set()

    def watch(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        content = honest(ask, key)
        sizes.add(len(read_opaque(content, most_bytes=1 << 20)))
        return content

    nodes = fleet(tmp_path, [watch] * 6)
    push = nodes.grid.push_messages

    def note(messages: list[Message]) -> list[str]:
        for message in messages:
            blob = read_opaque(message.content, most_bytes=1 << 20)
            bodies.add(verify_request(blob, server_key=SERVER.public_key())[1])
        return list(push(messages))

    nodes.server_draw = ServerDraw(tmp_path / "p", separation=1, has_begun=False)
    nodes.is_asking_everyone = True
    nodes.wait_for_nodes(6)
    nodes.grid.push_messages = note  # type: ignore[method-assign, assignment]
    assert 0 < len(nodes.train(dataclasses.replace(REQUEST, draw=Draw(probability=0.5)))) < 6
    assert (len(bodies), len(sizes)) == (1, 1)


def test_a_drawn_node_that_is_offline_or_revoked_answers_nothing(tmp_path: Path) -> None:
    nodes = fleet(tmp_path, [honest] * 4, names=["node-0", "node-1", "node-2"])
    nodes.server_draw = ServerDraw(tmp_path / "p", separation=1, has_begun=False)
    nodes.wait_for_nodes(3)
    assert len(nodes.server_draw.population) == 4
    assert len(nodes.train(REQUEST)) == 3
    path = tmp_path / "nodes.toml"
    write_registry(path, read_registry(path).revoke("node-1"))
    assert len(nodes.train(dataclasses.replace(REQUEST, round=2))) == 2


def test_requests_show_the_relay_no_key_and_replies_no_number(tmp_path: Path) -> None:
    kept: list[bytes] = []

    def watch(ask: Ask, key: Ed25519PrivateKey) -> RecordDict:
        kept.append(read_opaque(honest(ask, key), most_bytes=1 << 20))
        return opaque(kept[-1])

    fleet(tmp_path, [watch]).train(REQUEST)
    assert np.full(P, 7, np.int64).tobytes() not in kept[0]
    assert SEALED not in str(kept[0])
