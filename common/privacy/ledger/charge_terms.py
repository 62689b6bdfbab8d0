"""Slots: what one charge pays for, and the schedule that a fixed plan lists in advance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feddp.common.privacy.mechanism.events import Event, from_body, to_body

UPDATE = "update"
PURPOSES = (UPDATE, "clip-count", "metric", "evaluation", "tuning")
NAMES = {"purpose", "event", "dimension", "noise_scale"}
COUNTS = ("count", "num_events")


@dataclass(frozen=True)
class Slot:
    """What one charge pays for; all of it is public.

    Attributes:
      purpose: one of PURPOSES.
      event: what it costs under continuous noise.
      dimension: numbers that are released.
      noise_scale: of the discrete noise on them, in grid steps.
    """

    purpose: str
    event: Event
    dimension: int
    noise_scale: int

    def to_body(self) -> dict[str, Any]:
        """As it stands in a row."""
        return {
            "purpose": self.purpose,
            "event": to_body(self.event),
            "dimension": self.dimension,
            "noise_scale": self.noise_scale,
        }


@dataclass(frozen=True)
class Planned:
    """A slot and how many charges of it are planned.

    Attributes:
      slot: of each charge.
      count: charges.
      num_events: how often all of them together cost the event: `count`, but for correlated noise,
        where one event pays for many rounds of one run.
    """

    slot: Slot
    count: int
    num_events: int


def slot_from_body(body: Mapping[str, Any]) -> Slot:
    """Reads `Slot.to_body` back; other fields are left to the caller.

    Raises:
      ValueError: an unknown purpose or event, or a number out of range.
    """
    event, dimension, scale = body["event"], body["dimension"], body["noise_scale"]
    if body["purpose"] not in PURPOSES or not isinstance(event, Mapping):
        raise ValueError("unknown purpose or event")
    if not (_is_count(dimension) and _is_count(scale)):
        raise ValueError("dimension and noise scale must be at least 1")
    return Slot(body["purpose"], from_body(event), dimension, scale)


def read_slot(body: Mapping[str, Any]) -> Slot:
    """Reads `Slot.to_body` back where it stands alone.

    Raises:
      ValueError: a field more or less, an unknown purpose or event, or a number out of range.
    """
    if set(body) != NAMES:
        raise ValueError("wrong fields in a slot")
    return slot_from_body(body)


def schedule_to_body(schedule: Sequence[Planned]) -> list[dict[str, Any]]:
    """As it stands in the PLAN row."""
    return [
        {**entry.slot.to_body(), "count": entry.count, "num_events": entry.num_events}
        for entry in schedule
    ]


def schedule_from_body(body: Sequence[Any]) -> tuple[Planned, ...]:
    """Reads `schedule_to_body` back.

    Raises:
      ValueError: a field more or less, a slot twice, or a number out of range.
    """
    schedule = []
    for entry in body:
        if not isinstance(entry, Mapping) or set(entry) != {*NAMES, *COUNTS}:
            raise ValueError("wrong fields in the schedule")
        if any(type(entry[name]) is not int or entry[name] < 0 for name in COUNTS):
            raise ValueError("a count must not be negative")
        planned = Planned(slot_from_body(entry), entry["count"], entry["num_events"])
        if planned.count and not 0 < planned.num_events <= planned.count:
            raise ValueError("charges cost between one event and one each")
        schedule.append(planned)
    if len({planned.slot for planned in schedule}) != len(schedule):
        raise ValueError("a slot stands twice in the schedule")
    return tuple(schedule)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1
