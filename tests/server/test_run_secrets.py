"""Secrets lie beside the run folders, and are gone when a run has ended."""

import stat
from pathlib import Path

import pytest

from feddp.server.run_secrets import (
    LEDGER_KEY,
    NODE_LEDGER,
    POPULATION,
    destroy_secrets,
    make_secrets_folder,
    secret_path,
    secrets_folder,
)


def test_the_folder_lies_beside_the_run_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = make_secrets_folder(tmp_path / "run")
    assert folder == secrets_folder(tmp_path / "run") == tmp_path / ".secrets" / "run"
    for path in (folder, folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_is_left_of_a_deleted_run_is_replaced(tmp_path: Path) -> None:
    (make_secrets_folder(tmp_path / "run") / LEDGER_KEY).write_text("old")
    assert list(make_secrets_folder(tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "before"),
    [
        (LEDGER_KEY, "ledger.sqlite.key"),
        (NODE_LEDGER, "node-ledger.sqlite"),
        (POPULATION, "population.json"),
        ("secrets", "secrets/"),
    ],
)
def test_a_run_of_before_goes_on_with_the_secrets_in_its_folder(
    tmp_path: Path, name: str, before: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert secret_path(run, name) == tmp_path / ".secrets" / "run" / name
    (run / before).mkdir() if before.endswith("/") else (run / before).write_text("secret")
    assert secret_path(run, name) == run / before
    destroy_secrets(run)
    assert list(run.iterdir()) == []


def test_destroying_leaves_other_runs_alone_and_may_be_done_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (make_secrets_folder(tmp_path / name) / LEDGER_KEY).write_text(name)
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "node-ledger.sqlite.answer-1").write_text("of before")
    for _ in range(2):
        destroy_secrets(tmp_path / "a")
        assert list((tmp_path / "a").iterdir()) == []
        assert (secrets_folder(tmp_path / "b") / LEDGER_KEY).read_text() == "b"
    destroy_secrets(tmp_path / "b")
    assert not (tmp_path / ".secrets").exists()
