"""Validates replies and adds their sums; invalid ones count as zero."""

from collections.abc import Iterator, Sequence

from feddp.common.privacy.mechanism.clipping import is_within
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import TrainReply, TrainRequest

MAX_SUM = 1 << 62
MAX_NOISED = 1 << 53
MAX_NOISED_PARTS = 512  # their sum stays below 2^62


def add_replies(
    replies: Sequence[TrainReply],
    request: TrainRequest,
    *,
    num_units: int,
    max_units_per_node: int,
    max_sum: int = MAX_SUM,
) -> UpdateSum:
    """The exact sum of all valid replies of one round: int64, sensitive.

    **Guarantee:** the result is an integer sum, so it does not depend on the order of replies or on
    how units are spread over nodes. A reply of another round, layout or length, or one whose L2
    norm exceeds `max_units_per_node` times K, contributes zero. Each reply is judged on its own: if
    one could be refused because of others, a hostile node could make a single user decide whether
    a whole node counts. To rule out overflow, at most `max_sum` over that norm replies are added.

    Args:
      replies: at most one per node.
      num_units: the declared number of users, or of examples where examples are drawn.
      max_units_per_node: most units that one node holds; 1 rechecks the clip of every unit.
      max_sum: largest entry of a sum that the mechanism has room for.
    """
    total = UpdateSum.zeros(request.sum_dimension)
    limit = min(num_units, max_units_per_node) * request.grid_steps
    room = max_sum // limit
    for reply in _ours(replies, request):
        if isinstance(reply.total, NoisedSum) or not is_within(reply.total.total, limit):
            continue
        if room > 0:
            total.merge(reply.total)
            room -= 1
    return total


def add_noised_replies(replies: Sequence[TrainReply], request: TrainRequest) -> NoisedSum:
    """The public sum of all valid replies of nodes that added the noise themselves.

    A reply of another round, layout or length, one without noise, or one with an entry beyond
    2^53, which no honest node comes near, contributes zero.
    """
    parts = [
        reply.total
        for reply in _ours(replies, request)
        if isinstance(reply.total, NoisedSum)
        and max(int(reply.total.total.max()), -int(reply.total.total.min())) <= MAX_NOISED
    ]
    return NoisedSum.sum(parts[:MAX_NOISED_PARTS], request.sum_dimension)


def _ours(replies: Sequence[TrainReply], request: TrainRequest) -> Iterator[TrainReply]:
    """The replies to this request that have the requested length."""
    for reply in replies:
        is_ours = (reply.round, reply.layout_sha256) == (request.round, request.layout_sha256)
        if is_ours and len(reply.total.total) == request.sum_dimension:
            yield reply
