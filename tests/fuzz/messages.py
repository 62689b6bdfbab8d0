"""Hostile messages: RecordDicts near the contract, as a node or a relay could send them."""

import dataclasses
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.messages import (
    EvaluateReply,
    EvaluateRequest,
    TrainReply,
    TrainRequest,
    decode_evaluate_reply,
    decode_evaluate_request,
    decode_train_reply,
    decode_train_request,
    encode_evaluate_reply,
    encode_evaluate_request,
    encode_train_reply,
    encode_train_request,
)
from common.privacy.anchor import HeadClaim
from common.privacy.sampling import Draw
from common.privacy.summation import UpdateSum
from fuzz.changes import change_bytes, change_tree

P = 6
ADAPTER = np.linspace(-1, 1, P, dtype=np.float32)
REQUEST = TrainRequest(2, ADAPTER, "ab", Draw(0.1), 0.5, 1 << 20, 8, 0, 3)
HEAD = HeadClaim("p", 1, 3, b"h" * 32, b"s" * 64, (b"a" * 32, b"b" * 32))
VALID: Mapping[str, RecordDict] = {
    "train request": encode_train_request(REQUEST),
    "headed train request": encode_train_request(dataclasses.replace(REQUEST, head=HEAD)),
    "train reply": encode_train_reply(TrainReply(2, "ab", UpdateSum(np.arange(P)))),
    "evaluate request": encode_evaluate_request(EvaluateRequest(ADAPTER, "ab")),
    "evaluate reply": encode_evaluate_reply(EvaluateReply(1.5, 10, 3)),
}
# Decoding, and what encodes the result again.
MESSAGES: Mapping[str, tuple[Callable[[RecordDict], Any], Callable[[Any], RecordDict]]] = {
    "train request": (lambda c: decode_train_request(c, dimension=P), encode_train_request),
    "headed train request": (
        lambda c: decode_train_request(c, dimension=P),
        encode_train_request,
    ),
    "train reply": (lambda c: decode_train_reply(c, dimension=P), encode_train_reply),
    "evaluate request": (
        lambda c: decode_evaluate_request(c, dimension=P),
        encode_evaluate_request,
    ),
    "evaluate reply": (decode_evaluate_reply, encode_evaluate_reply),
}


def make_message(rng: Random, name: str) -> RecordDict:
    """A changed message of this name; changes that Flower's own types refuse are drawn again."""
    while True:
        tree = change_tree(rng, _as_tree(VALID[name]))
        try:
            if rng.random() < 0.1:  # the records of another message
                tree |= _as_tree(VALID[rng.choice(list(VALID))])
            return _as_message(rng, tree)
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError):
            continue


def _as_tree(content: RecordDict) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = {
                key: {"dtype": a.dtype, "shape": list(a.shape), "stype": a.stype, "data": a.data}
                for key, a in record.items()
            }
            tree[name] = {"arrays": arrays}
        else:
            kind = "config" if isinstance(record, ConfigRecord) else "metrics"
            tree[name] = {kind: dict(record)}
    return tree


def _as_message(rng: Random, tree: dict[str, Any]) -> RecordDict:
    content = RecordDict()
    for name, record in tree.items():
        ((kind, entries),) = record.items()
        if kind == "arrays":
            content[name] = ArrayRecord({key: _as_array(rng, a) for key, a in entries.items()})
        else:
            content[name] = (ConfigRecord if kind == "config" else MetricRecord)(entries)
    return content


def _as_array(rng: Random, parts: Mapping[str, Any]) -> Array:
    data = parts["data"]
    if not isinstance(data, bytes):  # the wire carries nothing else
        raise TypeError("not bytes")
    if rng.random() < 0.2:
        data = change_bytes(rng, data)
    return Array(parts["dtype"], tuple(parts["shape"]), parts["stype"], data)
