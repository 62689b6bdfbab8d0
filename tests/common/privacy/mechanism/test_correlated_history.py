"""The history of a run with correlated noise: replayed bit for bit, no noise ever used twice."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from correlated_runs import (
    ENTROPY,
    KEY,
    MECHANISM,
    MECHANISMS,
    NUM_ROUNDS,
    matrix_of,
    noise_of,
    random_sums,
    run,
)

from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.correlated import NoisedRow
from feddp.common.privacy.mechanism.master_key import MasterKey
from feddp.common.privacy.mechanism.summation import UpdateSum


@pytest.mark.parametrize("stop", [0, 1, 5, 11])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_resumed_run_is_the_straight_run_bit_for_bit(mechanism, stop):
    sums = random_sums(4, mechanism)
    straight, rows, _ = run(mechanism, sums)
    kept = [NoisedRow(r.row, r.attempt, bytes(r.nonce), r.values.copy()) for r in rows[:stop]]
    history = mechanism.replay(kept, master_key=MasterKey(bytes(range(32)), run=b"run"))
    resumed, later, _ = run(mechanism, sums[stop:], history=history)
    assert resumed.tobytes() == straight[stop:].tobytes()
    assert [r.values.tobytes() for r in later] == [r.values.tobytes() for r in rows[stop:]]


def test_a_burned_attempt_has_its_own_noise_and_leaves_no_trace():
    sums = random_sums(5, MECHANISM)
    _, rows, history = run(MECHANISM, sums[:3])
    burned = MECHANISM.release(
        UpdateSum(sums[11].copy()),
        history=history,
        master_key=KEY,
        row=4,
        attempt=1,
        entropy=ENTROPY,
    )[1]
    _, (answer,), _ = run(MECHANISM, sums[3:4], history=history, attempts={4: 2})
    assert np.mean(noise_of(MECHANISM, burned) == noise_of(MECHANISM, answer)) < 0.05
    after, later, _ = run(MECHANISM, sums[4:], history=history)
    clean = MECHANISM.replay([*rows, answer], master_key=KEY)
    again, _, _ = run(MECHANISM, sums[4:], history=clean)
    assert after.tobytes() == again.tobytes()
    held = matrix_of(MECHANISM) @ sums
    assert np.array_equal(later[0].values - noise_of(MECHANISM, later[0]), held[4])


def test_a_rolled_back_ledger_never_uses_one_noise_for_two_sums():
    sums = random_sums(6, MECHANISM)
    first, second = (run(MECHANISM, sums[i : i + 1])[1][0] for i in (0, 1))
    same = run(MECHANISM, sums[:1])[1][0]
    assert (first.row, first.attempt) == (second.row, second.attempt)
    assert np.mean(noise_of(MECHANISM, first) == noise_of(MECHANISM, second)) < 0.05
    assert np.array_equal(first.values, same.values)


def test_noise_of_all_rows_and_attempts_is_different():
    _, rows, _ = run(MECHANISM, np.zeros((12, 40), dtype=np.int64))
    _, again, _ = run(MECHANISM, np.zeros((12, 40), dtype=np.int64), attempts={3: 2, 4: 3})
    made = [tuple(noise_of(MECHANISM, noised).tolist()) for noised in [*rows, *again[2:4]]]
    assert len(set(made)) == 14


def test_a_lost_key_starts_a_new_segment_without_the_old_sums():
    sums = random_sums(7, MECHANISM)
    run(MECHANISM, sums[:6])
    new = MasterKey(bytes(32), run=b"run")
    history = MECHANISM.start(first_row=7)
    released, rows, _ = run(MECHANISM, sums[6:], key=new, history=history)
    noise = np.array([noise_of(MECHANISM, noised, key=new) for noised in rows])
    block = matrix_of(MECHANISM)[:6, :6]
    assert np.array_equal(np.array([r.values for r in rows]), block @ sums[6:] + noise)
    replayed = MECHANISM.replay(rows[:2], master_key=new, first_row=7)
    again, _, _ = run(MECHANISM, sums[8:], key=new, history=replayed)
    assert again.tobytes() == released[2:].tobytes()


@pytest.mark.parametrize(
    "other",
    [MasterKey(bytes(32), run=b"run"), MasterKey(bytes(range(32)), run=b"other")],
)
def test_rows_of_another_key_or_run_are_refused(other):
    _, rows, _ = run(MECHANISM, random_sums(8, MECHANISM))
    with pytest.raises(FeddpError, match="not noised with this master key"):
        MECHANISM.replay(rows, master_key=other)


@pytest.mark.parametrize(
    "change",
    [
        {"values": lambda row: row.values + 1},
        {"values": lambda row: row.values[:-1]},
        {"values": lambda row: row.values.astype(np.float64)},
        {"nonce": lambda row: bytes(32)},
        {"attempt": lambda row: 2},
        {"row": lambda row: 2},
    ],
)
def test_a_row_that_was_changed_is_refused_and_changes_nothing(change):
    _, rows, _ = run(MECHANISM, random_sums(8, MECHANISM))
    ((name, changed),) = change.items()
    history = MECHANISM.start()
    with pytest.raises(FeddpError, match="Row"):
        history.append(dataclasses.replace(rows[0], **{name: changed(rows[0])}), master_key=KEY)
    history.append(rows[0], master_key=KEY)
    assert history.next_row == 2


def test_rows_out_of_order_are_refused():
    _, rows, _ = run(MECHANISM, random_sums(8, MECHANISM))
    with pytest.raises(FeddpError, match="does not follow"):
        MECHANISM.replay([rows[0], rows[0]], master_key=KEY)
    with pytest.raises(FeddpError, match="not noised with this master key"):
        MECHANISM.replay([rows[0], rows[2]], master_key=KEY)  # the second was not burned
    with pytest.raises(FeddpError, match="does not follow"):
        MECHANISM.replay([*rows, rows[-1]], master_key=KEY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"row": 2}, "the next is 1"),
        ({"attempt": 0}, "attempt 0"),
        ({"attempt": 4}, "attempt 4"),
        ({"total": UpdateSum.zeros(39)}, "dimension"),
    ],
)
def test_a_release_that_does_not_follow_is_refused(change, problem):
    arguments = {"total": UpdateSum.zeros(40), "row": 1, "attempt": 1, **change}
    with pytest.raises(ValueError, match=problem):
        MECHANISM.release(
            arguments.pop("total"),
            history=MECHANISM.start(),
            master_key=KEY,
            entropy=ENTROPY,
            **arguments,
        )


def test_no_row_is_released_beyond_the_last():
    _, _, history = run(MECHANISM, random_sums(8, MECHANISM))
    with pytest.raises(ValueError, match="row 13"):
        MECHANISM.release(
            UpdateSum.zeros(40),
            history=history,
            master_key=KEY,
            row=13,
            attempt=1,
            entropy=ENTROPY,
        )


def test_history_shows_itself_nowhere():
    _, _, history = run(MECHANISM, random_sums(8, MECHANISM)[:2])
    assert repr(history) == "History(next_row=3, sensitive)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="sensitive"):
            leak(history)


@pytest.mark.parametrize("first_row", [0, 13, -1])
def test_no_history_starts_outside_the_run(first_row):
    with pytest.raises(ValueError, match="first row"):
        MECHANISM.start(first_row)


BURNED = [(2,), (1,), (12,), (2, 3), (5, 9), (1, 2, 3, 4), (3, 6, 7, 12)]


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=["root", "banded", "cyclic", "independent"])
@pytest.mark.parametrize("burned", BURNED)
def test_a_burned_row_is_in_no_later_row_and_its_noise_is_in_none(mechanism, burned):
    mechanism = dataclasses.replace(mechanism, num_spare=0)
    sums, history, rows = random_sums(9, mechanism), mechanism.start(), []
    left = sums.copy()
    left[[row - 1 for row in burned]] = 0
    for row in range(1, NUM_ROUNDS + 1):
        history.burn_until(row)
        _, noised = mechanism.release(
            UpdateSum(sums[row - 1].copy()),
            history=history,
            master_key=KEY,
            row=row,
            attempt=1,
            entropy=ENTROPY,
        )
        noise = noise_of(mechanism, noised)
        later = enumerate(mechanism.coefficients[1:], start=1)
        held = sum(a * left[row - 1 - k] for k, a in later if row > k)
        expected = mechanism.coefficients[0] * sums[row - 1] + held + noise
        assert np.array_equal(noised.values, expected)
        if row in burned:
            continue  # charged, perhaps seen, and never appended
        history.append(noised, master_key=KEY)
        rows.append(noised)
    again = mechanism.replay(rows, master_key=KEY)
    if rows[-1].row == NUM_ROUNDS:
        assert np.array_equal(again.earlier_sums(), history.earlier_sums())
        assert again.next_row == history.next_row == NUM_ROUNDS + 1


def test_the_estimates_of_a_run_with_burned_rows_sum_to_what_was_kept():
    """Without noise to speak of, the estimate of each row is its own sum: nothing is biased."""
    mechanism = dataclasses.replace(MECHANISM, num_spare=0, noise_multiplier=1e-6)
    sums, history, released = random_sums(10, mechanism), mechanism.start(), {}
    for row in (1, 2, 4, 5, 8, 12):
        history.burn_until(row)
        update, noised = mechanism.release(
            UpdateSum(sums[row - 1].copy()),
            history=history,
            master_key=KEY,
            row=row,
            attempt=1,
            entropy=ENTROPY,
        )
        history.append(noised, master_key=KEY)
        released[row] = update.values
    unit = mechanism.clipping_norm / mechanism.grid_steps / mechanism.expected_cohort_size
    for row, values in released.items():
        assert np.allclose(values, sums[row - 1] * unit, atol=1e-3 * unit * mechanism.grid_steps)


def test_rows_are_burned_forwards_and_within_the_run():
    history = MECHANISM.start()
    history.burn_until(3)
    for row in (2, NUM_ROUNDS + 1):
        with pytest.raises(FeddpError, match="does not follow"):
            history.burn_until(row)
    assert history.next_row == 3
