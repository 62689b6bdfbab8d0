"""A short run of every fuzzer, and the inputs that once escaped."""

from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from fuzz.changes import change_bytes, change_tree
from fuzz.run import fuzz
from fuzz.targets import TARGETS, Target

ONCE_ESCAPED = {
    "a number beyond float64": ("run config", {"privacy.clipping-norm": 10**400}),
    "an array of 5000 arrays": ("config.toml", b"x = " + b"[" * 5000),
    "a path longer than any": ("config.toml", b'[data]\npath = "' + b"A" * 5000 + b'"\n'),
    "a plan of 5000 arrays": ("plan.json", b"[" * 5000),
    "a plan whose charges are numbers": ("plan.json", b'{"charges": [1]}'),
    "a plan with an endless count": ("plan.json", b'{"charges": [{"count": Infinity}]}'),
    "a column whose name is not UTF-8": ("users.csv", b"user_id,text,ch\xe4t\nann,Hi,\n"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_random_inputs_raise_declared_errors_alone(name: str) -> None:
    report = fuzz(name, num_inputs=400, seed=1)
    assert report.findings == []
    assert report.num_accepted > 0  # the inputs are near enough to valid ones


@pytest.mark.parametrize("case", ONCE_ESCAPED)
def test_an_input_that_once_escaped_is_refused(case: str, tmp_path: Path) -> None:
    name, content = ONCE_ESCAPED[case]
    target = TARGETS[name]
    with pytest.raises(target.declared):
        target.parse(content, tmp_path)


def test_the_same_seed_makes_the_same_inputs_and_another_does_not() -> None:
    from random import Random

    def inputs(seed: int) -> list[object]:
        rng = Random(seed)
        return [change_bytes(rng, b"abcdef" * 9) for _ in range(20)] + [
            repr(change_tree(rng, {"a": [1, {"b": "c"}]})) for _ in range(20)
        ]

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)


def test_an_undeclared_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(content: object, folder: Path) -> None:
        raise KeyError(content)

    broken = Target(lambda rng: rng.random(), parse, (ConfigError,))
    monkeypatch.setitem(TARGETS, "broken", broken)  # type: ignore[arg-type]
    report = fuzz("broken", num_inputs=100, seed=0, max_findings=3)
    assert len(report.findings) == report.num_inputs == 3
    assert "KeyError" in report.findings[0]


def test_a_run_out_of_time_says_how_many_inputs_it_reached() -> None:
    report = fuzz("event", num_inputs=1000, seed=0, max_seconds=0.0)
    assert report.num_inputs < 1000
    assert report.findings == []
