from pathlib import Path

import pytest

from common.registry import read_registry
from simulations.cli import main


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


def test_a_deployment_without_nodes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert feddp("deploy", "local", "--nodes", 0) == 2
    assert "--nodes 0" in capsys.readouterr().err
    assert feddp("deploy", "resume", "/nowhere") == 2
