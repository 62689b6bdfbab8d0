"""The resident node: model and users loaded once, asked over gRPC by short-lived client apps."""

import hmac
import logging
import secrets
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from flwr.app import RecordDict
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from feddp.client.refusal import RefusedError
from feddp.client.service.resident import METHODS, SERVICE, UNIX, UNLIMITED
from feddp.common.disk import Disk
from feddp.common.errors import ConfigError
from feddp.common.wire.records import MessageError, pack, unpack
from feddp.common.wire.sealing import SealError

MAX_SOCKET_PATH = 107
GRACE_SECONDS = 5.0
NUM_THREADS = 4  # one trains; the others answer health checks and refuse
Answer = Callable[[str, RecordDict], RecordDict]
log = logging.getLogger("feddp.node")


class NodeService:
    """Answers one question at a time; every failure is reported as one of a few fixed codes.

    `token`: what callers must show.

    Raises:
      ConfigError: the address cannot be used, or others could reach it.
    """

    def __init__(self, answer: Answer, *, address: str, token: str):
        self._answer = answer
        self._token = f"Bearer {token}"
        self._training = threading.Lock()
        check_address(address)
        self._server = grpc.server(ThreadPoolExecutor(NUM_THREADS), options=UNLIMITED)
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(self._handler(kind))
            for kind, method in METHODS.items()
        }
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"--address {address}: cannot be listened on.") from error

    def start(self) -> None:
        """Accepts questions from now on."""
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def stop(self) -> None:
        """Gives the question in progress a few seconds to end, then stops."""
        self._server.stop(GRACE_SECONDS).wait()

    def _handler(self, kind: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def handle(packed: bytes, context: grpc.ServicerContext) -> bytes:
            """The answer to one packed question, for who shows the token."""
            shown = dict(context.invocation_metadata()).get("authorization", "")
            if not hmac.compare_digest(str(shown).encode(), self._token.encode()):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthorized")
            # An abandoned question may still be in progress: wait as long as the caller does.
            if not self._training.acquire(timeout=context.time_remaining() or 0.0):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
            try:
                reply, code = self._try(kind, packed)
            finally:
                self._training.release()
            if reply is None:
                context.abort(grpc.StatusCode.INTERNAL, code)
            return reply or b""

        return handle

    def _try(self, kind: str, packed: bytes) -> tuple[bytes | None, str]:
        """(reply, "") or (None, fixed code)."""
        try:
            return pack(self._answer(kind, unpack(packed))), ""
        except MessageError as error:
            is_stale = isinstance(error, SealError) and error.code == "stale"
            code = "stale" if is_stale else "refused"
            if isinstance(error, RefusedError):
                log.warning("%s: refused: %s", kind, error.code)
                return None, code
        except Exception as error:  # deliberately broad; its text could hold user data
            log.error("the node failed: %s", type(error).__name__)
            code = "node-error"
        log.warning("%s: %s", kind, code)
        return None, code


def serve_until_stopped(service: NodeService, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    service.start()
    ready()
    stopped.wait()
    service.stop()


def make_token(path: Path) -> str:
    """A fresh token, in a file that the owner and the group can read, as the umask allows."""
    token = secrets.token_urlsafe(32)
    Disk().replace(path, f"{token}\n".encode(), mode=0o640)
    return token


def check_address(address: str) -> None:
    """Refuses an address that other machines or other users could reach.

    Raises:
      ConfigError: neither a unix socket in a private folder nor a port of 127.0.0.1.
    """
    if not address.startswith(UNIX):
        host, _, port = address.rpartition(":")
        if host != "127.0.0.1" or not port.isdecimal():
            raise ConfigError(
                f"--address {address}: must be unix:/path/to/socket or 127.0.0.1:port."
            )
        return
    path = Path(address.removeprefix(UNIX))
    if not path.is_absolute() or len(str(path)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"--address {address}: must be an absolute path of at most {MAX_SOCKET_PATH} bytes."
        )
    if not path.parent.is_dir() or path.parent.stat().st_mode & 0o007:
        raise ConfigError(
            f"{path.parent}: must be a folder closed to others; `mkdir -m 700 {path.parent}`."
        )
