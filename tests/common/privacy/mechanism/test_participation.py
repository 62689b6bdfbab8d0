"""Participation: no schedule brings two rounds of a user too close; brute-force sensitivities."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats

from feddp.common.privacy.mechanism.events import GaussianEvent, PoissonGaussianEvent
from feddp.common.privacy.mechanism.participation import (
    CyclicPoisson,
    FixedSeparation,
    SeparationRegistry,
    is_turn,
    slots,
)

SALT = bytes(range(32))
COEFFICIENTS = (16, 9, 7, 5, 5, 3, 1)
KEYS = np.random.default_rng(1).integers(0, 1 << 63, 5000).astype(np.uint64)


def matrix_of(coefficients, num_rows):
    padded = np.pad(np.array(coefficients[:num_rows]), (0, max(0, num_rows - len(coefficients))))
    return np.tril(linalg.toeplitz(padded)).astype(np.int64)


def test_slots_are_uniform_and_users_get_all_of_them():
    made = slots(KEYS, salt=SALT, separation=10)
    assert stats.chisquare(np.bincount(made, minlength=10)).pvalue > 1e-3


def test_slots_depend_on_key_and_salt_alone():
    made = slots(KEYS, salt=SALT, separation=100)
    assert np.array_equal(slots(KEYS[::-1], salt=SALT, separation=100), made[::-1])
    assert slots(KEYS[7:8], salt=SALT, separation=100)[0] == made[7]
    other = slots(KEYS, salt=bytes(32), separation=100)
    assert abs(np.mean(other == made) - 0.01) < 0.006


def test_slots_are_the_same_on_every_machine():
    golden = slots(np.array([0, 1, 2**64 - 1], dtype=np.uint64), salt=SALT, separation=1000)
    assert golden.tolist() == [421, 844, 930]


@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 2**64 - 1))
def test_rounds_of_a_user_are_exactly_the_separation_apart(separation, num_rows, key):
    place = slots(np.array([key], dtype=np.uint64), salt=SALT, separation=separation)
    turns = [
        row for row in range(1, num_rows + 1) if is_turn(place, row=row, separation=separation)[0]
    ]
    assert all(b - a == separation for a, b in itertools.pairwise(turns))
    assert len(turns) <= math.ceil(num_rows / separation)
    assert len(turns) >= num_rows // separation


@pytest.mark.parametrize(("salt", "separation"), [(b"", 3), (bytes(31), 3), (SALT, 0)])
def test_slots_without_salt_or_separation_are_refused(salt, separation):
    with pytest.raises(ValueError, match="slots need"):
        slots(KEYS[:1], salt=salt, separation=separation)


def test_rounds_start_at_one():
    with pytest.raises(ValueError, match="start at 1"):
        is_turn(np.array([0]), row=0, separation=3)


NODES = ("a", "b", "c")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["draw", "again", "restart", "skip"]), st.sets(st.sampled_from(NODES))
    ),
    max_size=40,
)


@given(st.integers(1, 6), STEPS)
def test_no_schedule_brings_two_participations_closer_than_the_separation(separation, steps):
    registry, row = SeparationRegistry(separation), 1
    taken: dict[str, set[int]] = {node: set() for node in NODES}
    for step, online in steps:
        if step == "restart":  # between writing the registry and the next draw
            registry = SeparationRegistry.from_json(registry.to_json())
        elif step == "skip":
            row += 1
        else:
            row += step == "draw"
            drawn = registry.eligible(sorted(online), row=row)
            registry.record(drawn, row=row)
            for node in drawn:
                taken[node].add(row)
    for rows in taken.values():
        assert all(b - a >= separation for a, b in itertools.pairwise(sorted(rows)))


@given(st.integers(1, 6), st.lists(st.sets(st.sampled_from(NODES)), max_size=30))
def test_nobody_waits_longer_than_the_separation(separation, rounds):
    registry, last = SeparationRegistry(separation), dict.fromkeys(NODES, -100)
    for row, online in enumerate(rounds, start=1):
        drawn = registry.eligible(sorted(online), row=row)
        assert drawn == [node for node in sorted(online) if row - last[node] >= separation]
        registry.record(drawn, row=row)
        last.update(dict.fromkeys(drawn, row))


def test_a_node_that_was_asked_and_never_answered_has_taken_part():
    registry = SeparationRegistry(3)
    registry.record(["a"], row=1)
    assert registry.eligible(["a", "b"], row=3) == ["b"]
    assert registry.eligible(["a", "b"], row=4) == ["a", "b"]


def test_the_same_round_may_be_asked_for_again():
    registry = SeparationRegistry(3)
    registry.record(["a"], row=5)
    assert registry.eligible(["a"], row=5) == ["a"]


def test_a_record_that_breaks_the_rule_changes_nothing_and_names_nobody():
    registry = SeparationRegistry(3)
    registry.record(["secret-node"], row=1)
    before = registry.to_json()
    with pytest.raises(ValueError, match="less than") as caught:
        registry.record(["b", "secret-node"], row=3)
    assert "secret" not in str(caught.value) + repr(registry)
    assert registry.to_json() == before


def test_rounds_do_not_go_back():
    registry = SeparationRegistry(2)
    registry.record([], row=4)
    for call in (registry.eligible, registry.record):
        with pytest.raises(ValueError, match="lies before"):
            call(["a"], row=3)


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "{}",
        "3",
        {"separation": 0, "latest": 1, "last": {}},
        {"separation": 2, "latest": 1, "last": {"a": 2}},
        {"separation": 2, "latest": 3, "last": {"a": 0}},
        {"separation": 2, "latest": 3, "last": {"a": True}},
        {"separation": 2.5, "latest": 3, "last": {}},
        {"separation": 2, "latest": 3, "last": []},
        {"separation": 2, "latest": 3, "last": {}, "more": 1},
        "not json",
    ],
)
def test_what_is_not_a_registry_is_refused(state):
    with pytest.raises(ValueError, match=r"registry|Expecting"):
        SeparationRegistry.from_json(state if isinstance(state, str) else json.dumps(state))


@pytest.mark.parametrize("separation", [0, -1])
def test_registry_without_separation_is_refused(separation):
    with pytest.raises(ValueError, match="at least 1"):
        SeparationRegistry(separation)


def sets_of_rounds(num_rows, separation, most):
    for size in range(1, most + 1):
        for chosen in itertools.combinations(range(num_rows), size):
            if all(b - a >= separation for a, b in itertools.pairwise(chosen)):
                yield list(chosen)


@pytest.mark.parametrize("separation", [1, 2, 3, 5])
@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize("num_spare", [0, 1, 2])
def test_fixed_sensitivity_with_burned_rows_is_that_of_brute_force(separation, most, num_spare):
    num_rows = 9
    most = min(most, math.ceil(num_rows / separation))
    matrix = matrix_of(COEFFICIENTS, num_rows)
    oracle = 0
    for chosen in sets_of_rounds(num_rows, separation, most):
        moved = matrix[:, chosen].sum(axis=1)  # C >= 0: the same direction every time is worst
        for burned in itertools.combinations_with_replacement(range(num_rows), num_spare):
            oracle = max(oracle, int(np.sum(moved**2) + np.sum(moved[list(burned)] ** 2)))
    made = FixedSeparation(separation, most).squared_sensitivity(
        COEFFICIENTS, num_rows=num_rows, num_spare=num_spare
    )
    assert type(made) is int
    assert made == oracle


@pytest.mark.parametrize("num_groups", [7, 8])
@pytest.mark.parametrize("num_rows", [3, 7, 15])
@pytest.mark.parametrize("num_spare", [0, 1, 2])
def test_cyclic_participations_touch_separate_rows_and_have_the_norm(
    num_groups, num_rows, num_spare
):
    matrix = matrix_of(COEFFICIENTS, num_rows)
    participation = CyclicPoisson(num_groups, 0.5)
    squared = participation.squared_sensitivity(
        COEFFICIENTS, num_rows=num_rows, num_spare=num_spare
    )
    worst = 0
    for slot in range(min(num_groups, num_rows)):
        turns = range(slot, num_rows, num_groups)
        columns = matrix[:, list(turns)]
        assert np.all(np.count_nonzero(columns, axis=1) <= 1)
        for turn in turns:
            # A burned row of the turn itself has a coin of its own: it is another event, of a_0.
            later = [row for row in range(num_rows) if row != turn]
            for burned in itertools.combinations_with_replacement(later, num_spare):
                repeated = np.sum(matrix[list(burned), turn] ** 2)
                worst = max(worst, int(np.sum(matrix[:, turn] ** 2) + repeated))
    assert squared == worst
    assert squared >= COEFFICIENTS[0] ** 2
    _, times = participation.event(noise_multiplier=1.0, num_rows=num_rows, num_spare=num_spare)
    assert times == len(range(0, num_rows, num_groups)) + num_spare


def test_events_are_one_gaussian_or_one_per_turn():
    fixed = FixedSeparation(10, 10).event(noise_multiplier=2.0, num_rows=100, num_spare=3)
    assert fixed == (GaussianEvent(2.0), 1)
    cyclic = CyclicPoisson(8, 0.1).event(noise_multiplier=2.0, num_rows=100, num_spare=3)
    assert cyclic == (PoissonGaussianEvent(0.1, 2.0), 13 + 3)


@pytest.mark.parametrize(("separation", "most"), [(0, 1), (1, 0)])
def test_fixed_separation_without_rounds_is_refused(separation, most):
    with pytest.raises(ValueError, match="at least 1"):
        FixedSeparation(separation, most)


@pytest.mark.parametrize(("groups", "probability"), [(0, 0.5), (3, 0.0), (3, 1.1), (3, math.nan)])
def test_cyclic_sampling_without_groups_or_probability_is_refused(groups, probability):
    with pytest.raises(ValueError, match="cyclic sampling"):
        CyclicPoisson(groups, probability)


def with_burned(matrix, burned):
    """The same matrix when some rows were burned: the row is seen, no later row holds its sum."""
    zeroed = matrix.copy()
    for row in burned:
        zeroed[row + 1 :, row] = 0
    return zeroed


def every_subset(num_rows):
    for size in range(num_rows + 1):
        yield from itertools.combinations(range(num_rows), size)


@pytest.mark.parametrize("separation", [1, 2, 3])
def test_no_pattern_of_burned_rows_moves_more_than_a_run_without(separation):
    num_rows, most = 7, 3
    matrix = matrix_of(COEFFICIENTS, num_rows)
    fixed = FixedSeparation(separation, most).squared_sensitivity(
        COEFFICIENTS, num_rows=num_rows, num_spare=0
    )
    found = {}
    for burned in every_subset(num_rows):
        left = with_burned(matrix, burned)
        found[burned] = max(
            int(np.sum(left[:, chosen].sum(axis=1) ** 2))
            for chosen in sets_of_rounds(num_rows, separation, most)
        )
    assert found[()] == fixed == max(found.values())
    assert min(found.values()) < fixed


@pytest.mark.parametrize("num_groups", [7, 8])
def test_no_pattern_of_burned_rows_makes_a_turn_cost_more_or_two_turns_meet(num_groups):
    num_rows = 9
    matrix = matrix_of(COEFFICIENTS, num_rows)
    squared = CyclicPoisson(num_groups, 0.5).squared_sensitivity(
        COEFFICIENTS, num_rows=num_rows, num_spare=0
    )
    for burned in every_subset(num_rows):
        left = with_burned(matrix, burned)
        assert int(np.sum(left**2, axis=0).max()) <= squared
        for slot in range(num_groups):
            turns = left[:, list(range(slot, num_rows, num_groups))]
            assert np.all(np.count_nonzero(turns, axis=1) <= 1)
