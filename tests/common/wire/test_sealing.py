import dataclasses
import hashlib
import hmac
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.wire.records import MessageError
from feddp.common.wire.sealing import (
    REPLY_MAGIC,
    Ask,
    SealError,
    open_reply,
    seal_reply,
    sealed_bytes,
    sign_request,
    verify_request,
)

SERVER, NODE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3))
SEAL, EPHEMERAL = (X25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (4, 5))
ASK = Ask(
    kind="train",
    population="clinic",
    run="r1",
    plan="1" * 64,
    head="2" * 64,
    epoch=1,
    number=1,
    round=1,
    node="node-0",
    nonce="3" * 64,
    layout="4" * 64,
    seal_key=SEAL.public_key().public_bytes_raw().hex(),
    reply_bytes=100,
)
KEY = NODE.public_key()
BODY = b"the sum of a cohort"
CHANGES: dict[str, object] = {
    "kind": "evaluate",
    "population": "bank",
    "run": "r2",
    "plan": "9" * 64,
    "head": "9" * 64,
    "epoch": 2,
    "number": 2,
    "round": 2,
    "node": "node-1",
    "nonce": "9" * 64,
    "layout": "9" * 64,
}


def sealed(ask: Ask = ASK, key: Ed25519PrivateKey = NODE) -> bytes:
    return seal_reply(ask, BODY, node_key=key, ephemeral=EPHEMERAL)


def opened(blob: bytes, ask: Ask = ASK) -> bytes:
    return open_reply(blob, ask, seal_key=SEAL, node_key=KEY)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(SealError) as caught:
        call()
    return caught.value.code


def test_a_signed_request_is_read_by_whoever_pins_the_key() -> None:
    blob = sign_request(ASK, BODY, server_key=SERVER)
    assert verify_request(blob, server_key=SERVER.public_key()) == (ASK, BODY)
    assert code(lambda: verify_request(blob, server_key=OTHER.public_key())) == "signature"


def test_a_sealed_reply_is_opened_by_the_key_that_the_request_names() -> None:
    assert opened(sealed()) == BODY
    stranger = X25519PrivateKey.generate()
    assert code(lambda: open_reply(sealed(), ASK, seal_key=stranger, node_key=KEY)) == "seal"


def test_golden_vectors() -> None:
    request = sign_request(ASK, BODY, server_key=SERVER)
    assert (
        hashlib.sha256(request).hexdigest()
        == "3c39542883bf887325e5f4c30b87b34e16f250b08518f5a9b4dfb8c5420679b5"
    )
    assert (
        hashlib.sha256(sealed()).hexdigest()
        == "50ebb2c01c77553ddf7450d776a5fe692759ccbfb27d81e3137d811119cb4f76"
    )


def test_the_format_opens_with_hmac_and_a_cipher_alone() -> None:
    text = json.dumps(dataclasses.asdict(ASK), sort_keys=True, separators=(",", ":")).encode()
    public = EPHEMERAL.public_key().public_bytes_raw()
    header = text + public
    shared = EPHEMERAL.exchange(SEAL.public_key())
    extracted = hmac.digest(hashlib.sha256(header).digest(), shared, "sha256")
    key = hmac.digest(extracted, b"feddp-reply-1\n\x01", "sha256")  # RFC 5869, one block
    assert sealed().startswith(b"feddp-reply-1\n" + public)
    plain = ChaCha20Poly1305(key).decrypt(bytes(12), sealed()[len(REPLY_MAGIC) + 32 :], header)
    body, signature = plain[:-64], plain[-64:]
    assert body == len(BODY).to_bytes(8, "big") + BODY + bytes(100 - 8 - len(BODY))
    digests = hashlib.sha256(header).digest() + hashlib.sha256(body).digest()
    NODE.public_key().verify(signature, b"feddp-reply-1\n" + digests)


@given(st.data())
def test_a_changed_byte_of_a_reply_is_refused(data: st.DataObject) -> None:
    blob = bytearray(sealed())
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    code(lambda: opened(bytes(blob)))


@given(st.data())
def test_a_changed_byte_of_a_request_is_refused(data: st.DataObject) -> None:
    blob = bytearray(sign_request(ASK, BODY, server_key=SERVER))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    code(lambda: verify_request(bytes(blob), server_key=SERVER.public_key()))


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_message_error(blob: bytes) -> None:
    framed = REPLY_MAGIC + blob
    for candidate in (blob, framed, framed.ljust(sealed_bytes(100), b"\0")[: sealed_bytes(100)]):
        with pytest.raises(MessageError):
            opened(candidate)
        with pytest.raises(MessageError):
            verify_request(candidate, server_key=SERVER.public_key())


@pytest.mark.parametrize("name", CHANGES)
def test_a_reply_to_another_question_cannot_be_opened(name: str) -> None:
    other = dataclasses.replace(ASK, **{name: CHANGES[name]})  # type: ignore[arg-type]
    assert code(lambda: opened(sealed(other))) == "seal"


def test_every_field_of_a_question_binds_the_reply() -> None:
    assert {f.name for f in dataclasses.fields(Ask)} - CHANGES.keys() == {"seal_key", "reply_bytes"}


def test_another_node_cannot_answer_for_this_one() -> None:
    assert code(lambda: opened(sealed(key=OTHER))) == "signature"


def test_a_truncated_or_longer_reply_is_refused_by_its_size() -> None:
    for blob in (sealed()[:-1], sealed() + b"\0", b""):
        assert code(lambda b=blob: opened(b)) == "size"


def test_the_size_of_a_reply_does_not_depend_on_what_it_says() -> None:
    sizes = {len(seal_reply(ASK, bytes(n), node_key=NODE)) for n in (0, 1, 50, 92)}
    assert sizes == {sealed_bytes(100)}
    assert code(lambda: seal_reply(ASK, bytes(93), node_key=NODE)) == "size"


def test_two_replies_with_the_same_body_share_no_block() -> None:
    first, second = (seal_reply(ASK, BODY, node_key=NODE) for _ in range(2))
    start = len(REPLY_MAGIC)
    pieces = {first[i : i + 8] for i in range(start, len(first) - 8)}
    assert not pieces & {second[i : i + 8] for i in range(start, len(second) - 8)}


def test_the_body_is_not_in_what_travels() -> None:
    assert BODY not in sealed()
    assert BODY in sign_request(ASK, BODY, server_key=SERVER)


def test_a_seal_key_of_small_order_is_refused() -> None:
    ask = dataclasses.replace(ASK, seal_key="00" * 32)
    assert code(lambda: seal_reply(ask, BODY, node_key=NODE)) == "malformed"
    zero = REPLY_MAGIC + bytes(32)
    assert code(lambda: opened(zero.ljust(sealed_bytes(100), b"\0"))) == "malformed"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "hello"},
        {"epoch": -1},
        {"epoch": True},
        {"round": 1.0},
        {"number": 1 << 62},
        {"node": ""},
        {"run": ""},
        {"population": "x" * 1001},
        {"node": "a/b"},
        {"nonce": "3" * 63},
        {"plan": "G" * 64},
        {"layout": 4},
    ],
)
def test_a_question_out_of_range_is_refused(fields: dict[str, object]) -> None:
    assert code(lambda: dataclasses.replace(ASK, **fields)) == "malformed"  # type: ignore[arg-type]
