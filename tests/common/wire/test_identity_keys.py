from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from feddp.common.wire.identity_keys import make_key, read_private_key, read_public_key


def test_a_key_pair_is_read_back_and_belongs_together(tmp_path: Path) -> None:
    public_path = make_key(tmp_path / "node.key")
    private = read_private_key(tmp_path / "node.key")
    assert private.public_key() == read_public_key(public_path)
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o400


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    make_key(tmp_path / "node.key")
    with pytest.raises(ConfigError, match="never overwritten"):
        make_key(tmp_path / "node.key")


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o444)
    with pytest.raises(ConfigError, match="others can read"):
        read_private_key(tmp_path / "node.key")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_public_key(path)
    path.write_text("hello")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a private key"):
        read_private_key(path)
    with pytest.raises(ConfigError, match="not a public key"):
        read_public_key(path)
