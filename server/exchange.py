"""One round trip to many nodes over a Flower grid; a missing answer is reported with a reason."""

import time
from collections.abc import Iterator, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

POLL_SECONDS = 0.2
LATE, NOT_SENT, ERROR = "late", "not-sent", "error"
MESSAGE_TYPES = {"train": "train.round", "evaluate": "evaluate.users"}
DELIVERY_SECONDS = 5.0  # a question outlives the wait for its answer by this much


def ask(
    grid: Grid,
    kind: str,
    questions: Sequence[tuple[int, RecordDict]],
    *,
    group_id: str,
    deadline_seconds: float,
) -> Iterator[tuple[int, RecordDict | str]]:
    """Sends each node a question of one kind, "train" or "evaluate"; see `exchange`.

    Args:
      questions: node ids and what each is asked.
      group_id: names these messages in Flower's logs.
    """
    ttl = deadline_seconds + DELIVERY_SECONDS
    messages = [
        Message(content, node, MESSAGE_TYPES[kind], group_id=group_id, ttl=ttl)
        for node, content in questions
    ]
    return exchange(grid, messages, deadline_seconds=deadline_seconds)


def exchange(
    grid: Grid, messages: Sequence[Message], *, deadline_seconds: float
) -> Iterator[tuple[int, RecordDict | str]]:
    """Sends messages and yields (index of the message, content) as replies arrive, or (index,
    reason) with the reason "late", "not-sent" or "error".

    **Guarantee:** every message is reported exactly once, within the deadline plus one poll; a
    second answer to a message is ignored.
    """
    pushed = list(grid.push_messages(messages)) if messages else []
    pushed += [""] * (len(messages) - len(pushed))  # a refused batch has no ids
    pending = {message_id: i for i, message_id in enumerate(pushed) if message_id}
    yield from ((i, NOT_SENT) for i, message_id in enumerate(pushed) if not message_id)
    end = time.monotonic() + deadline_seconds
    while pending and time.monotonic() < end:
        for reply in grid.pull_messages(list(pending)):
            index = pending.pop(reply.metadata.reply_to_message_id, None)
            if index is not None:
                # An error's reason is text from a node: it is neither read nor logged.
                yield index, ERROR if reply.has_error() else reply.content
        time.sleep(POLL_SECONDS if pending else 0)
    yield from ((i, LATE) for i in pending.values())
