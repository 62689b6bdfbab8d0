"""A whole fleet on loopback, with TLS and keys: SuperLink, SuperNodes, resident nodes."""

import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import feddp
from feddp.common.config.run_config import RunConfig, to_toml
from feddp.common.errors import FeddpError
from feddp.common.wire.identity_keys import make_key, read_public_key
from feddp.common.wire.node_registry import Registry, write_registry
from feddp.deploy.certificates import issue, make_ca
from feddp.deploy.fleet.flower_app import APP_NAME, write_app
from feddp.deploy.fleet.shares import Share
from feddp.deploy.fleet.supervisor import Child, Supervisor
from feddp.deploy.keys import make_secret, make_supernode_key

HOST = "127.0.0.1"
STARTUP_SECONDS = 120.0
POLL_SECONDS = 0.25
NUM_CLI_AT_ONCE = 2
CONFIG_NAME, REGISTRY_NAME = "run.toml", "nodes.toml"
# Telemetry, update checks and installations at run time are off for every process of Flower.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
}


class FleetError(FeddpError):
    """A process of the fleet does not do what it should; the message names its log."""


@dataclass
class Fleet:
    """The processes of one loopback deployment, and the files they share.

    Attributes:
      folder: keys, logs and databases of this fleet; closed to others. Its path must be short
        enough for unix sockets.
      config: of the run that the resident nodes are built for.
      shares: what each node has, in order.
      is_sealed: nodes have keys, and replies are sealed to the server app.
      serve: the command of a resident node, without its arguments; a hostile one in tests.
    """

    folder: Path
    config: RunConfig
    shares: Sequence[Share]
    is_sealed: bool = True
    serve: Sequence[str] = (sys.executable, "-m", "feddp.simulations.cli", "node", "serve")
    supervisor: Supervisor = field(default_factory=Supervisor)
    port: int = 0

    @property
    def num_nodes(self) -> int:
        """SuperNodes, each with a resident node."""
        return len(self.shares)

    @property
    def registry_path(self) -> Path:
        """The registry of nodes that the server app reads."""
        return self.folder / REGISTRY_NAME

    @property
    def database_path(self) -> Path:
        """The relay's database."""
        return self.folder / "link.db"

    @property
    def logs_path(self) -> Path:
        """A log for each role."""
        return self.folder / "logs"

    def start(self, on_progress: Callable[[str], None]) -> None:
        """Makes all keys and starts everything; returns when the SuperLink has all nodes' keys.

        Raises:
          FleetError: it does not come up.
        """
        self._prepare()
        on_progress("SuperLink")
        self._start_link()
        self._wait_for_link()
        on_progress(f"keys of {self.num_nodes} nodes")
        with ThreadPoolExecutor(NUM_CLI_AT_ONCE) as pool:
            keys = [str(self._supernode_key(i)) + ".pub" for i in range(self.num_nodes)]
            list(pool.map(lambda key: self.flwr("supernode", "register", key, "loopback"), keys))
        on_progress(f"{self.num_nodes} SuperNodes and resident nodes")
        for i in range(self.num_nodes):
            self._start_node(i)

    def stop(self) -> None:
        """Ends every process of the fleet."""
        self.supervisor.stop()

    def submit(self, config: RunConfig) -> subprocess.Popen[bytes]:
        """Starts a Flower run of this configuration; the process follows its log until it ends."""
        path = self.folder / CONFIG_NAME
        path.write_text(to_toml(config), encoding="utf-8")
        run = ["run", str(self.folder / APP_NAME), "loopback", "--run-config", str(path)]
        command = [program("flwr"), *run, "--stream"]
        child = Child("run", command, self._environment("cli"), self._log("run"))
        child.start()
        assert child.process is not None
        return child.process

    def flwr(self, *arguments: str) -> str:
        """Runs one command of Flower's command line, and returns what it printed.

        Raises:
          FleetError: it failed.
        """
        done = subprocess.run(
            [program("flwr"), *arguments],
            env=self._environment("cli"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise FleetError(f"flwr {' '.join(arguments)}: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    def _prepare(self) -> None:
        self.folder.chmod(0o700)
        for name in ("logs", "certs", "keys", "sockets", "state"):
            (self.folder / name).mkdir(mode=0o700)
        make_ca(self.folder / "certs")
        issue(self.folder / "certs", "server", ["localhost", HOST])
        for role in ("link", "node"):
            make_secret(self.folder / f"{role}.secret")
        make_key(self.folder / "keys" / "server.key")
        registry = Registry({})
        for i, share in enumerate(self.shares):
            (self.folder / "state" / f"n{i}").mkdir(mode=0o700)
            make_supernode_key(self._supernode_key(i))
            public_path = make_key(self.folder / "keys" / f"node-{i}.key")
            registry = registry.enroll(f"node-{i}", read_public_key(public_path), share.users)
        write_registry(self.registry_path, registry)
        (self.folder / "node.toml").write_text(to_toml(self.config), encoding="utf-8")
        write_app(self.folder / APP_NAME)

    def _start_link(self) -> None:
        self.port = free_port()
        certs = self.folder / "certs"
        address = f"{HOST}:{self.port}"
        cli = self.folder / "home" / "cli"
        cli.mkdir(parents=True)
        (cli / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{address}"\n'
            f'root-certificates = "{certs / "ca.crt"}"\n',
            encoding="utf-8",
        )
        secret = {"--superexec-auth-secret-file": self.folder / "link.secret"}
        link = {
            "--isolation": "process",
            **secret,
            "--ssl-ca-certfile": certs / "ca.crt",
            "--ssl-certfile": certs / "server.crt",
            "--ssl-keyfile": certs / "server.key",
            "--database": self.database_path,
            "--host": HOST,
            "--port": self.port,
        }
        switches = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        self._start("superlink", "link", ["flower-superlink", *words(link), *switches])
        executor = {"--runtime-api-address": address, "--root-certificates": certs / "ca.crt"}
        self._start("server-executor", "exec", ["flower-superexec", *words({**executor, **secret})])

    def _start_node(self, i: int) -> None:
        port, address = free_port(), f"unix:{self.folder / 'sockets' / f'n{i}'}"
        secret = {"--superexec-auth-secret-file": self.folder / "node.secret"}
        keys, share = self.folder / "keys", self.shares[i]
        part = f"{share.part.index}/{share.part.num_parts}"
        node: dict[str, object] = {"--part": part, "--address": address}
        if self.is_sealed:
            node["--name"] = f"node-{i}"
            node["--key"] = keys / f"node-{i}.key"
            node["--server-key"] = keys / "server.pub"
            node["--state"] = self.folder / "state" / f"n{i}" / "asked.json"
        if share.ledger is not None:
            node["--ledger"] = share.ledger
        supernode = {
            "--isolation": "process",
            **secret,
            "--root-certificates": self.folder / "certs" / "ca.crt",
            "--superlink": f"{HOST}:{self.port}",
            "--auth-supernode-private-key": self._supernode_key(i),
            "--host": HOST,
            "--port": port,
            "--node-config": f'trainer="{address}"',
        }
        executor = {"--runtime-api-address": f"{HOST}:{port}", **secret}
        home = f"n{i}"
        config_path = str(self.folder / "node.toml")
        self._start(f"node-{i}", home, [*self.serve, config_path, *words(node)])
        self._start(f"supernode-{i}", home, ["flower-supernode", *words(supernode)])
        insecure = "--insecure"  # the SuperNode's own port on loopback has no certificate
        self._start(f"node-executor-{i}", home, ["flower-superexec", insecure, *words(executor)])

    def _start(self, name: str, home: str, command: Sequence[str]) -> None:
        found = [program(command[0]), *command[1:]]
        self.supervisor.start(Child(name, found, self._environment(home), self._log(name)))

    def _wait_for_link(self) -> None:
        context = ssl.create_default_context(cafile=str(self.folder / "certs" / "ca.crt"))
        end = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < end:
            try:
                url = f"https://{HOST}:{self.port}/health"
                with urllib.request.urlopen(url, timeout=5, context=context):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(POLL_SECONDS)
                self.supervisor.tend()
        raise FleetError(f"The SuperLink does not answer; see {self._log('superlink')}.")

    def _environment(self, home: str) -> dict[str, str]:
        """The environment of one role: a home of its own, and this copy of feddp to import."""
        own = {
            "FLWR_HOME": str(self.folder / "home" / home),
            "PYTHONPATH": prepended(Path(feddp.__file__).parents[1], "PYTHONPATH"),
            # An executor finds the programs of Flower by name, also where no environment is active.
            "PATH": prepended(Path(sys.executable).parent, "PATH"),
        }
        return {**os.environ, **ENVIRONMENT, **own}

    def _supernode_key(self, i: int) -> Path:
        return self.folder / "keys" / f"supernode-{i}"

    def _log(self, name: str) -> Path:
        return self.logs_path / f"{name}.log"


def words(flags: Mapping[str, object]) -> list[str]:
    """Flags with a value each, as words of a command."""
    return [str(word) for pair in flags.items() for word in pair]


def prepended(folder: Path, variable: str) -> str:
    """The search path of an environment variable, with a folder that is searched first."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(variable, "")]))


def program(name: str) -> str:
    """The path of a program that is installed beside this Python; a path stays what it is."""
    return str(Path(sys.executable).parent / name)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
