import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from flwr.app import RecordDict

from feddp.client.service.resident import ask_resident, read_token, token_path
from feddp.client.service.service import NodeService
from feddp.common.wire.node_registry import read_registry
from feddp.common.wire.records import pack
from feddp.simulations.cli import main


def feddp(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_node_is_enrolled_rotated_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "nodes.toml"
    for name in ("a", "b"):
        assert feddp("node", "keygen", tmp_path / f"{name}.key") == 0
    enroll = ("node", "enroll", registry, "ward", "--users", 12)
    assert feddp(*enroll, "--public-key", tmp_path / "a.pub") == 0
    before = read_registry(registry).active["ward"].public_key
    assert feddp("node", "rotate", registry, "ward", "--public-key", tmp_path / "b.pub") == 0
    assert read_registry(registry).active["ward"].public_key != before
    capsys.readouterr()
    assert feddp("node", "list", registry) == 0
    assert "12 users  active" in capsys.readouterr().out
    assert feddp("node", "revoke", registry, "ward") == 0
    assert read_registry(registry).active == {}
    assert feddp(*enroll, "--public-key", tmp_path / "b.pub") == 2
    assert "enrolled already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--address", "0.0.0.0:1"), "unix:/path"),
        (("--address", "127.0.0.1:1"), "--token"),
        (("--address", "unix:{}/s", "--part", "2/2"), "--part 2/2"),
        (("--address", "unix:{}/s", "--name", "ward"), "--key: missing"),
        (("--address", "unix:{}/s", "--set", "run.round=1"), "run.rounds"),
        (("--address", "unix:{}/s", "--set", "privacy.trust=node"), "Name its ledger: --ledger"),
        (("--address", "unix:{}/s", "--ledger", "{}/l"), 'Set privacy.trust = "node"'),
        (
            ("--address", "unix:{}/s", "--set", "privacy.trust=node", "--ledger", "{}/l"),
            "feddp ledger create",
        ),
        (
            ("--address", "unix:{}/s", "--set", "nodes.users-per-node=2"),
            "nodes.users-per-node = 2: this node holds more users. Give it fewer",
        ),
    ],
)
def test_a_wrong_word_is_one_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    tmp_path.chmod(0o700)
    assert feddp("node", *(word.format(tmp_path) for word in words)) == 2
    assert text in capsys.readouterr().err


def test_a_resident_node_is_built_asked_and_closed_in_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    threads: list[int] = []

    def note() -> None:
        threads.append(threading.get_ident())

    def answerer(
        config: object, given: object, stack: ExitStack
    ) -> Callable[[str, RecordDict], RecordDict]:
        note()
        stack.callback(note)

        def answer(kind: str, content: RecordDict) -> RecordDict:
            note()
            return content

        return answer

    address = f"unix:{tmp_path}/n"

    def serve(service: NodeService, ready: Callable[[], None]) -> None:
        service.start()
        for _ in range(2):
            token = read_token(token_path(address))
            ask_resident(address, token, "hello", pack(RecordDict()), seconds=10)
        service.stop()

    monkeypatch.setattr("feddp.simulations.commands.node._answerer", answerer)
    monkeypatch.setattr("feddp.client.service.service.serve_until_stopped", serve)
    assert main(["node", "serve", "--address", address]) == 0
    assert len(threads) == 4
    assert len(set(threads)) == 1
