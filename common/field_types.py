"""Whether what was read from a file has the types that its dataclass declares."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def check_fields(value: object) -> None:
    """Checks all fields of a dataclass, and of the dataclasses in them.

    Raises:
      TypeError: a field holds another type than it declares. An int may stand for a float, and a
        bool for neither.
    """
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        if not _is_of(getattr(value, field.name), hints[field.name]):
            raise TypeError(f"{field.name} is not of type {hints[field.name]}")


def _is_of(value: Any, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is_of(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin in (tuple, Sequence) and isinstance(value, tuple | list):
        is_uniform = origin is Sequence or parts[-1] is Ellipsis
        each = parts[:1] * len(value) if is_uniform else parts
        return len(value) == len(each) and all(map(_is_of, value, each))
    if origin is Mapping and isinstance(value, Mapping):
        return all(_is_of(k, parts[0]) and _is_of(v, parts[1]) for k, v in value.items())
    if origin is not None:
        return origin is Callable and callable(value)
    if hint in (int, float):
        return type(value) is int or type(value) is hint
    if dataclasses.is_dataclass(value) and isinstance(value, hint):
        check_fields(value)
    return isinstance(value, hint)
