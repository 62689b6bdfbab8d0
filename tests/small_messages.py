"""Valid messages of five numbers, from which tests make invalid ones."""

import dataclasses

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from feddp.common.privacy.ledger.remembered_head import HeadClaim
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import (
    TrainReply,
    TrainRequest,
    encode_train_reply,
    encode_train_request,
)

P = 5
TURNS = Draw(0.1, separation=3, salt="ab" * 32)
CLAIM = HeadClaim("p", 2, 5, b"h" * 32, b"s" * 64, tuple(bytes([i]) * 32 for i in range(3)))


def request(seed: int | None = 3, draw: Draw = TURNS) -> TrainRequest:
    """A request whose reply has one number more, for the clip bits."""
    return TrainRequest(
        round=2,
        adapter=np.linspace(-1, 1, P, dtype=np.float32),
        layout_sha256="ab",
        draw=draw,
        clipping_norm=0.5,
        grid_steps=1 << 20,
        bit_steps=7,
        noise_scale=0,
        seed=seed,
    )


def headed() -> RecordDict:
    """A request with the head of its ledger."""
    return encode_train_request(dataclasses.replace(request(), head=CLAIM))


def reply(values: NDArray[np.int64]) -> RecordDict:
    """A node's sum of these grid points."""
    total = UpdateSum.zeros(len(values))
    total.add(values)
    return encode_train_reply(TrainReply(2, "ab", total))
