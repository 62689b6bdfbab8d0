"""Types of fields: what a dataclass declares is what it holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from feddp.common.field_types import check_fields


@dataclass(frozen=True)
class Inner:
    scale: float


@dataclass(frozen=True)
class Outer:
    count: int = 1
    share: float = 0.5
    is_set: bool = True
    name: str | None = None
    side: Literal["left", "right"] = "left"
    pair: tuple[Inner, int] = (Inner(1.0), 2)
    counts: tuple[int, ...] = (1, 2)
    charges: Sequence[tuple[Inner | None, int]] = ((Inner(1.0), 3), (None, 1))
    rule: Callable[[int], int] = abs
    details: Mapping[str, str] = field(default_factory=lambda: {"a": "b"})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share": 1},
        {"name": "a"},
        {"side": "right"},
        {"counts": ()},
        {"charges": []},
        {"details": {}},
    ],
    ids=str,
)
def test_what_is_declared_is_taken(changes: dict[str, Any]) -> None:
    check_fields(replace(Outer(), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 1.0},
        {"count": True},
        {"count": "1"},
        {"count": None},
        {"share": False},
        {"share": "0.5"},
        {"is_set": 1},
        {"name": 1},
        {"side": "up"},
        {"pair": (Inner(1.0),)},
        {"pair": (Inner("1"), 2)},  # type: ignore[arg-type]
        {"pair": 1},
        {"counts": (1, "2")},
        {"counts": 1},
        {"charges": [(Inner(1.0), "3")]},
        {"charges": {"a": 1}},
        {"rule": 1},
        {"details": {"a": 1}},
        {"details": {1: "a"}},
        {"details": ["a"]},
    ],
    ids=str,
)
def test_another_type_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        check_fields(replace(Outer(), **changes))
