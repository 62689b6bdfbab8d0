import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from flower_grid import InProcessGrid
from flwr.app import ConfigRecord, Message, RecordDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from feddp.client.app import app as client_app
from feddp.client.service.resident import UNIX, ResidentError, ask_resident, read_token, token_path
from feddp.client.service.service import NodeService, check_address, make_token
from feddp.common.errors import ConfigError
from feddp.common.wire.records import MessageError, opaque, pack
from feddp.common.wire.sealing import SealError

SECRET = "user 42 has a secret"


@contextmanager
def serving(folder: Path, answer: Callable[[str, RecordDict], RecordDict]) -> Iterator[str]:
    folder.chmod(0o700)
    address = f"{UNIX}{folder / 's'}"
    service = NodeService(answer, address=address, token=make_token(token_path(address)))
    service.start()
    try:
        yield address
    finally:
        service.stop()


def echo(kind: str, content: RecordDict) -> RecordDict:
    return content


def ask(address: str, packed: bytes, *, token: str | None = None, seconds: float = 20.0) -> bytes:
    shown = read_token(token_path(address)) if token is None else token
    return ask_resident(address, shown, "train", packed, seconds=seconds)


def refusal(address: str, packed: bytes, **options: object) -> str:
    with pytest.raises(ResidentError) as caught:
        ask(address, packed, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_ten_megabytes_come_back_as_they_went(tmp_path: Path) -> None:
    packed = pack(opaque(bytes(10_000_000)))
    with serving(tmp_path, echo) as address:
        assert ask(address, packed) == packed


def test_a_caller_without_the_token_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, echo) as address:
        for token in ("", "x", "\N{SNOWMAN}".encode().hex()):
            assert refusal(address, pack(RecordDict()), token=token) == "unauthorized"


def test_whatever_fails_is_told_as_a_fixed_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [
        RuntimeError(SECRET),
        KeyError(SECRET),
        MessageError(SECRET),
        SealError("stale"),
    ]

    def fail(kind: str, content: RecordDict) -> RecordDict:
        raise failures.pop(0)

    caplog.set_level(logging.DEBUG, logger="feddp")
    with serving(tmp_path, fail) as address:
        codes = [refusal(address, pack(RecordDict())) for _ in range(4)]
        assert codes == ["node-error", "node-error", "refused", "stale"]
        assert refusal(address, b"no records") == "refused"
    assert SECRET not in caplog.text


def test_a_node_that_is_away_or_slow_is_absent(tmp_path: Path) -> None:
    assert refusal(f"{UNIX}{tmp_path / 'none'}", b"", token="x", seconds=0.2) == "node-absent"
    is_done = threading.Event()

    def wait(kind: str, content: RecordDict) -> RecordDict:
        is_done.wait(20)
        return content

    with serving(tmp_path, wait) as address:
        assert refusal(address, pack(RecordDict()), seconds=0.2) == "node-absent"
        is_done.set()


def test_health_is_answered_while_the_node_trains(tmp_path: Path) -> None:
    has_begun, is_done = threading.Event(), threading.Event()

    def train(kind: str, content: RecordDict) -> RecordDict:
        has_begun.set()
        is_done.wait(20)
        return content

    with serving(tmp_path, train) as address:
        caller = threading.Thread(target=ask, args=(address, pack(RecordDict())))
        caller.start()
        assert has_begun.wait(20)
        with grpc.insecure_channel(address) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        is_done.set()
        caller.join(20)
    assert status.status == health_pb2.HealthCheckResponse.SERVING


def test_addresses_that_others_could_reach_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for address in (
        f"{UNIX}{tmp_path / 's'}",
        "unix:relative",
        f"{UNIX}/{'x' * 200}",
        "0.0.0.0:5000",
        "localhost:5000",
        "127.0.0.1:port",
    ):
        with pytest.raises(ConfigError, match=r"address|closed to others"):
            check_address(address)
    check_address("127.0.0.1:5000")


def hello(node_config: dict[str, str]) -> Message:
    grid = InProcessGrid(client_app, [node_config], {})
    (node,) = grid.get_node_ids()
    message = Message(RecordDict(), node, "query.hello", group_id="1", ttl=4.0)
    (reply,) = grid.send_and_receive([message])
    return reply


def test_the_client_app_hands_its_message_to_the_resident_node(tmp_path: Path) -> None:
    def tell(kind: str, content: RecordDict) -> RecordDict:
        return RecordDict({"config": ConfigRecord({"name": kind})})

    with serving(tmp_path, tell) as address:
        assert hello({"trainer": address}).content.config_records["config"]["name"] == "hello"


def test_the_client_app_tells_a_fixed_code_where_the_node_is_away(tmp_path: Path) -> None:
    reply = hello({"trainer": f"{UNIX}{tmp_path / 'none'}"})
    assert (reply.error.code, reply.error.reason) == (1000, "node-absent")


def test_the_client_app_imports_nothing_heavy() -> None:
    heavy = "'torch', 'transformers', 'scipy', 'dp_accounting', 'datasets'"
    code = f"import feddp.client.app, sys; sys.exit(any(m in sys.modules for m in ({heavy})))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
