"""The two proxies as they ship, in front of a stub SuperLink on loopback."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from feddp.deploy.certificates import issue, make_ca, revoke

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONF = Path(__file__).parents[2] / "deploy" / "nginx"
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class StubSuperLink(BaseHTTPRequestHandler):
    """Answers whatever reaches it; what it should never see, it answers too."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.path} {len(content)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@dataclass(frozen=True)
class Fleet:
    folder: Path
    edge: int
    sidecar: int

    def connect(self, name: str | None, port: int) -> http.client.HTTPSConnection:
        """A connection with the certificate of that name, or without any."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if name:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return http.client.HTTPSConnection("localhost", port, context=context, timeout=10)

    def ask(
        self, path: str, content: bytes = b"", *, name: str | None = "node", port: int | None = None
    ) -> tuple[int, str]:
        """What such a client is answered."""
        with closing(self.connect(name, port or self.edge)) as connection:
            connection.request("POST", path, content)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def superlink(folder: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), StubSuperLink)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def proxy(folder: Path, name: str, port: int, upstream: int) -> Iterator[None]:
    """nginx on the configuration that ships; only addresses and scratch folders are changed."""
    text = (CONF / f"{name}.conf").read_text()
    for old, new in {
        "listen 8443": f"listen 127.0.0.1:{port}",
        "listen 127.0.0.1:8000": f"listen 127.0.0.1:{port}",
        "https://superlink:8000": f"https://127.0.0.1:{upstream}",
        "https://feddp-edge:8443": f"https://127.0.0.1:{upstream}",
        "/tmp/": f"{folder}/{name}-",
    }.items():
        text = text.replace(old, new)
    assert str(upstream) in text
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / f"{name}.conf").write_text(user + text)
    command = [str(NGINX), "-e", "stderr", "-c", str(folder / f"{name}.conf")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
    pytest.fail("nginx does not listen")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    make_ca(folder)
    issue(folder, "server", ["superlink", "feddp-edge", "localhost", "127.0.0.1"])
    issue(folder, "sidecar", ["localhost", "127.0.0.1"])
    for name in ("node", "flooding", "evicted"):
        issue(folder, name)
    revoke(folder, "evicted")
    edge, sidecar = free_port(), free_port()
    with ExitStack() as stack:
        upstream = stack.enter_context(superlink(folder))
        stack.enter_context(proxy(folder, "edge", edge, upstream))
        stack.enter_context(proxy(folder, "sidecar", sidecar, edge))
        yield Fleet(folder, edge, sidecar)


def test_a_node_reaches_the_fleet_paths(fleet: Fleet) -> None:
    assert fleet.ask("/v1/fleet/pull", b"abc") == (200, "/v1/fleet/pull 3")


def test_a_supernode_without_certificate_passes_through_its_sidecar(fleet: Fleet) -> None:
    answer = fleet.ask("/v1/fleet/push", b"x" * 5_000_000, name=None, port=fleet.sidecar)
    assert answer == (200, "/v1/fleet/push 5000000")


@pytest.mark.parametrize("name", [None, "evicted", "server"])
def test_without_a_valid_client_certificate_nothing_is_answered(
    fleet: Fleet, name: str | None
) -> None:
    code, text = fleet.ask("/v1/fleet/pull", name=name)
    assert code == 400
    assert "fleet" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/docs",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "/V1/fleet/pull",
    ],
)
def test_control_and_runtime_are_not_there(fleet: Fleet, path: str) -> None:
    for port in (fleet.edge, fleet.sidecar):
        assert fleet.ask(path, port=port)[0] == 404


def test_a_body_larger_than_any_chunk_is_refused_before_it_is_read(fleet: Fleet) -> None:
    with closing(fleet.connect("node", fleet.edge)) as connection:
        connection.putrequest("POST", "/v1/fleet/push")
        connection.putheader("Content-Length", "800000000")
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_older_tls_is_refused(fleet: Fleet) -> None:
    context = ssl.create_default_context(cafile=str(fleet.folder / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", fleet.edge), timeout=10) as stream,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(stream, server_hostname="localhost")


def test_a_flood_of_one_node_is_slowed_and_the_others_are_served(fleet: Fleet) -> None:
    codes = set()
    with closing(fleet.connect("flooding", fleet.edge)) as connection:
        for _ in range(300):
            connection.request("POST", "/v1/fleet/pull")
            answer = connection.getresponse()
            answer.read()
            codes.add(answer.status)
    assert codes == {200, 429}
    assert fleet.ask("/v1/fleet/pull")[0] == 200
