"""ClientApp: a thin shim to the node."""

import functools
import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.build import build_node
from client.node import Node
from common.build import Part, load_model, load_users, pin_threads
from common.config import from_flat
from common.messages import (
    decode_evaluate_request,
    decode_train_request,
    encode_evaluate_reply,
    encode_train_reply,
)

NODE_FAILED = 1000
log = logging.getLogger("feddp.node")
app = ClientApp()


@app.train("round")
def train_round(message: Message, context: Context) -> Message:
    """One round: the node's update sum."""

    def answer(node: Node) -> Message:
        request = decode_train_request(message.content, dimension=node.dimension)
        return Message(encode_train_reply(node.train(request)), reply_to=message)

    return _guarded(answer, message, context)


@app.evaluate("users")
def evaluate_users(message: Message, context: Context) -> Message:
    """Loss on the node's declared evaluation users."""

    def answer(node: Node) -> Message:
        request = decode_evaluate_request(message.content, dimension=node.dimension)
        return Message(encode_evaluate_reply(node.evaluate(request)), reply_to=message)

    return _guarded(answer, message, context)


def _guarded(answer: Callable[[Node], Message], message: Message, context: Context) -> Message:
    """The answer, or an error with a fixed text: an exception's own text could hold user data."""
    try:
        return answer(_node_of(context))
    except Exception as error:  # a fence: an exception's own text could hold user data
        log.error("the node failed: %s", type(error).__name__)
        return Message(Error(NODE_FAILED, "node-error"), reply_to=message)


def _node_of(context: Context) -> Node:
    """The node of this process, built at its first message and kept.

    The users come from the node's own configuration where it names them (`data-path`), else from
    the run's; in a simulation, partition `partition-id` of `num-partitions` of them.
    """
    own = context.node_config
    settings = dict(context.run_config)
    if "data-path" in own:
        settings["data.path"] = own["data-path"]
    part = (int(own.get("partition-id", 0)), int(own.get("num-partitions", 1)))
    return _build(tuple(sorted(settings.items())), part)


@functools.lru_cache(maxsize=8)
def _build(settings: tuple[tuple[str, object], ...], part: tuple[int, int]) -> Node:
    config = from_flat(dict(settings))
    pin_threads(config)
    base, layout = load_model(config)
    return build_node(config, base, layout, *load_users(config, Part(*part)))
