import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from feddp.deploy.certificates import (
    CertificateError,
    app,
    days_left,
    issue,
    make_ca,
    renew,
    renew_crl,
    revoke,
)
from feddp.deploy.commands import run_tool

SERVER, NODE, STRANGER = "server", "node-1", "node-2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server, and two nodes of which the second is revoked."""
    folder = tmp_path_factory.mktemp("authority")
    make_ca(folder)
    issue(folder, SERVER, ["localhost", "127.0.0.1", "fleet.example.org"])
    issue(folder, NODE)
    issue(folder, STRANGER)
    assert revoke(folder, STRANGER) == 1
    return folder


def edge_context(folder: Path, name: str = SERVER) -> ssl.SSLContext:
    """As the edge proxy is set: TLS 1.3, a client certificate demanded, the list looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    context.load_verify_locations(folder / "ca.crt")
    context.load_verify_locations(folder / "ca.crl")
    return context


def node_context(folder: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if name:
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return context


def is_admitted(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> bool:
    """Whether one byte passes from server to client after both have looked at each other."""
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as stream:
                stream.sendall(b"!")
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=host) as stream:
            return stream.recv(1) == b"!"
    except OSError:
        near.close()
        return False
    finally:
        thread.join()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "fleet.example.org"])
def test_a_node_with_a_certificate_is_admitted_under_every_name_of_the_server(
    folder: Path, host: str
) -> None:
    assert is_admitted(edge_context(folder), node_context(folder, NODE), host)


def test_a_server_under_another_name_is_refused(folder: Path) -> None:
    assert not is_admitted(edge_context(folder), node_context(folder, NODE), "other.example.org")


def test_a_node_without_certificate_is_refused(folder: Path) -> None:
    assert not is_admitted(edge_context(folder), node_context(folder, None))


def test_a_revoked_node_is_refused(folder: Path) -> None:
    assert not is_admitted(edge_context(folder), node_context(folder, STRANGER))


def test_a_node_of_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    make_ca(tmp_path)
    issue(tmp_path, NODE)
    stranger = node_context(folder, None)
    stranger.load_cert_chain(tmp_path / f"{NODE}.crt", tmp_path / f"{NODE}.key")
    assert not is_admitted(edge_context(folder), stranger)


def test_a_node_cannot_pose_as_the_server_nor_the_server_as_a_node(folder: Path) -> None:
    assert not is_admitted(edge_context(folder, NODE), node_context(folder, NODE))
    assert not is_admitted(edge_context(folder), node_context(folder, SERVER))


def test_private_keys_are_readable_by_their_owner_alone(folder: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}
    assert modes["ca.key"] == modes["server.key"] == modes["node-1.key"] == 0o600
    assert all(mode == 0o644 for name, mode in modes.items() if not name.endswith(".key"))


def test_renewal_keeps_the_hosts_and_changes_the_key(tmp_path: Path) -> None:
    make_ca(tmp_path)
    issued = issue(tmp_path, SERVER, ["localhost", "::1"], days=10)
    before, key = issued.certificate_path.read_bytes(), issued.key_path.read_bytes()
    renew(tmp_path, SERVER)
    old, new = (
        x509.load_pem_x509_certificate(content)
        for content in (before, issued.certificate_path.read_bytes())
    )
    names = [
        each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for each in (old, new)
    ]
    assert names[0] == names[1]
    assert issued.key_path.read_bytes() != key
    assert new.not_valid_after_utc - old.not_valid_after_utc > datetime.timedelta(days=300)


def test_revoking_refuses_the_renewed_and_the_earlier_certificate(tmp_path: Path) -> None:
    make_ca(tmp_path)
    issue(tmp_path, SERVER, ["localhost"])
    issue(tmp_path, NODE)
    earlier = node_context(tmp_path, NODE)
    renew(tmp_path, NODE)
    assert is_admitted(edge_context(tmp_path), earlier)
    assert revoke(tmp_path, NODE) == 2
    assert not is_admitted(edge_context(tmp_path), earlier)
    assert not is_admitted(edge_context(tmp_path), node_context(tmp_path, NODE))
    assert revoke(tmp_path, NODE) == 0
    issue(tmp_path, NODE)  # the name may be used again, with a fresh key
    assert is_admitted(edge_context(tmp_path), node_context(tmp_path, NODE))


def test_signing_the_list_again_keeps_what_it_says(folder: Path) -> None:
    renew_crl(folder)
    assert not is_admitted(edge_context(folder), node_context(folder, STRANGER))
    assert is_admitted(edge_context(folder), node_context(folder, NODE))


def test_days_left_names_everything_that_can_expire(folder: Path) -> None:
    left = days_left(folder)
    assert set(left) == {"ca.crt", "ca.crl", "server.crt", "node-1.crt", "node-2.crt"}
    assert left["ca.crt"] in (3649, 3650)
    assert left["server.crt"] in (364, 365)


@pytest.mark.parametrize("name", ["", "ca", "../x", "a b", "Node", "-a", "x" * 64])
def test_an_impossible_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(CertificateError, match="name"):
        issue(folder, name)


def test_impossible_hosts_and_days_are_refused(folder: Path) -> None:
    with pytest.raises(CertificateError, match="host"):
        issue(folder, "other", ["not a host"])
    with pytest.raises(CertificateError, match="days"):
        issue(folder, "other", days=0)
    assert not (folder / "other.key").exists()


def test_an_authority_is_never_overwritten(folder: Path) -> None:
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(CertificateError, match="never overwritten"):
        make_ca(folder)
    assert (folder / "ca.key").read_bytes() == before


def run(*arguments: str) -> int:
    return run_tool(app, "certificates", arguments)


def test_the_commands_make_list_and_revoke(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    assert run("ca", folder) == 0
    assert run("issue", folder, SERVER, "localhost", "127.0.0.1") == 0
    assert run("issue", folder, NODE, "--days", "7") == 0
    assert run("list", folder) == 1
    assert "renew now" in capsys.readouterr().out
    assert run("renew", folder, NODE) == 0
    assert run("list", folder) == 0
    assert run("revoke", folder, NODE) == 0
    assert "2 revoked" in capsys.readouterr().out


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["issue", str(tmp_path), NODE], ["list", str(tmp_path)]):
        assert run(*arguments) == 1
    run("ca", str(tmp_path))
    assert run("revoke", str(tmp_path), NODE) == 1
    assert run("renew", str(tmp_path), NODE) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("certificates: ") for line in lines)
