"""Units, relations and mechanisms of a plan: what is accounted, and what cannot be asked for."""

import json
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant
from flat_plan import flat_plan
from own_convolution import epsilon_of, fixed_size_losses
from scipy import stats

from feddp.common.errors import ConfigError
from feddp.common.privacy.mechanism.events import (
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.plan.plan import PrivacyPlan, plan_from_json, planned_curve
from feddp.common.privacy.plan.statement import (
    guarantee_line,
    not_covered,
    privacy_record,
    record_to_json,
    statement,
)

BASE: dict[str, Any] = {
    "num_users": 1000,
    "target_epsilon": 50.0,
    "target_delta": 1e-5,
    "noise_multiplier": 4.0,
    "clipping_norm": 0.5,
    "num_rounds": 20,
    "expected_cohort_size": 50.0,
    "dimension": 5000,
    "trust": "server",
    "seed": None,
    "details": {},
}
ELS = {"sampling_unit": "example", "num_examples": 2500, "max_examples_per_user": 3}
KINDS: dict[str, dict[str, Any]] = {
    "user": {},
    "several nodes": {"max_nodes_per_user": 2},
    "examples of users": ELS,
    "examples": {"unit": "example", "sampling_unit": "example", "num_examples": 2500},
    "fixed size": {"mechanism": "fixed-size"},
    "blt": {"mechanism": "blt", "separation": 5},
    "banded": {"mechanism": "banded", "separation": 5},
    "cyclic": {"mechanism": "cyclic-poisson", "separation": 5},
    "node": {"trust": "node", "is_noised_by_nodes": True},
    "several noising nodes": {
        "trust": "node",
        "is_noised_by_nodes": True,
        "max_nodes_per_user": 3,
    },
    "examples of noising nodes": {
        **ELS,
        "trust": "node",
        "is_noised_by_nodes": True,
        "max_nodes_per_user": 2,
    },
    "quantile": {"quantile": lambda cohort: QuantileClipping(0.5, 0.2, cohort / 20, 0.01, 10.0)},
}
PLANS = {name: flat_plan(**(BASE | changes)) for name, changes in KINDS.items()}


def plan_of(**changes: Any) -> PrivacyPlan:
    return flat_plan(**(BASE | changes))


def test_each_kind_charges_its_event():
    charges = {name: plan.charges for name, plan in PLANS.items()}
    assert charges["user"] == ((PoissonGaussianEvent(0.05, 4.0), 20),)
    assert charges["several nodes"] == ((PoissonGaussianEvent(0.05, 4.0, 2), 20),)
    assert charges["examples of users"] == ((PoissonGaussianEvent(0.02, 4.0, 3), 20),)
    assert charges["examples"] == ((PoissonGaussianEvent(0.02, 4.0), 20),)
    assert charges["fixed size"] == ((FixedSizeGaussianEvent(1000, 50, 4.0), 20),)
    assert charges["blt"] == charges["banded"] == ((GaussianEvent(4.0), 1),)
    assert charges["cyclic"] == ((PoissonGaussianEvent(0.25, 4.0), 4),)
    assert charges["node"] == charges["quantile"] == charges["user"]
    assert charges["several noising nodes"] == ((PoissonGaussianEvent(0.05, 4.0, 1, 3), 20),)
    assert charges["examples of noising nodes"] == ((PoissonGaussianEvent(0.02, 4.0, 3, 2), 20),)


def test_each_mechanism_has_its_relation_and_accountant():
    relations = {name: (plan.relation, plan.schedule.accountant) for name, plan in PLANS.items()}
    assert relations["user"] == relations["examples"] == ("add-or-remove-one", "pld")
    assert relations["fixed size"] == ("replace-one", "pld")
    assert relations["blt"] == relations["banded"] == ("zero-out", "pld")


def test_examples_of_users_are_divided_by_their_declared_number():
    plan = PLANS["examples of users"]
    assert plan.sampling_probability * plan.population.num_units == pytest.approx(
        plan.expected_cohort_size
    )
    assert plan.population.num_units == 2500
    assert plan_of(**ELS, max_nodes_per_user=2).population.num_coins == 6


def test_a_promise_for_all_examples_of_a_user_costs_more_than_one_for_each():
    assert PLANS["examples of users"].epsilon > 2 * PLANS["examples"].epsilon
    one = plan_of(**(ELS | {"max_examples_per_user": 1, "num_examples": 1000}))
    assert one.epsilon == PLANS["user"].epsilon


def event_of(body: dict[str, Any]) -> dp_accounting.DpEvent:
    """From the record alone, without feddp."""
    z = float(body["noise_multiplier"])
    if body["event"] == "gaussian":
        return dp_accounting.GaussianDpEvent(z)
    if body["event"] == "fixed-size-gaussian":
        half = dp_accounting.GaussianDpEvent(z / 2)
        return dp_accounting.SampledWithoutReplacementDpEvent(
            body["num_users"], body["cohort_size"], half
        )
    q, coins = float(body["sampling_probability"]), body["num_coins"]
    release: dp_accounting.DpEvent = dp_accounting.PoissonSampledDpEvent(
        q, dp_accounting.GaussianDpEvent(z)
    )
    if coins > 1:
        weights = stats.binom.pmf(range(coins + 1), coins, q)
        release = MixtureOfGaussiansDpEvent(z, list(range(coins + 1)), list(weights))
    return dp_accounting.SelfComposedDpEvent(release, body.get("num_releases", 1))


RELATIONS = {
    "add-or-remove-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "zero-out": dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


@pytest.mark.parametrize("name", KINDS)
def test_the_record_alone_is_enough_to_recompute_epsilon(name):
    record = json.loads(
        record_to_json(privacy_record(PLANS[name], ledger_head="f0", not_covered=["x"]))
    )
    relation = RELATIONS[record["neighboring_relation"]]
    assert record["accountant"]["name"] == "pld"
    if name == "fixed size":  # dp-accounting has no distribution for it
        (body,) = record["charges"]
        q, z = body["cohort_size"] / body["num_users"], float(body["noise_multiplier"])
        losses = fixed_size_losses(z, q, 1e-4)
        spent = epsilon_of([(losses, body["count"])], record["accounting_delta"])
        assert record["epsilon"] - record["bridge_epsilon"] == pytest.approx(spent, rel=1e-4)
        return
    accountant = PLDAccountant(relation)
    for body in record["charges"]:
        accountant.compose(event_of(body), body["count"])
    spent = accountant.get_epsilon(record["accounting_delta"])
    assert spent * (1 - 1e-9) <= record["epsilon"] - record["bridge_epsilon"] <= spent * (1 + 3e-6)
    assert record["accounting_delta"] + record["bridge_delta"] <= record["delta"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_survives_json(name):
    plan = PLANS[name]
    again = plan_from_json(plan.to_json())
    assert again == plan
    assert again.sha256 == plan.sha256


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_a_curve_that_ends_at_its_promise(name):
    plan = PLANS[name]
    curve = planned_curve(plan)
    assert curve.shape == (20,)
    assert np.all(np.diff(curve) >= 0)
    assert curve[-1] == pytest.approx(plan.epsilon - plan.noise.bridge_epsilon, rel=1e-9)


def test_the_mechanism_of_a_plan_charges_the_event_of_the_plan():
    for name in ("user", "several nodes", "examples of users", "examples", "fixed size"):
        plan = PLANS[name]
        assert plan.mechanism.event() == plan.event
        assert plan.mechanism.sampler.relation == plan.relation


def test_a_clip_bit_is_one_more_number_with_noise():
    plan = PLANS["quantile"]
    assert plan.sum_dimension == plan.mechanism.sum_dimension == 5001
    assert plan.noise.bridge_delta > PLANS["user"].noise.bridge_delta


def test_a_cohort_of_everybody_whose_turn_it_is_has_probability_one():
    third = plan_of(mechanism="cyclic-poisson", separation=3, expected_cohort_size=333.3333333334)
    assert third.sampling_probability == 1.0
    assert third.draw.probability == 1.0


def test_each_node_of_a_user_adds_discrete_noise_of_its_own():
    once = plan_of(max_nodes_per_user=2)
    twice = plan_of(max_nodes_per_user=2, trust="node", is_noised_by_nodes=True)
    assert twice.noise.grid_steps == once.noise.grid_steps
    assert twice.noise.bridge_delta == pytest.approx(2**0.5 * once.noise.bridge_delta)


IMPOSSIBLE = {
    "a user drawn under an example's promise": ({"unit": "example"}, "sampling.unit"),
    "examples without their number": (
        {"sampling_unit": "example", "max_examples_per_user": 2},
        "privacy.num-examples",
    ),
    "examples of users without a bound": (
        {"sampling_unit": "example", "num_examples": 2000},
        "data.max-examples-per-user",
    ),
    "more examples than the bound allows": (ELS | {"num_examples": 3001}, "at most 3000"),
    "more coins than can be accounted": (ELS | {"max_examples_per_user": 257}, "257 coins"),
    "fixed size on several nodes": (
        {"mechanism": "fixed-size", "max_nodes_per_user": 2},
        "one unit on one node",
    ),
    "fixed size of examples of users": (ELS | {"mechanism": "fixed-size"}, "one unit on one node"),
    "half a user in a fixed cohort": (
        {"mechanism": "fixed-size", "expected_cohort_size": 50.5},
        "whole number",
    ),
    "correlated examples of users": (ELS | {"mechanism": "blt"}, "one unit on one node"),
    "correlated noise of nodes": (
        {"mechanism": "blt", "is_noised_by_nodes": True},
        "made in one place",
    ),
    "turns of examples": (
        {
            "unit": "example",
            "sampling_unit": "example",
            "num_examples": 2500,
            "mechanism": "cyclic-poisson",
        },
        "its place among its user's",
    ),
    "a draw of examples by the server": (ELS | {"drawn_by": "server"}, "not their examples"),
    "a draw of a fixed size by the server": (
        {"mechanism": "fixed-size", "drawn_by": "server"},
        "fewer than N",
    ),
    "a draw by a server that nobody trusts": (
        {"is_noised_by_nodes": True, "drawn_by": "server"},
        "nobody trusts the server's coins",
    ),
    "separation beyond the rounds": ({"mechanism": "blt", "separation": 21}, "from 2 to"),
    "separation beyond the users": (
        {"mechanism": "cyclic-poisson", "separation": 10, "expected_cohort_size": 101.0},
        "needs 1010 units",
    ),
    "a clip bit with too little noise": (
        {"quantile": lambda cohort: QuantileClipping(0.5, 0.2, 2.0, 0.01, 10.0)},
        "privacy.clipping-bit-noise = 2: must be above half the noise multiplier, 2,",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_promises_nothing_is_refused(name):
    changes, message = IMPOSSIBLE[name]
    with pytest.raises(ConfigError, match=message):
        plan_of(**changes)


@pytest.mark.parametrize("name", KINDS)
def test_every_printed_epsilon_carries_what_gives_it_a_meaning(name):
    plan = PLANS[name]
    line, text = (
        guarantee_line(plan),
        statement(plan, not_covered=not_covered("x", is_generated=False)),
    )
    for part in (
        "upper bound",
        f"trust {plan.trust.model}",
        plan.relation,
        f"{plan.schedule.accountant.upper()} acc",
    ):
        assert part in line
        assert part in text
    assert f"unit {plan.unit}" in line
    assert f"one {plan.unit}" in text


def text_of(name: str) -> str:
    return statement(PLANS[name], not_covered=("x",))


def test_statements_say_what_is_particular_to_each_kind():
    assert "a user with k examples is protected by no more than k epsilon" in text_of("examples")
    assert "can only check that a user's sum stays within 3 x 0.5" in text_of("examples of users")
    assert "on up to 2 nodes" in text_of("several nodes")
    assert "theirs or another user's" in text_of("fixed size")
    assert "exactly 50 of N = 1000" in text_of("fixed size")
    assert "no amplification by sampling is claimed" in text_of("blt")
    assert "every 5 rounds, is drawn with probability 0.25" in text_of("cyclic")
    assert "Each node adds the whole noise itself" in text_of("node")
    assert "follows a noised quantile" in text_of("quantile")
