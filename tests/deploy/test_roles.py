"""Images, units and charts run the same commands on the same files."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from artefacts import (
    DEPLOY,
    ROLES,
    compose,
    compose_files,
    containers,
    pod_files,
    unit,
    unit_files,
    used_files,
)

ROLE = "/opt/feddp/bin/feddp-role"


@pytest.mark.parametrize("role", ROLES)
def test_unit_image_and_chart_run_the_same_command(role: str) -> None:
    assert dict(unit(role))["ExecStart"] == f"{ROLE} {role}"
    assert compose()["services"][role]["command"] == [role]
    assert containers()[role]["args"] == [role]
    assert "command" not in containers()[role]
    assert "entrypoint" not in compose()["services"][role]


def test_every_image_starts_the_role_script() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    stages = dockerfile.split("\nFROM ")[1:]
    assert dockerfile.count(f'ENTRYPOINT ["{ROLE}"]') == 2  # on Python, and on nginx
    by_name = {stage.split("\n")[0].split(" AS ")[1]: stage for stage in stages}
    assert set(by_name) == {"install", "base", "server", "node-cpu", "node-gpu", "proxy"}
    for name in ("base", "proxy"):
        assert "USER 65532:65532" in by_name[name]
        assert f"COPY deploy/feddp-role {ROLE}" in by_name[name]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_given_the_files_that_it_opens_and_no_others(role: str) -> None:
    files = used_files(role)
    assert files
    assert unit_files(role) == compose_files(role) == pod_files(role) == files


@pytest.fixture
def fake_programs(tmp_path: Path) -> dict[str, str]:
    """An environment in which every program prints its name and arguments, one a line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("flower-superlink", "flower-superexec", "flower-supernode", "feddp", "nginx"):
        program = programs / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@" "FLWR_HOME=$FLWR_HOME"\n')
        program.chmod(0o755)
    for name in ("secrets", "scratch"):
        (tmp_path / name).mkdir()
    for key in ("request.key", "reply.key"):  # as mounted: its group reads it
        (tmp_path / "secrets" / key).write_text("a key")
        (tmp_path / "secrets" / key).chmod(0o440)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CREDENTIALS_DIRECTORY": str(tmp_path / "secrets"),
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "FEDDP_SCRATCH": str(tmp_path / "scratch"),
        "FEDDP_SOCKET": str(tmp_path / "run" / "socket"),
        "FEDDP_NAME": "node-1",
    }


def start(role: str, environment: dict[str, str]) -> list[str]:
    command = ["sh", str(DEPLOY / "feddp-role"), role]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("role", ROLES)
def test_secrets_and_state_lie_where_the_supervisor_says(
    role: str, fake_programs: dict[str, str]
) -> None:
    words = start(role, fake_programs)
    assert words[-1] == f"FLWR_HOME={fake_programs['STATE_DIRECTORY']}/flower"
    secrets = fake_programs["CREDENTIALS_DIRECTORY"]
    opened = {Path(word).name for word in words if word.startswith(secrets)}
    assert opened <= used_files(role)
    assert opened


@pytest.mark.parametrize(
    ("role", "key"), [("superexec-server", "request.key"), ("node", "reply.key")]
)
def test_a_mounted_key_becomes_its_users_own(
    role: str, key: str, fake_programs: dict[str, str]
) -> None:
    words = start(role, fake_programs)
    own = Path(fake_programs["FEDDP_SCRATCH"]) / key
    assert own.stat().st_mode & 0o777 == 0o400
    assert own.read_text() == "a key"
    assert role == "superexec-server" or str(own) in words


def test_the_node_opens_its_socket_to_its_group_and_nobody_else(
    fake_programs: dict[str, str],
) -> None:
    start("node", fake_programs)
    assert Path(fake_programs["FEDDP_SOCKET"]).parent.stat().st_mode & 0o777 == 0o770


def test_a_node_has_a_ledger_where_its_environment_names_one(
    fake_programs: dict[str, str],
) -> None:
    assert "--ledger" not in start("node", {**fake_programs, "FEDDP_LEDGER": ""})
    words = start("node", {**fake_programs, "FEDDP_LEDGER": "/var/lib/feddp-node/n.sqlite"})
    assert words[words.index("--ledger") + 1] == "/var/lib/feddp-node/n.sqlite"


def test_the_superlink_listens_on_loopback_and_isolates_processes(
    fake_programs: dict[str, str],
) -> None:
    words = start("superlink", fake_programs)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--isolation") + 1] == "process"
    assert "--enable-supernode-auth" in words
    assert "--insecure" not in words


def test_an_unknown_role_is_refused() -> None:
    script = str(DEPLOY / "feddp-role")
    assert subprocess.run(["sh", script, "admin"], capture_output=True).returncode == 2
    assert subprocess.run(["sh", script], capture_output=True).returncode != 0
    assert Path(script).stat().st_mode & stat.S_IXUSR
