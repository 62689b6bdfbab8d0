"""How a client app asks its resident node: bytes over gRPC, with a token and a time limit."""

from pathlib import Path

import grpc

SERVICE = "feddp.Node"
METHODS = {"train": "Train", "evaluate": "Evaluate", "hello": "Hello"}
# gRPC's own limit of 4 MB is below an adapter.
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
CODES = ("unauthorized", "refused", "stale", "busy", "node-error", "node-absent")
UNIX = "unix:"


class ResidentError(Exception):
    """The resident node did not answer; its text is one of `CODES`."""


def ask_resident(address: str, token: str, kind: str, packed: bytes, *, seconds: float) -> bytes:
    """The packed answer of the node at `address` ("unix:/path" or "127.0.0.1:port").

    Raises:
      ResidentError: absent, too slow, or refusing.
    """
    method = f"/{SERVICE}/{METHODS[kind]}"
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        try:
            call = channel.unary_unary(method)
            # Waits for a restarting node, within the limit.
            reply: bytes = call(packed, timeout=seconds, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            code = error.details() if isinstance(error, grpc.Call) else ""
            raise ResidentError(code if code in CODES else "node-absent") from error
    return reply


def token_path(address: str) -> Path:
    """Default place of the token of a node with a unix socket."""
    return Path(address.removeprefix(UNIX) + ".token")


def read_token(path: Path) -> str:
    """The token in a file; ResidentError if it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ResidentError("node-absent") from error
