from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from feddp.common.errors import ConfigError
from feddp.common.wire.node_registry import Registry, read_registry, write_registry


def key(number: int) -> Ed25519PublicKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key()


ONE = Registry({}).enroll("ward-a", key(1), 12)


def test_the_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    registry = ONE.enroll("ward-b", key(2), 1).revoke("ward-b")
    write_registry(tmp_path / "nodes.toml", registry)
    assert read_registry(tmp_path / "nodes.toml") == registry
    assert [p.name for p in tmp_path.iterdir()] == ["nodes.toml"]


def test_a_rotated_key_replaces_the_old_one_and_keeps_the_users() -> None:
    entry = ONE.rotate("ward-a", key(2)).active["ward-a"]
    assert (entry.verifier(), entry.users) == (key(2), 12)


def test_a_revoked_node_is_not_active_and_its_name_and_key_stay_taken() -> None:
    revoked = ONE.revoke("ward-a")
    assert revoked.active == {}
    with pytest.raises(ConfigError, match="enrolled already"):
        revoked.enroll("ward-a", key(2), 1)
    with pytest.raises(ConfigError, match="has the key of"):
        revoked.enroll("ward-b", key(1), 1)
    with pytest.raises(ConfigError, match="no active node"):
        revoked.rotate("ward-a", key(2))


def test_names_and_numbers_are_checked() -> None:
    for name, users in (("a b", 1), ("", 1), ("ward-b", 0)):
        with pytest.raises(ConfigError):
            ONE.enroll(name, key(2), users)


@pytest.mark.parametrize(
    "content",
    [
        "[a]\n",
        "a = 1\n",
        '[a]\npublic-key = "xy"\nusers = 1\nstate = "active"\n',
        f'[a]\npublic-key = "{"0" * 64}"\nusers = true\nstate = "active"\n',
        f'[a]\npublic-key = "{"0" * 64}"\nusers = 1\nstate = "asleep"\n',
        '[a]\npublic-key = 7\nusers = 1\nstate = "active"\n',
        "[a\n",
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "nodes.toml").write_text(content)
    with pytest.raises(ConfigError, match=r"nodes\.toml"):
        read_registry(tmp_path / "nodes.toml")
