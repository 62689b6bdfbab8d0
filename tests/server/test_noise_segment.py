"""Segments of correlated noise: continued, begun anew where the key is lost, refused where not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flat_plan import flat_plan

from feddp.common.disk import Disk
from feddp.common.errors import ConfigError, FeddpError
from feddp.common.privacy.ledger.history import Charge
from feddp.common.privacy.mechanism.correlated import NoisedRow
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.server.noise_segment import SECRETS_NAME, Segment, open_segment
from feddp.simulations.cli import main

DIMENSION, NUM_ROUNDS = 4, 6


def plan_of(mechanism: str = "blt", seed: int | None = None) -> PrivacyPlan:
    return flat_plan(
        num_users=60,
        target_epsilon=90.0,
        target_delta=1e-3,
        noise_multiplier=2.0,
        clipping_norm=1.0,
        num_rounds=NUM_ROUNDS,
        expected_cohort_size=20.0,
        dimension=DIMENSION,
        trust="server",
        seed=seed,
        details={},
        mechanism=mechanism,
        separation=None if mechanism == "poisson" else 3,
    )


PLAN = plan_of()


def opened(
    folder: Path,
    rows: list[NoisedRow],
    *,
    plan: PrivacyPlan = PLAN,
    starts_anew: bool = False,
) -> Segment | None:
    next_row = 1 + max((row.row for row in rows), default=0)
    return open_segment(
        folder / SECRETS_NAME, plan, rows, next_row=next_row, starts_anew=starts_anew, disk=Disk()
    )


def grown(folder: Path, rows: list[NoisedRow], num_rounds: int) -> list[NoisedRow]:
    """So many rounds more, in one process."""
    segment, found = opened(folder, rows), list(rows)
    assert segment is not None
    for _ in range(num_rounds):
        total = UpdateSum(np.full(DIMENSION, len(found), dtype=np.int64))
        _, row = segment.release(total, Charge(len(found) + 1, 1))
        segment.append(row)
        found.append(row)
    return found


def lose_keys(folder: Path) -> None:
    for path in (folder / SECRETS_NAME).iterdir():
        path.unlink()


def test_a_segment_goes_on_after_a_restart_and_its_key_is_asked_for(tmp_path: Path) -> None:
    rows = grown(tmp_path, grown(tmp_path, [], 2), 2)
    assert [row.row for row in rows] == [1, 2, 3, 4]
    assert [path.name for path in (tmp_path / SECRETS_NAME).iterdir()] == ["noise-from-000001.key"]
    lose_keys(tmp_path)
    with pytest.raises(FeddpError, match=r"the rounds before 5 is missing.*--new-noise-segment"):
        opened(tmp_path, rows)


def test_a_lost_key_begins_a_segment_that_goes_on_by_itself(tmp_path: Path) -> None:
    rows = grown(tmp_path, [], 2)
    lose_keys(tmp_path)
    assert opened(tmp_path, rows, starts_anew=True) is not None
    rows = grown(tmp_path, grown(tmp_path, rows, 1), 1)
    assert [path.name for path in (tmp_path / SECRETS_NAME).iterdir()] == ["noise-from-000003.key"]
    assert [row.row for row in rows] == [1, 2, 3, 4]


def test_a_new_segment_that_was_asked_for_twice_is_refused_and_keeps_its_key(
    tmp_path: Path,
) -> None:
    rows = grown(tmp_path, [], 2)
    lose_keys(tmp_path)
    opened(tmp_path, rows, starts_anew=True)
    (path,) = (tmp_path / SECRETS_NAME).iterdir()
    secret = path.read_bytes()
    with pytest.raises(ConfigError, match="a segment from round 3 has begun already"):
        opened(tmp_path, rows, starts_anew=True)
    assert path.read_bytes() == secret
    path.unlink()  # as the message says: lost before a round was released with it
    assert opened(tmp_path, rows, starts_anew=True) is not None
    assert path.read_bytes() != secret


def test_a_run_that_is_over_needs_no_key_and_no_segment(tmp_path: Path) -> None:
    rows = grown(tmp_path, [], NUM_ROUNDS)
    lose_keys(tmp_path)
    assert opened(tmp_path, rows) is None
    with pytest.raises(ConfigError, match="all 6 rounds are over"):
        opened(tmp_path, rows, starts_anew=True)
    assert list((tmp_path / SECRETS_NAME).iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (plan_of("poisson"), "independent in every round"),
        (dataclasses.replace(PLAN, seed=1), "seeded"),
    ],
)
def test_runs_without_a_key_have_none_to_lose(
    tmp_path: Path, plan: PrivacyPlan, reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"--new-noise-segment: .*{reason}"):
        opened(tmp_path, [], plan=plan, starts_anew=True)
    assert list(tmp_path.iterdir()) == []


def test_a_new_segment_is_for_resumed_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--new-noise-segment"]) == 2
    assert "--new-noise-segment: only a run that is resumed" in capsys.readouterr().err


def test_a_run_goes_on_after_burned_rows_and_a_restart(tmp_path: Path) -> None:
    rows = grown(tmp_path, [], 2)
    total = UpdateSum(np.full(DIMENSION, 7, dtype=np.int64))
    segment = opened(tmp_path, rows)
    assert segment is not None
    segment.release(total, Charge(3, 1))  # drawn, and lost in a crash before it was appended
    ends = []
    for _ in range(2):  # the same restart twice
        segment = open_segment(
            tmp_path / SECRETS_NAME, PLAN, rows, next_row=4, starts_anew=False, disk=Disk()
        )
        assert segment is not None
        _, row = segment.release(total, Charge(4, 1))
        segment.append(row)
        assert segment._history.next_row == 5
        ends.append(segment._history.earlier_sums())
    assert np.array_equal(*ends)
    later = open_segment(
        tmp_path / SECRETS_NAME, PLAN, [*rows, row], next_row=6, starts_anew=False, disk=Disk()
    )
    assert later is not None
    _, last = later.release(total, Charge(6, 1))
    assert last.row == 6


def test_a_run_whose_last_rows_were_burned_needs_no_segment(tmp_path: Path) -> None:
    rows = grown(tmp_path, [], 4)
    over = open_segment(
        tmp_path / SECRETS_NAME, PLAN, rows, next_row=NUM_ROUNDS + 1, starts_anew=False, disk=Disk()
    )
    assert over is None
