"""A run folder is a release: an allow-list of files, no secret, no time, however the run ended."""

import re
from pathlib import Path
from typing import Any

import pytest

import feddp
from feddp.common.config.run_config import RunConfig
from feddp.common.disk import TIME_NS
from feddp.common.errors import BudgetSpentError
from feddp.server import release
from feddp.server.run_secrets import secrets_folder

SMALL: dict[str, Any] = {
    "run.rounds": 3,
    "run.name": "r",
    "sampling.expected-cohort-size": 20,
    "model.max-tokens": 16,
    "data.max-examples-per-user": 1,
    "evaluation.max-users": 5,
    "privacy.noise-multiplier": 6.0,
    "privacy.target-epsilon": 30,
}
TURNS = {"sampling.separation": 2, "sampling.expected-cohort-size": 600}
CASES: dict[str, dict[str, Any]] = {
    "poisson": {},
    "fixed-size": {"privacy.mechanism": "fixed-size"},
    "blt": {"privacy.mechanism": "blt"} | TURNS,
    "banded": {"privacy.mechanism": "banded"} | TURNS,
    "cyclic-poisson": {"privacy.mechanism": "cyclic-poisson"} | TURNS,
    "node": {"privacy.trust": "node"},
    "quantile": {"privacy.clipping": "quantile", "privacy.clipping-bit-noise": 10.0},
}
SEPARATE = "sampling.expected-cohort-size"  # turns follow from the separation alone
ALLOWED = re.compile(
    r"config\.toml|plan\.json|ledger\.sqlite(\.lock)?|metrics\.jsonl|privacy\.json|result\.json"
    r"|curves\.png|command\.txt|report\.html|checkpoints(/round-\d{6}-attempt-\d+\.safetensors)?"
    r"|adapter(/(README\.md|adapter_config\.json|adapter_model\.safetensors|privacy\.json))?"
)


class Crash(BaseException):
    """The process is gone."""


def config_of(folder: Path, case: str) -> RunConfig:
    settings = SMALL | CASES[case] | {"run.output-dir": str(folder)}
    if case in ("blt", "banded"):
        del settings[SEPARATE]
    return feddp.load_config(None, settings)


def secrets_of(run: Path) -> list[bytes]:
    """The bytes of every secret of a run, in every form that a file could hold them in."""
    files = [path for path in secrets_folder(run).rglob("*") if path.is_file()]
    keys = [path.read_bytes().strip() for path in files if path.suffix == ".key"]
    return [
        form for key in keys for form in (key, bytes.fromhex(key.decode()) if _is_hex(key) else key)
    ]


def _is_hex(key: bytes) -> bool:
    return re.fullmatch(rb"([0-9a-f]{2})+", key) is not None


def assert_released(run: Path, secrets: list[bytes]) -> None:
    for path in run.rglob("*"):
        name = str(path.relative_to(run))
        assert ALLOWED.fullmatch(name), name
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), name


def assert_timeless(run: Path) -> None:
    assert {path.stat().st_mtime_ns for path in (run, *run.rglob("*"))} == {TIME_NS}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_stopped_and_finished_leaves_no_secret_in_its_folder(
    case: str, tmp_path: Path
) -> None:
    done: list[int] = []
    feddp.simulate(
        config_of(tmp_path, case),
        on_round=lambda report: done.append(report.round),
        is_stopped=lambda: 1 in done,
    )
    run = tmp_path / "r"
    secrets = secrets_of(run)
    assert secrets
    assert_released(run, secrets)
    assert_timeless(run)
    finished = feddp.resume(run)
    assert finished.is_complete
    assert_released(run, secrets)
    assert_timeless(run)
    assert not (tmp_path / ".secrets").exists()
    before = (run / "ledger.sqlite").read_bytes()
    assert feddp.resume(run).results == finished.results  # exported again, without any secret
    assert (run / "ledger.sqlite").read_bytes() == before


@pytest.mark.parametrize("case", ["poisson", "blt", "node"])
def test_a_run_that_is_killed_leaves_no_secret_in_its_folder(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*parts: object) -> None:
        raise Crash

    with monkeypatch.context() as dying:
        dying.setattr(release, "draw", crash)
        with pytest.raises(Crash):
            feddp.simulate(config_of(tmp_path, case))
    run = tmp_path / "r"
    secrets = secrets_of(run)
    assert secrets
    assert_released(run, secrets)
    resumed = feddp.resume(run)
    assert (resumed.num_burned, resumed.last_round) == (1, 3)
    assert_released(run, secrets)
    assert not (tmp_path / ".secrets").exists()


def test_a_run_whose_rounds_were_all_burned_says_so_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*parts: object) -> None:
        raise Crash

    config = feddp.load_config(None, SMALL | {"run.rounds": 1, "run.output-dir": str(tmp_path)})
    with monkeypatch.context() as dying:
        dying.setattr(release, "draw", crash)
        with pytest.raises(Crash):
            feddp.simulate(config)
    for _ in range(2):
        with pytest.raises(BudgetSpentError, match="every one of the 1 rounds was burned"):
            feddp.resume(tmp_path / "r")
        assert not (tmp_path / ".secrets").exists()
