"""The promise in words: nothing left out, nothing rounded in the wrong direction."""

import importlib.metadata
import json
import re
from decimal import Decimal

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from flat_plan import changed, flat_plan
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.privacy.mechanism.fixed_turns import BANDED
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import (
    accountant_version,
    delta_text,
    epsilon_text,
    guarantee_line,
    not_covered,
    privacy_record,
    record_to_json,
    statement,
)

PLAN = flat_plan(
    num_users=1000,
    target_epsilon=8.0,
    target_delta=None,
    noise_multiplier=1.0,
    clipping_norm=0.5,
    num_rounds=20,
    expected_cohort_size=50.0,
    dimension=5000,
    trust="simulation",
    seed=None,
    details={"base_sha256": "ab"},
)
SERVER, SEEDED = changed(PLAN, model="server"), changed(PLAN, seed=7)
OUTSIDE = ("ten consenting evaluation users", "the base model")


def texts_of(plan: PrivacyPlan) -> dict[str, str]:
    return {
        "line": guarantee_line(plan),
        "statement": statement(plan, not_covered=OUTSIDE),
    }


@pytest.mark.parametrize("plan", [PLAN, SERVER, SEEDED], ids=["simulation", "server", "seeded"])
@pytest.mark.parametrize("kind", ["line", "statement"])
def test_every_epsilon_comes_with_all_that_gives_it_a_meaning(plan, kind):
    paragraphs = texts_of(plan)[kind].split("\n")
    with_epsilon = [text for text in paragraphs if re.search(r"epsilon (<=|=) ", text)]
    assert with_epsilon
    for text in with_epsilon:
        assert epsilon_text(plan.epsilon) in text
        assert re.search(rf"delta (= )?{delta_text(plan.delta)}", text)
        assert "user" in text
        assert "add-or-remove-one" in text
        assert f"trust {plan.trust.model}" in text
        assert f"PLD accountant of {accountant_version()}" in text
        assert "upper bound" in text


@pytest.mark.parametrize("kind", ["line", "statement"])
def test_seeded_run_says_that_it_is_not_private(kind):
    assert "seeded: not private" in texts_of(SEEDED)[kind]
    assert "not private" not in texts_of(PLAN)[kind]
    assert "not private" in texts_of(changed(PLAN, seed=0))[kind]


def test_simulation_speaks_of_semantics_only():
    text = statement(PLAN, not_covered=OUTSIDE)
    assert "semantics only" in text
    assert "not the security of a deployment" in text
    assert "semantics only" not in statement(SERVER, not_covered=OUTSIDE)


def test_deployment_names_everyone_who_sees_sums_before_noise():
    text = statement(SERVER, not_covered=OUTSIDE)
    assert "The server app adds the noise and is trusted with the sums" in text
    assert "SuperLink" in text
    assert "trusted to sample and clip" in text
    assert "TLS" in text


def test_statement_tells_how_and_what_is_outside():
    text = statement(PLAN, not_covered=OUTSIDE)
    for phrase in (
        "in each of 20 rounds every one of N = 1000 declared users",
        "drawn with probability 0.05;",
        "clipped to L2 norm 0.5;",
        "noise of 1 times that norm",
        "divided by the constant 50.",
        "20 charges: one a round",
        "a round that a crash burns is charged, and not repeated",
        "this run only",
        "also after an early stop",
    ):
        assert phrase in text
    for item in OUTSIDE:
        assert f"- {item}\n" in text


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "is drawn with probability", "The server app draws"),
        ({"drawn_by": "server"}, "against readers of releases only", "dropped unopened"),
        (
            {"drawn_by": "server", "asks_everyone": True},
            "dropped unopened",
            "against readers of releases only",
        ),
        (
            {"drawn_by": "server", "mechanism": BANDED},
            "which is no secret here",
            "against readers of releases only",
        ),
    ],
    ids=["by nodes", "asked alone", "all asked", "in turns"],
)
def test_statement_tells_who_draws_and_who_sees_the_cohort(changes, said, unsaid):
    text = statement(changed(PLAN, **changes), not_covered=[])
    assert said in text
    assert unsaid not in text


def test_noise_and_probability_are_not_rounded_to_look_better():
    plan = changed(PLAN, multiplier=0.66996, size=49.9996)
    text = statement(plan, not_covered=OUTSIDE)
    assert "0.66996 times" in text
    assert "probability 0.0499996;" in text


@given(st.floats(1e-4, 1e4))
def test_printed_epsilon_is_never_below_the_bound(value):
    printed = Decimal(epsilon_text(value))
    assert Decimal(repr(value)) <= printed < Decimal(repr(value)) + Decimal("0.001")
    assert re.fullmatch(r"\d+\.\d{3}", epsilon_text(value))


@given(st.floats(1e-12, 0.5))
def test_printed_delta_is_never_below_the_promised_one(value):
    printed = float(delta_text(value))
    assert value <= printed <= value * 1.0101


@pytest.mark.parametrize(
    ("value", "text"), [(2.0001, "2.001"), (2.0, "2.000"), (7.9999, "8.000"), (1e-9, "0.001")]
)
def test_epsilon_is_rounded_up(value, text):
    assert epsilon_text(value) == text
    assert f"epsilon <= {text} (" in guarantee_line(changed(PLAN, epsilon=value))
    assert f"epsilon = {text} at" in statement(changed(PLAN, epsilon=value), not_covered=OUTSIDE)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-5, "1e-05"), (3.981e-6, "3.99e-06"), (9.999e-7, "1e-06")]
)
def test_delta_is_rounded_up(value, text):
    assert delta_text(value) == text
    assert f"delta {text}," in guarantee_line(changed(PLAN, delta=value))


def test_infinite_epsilon_is_printed_as_such():
    assert epsilon_text(float("inf")) == "inf"


def read_record(plan: PrivacyPlan) -> dict[str, object]:
    record = privacy_record(plan, ledger_head="f00d", not_covered=OUTSIDE)
    return json.loads(record_to_json(record))


def test_record_alone_is_enough_to_recompute_epsilon():
    record = read_record(PLAN)
    assert record["accountant"]["name"] == "pld"
    assert record["neighboring_relation"] == "add-or-remove-one"
    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4
    )
    one = dp_accounting.PoissonSampledDpEvent(
        record["sampling_probability"], dp_accounting.GaussianDpEvent(record["noise_multiplier"])
    )
    accountant.compose(dp_accounting.SelfComposedDpEvent(one, record["num_charges"]))
    spent = accountant.get_epsilon(record["accounting_delta"])
    assert spent <= record["epsilon"] <= spent * (1 + 2e-6)
    assert record["accounting_delta"] + record["bridge_delta"] <= record["delta"]


def test_record_alone_is_enough_to_recompute_the_bridge_term():
    record = read_record(PLAN)
    scale = record["noise_multiplier"] * record["grid_steps"]
    variation = (record["num_charges"] * record["dimension"] / 1152) ** 0.5 / scale**2
    bridge = (1 + 2.718281828459045 ** record["epsilon"]) * variation
    assert record["bridge_delta"] == pytest.approx(bridge, rel=1e-5)


def test_record_holds_what_the_design_lists():
    record = read_record(PLAN)
    numbers = (
        *("trust", "epsilon", "delta", "noise_multiplier", "clipping_norm"),
        *("sampling_probability", "num_users", "num_rounds", "num_charges", "grid_steps"),
        *("dimension", "accounting_delta", "bridge_delta"),
    )
    for name in numbers:
        assert record[name] == json.loads(PLAN.to_json())[name]
    assert record["mechanism"] == "poisson-gaussian"
    assert record["neighboring_relation"] == "add-or-remove-one"
    assert record["unit"] == "user"
    assert record["ledger_head"] == "f00d"
    assert record["plan_sha256"] == PLAN.sha256
    assert record["not_covered"] == list(OUTSIDE)
    assert record["accountant"]["version"] == importlib.metadata.version("dp-accounting")


def test_record_says_whether_the_run_was_seeded():
    assert read_record(PLAN)["seeded"] is False
    assert read_record(SEEDED)["seeded"] is True
    assert read_record(changed(PLAN, seed=0))["seeded"] is True


def test_evaluation_users_come_first_among_what_is_not_covered():
    items = not_covered("10 of 110 users, held out", is_generated=False)
    assert items[0].startswith("10 of 110 users, held out")
    assert "no noise" in items[0]
    assert len(set(items)) == len(items)
    assert any("group" in item for item in items)
    assert any("several nodes" in item for item in items)
    assert any("accelerators or with nodes.compile" in item for item in items)


def test_generated_users_are_named_as_such():
    real = not_covered("x", is_generated=False)
    generated = not_covered("x", is_generated=True)
    assert generated[:-1] == real
    assert "generated" in generated[-1]
    assert not any("generated" in item for item in real)
