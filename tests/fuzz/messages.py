"""Hostile messages: RecordDicts near the contract, as a node or a relay could send them."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from small_messages import P, headed, reply, request

from feddp.common.evaluation import Evaluation
from feddp.common.wire.messages import (
    EvaluateRequest,
    decode_evaluate_reply,
    decode_evaluate_request,
    decode_train_reply,
    decode_train_request,
    encode_evaluate_reply,
    encode_evaluate_request,
    encode_train_reply,
    encode_train_request,
)
from fuzz.changes import change_bytes, change_tree

VALID: Mapping[str, RecordDict] = {
    "train request": encode_train_request(request()),
    "headed train request": headed(),
    "train reply": reply(np.arange(P)),
    "evaluate request": encode_evaluate_request(EvaluateRequest(request().adapter, "ab")),
    "evaluate reply": encode_evaluate_reply(Evaluation(1.5, 10, 3)),
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
        tree = change_tree(rng, TREES[name])
        try:
            if rng.random() < 0.1:  # the records of another message
                tree |= TREES[rng.choice(list(TREES))]
            return RecordDict({key: _as_record(rng, record) for key, record in tree.items()})
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


def _as_record(rng: Random, record: dict[str, Any]) -> ArrayRecord | ConfigRecord | MetricRecord:
    ((kind, entries),) = record.items()
    if kind == "arrays":
        return ArrayRecord({key: _as_array(rng, parts) for key, parts in entries.items()})
    if id(record) in UNCHANGED:
        return UNCHANGED[id(record)]
    return (ConfigRecord if kind == "config" else MetricRecord)(entries)


def _as_array(rng: Random, parts: Mapping[str, Any]) -> Array:
    data = parts["data"]
    if not isinstance(data, bytes):  # the wire carries nothing else
        raise TypeError("not bytes")
    if rng.random() < 0.2:
        data = change_bytes(rng, data)
    return Array(parts["dtype"], tuple(parts["shape"]), parts["stype"], data)


TREES = {name: _as_tree(content) for name, content in VALID.items()}
# Most of the time would go into Flower's checks of records that are as they were.
UNCHANGED = {
    id(TREES[name][key]): record
    for name, content in VALID.items()
    for key, record in content.items()
    if not isinstance(record, ArrayRecord)
}
