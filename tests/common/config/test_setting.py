import dataclasses
import math

import pytest

from feddp.common.config.setting import Setting, read_value, setting, setting_of

NUMBER = Setting("x", float, above=0, at_most=2)


@pytest.mark.parametrize(
    ("about", "value", "read"),
    [
        (NUMBER, 2, 2.0),
        (NUMBER, 1e-300, 1e-300),
        (Setting("x", int, at_least=0), 0, 0),
        (Setting("x", int, is_auto=True), "auto", None),
        (Setting("x", str), "auto", "auto"),
        (Setting("x", str, choices=("a", "b")), "b", "b"),
        (Setting("x", bool), True, True),
    ],
)
def test_an_allowed_value_is_read(about: Setting, value: object, read: object) -> None:
    found, problem = read_value("a.b", value, about)
    assert (found, problem) == (read, None)
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("about", "value"),
    [
        (NUMBER, 0),
        (NUMBER, 2.5),
        (NUMBER, math.nan),
        (NUMBER, math.inf),
        (NUMBER, 10**400),
        (NUMBER, True),
        (NUMBER, "auto"),
        (NUMBER, None),
        (Setting("x", int), 1.0),
        (Setting("x", int, below=3), 3),
        (Setting("x", bool), 1),
        (Setting("x", str), 1),
        (Setting("x", str, choices=("a", "b")), "A"),
    ],
)
def test_any_other_value_is_a_problem_that_says_what_is_allowed(
    about: Setting, value: object
) -> None:
    found, problem = read_value("a.b", value, about)
    assert found is None
    assert problem is not None
    assert problem.startswith("a.b = ")
    assert about.allowed() in problem


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (NUMBER, "a number > 0 and <= 2"),
        (Setting("x", int, at_least=1, is_auto=True), 'a whole number >= 1, or "auto"'),
        (Setting("x", str, choices=("a", "b")), 'one of "a", "b"'),
        (Setting("x", bool), "true or false"),
    ],
)
def test_what_is_allowed_is_said_in_words(about: Setting, words: str) -> None:
    assert about.allowed() == words


def test_a_default_of_none_is_auto() -> None:
    made = dataclasses.make_dataclass(
        "Section", [("a", int | None, setting(None, "x")), ("b", int, setting(3, "x"))]
    )
    about = {each.name: setting_of(each) for each in dataclasses.fields(made)}
    assert about == {"a": Setting("x", int, is_auto=True), "b": Setting("x", int)}
    assert (made().a, made().b) == (None, 3)
