"""Where the secrets of a run lie: beside the run folders, and never in one."""

import shutil
from contextlib import suppress
from pathlib import Path

SECRETS = ".secrets"
LEDGER_KEY, NODE_LEDGER, POPULATION = "ledger.key", "node-ledger.sqlite", "population.json"
# Where runs of before kept them, in their own folder.
_BEFORE = {LEDGER_KEY: "ledger.sqlite.key"}
_NAMES = ("ledger.sqlite.key", "population.json", "secrets")
_PATTERN = "node-ledger.sqlite*"


def secrets_folder(run_path: Path) -> Path:
    """The folder of a run's secrets: `.secrets/NAME` beside the run folder NAME.

    **Guarantee:** a run folder, finished, stopped or crashed, may be given away: nothing in it
    helps to remove noise, to sign for the ledger, or to learn who was drawn.
    """
    return run_path.absolute().parent / SECRETS / run_path.absolute().name


def make_secrets_folder(run_path: Path) -> Path:
    """Makes the folder of a new run's secrets, which only its owner can read.

    What is there under this name belongs to a run that was deleted, or never appeared.
    """
    folder = secrets_folder(run_path)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    return folder


def secret_path(run_path: Path, name: str) -> Path:
    """Path of a secret; a run of before has it in its own folder, and goes on with it there."""
    before = run_path / _BEFORE.get(name, name)
    return before if before.exists() else secrets_folder(run_path) / name


def destroy_secrets(run_path: Path) -> None:
    """Deletes all secrets of a run that has no charge left; done again at each later start."""
    shutil.rmtree(secrets_folder(run_path), ignore_errors=True)
    with suppress(OSError):
        secrets_folder(run_path).parent.rmdir()  # if no other run has any
    for path in [*(run_path / name for name in _NAMES), *run_path.glob(_PATTERN)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
