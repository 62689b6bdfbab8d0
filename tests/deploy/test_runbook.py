import os
import re
import subprocess
import sys
from pathlib import Path

from command_line import read_words
from runbook import RUNBOOK, commands

from feddp.deploy.certificates import days_left

ROOT = Path(__file__).parents[2]


def test_the_runbooks_keys_are_made_renewed_and_revoked_as_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"<!-- run -->\n```bash\n(.*?)```", RUNBOOK, re.DOTALL)
    assert len(blocks) == 5
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": str(ROOT)}
    script = "set -eu\n" + "".join(blocks)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    names = {"ca.crt", "ca.crl", "server.crt", "node-1.crt", "sidecar-1.crt"}
    assert set(days_left(tmp_path / "pki")) == names
    assert {path.name for path in (tmp_path / "node").iterdir()} == {
        "superexec.secret",
        "supernode",
        "supernode.pub",
    }


def test_the_commands_of_feddp_in_the_runbook_are_commands_of_feddp() -> None:
    found = commands("feddp")
    assert len(found) > 10
    for words in found:
        read_words(words[1:])


def test_every_file_that_the_runbook_names_is_there() -> None:
    named = set(re.findall(r"\bdeploy/[\w./*-]+[\w*]", RUNBOOK)) - {"deploy/secrets", "deploy/.env"}
    named = {path.removesuffix("/feddp-*") for path in named}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_unit_that_the_runbook_names_is_there() -> None:
    units = {path.stem for path in (ROOT / "deploy" / "systemd").glob("*.service")}
    commands = " ".join(re.findall(r"systemctl [^\n`]*", RUNBOOK))
    named = set(re.findall(r"feddp-[a-z-]*[a-z]", commands))
    assert named == units
