"""One setting: default, range and meaning, and the check of a value against them."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any

Scalar = bool | int | float | str
AUTO = "auto"
_BEYOND_FLOAT = 1 << 1023


@dataclass(frozen=True)
class Setting:
    """What a configuration key accepts.

    Attributes:
      kind: int, float, str or bool; an int is accepted where a float is asked for.
      choices: the allowed strings, or () for any.
      at_least, above, at_most, below: bounds of a number; None is no bound.
      is_auto: "auto" is allowed and means that feddp derives the value; in Python it is None.
    """

    doc: str
    kind: type
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    is_auto: bool = False

    def allowed(self) -> str:
        """The accepted values, in words."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        noun = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        bounds = [(self.at_least, ">="), (self.above, ">"), (self.at_most, "<="), (self.below, "<")]
        limits = " and ".join(f"{sign} {bound:g}" for bound, sign in bounds if bound is not None)
        words = f"{noun[self.kind]} {limits}".strip()
        return f'{words}, or "auto"' if self.is_auto else words


def setting(default: Any, doc: str, **limits: Any) -> Any:
    """A dataclass field from which `setting_of` reads; a default of None is "auto"."""
    return dataclasses.field(default=default, metadata={"doc": doc, **limits})


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """What a field of a section accepts: its kind is the field's type."""
    kinds = typing.get_args(field.type) or (field.type,)  # (kind, None) of an optional one
    return Setting(kind=kinds[0], is_auto=field.default is None, **field.metadata)


def read_value(key: str, value: object, about: Setting) -> tuple[Any, str | None]:
    """(the checked value of one key, None), or (None, the problem with it in one line)."""
    if about.is_auto and value == AUTO:
        return None, None
    if about.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _BEYOND_FLOAT else math.inf
    shown = f'"{value}"' if isinstance(value, str) else f"{value}"
    problem = f"{key} = {shown}: must be {about.allowed()}."
    if isinstance(value, bool) != (about.kind is bool) or not isinstance(value, about.kind):
        return None, problem
    if isinstance(value, float) and not math.isfinite(value):
        return None, problem
    if about.choices and value not in about.choices:
        return None, problem
    if isinstance(value, int | float) and not _is_within(value, about):
        return None, problem
    return value, None


def _is_within(value: float, about: Setting) -> bool:
    return (
        (about.at_least is None or value >= about.at_least)
        and (about.above is None or value > about.above)
        and (about.at_most is None or value <= about.at_most)
        and (about.below is None or value < about.below)
    )
