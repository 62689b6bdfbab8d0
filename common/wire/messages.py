"""The wire contract: typed requests and replies <-> Flower's RecordDict, validated on arrival."""

import math
from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from feddp.common.evaluation import Evaluation
from feddp.common.privacy.ledger.remembered_head import MAX_PROOF_ROWS, HeadClaim
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.privacy.mechanism.noise import MAX_SCALE
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.records import MessageError

VERSION = 2
MAX_GRID_STEPS = 1 << 24
MAX_SEED_DIGITS = 40
FLAT_FLOAT32 = "feddp.float32.v1"
FLAT_INT64 = "feddp.int64.v1"
DIGESTS = "feddp.digests.v1"
LEDGER, PROOF = "ledger", "proof"
NUM_DIGEST_BYTES, NUM_SIGNATURE_BYTES = 32, 64
MAX_POPULATION, MAX_ROWS = 1000, 1 << 62
T = TypeVar("T")


@dataclass(frozen=True)
class TrainRequest:
    """What a node needs to train in one round; all of it is public.

    Attributes:
      round: from 1.
      adapter: float32, shape (P,), the adapter that every drawn user starts from.
      layout_sha256: names, order and shapes behind the P numbers.
      draw: who takes part.
      clipping_norm: C of this round, the L2 bound of one unit's update.
      grid_steps: K, the L2 bound of one unit's integer vector.
      bit_steps: steps of the clip bit, sent as one more number; 0 where the norm is fixed.
      noise_scale: 0 where the server app adds the noise; else the standard deviation, in grid
        steps, of the noise that every node adds before its sum leaves it.
      seed: None is fresh entropy; a number derives coins and batches from it (not private).
      head: where the ledger behind the request stands; nodes with a memory refuse an older one.
      num_encoded: Q, numbers of an encoded update. It is not sent: each side knows its encoding.
        None: P.
    """

    round: int
    adapter: NDArray[np.float32]
    layout_sha256: str
    draw: Draw
    clipping_norm: float
    grid_steps: int
    bit_steps: int
    noise_scale: int
    seed: int | None
    head: HeadClaim | None = None
    num_encoded: int | None = None

    @property
    def sum_dimension(self) -> int:
        """Numbers of a reply: those of an encoded update, and one for the clip bits."""
        num_encoded = len(self.adapter) if self.num_encoded is None else self.num_encoded
        return num_encoded + (self.bit_steps > 0)


@dataclass(frozen=True)
class TrainReply:
    """A node's exact sum over its drawn units, without a count or a loss.

    It is sensitive as an `UpdateSum`, and public as a `NoisedSum` where the node added the noise.
    """

    round: int
    layout_sha256: str
    total: UpdateSum | NoisedSum


@dataclass(frozen=True)
class EvaluateRequest:
    """Asks for the loss of an adapter on a node's declared evaluation users."""

    adapter: NDArray[np.float32]
    layout_sha256: str


def encode_train_request(request: TrainRequest) -> RecordDict:
    """TrainRequest -> RecordDict."""
    config = ConfigRecord(
        {
            "version": VERSION,
            "round": request.round,
            "layout": request.layout_sha256,
            "sampling-probability": request.draw.probability,
            "cohort-size": request.draw.cohort_size,
            "num-units": request.draw.num_units,
            "separation": request.draw.separation,
            "salt": request.draw.salt,
            "clipping-norm": request.clipping_norm,
            "grid-steps": request.grid_steps,
            "bit-steps": request.bit_steps,
            "noise-scale": request.noise_scale,
            "seed": "auto" if request.seed is None else str(request.seed),
        }
    )
    adapter = _pack(request.adapter, FLAT_FLOAT32)
    return RecordDict({"adapter": adapter, "config": config, **_encode_head(request.head)})


def decode_train_request(
    content: RecordDict, *, dimension: int, num_encoded: int | None = None
) -> TrainRequest:
    """RecordDict -> TrainRequest, or MessageError."""
    with_head = {LEDGER, PROOF} if LEDGER in content else set()
    config = _config(content, {"adapter", "config"} | with_head)
    seed = _get(config, "seed", str)
    request = TrainRequest(
        round=_get(config, "round", int),
        adapter=_unpack(content, "adapter", FLAT_FLOAT32, dimension).astype(np.float32),
        layout_sha256=_get(config, "layout", str),
        draw=_draw(config),
        clipping_norm=_get(config, "clipping-norm", float),
        grid_steps=_get(config, "grid-steps", int),
        bit_steps=_get(config, "bit-steps", int),
        noise_scale=_get(config, "noise-scale", int),
        seed=_seed(seed),
        head=_decode_head(content) if with_head else None,
        num_encoded=num_encoded,
    )
    norm, steps, bit = request.clipping_norm, request.grid_steps, request.bit_steps
    if not (0 < norm < math.inf and 1 <= steps <= MAX_GRID_STEPS and 0 <= bit < steps):
        raise MessageError("clipping norm or grid steps out of range")
    if request.noise_scale and not 2 <= request.noise_scale <= MAX_SCALE:
        raise MessageError("noise scale out of range")
    return request


def _draw(config: ConfigRecord) -> Draw:
    try:
        return Draw(
            probability=_get(config, "sampling-probability", float),
            cohort_size=_get(config, "cohort-size", int),
            num_units=_get(config, "num-units", int),
            separation=_get(config, "separation", int),
            salt=_get(config, "salt", str),
        )
    except ValueError as error:
        raise MessageError("a draw out of range") from error


def _encode_head(head: HeadClaim | None) -> dict[str, ConfigRecord | ArrayRecord]:
    if head is None:
        return {}
    said = {
        "population": head.population,
        "epoch": head.epoch,
        "seq": head.seq,
        "head": head.head.hex(),
        "signature": head.signature.hex(),
    }
    proof = Array("uint8", (len(head.proof), NUM_DIGEST_BYTES), DIGESTS, b"".join(head.proof))
    return {LEDGER: ConfigRecord(said), PROOF: ArrayRecord({"vector": proof})}


def _decode_head(content: RecordDict) -> HeadClaim:
    """The claim in a request; its sizes are checked here, its truth by `HeadMemory`."""
    said, record = content.config_records.get(LEDGER), content.array_records.get(PROOF)
    if said is None or record is None or list(record) != ["vector"] or len(said) != 5:
        raise MessageError("not a claim of a ledger's head and its proof")
    proof, size = record["vector"], NUM_DIGEST_BYTES
    epoch, seq = _get(said, "epoch", int), _get(said, "seq", int)
    num_rows = len(proof.data) // size
    if proof.stype != DIGESTS or tuple(proof.shape) != (num_rows, size):
        raise MessageError("a proof of the wrong type or shape")
    if not 1 <= num_rows <= min(seq, MAX_PROOF_ROWS) or len(proof.data) != num_rows * size:
        raise MessageError("a proof of the wrong size")
    population = _get(said, "population", str)
    if not (0 < len(population) <= MAX_POPULATION and 0 < epoch <= seq <= MAX_ROWS):
        raise MessageError("a ledger's name or counts out of range")
    return HeadClaim(
        population=population,
        epoch=epoch,
        seq=seq,
        head=_hex(said, "head", NUM_DIGEST_BYTES),
        signature=_hex(said, "signature", NUM_SIGNATURE_BYTES),
        proof=tuple(proof.data[i * size : (i + 1) * size] for i in range(num_rows)),
    )


def _hex(config: ConfigRecord, key: str, num_bytes: int) -> bytes:
    text = _get(config, key, str)
    if len(text) != 2 * num_bytes or set(text) - set("0123456789abcdef"):
        raise MessageError(f"{key}: not so many bytes in hexadecimal digits")
    return bytes.fromhex(text)


def _seed(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > MAX_SEED_DIGITS:
        raise MessageError("a seed that is no number")
    return int(text)


def encode_train_reply(reply: TrainReply) -> RecordDict:
    """TrainReply -> RecordDict: one array, of the same size whichever units were drawn."""
    config = ConfigRecord({"version": VERSION, "round": reply.round, "layout": reply.layout_sha256})
    return RecordDict({"sum": _pack(reply.total.total, FLAT_INT64), "config": config})


def decode_train_reply(
    content: RecordDict, *, dimension: int, is_noised: bool = False
) -> TrainReply:
    """RecordDict -> TrainReply of `dimension` integers, or MessageError.

    `is_noised`: the request asked for noise of the node's own.
    """
    config = _config(content, {"sum", "config"})
    vector = _unpack(content, "sum", FLAT_INT64, dimension).astype(np.int64)
    return TrainReply(
        round=_get(config, "round", int),
        layout_sha256=_get(config, "layout", str),
        total=NoisedSum.from_node(vector) if is_noised else UpdateSum(vector),
    )


def encode_evaluate_request(request: EvaluateRequest) -> RecordDict:
    """EvaluateRequest -> RecordDict."""
    config = ConfigRecord({"version": VERSION, "layout": request.layout_sha256})
    return RecordDict({"adapter": _pack(request.adapter, FLAT_FLOAT32), "config": config})


def decode_evaluate_request(content: RecordDict, *, dimension: int) -> EvaluateRequest:
    """RecordDict -> EvaluateRequest, or MessageError."""
    config = _config(content, {"adapter", "config"})
    adapter = _unpack(content, "adapter", FLAT_FLOAT32, dimension).astype(np.float32)
    return EvaluateRequest(adapter=adapter, layout_sha256=_get(config, "layout", str))


def encode_evaluate_reply(reply: Evaluation) -> RecordDict:
    """Evaluation -> RecordDict; public, since the evaluation users are by declaration."""
    sums = MetricRecord({name: getattr(reply, field.name) for name, field in _sums().items()})
    return RecordDict({"evaluation": sums, "config": ConfigRecord({"version": VERSION})})


def decode_evaluate_reply(content: RecordDict) -> Evaluation:
    """RecordDict -> Evaluation, or MessageError."""
    _config(content, {"evaluation", "config"})
    sums, expected = content.metric_records.get("evaluation"), _sums()
    if sums is None or set(sums) != set(expected):
        raise MessageError("evaluation reply without its sums")
    if any(type(sums[name]) is not field.type for name, field in expected.items()):
        raise MessageError("evaluation sums of the wrong type")
    values: dict[str, Any] = {field.name: sums[name] for name, field in expected.items()}
    reply = Evaluation(**values)
    if not reply.is_sound:
        raise MessageError("evaluation sums out of range")
    return reply


def _sums() -> dict[str, Field[Any]]:
    """The fields of an evaluation, by their names in a message."""
    return {field.name.replace("_", "-"): field for field in fields(Evaluation)}


def _pack(vector: NDArray[np.float32] | NDArray[np.int64], stype: str) -> ArrayRecord:
    little = np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<"))
    array = Array(str(vector.dtype), vector.shape, stype, little.tobytes())
    return ArrayRecord({"vector": array})


def _unpack(content: RecordDict, name: str, stype: str, dimension: int) -> NDArray[np.generic]:
    """The flat vector called `name`; every size is proven before numpy sees a byte."""
    record = content.array_records.get(name)
    if record is None or list(record) != ["vector"]:
        raise MessageError(f"{name}: not exactly one vector")
    array = record["vector"]
    dtype = "<f4" if stype == FLAT_FLOAT32 else "<i8"
    if array.stype != stype or tuple(array.shape) != (dimension,):
        raise MessageError(f"{name}: wrong type or shape")
    if len(array.data) != dimension * np.dtype(dtype).itemsize:
        raise MessageError(f"{name}: wrong number of bytes")
    return np.frombuffer(array.data, dtype=dtype)


def _config(content: RecordDict, names: set[str]) -> ConfigRecord:
    config = content.config_records.get("config")
    if set(content) != names or config is None:
        raise MessageError("not the records of this message")
    if config.get("version") != VERSION:
        raise MessageError(f"unknown message version; this side speaks {VERSION}")
    return config


def _get(config: ConfigRecord, key: str, kind: type[T]) -> T:
    value = config.get(key)
    if type(value) is not kind:
        raise MessageError(f"{key}: missing or of the wrong type")
    return value
