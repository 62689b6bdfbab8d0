"""ClientApp: a thin shim to the node.

Flower starts a new process for every message, so nothing heavy is imported here: where the node's
configuration names a resident node (`trainer`), the message is handed on to it.
"""

import atexit
import functools
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from feddp.client.refusal import RefusedError
from feddp.client.service.resident import ResidentError, ask_resident, read_token, token_path
from feddp.common.wire.records import pack, unpack

NODE_FAILED = 1000
# The part of a message's time to live that Flower needs to fetch it, start a process and reply.
TRANSPORT_SECONDS = 15.0
Answer = Callable[[str, RecordDict], RecordDict]
log = logging.getLogger("feddp.node")
app = ClientApp()
_until_exit = ExitStack()  # ledgers, held as long as the nodes that charge them
atexit.register(_until_exit.close)


@app.train("round")
def train_round(message: Message, context: Context) -> Message:
    """One round: the node's update sum."""
    return _guarded("train", message, context)


@app.evaluate("users")
def evaluate_users(message: Message, context: Context) -> Message:
    """Loss on the node's declared evaluation users."""
    return _guarded("evaluate", message, context)


@app.query("hello")
def say_hello(message: Message, context: Context) -> Message:
    """The node's name in the registry: a claim until a signature proves it."""
    return _guarded("hello", message, context)


def _guarded(kind: str, message: Message, context: Context) -> Message:
    """The answer, or an error with a fixed text: an exception's own text could hold user data."""
    code = "node-error"
    try:
        return Message(_answerer(message, context)(kind, message.content), reply_to=message)
    except ResidentError as error:
        code = str(error)
    except RefusedError as error:
        code = "refused"
        log.warning("%s: refused: %s", kind, error.code)
    except Exception as error:  # deliberately broad; never log its text
        log.error("the node failed: %s", type(error).__name__)
    return Message(Error(NODE_FAILED, code), reply_to=message)


def _answerer(message: Message, context: Context) -> Answer:
    own = context.node_config
    if "trainer" not in own:
        return _node_of(context)
    address = str(own["trainer"])
    token = read_token(Path(str(own.get("trainer-token") or token_path(address))))
    ttl = message.metadata.ttl
    seconds = max(ttl - TRANSPORT_SECONDS, ttl / 2)

    def answer(kind: str, content: RecordDict) -> RecordDict:
        """Asks the resident node."""
        return unpack(ask_resident(address, token, kind, pack(content), seconds=seconds))

    return answer


def _node_of(context: Context) -> Answer:
    """The node of this process, built at its first message and kept.

    The users come from the node's own configuration if it names them (`data-path`), otherwise from
    the run's; in a simulation, from partition `partition-id` of `num-partitions`. A node with its
    own ledger (`ledger`) adds the noise itself, whatever the run's configuration says: the ledger
    accepts only the plan it was made for. A node with `state-dir` remembers the server app's ledger
    there and refuses an older one; `ledger-public-key` (hexadecimal) pins that ledger's key.
    """
    own = context.node_config
    settings = dict(context.run_config)
    if "data-path" in own:
        settings["data.path"] = own["data-path"]
    if "ledger" in own:
        settings["privacy.trust"] = "node"
    part = (int(own.get("partition-id", 0)), int(own.get("num-partitions", 1)))
    build: Callable[..., Answer] = _build  # lru_cache drops the signature
    names = ("ledger", "ledger-key", "state-dir", "ledger-public-key")
    files = tuple(str(own.get(name, "")) for name in names)
    return build(tuple(sorted(settings.items())), part, files)


@functools.lru_cache(maxsize=8)
def _build(
    settings: tuple[tuple[str, object], ...],
    part: tuple[int, int],
    files: tuple[str, str, str, str],
) -> Answer:
    from feddp.client.assembly import holds_too_many, open_part
    from feddp.client.service.answer import answer
    from feddp.client.service.known_ledgers import KnownLedgers
    from feddp.common.assembly import Part
    from feddp.common.config.run_config import from_flat

    ledger, ledger_key, state, public_key = files
    known_ledgers = KnownLedgers(Path(state), bytes.fromhex(public_key) or None) if state else None
    config = from_flat(dict(settings))
    # An untrusted server app could find the number of users by trying one bound after another.
    if config.privacy.trust != "node" and holds_too_many(config, Part(*part)):
        raise RefusedError("too-many-users")
    opened = open_part(
        config,
        Part(*part),
        ledger=Path(ledger) if ledger else None,
        ledger_key=Path(ledger_key) if ledger_key else None,
        name=str(Part(*part)),
    )
    node = _until_exit.enter_context(opened)
    return lambda kind, content: answer(node, kind, content, None, known_ledgers)
