from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.cli.supernode.register import try_load_public_key

from feddp.deploy.commands import run_tool
from feddp.deploy.keys import KeyExistsError, app, make_secret, make_supernode_key


def test_flower_reads_both_halves_of_a_supernode_key(tmp_path: Path) -> None:
    public_path = make_supernode_key(tmp_path / "keys" / "node-1")
    private = load_ssh_private_key((tmp_path / "keys" / "node-1").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert try_load_public_key(public_path)


def test_keys_and_secrets_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    make_supernode_key(tmp_path / "node-1")
    secret = make_secret(tmp_path / "superexec.secret")
    assert {path.stat().st_mode & 0o777 for path in (secret, tmp_path / "node-1")} == {0o600}


def test_a_secret_is_48_bytes_and_never_the_same(tmp_path: Path) -> None:
    first, second = (make_secret(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert len(first) == len(second) == 48
    assert first != second


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for make in (make_secret, make_supernode_key):
        path = tmp_path / make.__name__
        make(path)
        before = path.read_bytes()
        with pytest.raises(KeyExistsError):
            make(path)
        assert path.read_bytes() == before


def test_the_commands_print_where_the_key_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("supernode", "secret"):
        path = str(tmp_path / kind)
        assert run_tool(app, "keys", [kind, path]) == 0
        assert path in capsys.readouterr().out
        assert run_tool(app, "keys", [kind, path]) == 1
        assert "exists already" in capsys.readouterr().err
