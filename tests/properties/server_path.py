"""Everything between raw updates and the total: clip, node sums, the wire, validation, addition."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import (
    TrainReply,
    TrainRequest,
    decode_train_reply,
    encode_train_reply,
)
from feddp.server.aggregation import add_replies

Update = NDArray[np.floating]
NUM_USERS, P, C, K = 64, 7, 0.5, 1 << 24
REQUEST = TrainRequest(3, np.zeros(P, np.float32), "ab", Draw(), C, K, 0, 0, None)


def node_reply(updates: Sequence[Update]) -> TrainReply:
    """What a node with these users answers, as it arrives."""
    total = UpdateSum.zeros(P)
    for update in updates:
        total.add(clip_to_grid(update, clipping_norm=C, grid_steps=K))
    return arrived(total)


def arrived(total: UpdateSum) -> TrainReply:
    """A sum after its way over the wire."""
    sent = TrainReply(REQUEST.round, REQUEST.layout_sha256, total)
    return decode_train_reply(encode_train_reply(sent), dimension=P)


def add(replies: Sequence[TrainReply]) -> NDArray[np.int64]:
    """The total of a round."""
    return add_replies(
        replies, REQUEST, num_units=NUM_USERS, max_units_per_node=NUM_USERS
    ).total.copy()


def squares(difference: NDArray[np.int64]) -> int:
    """The exact squared L2 norm, in Python integers."""
    return sum(int(entry) ** 2 for entry in difference)


def odd_update(rng: np.random.Generator) -> Update:
    """A random update, often a hostile one: huge, tiny, not finite, or of exactly the norm."""
    update = rng.normal(size=P) * 10.0 ** rng.uniform(-9, 9)
    match rng.integers(8):
        case 0:
            update = update * (C / np.linalg.norm(update))
        case 1:
            update[rng.integers(P)] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -0.0])
        case 2:
            update = rng.choice([3e38, -3e38, 1e-45, 1.1754944e-38, 0.0], size=P)
        case 3:
            update = np.zeros(P)
        case 4:
            update = rng.integers(-2, 3, size=P) * C * rng.choice([0.1, 0.25, 0.5, 1.0])
    return update.astype(rng.choice([np.float32, np.float64]))
