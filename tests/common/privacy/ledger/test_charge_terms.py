"""Slots and schedules read back exactly, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.privacy.ledger.charge_terms import (
    PURPOSES,
    Planned,
    Slot,
    schedule_from_body,
    schedule_to_body,
    slot_from_body,
)
from feddp.common.privacy.mechanism.events import (
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)

MULTIPLIERS = st.floats(0.01, 1e6)
EVENTS = st.one_of(
    st.builds(GaussianEvent, MULTIPLIERS),
    st.builds(PoissonGaussianEvent, st.floats(1e-9, 1.0), MULTIPLIERS, st.integers(1, 9)),
    st.builds(FixedSizeGaussianEvent, st.just(100), st.integers(1, 100), MULTIPLIERS),
)
SLOTS = st.builds(
    Slot, st.sampled_from(PURPOSES), EVENTS, st.integers(1, 1 << 40), st.integers(1, 1 << 40)
)


@given(SLOTS)
def test_a_slot_of_any_event_reads_back(slot: Slot) -> None:
    assert slot_from_body(slot.to_body()) == slot


@given(st.lists(SLOTS, unique=True, max_size=4), st.integers(0, 9))
def test_a_schedule_reads_back(slots: list[Slot], count: int) -> None:
    schedule = tuple(Planned(slot, count, count) for slot in slots)
    assert schedule_from_body(schedule_to_body(schedule)) == schedule


@pytest.mark.parametrize("entry", [None, [], "x", {}, {"count": 1}])
def test_what_is_no_schedule_is_refused(entry: object) -> None:
    with pytest.raises(ValueError, match="wrong fields"):
        schedule_from_body([entry])
