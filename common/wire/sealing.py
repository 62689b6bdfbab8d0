"""Signed requests and sealed replies: what a relay can neither read, change, replay nor reorder.

A request is signed with the server's key and names the X25519 key of this start of the server app.
A reply is encrypted to that key, with the node's signature inside. A reply carries no header: both
sides derive it from the request, so that a reply to any other request cannot be opened at all.
"""

import dataclasses
import hashlib
import re
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from feddp.common.wire.records import MessageError, canonical, frame, read_canonical, split_frame

REQUEST_MAGIC = b"feddp-request-1\n"
REPLY_MAGIC = b"feddp-reply-1\n"
KINDS = ("train", "evaluate")
NUM_KEY_BYTES, NUM_SIGNATURE_BYTES, NUM_TAG_BYTES = 32, 64, 16
MAX_NUMBER, MAX_TEXT = 1 << 62, 1000
NONCE = bytes(12)  # each key encrypts one reply
_LENGTH = struct.Struct(">Q")
_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HEX_FIELDS = ("plan", "head", "nonce", "layout", "seal_key")


class SealError(MessageError):
    """A request or reply that is refused.

    `code`: one of a few fixed words, for an operator's counter.
    """

    def __init__(self, code: str):
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Ask:
    """What one request to one node, and the reply to it, are bound to.

    Attributes:
      kind: "train" or "evaluate".
      population: the one whose ledger is charged.
      plan: SHA-256 of the plan, hex.
      head: hash of the ledger's last row when the last request to train was made, hex; before the
        first, when the server app started.
      epoch: how many times the ledger has been opened, this start included.
      number: of this question in its epoch, from 1.
      round: of the run; for an evaluation, the last round that was asked for.
      node: its name in the registry.
      nonce: 32 random bytes of this node and question, hex.
      layout: SHA-256 of the adapter's layout, hex.
      seal_key: X25519 public key of this start of the server app, hex.
      reply_bytes: size of the padded body of the reply, whatever it says.
    """

    kind: str
    population: str
    run: str
    plan: str
    head: str
    epoch: int
    number: int
    round: int
    node: str
    nonce: str
    layout: str
    seal_key: str
    reply_bytes: int

    def __post_init__(self) -> None:
        numbers = (self.epoch, self.number, self.round, self.reply_bytes)
        is_sound = (
            self.kind in KINDS
            and all(isinstance(getattr(self, name), str) for name in _TEXT_FIELDS)
            and all(0 < len(name) <= MAX_TEXT for name in (self.population, self.run))
            and _NAME.fullmatch(self.node) is not None
            and all(_HEX.fullmatch(getattr(self, name)) for name in _HEX_FIELDS)
            and all(type(n) is int and 0 <= n < MAX_NUMBER for n in numbers)
        )
        if not is_sound:
            raise SealError("malformed")


_TEXT_FIELDS = tuple(f.name for f in dataclasses.fields(Ask) if f.type is str)


def sign_request(ask: Ask, body: bytes, *, server_key: Ed25519PrivateKey) -> bytes:
    """The request as it travels: header, body, Ed25519 signature over both."""
    header = _header(ask)
    signature = server_key.sign(_digest(REQUEST_MAGIC, header, body))
    return b"".join([frame(REQUEST_MAGIC, header), body, signature])


def verify_request(blob: bytes, *, server_key: Ed25519PublicKey) -> tuple[Ask, bytes]:
    """(what is asked, body) of a request that the pinned server key has signed.

    Raises:
      SealError: "malformed" or "signature".
    """
    try:
        header, rest = split_frame(blob, REQUEST_MAGIC)
    except MessageError as error:
        raise SealError("malformed") from error
    if len(rest) < NUM_SIGNATURE_BYTES:
        raise SealError("malformed")
    body, signature = rest[:-NUM_SIGNATURE_BYTES], rest[-NUM_SIGNATURE_BYTES:]
    try:
        server_key.verify(signature, _digest(REQUEST_MAGIC, header, body))
    except InvalidSignature as error:
        raise SealError("signature") from error
    return _read_header(header), body


def seal_reply(
    ask: Ask, body: bytes, *, node_key: Ed25519PrivateKey, ephemeral: X25519PrivateKey | None = None
) -> bytes:
    """Pads, signs and encrypts a reply to the key that the request names.

    **Guarantee:** the size depends on `ask.reply_bytes` alone. Only the holder of the seal key can
    read the body, and only as the answer of this node to this request.

    Args:
      body: at most `ask.reply_bytes` - 8 bytes.
      ephemeral: for golden vectors; otherwise a fresh key for this reply.

    Raises:
      SealError: "size", or "malformed" for a seal key that is no point.

    Reference: Barnes et al. 2022 (RFC 9180, HPKE), whose base mode this follows.
    """
    ephemeral = ephemeral or X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    padded = _pad(body, ask.reply_bytes)
    header = _header(ask) + public
    signature = node_key.sign(_digest(REPLY_MAGIC, header, padded))
    seal_key = X25519PublicKey.from_public_bytes(bytes.fromhex(ask.seal_key))
    cipher = _cipher(ephemeral, seal_key, header)
    return REPLY_MAGIC + public + cipher.encrypt(NONCE, padded + signature, header)


def open_reply(
    blob: bytes, ask: Ask, *, seal_key: X25519PrivateKey, node_key: Ed25519PublicKey
) -> bytes:
    """The body of a reply to this very request by the holder of this very node key.

    **Guarantee:** a reply of another run, epoch, round, node, question or key, and one with any
    bit changed, is refused.

    Raises:
      SealError: "size", "malformed", "seal" (not to this request and key), "signature" (not by this
        node).
    """
    if len(blob) != sealed_bytes(ask.reply_bytes):
        raise SealError("size")
    if not blob.startswith(REPLY_MAGIC):
        raise SealError("malformed")
    start = len(REPLY_MAGIC) + NUM_KEY_BYTES
    public = blob[len(REPLY_MAGIC) : start]
    header = _header(ask) + public
    try:
        cipher = _cipher(seal_key, X25519PublicKey.from_public_bytes(public), header)
        plain = cipher.decrypt(NONCE, blob[start:], header)
    except InvalidTag as error:
        raise SealError("seal") from error
    padded, signature = plain[:-NUM_SIGNATURE_BYTES], plain[-NUM_SIGNATURE_BYTES:]
    try:
        node_key.verify(signature, _digest(REPLY_MAGIC, header, padded))
    except InvalidSignature as error:
        raise SealError("signature") from error
    return _unpad(padded)


def sealed_bytes(reply_bytes: int) -> int:
    """Size of a sealed reply whose padded body has `reply_bytes`."""
    fixed = len(REPLY_MAGIC) + NUM_KEY_BYTES + NUM_SIGNATURE_BYTES + NUM_TAG_BYTES
    return fixed + reply_bytes


def _header(ask: Ask) -> bytes:
    return canonical(dataclasses.asdict(ask))


def _read_header(text: bytes) -> Ask:
    try:
        fields = read_canonical(text)
        return Ask(**fields)
    except (MessageError, TypeError) as error:
        raise SealError("malformed") from error


def _digest(domain: bytes, header: bytes, body: bytes) -> bytes:
    """What is signed: the domain, and one digest each of header and body."""
    return domain + hashlib.sha256(header).digest() + hashlib.sha256(body).digest()


def _cipher(own: X25519PrivateKey, peer: X25519PublicKey, header: bytes) -> ChaCha20Poly1305:
    """The cipher of one reply; the header holds both public keys."""
    try:
        shared = own.exchange(peer)
    except ValueError as error:  # a point of small order
        raise SealError("malformed") from error
    salt = hashlib.sha256(header).digest()
    key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=REPLY_MAGIC).derive(shared)
    return ChaCha20Poly1305(key)


def _pad(body: bytes, num_bytes: int) -> bytes:
    if _LENGTH.size + len(body) > num_bytes:
        raise SealError("size")
    return (_LENGTH.pack(len(body)) + body).ljust(num_bytes, b"\0")


def _unpad(padded: bytes) -> bytes:
    if len(padded) < _LENGTH.size:
        raise SealError("malformed")
    (length,) = _LENGTH.unpack_from(padded)
    end = _LENGTH.size + length
    if end > len(padded) or padded.count(0, end) != len(padded) - end:
        raise SealError("malformed")
    return padded[_LENGTH.size : end]
