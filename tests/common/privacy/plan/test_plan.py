"""The plan: rules, reasons, hash, and refusals that say what would help."""

import dataclasses
import json
import math
import re
from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from flat_plan import changed, flat_plan
from hypothesis import given
from hypothesis import strategies as st

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.bridge import bridge_delta
from feddp.common.privacy.mechanism.fixed_size import FIXED_SIZE
from feddp.common.privacy.mechanism.noise import MAX_SCALE
from feddp.common.privacy.mechanism.noise_matrix import NoiseMatrix
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.plan.plan import PrivacyPlan, plan_from_json

QUICK: dict[str, Any] = {
    "num_users": 1000,
    "target_epsilon": 8.0,
    "target_delta": None,
    "noise_multiplier": 1.0,
    "clipping_norm": 0.5,
    "num_rounds": 20,
    "expected_cohort_size": 50.0,
    "dimension": 5000,
    "trust": "simulation",
    "seed": None,
    "details": {"base_sha256": "ab", "layout_sha256": "cd"},
}
AUTO = QUICK | {
    "noise_multiplier": None,
    "num_rounds": None,
    "expected_cohort_size": None,
}
PLAN = flat_plan(**QUICK)
AUTO_PLAN = flat_plan(**AUTO)


def problems_of(**changes: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        flat_plan(**(QUICK | changes))
    return str(refused.value)


def recomputed_epsilon(plan: PrivacyPlan) -> float:
    """By dp_accounting alone."""
    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4
    )
    event = dp_accounting.PoissonSampledDpEvent(
        plan.sampling_probability, dp_accounting.GaussianDpEvent(plan.noise_multiplier)
    )
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, plan.num_charges))
    return float(accountant.get_epsilon(plan.accounting_delta))


@pytest.mark.parametrize("plan", [PLAN, AUTO_PLAN], ids=["given", "auto"])
def test_promise_holds_for_a_second_accountant(plan):
    spent = recomputed_epsilon(plan)
    assert spent <= plan.epsilon <= plan.target_epsilon
    assert plan.epsilon == pytest.approx(spent, rel=2e-6)


@pytest.mark.parametrize("plan", [PLAN, AUTO_PLAN], ids=["given", "auto"])
def test_the_parts_of_delta_fit_into_delta(plan):
    assert plan.accounting_delta + plan.noise.bridge_delta <= plan.delta
    assert 0 < plan.noise.bridge_delta <= 0.01 * plan.delta
    assert plan.accounting_delta == 0.99 * plan.delta
    assert plan.noise.bridge_delta == bridge_delta(
        num_charges=plan.num_charges,
        dimension=plan.dimension,
        noise_scale=plan.mechanism.noise_scale,
        epsilon=plan.epsilon,
    )


def test_calibrated_plan_uses_up_its_target():
    assert 8.0 * 0.998 < AUTO_PLAN.epsilon <= 8.0
    less = changed(AUTO_PLAN, multiplier=AUTO_PLAN.noise_multiplier - 1e-4)
    assert recomputed_epsilon(less) > 8.0


def test_every_round_is_one_charge():
    assert PLAN.num_charges == PLAN.num_rounds == 20
    assert AUTO_PLAN.num_charges == AUTO_PLAN.num_rounds == 50
    fewer = changed(PLAN, num_charges=19)
    assert recomputed_epsilon(fewer) < PLAN.epsilon


def test_a_plan_of_before_keeps_its_spare_attempts():
    older = flat_plan(**QUICK, spare_attempts=3)
    opened = plan_from_json(older.to_json())
    assert opened == older
    assert (opened.num_rounds, opened.num_charges) == (20, 23)
    assert recomputed_epsilon(opened) == pytest.approx(opened.epsilon, rel=2e-6)
    assert opened.epsilon > PLAN.epsilon


@pytest.mark.parametrize(
    ("num_users", "delta"),
    [(2, 1e-5), (1000, 1e-5), (35_000, 1e-5), (36_000, 36_000**-1.1), (10**7, (10**7) ** -1.1)],
)
def test_delta_is_the_smaller_of_two_rules(num_users, delta):
    cohort = num_users * 0.01
    plan = flat_plan(**(QUICK | {"num_users": num_users, "expected_cohort_size": cohort}))
    assert plan.delta == delta
    assert plan.delta < 1 / num_users


@pytest.mark.parametrize(
    ("num_users", "cohort"),
    [
        (2, 2),
        (20, 20),
        (50, 20),
        (200, 20),
        (201, 20.1),
        (5000, 500),
        (10_000, 1000),
        (10**6, 1000),
    ],
)
def test_cohort_is_a_tenth_of_the_users_within_bounds(num_users, cohort):
    changes = {"num_users": num_users, "expected_cohort_size": None, "noise_multiplier": 20.0}
    plan = flat_plan(**(QUICK | changes))
    assert plan.expected_cohort_size == pytest.approx(cohort)
    assert plan.sampling_probability == plan.expected_cohort_size / num_users <= 1


DERIVED = (
    "epsilon",
    "delta",
    "accounting_delta",
    "bridge_epsilon",
    "bridge_delta",
    "num_rounds",
    "num_charges",
    "expected_cohort_size",
    "sampling_probability",
    "noise_multiplier",
    "clipping_norm",
    "grid_steps",
)


@pytest.mark.parametrize("plan", [PLAN, AUTO_PLAN], ids=["given", "auto"])
@pytest.mark.parametrize("name", DERIVED)
def test_every_derived_number_has_its_reason(plan, name):
    assert name in json.loads(plan.to_json())
    assert plan.reasons[name]


def test_reasons_tell_a_given_number_from_a_derived_one():
    for name in ("num_rounds", "expected_cohort_size", "noise_multiplier"):
        assert PLAN.reasons[name] == "given"
        assert AUTO_PLAN.reasons[name] != "given"


OTHER_VALUES: dict[str, Any] = {
    "unit": "example",
    "sampling_unit": "example",
    "num_users": 1001,
    "num_examples": 2000,
    "max_examples_per_user": 2,
    "max_nodes_per_user": 2,
    "size": 51.0,
    "num_rounds": 21,
    "num_charges": 24,
    "separation": 2,
    "num_releases": 2,
    "accountant": "rdp",
    "mechanism": FIXED_SIZE,
    "target_epsilon": 7.0,
    "delta": 2e-6,
    "multiplier": math.nextafter(1.0, 2),
    "grid_steps": 1 << 24,
    "matrix": NoiseMatrix((256, 128), 8, 3),
    "epsilon": 1.0,
    "bridge_epsilon": 2e-6,
    "bridge_delta": 4e-9,
    "norm": 0.6,
    "quantile": QuantileClipping(0.5, 0.2, 2.5, 0.01, 10.0),
    "model": "server",
    "is_noised_by_nodes": True,
    "drawn_by": "server",
    "asks_everyone": True,
    "dimension": 5001,
    "seed": 7,
    "details": {"base_sha256": "ab", "layout_sha256": "ce"},
}


def names_of(part: Any) -> set[str]:
    """Its fields, and those of the parts in it, but for the mechanism, which is a choice."""
    found = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    parts = {name for name in found if dataclasses.is_dataclass(found[name])} - {"mechanism"}
    return (found.keys() - parts).union(*(names_of(found[name]) for name in parts))


def test_every_promised_number_is_known_to_this_test():
    assert set(OTHER_VALUES) | {"reasons"} == names_of(PLAN)


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_hash_changes_with_every_promised_number(name):
    # Releases of their own are as many as the nodes of a user.
    plan = flat_plan(**QUICK, max_nodes_per_user=2) if name == "num_releases" else PLAN
    other = changed(plan, **{name: OTHER_VALUES[name]})
    assert other != plan
    assert other.sha256 != plan.sha256


CONTENT = json.loads(PLAN.to_json())


@pytest.mark.parametrize("name", [name for name in CONTENT if name != "reasons"])
def test_a_changed_plan_file_is_refused_or_has_another_hash(name):
    for value in (3, 0.25, None, "x", True, [], {}):
        if value == CONTENT[name]:
            continue
        try:
            plan = plan_from_json(json.dumps(CONTENT | {name: value}))
        except (ValueError, TypeError, KeyError):
            continue
        assert plan.sha256 != PLAN.sha256


DERIVED_FROM_OTHERS = {
    "relation": "zero-out",
    "num_coins": 2,
    "accounting_delta": 1e-5,
    "charges": [],
    "sampling_probability": 0.04,
}


@pytest.mark.parametrize("name", DERIVED_FROM_OTHERS)
def test_a_plan_file_that_contradicts_itself_is_refused(name):
    with pytest.raises(ValueError, match=name):
        plan_from_json(json.dumps(CONTENT | {name: DERIVED_FROM_OTHERS[name]}))


def test_a_plan_file_from_before_the_server_could_draw_opens():
    old = {key: CONTENT[key] for key in CONTENT if key not in ("drawn_by", "asks_everyone")}
    assert plan_from_json(json.dumps(old)) == PLAN


def test_hash_does_not_change_with_the_reasons():
    other = dataclasses.replace(PLAN, reasons={"delta": "because"})
    assert other.sha256 == PLAN.sha256
    assert other == PLAN


def test_equal_arguments_make_equal_plans_whole_numbers_included():
    whole = QUICK | {"expected_cohort_size": 50, "target_epsilon": 8, "noise_multiplier": 1}
    assert flat_plan(**whole).sha256 == flat_plan(**QUICK).sha256 == PLAN.sha256


@pytest.mark.parametrize("plan", [PLAN, AUTO_PLAN], ids=["given", "auto"])
def test_plan_survives_json(plan):
    again = plan_from_json(plan.to_json())
    assert again == plan
    assert again.reasons == plan.reasons
    assert again.sha256 == plan.sha256


@given(st.floats(1e-9, 1e9), st.floats(1e-12, 1e-3), st.integers(0, 1 << 62))
def test_floats_survive_json_exactly(clipping_norm, delta, seed):
    plan = changed(PLAN, norm=clipping_norm, delta=delta, seed=seed)
    assert plan_from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_users": 3}', "null"])
def test_text_that_is_not_a_plan_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        plan_from_json(text)


def test_plan_with_an_unknown_number_is_refused():
    content = json.loads(PLAN.to_json()) | {"noise": 1}
    with pytest.raises(ValueError, match="noise"):
        plan_from_json(json.dumps(content))


def test_mechanism_is_made_of_the_promised_numbers():
    mechanism, promised = PLAN.mechanism, CONTENT | {"num_units": 1000}
    for field in dataclasses.fields(mechanism):
        if field.name != "sampler":
            assert getattr(mechanism, field.name) == promised[field.name]
    assert mechanism.event() == PLAN.event
    assert mechanism.sampler.relation == PLAN.relation


@pytest.mark.parametrize("delta", [1 / 1000, 0.0011, 0.5])
def test_delta_of_one_over_n_or_more_is_refused(delta):
    assert "must be below 1/N = 0.001" in problems_of(target_delta=delta)


def test_delta_just_below_one_over_n_is_accepted():
    assert flat_plan(**(QUICK | {"target_delta": 0.000999})).delta == 0.000999


def test_delta_below_the_accountants_reach_is_refused():
    assert "at least 1e-12" in problems_of(target_delta=9e-13)


def test_cohort_larger_than_the_population_is_refused():
    assert "must be at most N = 1000" in problems_of(expected_cohort_size=1000.5)


def test_all_problems_of_a_schedule_are_told_at_once():
    text = problems_of(expected_cohort_size=2000.0, target_delta=0.1)
    assert "sampling.expected-cohort-size" in text
    assert "privacy.target-delta" in text


def test_given_noise_that_misses_the_target_is_refused():
    text = problems_of(noise_multiplier=0.5)
    assert "privacy.noise-multiplier = 0.5: gives epsilon" in text
    assert "above privacy.target-epsilon = 8" in text


def test_given_noise_just_below_the_calibrated_one_is_refused():
    z = AUTO_PLAN.noise_multiplier
    assert flat_plan(**(AUTO | {"noise_multiplier": z})).epsilon <= 8.0
    with pytest.raises(ConfigError, match=r"above privacy\.target-epsilon"):
        flat_plan(**(AUTO | {"noise_multiplier": z - 1e-4}))


@pytest.mark.parametrize("noise_multiplier", [1e-9, 0.0999, 60.1, 1e9])
def test_given_noise_out_of_range_is_refused(noise_multiplier):
    assert "must be from 0.1 to 60" in problems_of(noise_multiplier=noise_multiplier)


def test_given_noise_far_below_the_target_is_refused_without_a_fine_computation():
    # At this noise the fine privacy loss distribution of all charges has 5e8 cells.
    changes = {"noise_multiplier": 0.1, "expected_cohort_size": 10.0, "num_rounds": 100}
    assert "gives epsilon" in problems_of(**changes)


UNREACHABLE = {"target_epsilon": 0.2, "num_rounds": 2200}


def test_target_out_of_reach_names_a_cohort_that_reaches_it():
    text = problems_of(**UNREACHABLE, noise_multiplier=None, expected_cohort_size=1000.0)
    assert "privacy.target-epsilon = 0.2: out of reach for a cohort of 1000 of 1000 users" in text
    advised = re.search(r"A cohort of ([0-9.]+) \(sampling.expected-cohort-size\) reaches it", text)
    assert advised is not None
    plan = flat_plan(
        **(
            QUICK
            | UNREACHABLE
            | {"noise_multiplier": None, "expected_cohort_size": float(advised[1])}
        )
    )
    assert plan.epsilon <= 0.2


def test_target_that_no_cohort_reaches_says_so():
    text = problems_of(
        target_epsilon=0.01,
        noise_multiplier=None,
        num_users=10,
        expected_cohort_size=5.0,
        num_rounds=2000,
    )
    assert "No cohort of these users reaches it" in text


@pytest.mark.parametrize("target", [20.0, 32.0])
def test_a_large_target_pays_for_discrete_noise_in_epsilon_and_still_keeps_it(target):
    plan = flat_plan(**(QUICK | {"target_epsilon": target, "noise_multiplier": None}))
    assert 0 < plan.noise.bridge_epsilon <= 1e-5 * target
    assert target - 0.2 < plan.epsilon <= target
    assert plan.accounting_delta + plan.noise.bridge_delta <= plan.delta


@pytest.mark.parametrize("dimension", [1, 10**4, 10**6])
def test_grid_fits_the_noise_sampler(dimension):
    plan = flat_plan(**(QUICK | {"dimension": dimension}))
    assert 2 <= plan.mechanism.noise_scale <= MAX_SCALE
    assert plan.noise.bridge_delta <= plan.delta / 100


def test_seed_and_trust_and_details_are_kept():
    plan = flat_plan(**(QUICK | {"seed": 5, "trust": "server"}))
    assert (plan.seed, plan.trust.model) == (5, "server")
    assert plan.details == QUICK["details"]
