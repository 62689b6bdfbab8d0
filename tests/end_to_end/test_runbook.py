"""The runbook, verbatim, on a loopback fleet: a node is added, its keys rotated, it is revoked."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from runbook import command

from feddp.common.assembly import Part
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.deploy.fleet.fleet import HOST, Fleet, free_port
from feddp.deploy.fleet.run import fleet_of, located
from feddp.deploy.fleet.shares import Share
from feddp.deploy.fleet.supervisor import Child

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ROLES = ("node", "supernode", "superexec-node")
SMALL = {
    "run.rounds": 1,
    "sampling.expected-cohort-size": 20.0,
    "model.max-tokens": 32,
    "evaluation.every": 100,
    "evaluation.max-users": 10,
    "nodes.deadline-seconds": 200.0,
    "metrics.operator": True,
}
ONLINE = re.compile(r'feddp_nodes_online\{run="\w+"\} ([0-9.]+)')
REFUSED = re.compile(r'feddp_replies_invalid_total\{reason="([\w-]+)",run="\w+"\} ([0-9.]+)')


@dataclass
class Operator:
    """Types the runbook's commands, in the folder where its registry lies."""

    fleet: Fleet
    environment: dict[str, str]

    @property
    def place(self) -> Path:
        return self.fleet.folder

    def type(self, *start: str, **values: str) -> str:
        """The runbook's command that begins so, with values in the place of its capital words."""
        words = [values.get(word, word) for word in command(*start)]
        done = subprocess.run(
            words, cwd=self.place, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def supernodes(self) -> dict[str, str]:
        """State of each registered SuperNode, by its id."""
        words = [*command("flwr", "supernode", "list"), "--format", "json"]
        done = subprocess.run(
            words, cwd=self.place, env=self.environment, capture_output=True, text=True, check=True
        )
        return {str(node["node-id"]): node["status"] for node in json.loads(done.stdout)["nodes"]}

    def wait_until_online(self, number: int) -> None:
        end = time.monotonic() + 180
        while list(self.supernodes().values()).count("online") != number:
            assert time.monotonic() < end, self.supernodes()
            self.fleet.supervisor.tend()
            time.sleep(1.0)

    def run(self, config: RunConfig, name: str, *, minimum: int) -> tuple[float, dict[str, float]]:
        """(nodes online, refused replies by reason) when a run of one round has ended."""
        own = located(config, self.fleet)
        own = dataclasses.replace(
            own,
            run=dataclasses.replace(own.run, name=name),
            nodes=dataclasses.replace(own.nodes, minimum=minimum),
            metrics=dataclasses.replace(own.metrics, port=free_port()),
        )
        url, text = f"http://{HOST}:{own.metrics.port}/metrics", ""
        process = self.fleet.submit(own)
        while process.poll() is None:
            self.fleet.supervisor.tend()
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
            time.sleep(0.05)
        assert (Path(own.run.output_dir) / name / "adapter").exists()
        found = {reason: float(count) for reason, count in REFUSED.findall(text)}
        return float(ONLINE.findall(text)[0]), {k: v for k, v in found.items() if v}


def operator_of(fleet: Fleet) -> Operator:
    """An operator with the programs of this feddp, whose SuperLink is called as in the runbook."""
    programs, home = fleet.folder / "bin", fleet.folder / "home" / "cli"
    programs.mkdir()
    (programs / "feddp").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m feddp.simulations.cli "$@"\n'
    )
    (programs / "feddp").chmod(0o755)
    config = home / "config.toml"
    config.write_text(
        config.read_text()
        + config.read_text().split("\n", 2)[2].replace("superlink.loopback", "superlink.fleet")
    )
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "FLWR_HOME": str(home)}
    return Operator(fleet, environment)


def start_node(operator: Operator) -> None:
    """The three processes of the new node, as its units start them."""
    place, port = operator.place, str(free_port())
    for role in ROLES:
        (place / "node" / f"scratch-{role}").mkdir(mode=0o700)
        environment = {
            **operator.environment,
            "CREDENTIALS_DIRECTORY": str(place / "node"),
            "STATE_DIRECTORY": str(place / "node" / f"state-{role}"),
            "FEDDP_SCRATCH": str(place / "node" / f"scratch-{role}"),
            "FEDDP_SOCKET": str(place / "s" / "socket"),
            "FEDDP_CONFIG": str(place / "node.toml"),
            "FEDDP_NAME": "node-1",
            "FEDDP_NODE_PORT": port,
            "FEDDP_PORT": str(operator.fleet.port),
        }
        (place / "node" / f"state-{role}").mkdir(mode=0o700)
        role_command = ["sh", str(ROOT / "deploy" / "feddp-role"), role]
        log_path = operator.fleet.logs_path / f"new-{role}.log"
        operator.fleet.supervisor.start(Child(f"new-{role}", role_command, environment, log_path))


def restart(operator: Operator, role: str) -> None:
    child = operator.fleet.supervisor.children[f"new-{role}"]
    child.send(signal.SIGTERM)
    assert child.process is not None
    child.process.wait(60)
    child.start()


def add_node(operator: Operator) -> None:
    place = operator.place
    (place / "node").mkdir(mode=0o700)
    operator.type("python", "-m", "feddp.deploy.keys", "secret", "node/superexec.secret")
    operator.type("python", "-m", "feddp.deploy.keys", "supernode", "node/supernode")
    operator.type("feddp", "node", "keygen", "node/reply.key")
    shutil.copy(place / "node" / "reply.pub", place / "reply.pub")  # handed over
    shutil.copy(place / "keys" / "server.pub", place / "node" / "request.pub")
    shutil.copy(place / "certs" / "ca.crt", place / "node" / "ca.crt")
    operator.type("flwr", "supernode", "register", "node/supernode.pub")
    operator.type("feddp", "node", "enroll")
    start_node(operator)
    operator.wait_until_online(2)


def rotate_keys(operator: Operator) -> None:
    place, before = operator.place, operator.supernodes()
    operator.type("feddp", "node", "keygen", "reply-new.key")
    operator.type("feddp", "node", "rotate")
    shutil.copy(place / "reply-new.key", place / "node" / "reply.key")
    restart(operator, "node")
    operator.type("python", "-m", "feddp.deploy.keys", "supernode", "supernode-new")
    operator.type("flwr", "supernode", "register", "supernode-new.pub")
    shutil.copy(place / "supernode-new", place / "node" / "supernode")
    restart(operator, "supernode")
    operator.wait_until_online(2)
    (old,) = [node for node, state in operator.supernodes().items() if state != "online"]
    assert old in before
    operator.type("flwr", "supernode", "unregister", "OLD_ID", OLD_ID=old)


def test_a_node_is_added_its_keys_are_rotated_and_it_is_revoked(tmp_path: Path) -> None:
    config = from_flat({**SMALL, "run.output-dir": str(tmp_path / "runs")})
    share = Share(Part(0, 2), users=1300)
    with fleet_of(config, shares=[share], folder=tmp_path / "f") as fleet:
        operator = operator_of(fleet)
        operator.wait_until_online(1)
        (first,) = operator.supernodes()

        add_node(operator)
        assert operator.run(config, "added", minimum=2) == (2.0, {})

        rotate_keys(operator)
        assert operator.run(config, "rotated", minimum=2) == (2.0, {})

        operator.type("feddp", "node", "revoke")
        assert operator.run(config, "revoked", minimum=1) == (1.0, {})
        states = operator.supernodes()
        (second,) = [node for node in states if states[node] == "online" and node != first]
        operator.type("flwr", "supernode", "unregister", "NODE_ID", NODE_ID=second)
        assert "revoked" in operator.place.joinpath("nodes.toml").read_text()

        backup = {"/backup/NAME": str(tmp_path / "runs" / "revoked")}
        assert "head" in operator.type("feddp", "ledger", "verify", **backup)
