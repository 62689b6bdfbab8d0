"""One round trip to many nodes over a Flower grid; a missing answer comes with its reason."""

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
    """Puts a question of one kind, "train" or "evaluate", to each of these nodes; see `exchange`.

    Args:
      grid: Flower's way to its nodes.
      kind: of MESSAGE_TYPES.
      questions: node ids and what each is asked.
      group_id: what Flower's logs call these messages.
      deadline_seconds: longest wait.
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
    """Sends messages and yields what comes back, as it comes: (index of the message, content), or
    (index, reason) for "late", "not-sent" and "error".

    **Guarantee:** every message is reported exactly once, within the deadline and one poll; a
    second answer to a message is ignored.
    """
    pushed = list(grid.push_messages(messages)) if messages else []
    pushed += [""] * (len(messages) - len(pushed))  # nothing comes back from a refused batch
    pending = {message_id: i for i, message_id in enumerate(pushed) if message_id}
    yield from ((i, NOT_SENT) for i, message_id in enumerate(pushed) if not message_id)
    end = time.monotonic() + deadline_seconds
    while pending and time.monotonic() < end:
        for reply in grid.pull_messages(list(pending)):
            index = pending.pop(reply.metadata.reply_to_message_id, None)
            if index is not None:
                # The reason of an error is a node's text: it is neither read nor logged.
                yield index, ERROR if reply.has_error() else reply.content
        time.sleep(POLL_SECONDS if pending else 0)
    yield from ((i, LATE) for i in pending.values())
