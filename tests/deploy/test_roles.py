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
    (programs / "install").write_text("#!/bin/sh\n")
    (programs / "install").chmod(0o755)
    secrets, state = str(tmp_path / "secrets"), str(tmp_path / "state")
    path = f"{programs}:{os.environ['PATH']}"
    return {"PATH": path, "CREDENTIALS_DIRECTORY": secrets, "STATE_DIRECTORY": state}


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
    assert opened or role == "node"


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
