"""What each accountant says of each event under each relation: dp-accounting's own table and ours.

The first table is of dp-accounting 0.6.0 itself: it says which event feddp may hand to which
accountant, and which numbers are no bounds. The second is of feddp: a number, or a refusal.
"""

import itertools

import dp_accounting
import pytest
from dp_accounting import dp_event as events
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant

from feddp.common.errors import ConfigError
from feddp.common.privacy.accounting.epsilon import COARSE, accountant_of, compose, epsilon
from feddp.common.privacy.accounting.renyi import epsilon_rdp
from feddp.common.privacy.mechanism.allocation import combined_noise_multiplier
from feddp.common.privacy.mechanism.cohorts import Population
from feddp.common.privacy.mechanism.events import (
    ADD_OR_REMOVE_ONE,
    RELATIONS,
    REPLACE_ONE,
    ZERO_OUT,
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
)
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.plan.request import Request, Trust
from feddp.common.privacy.plan.schedule import make_schedule

GAUSSIAN = events.GaussianDpEvent(1.0)
COLUMNS = list(itertools.product(("rdp", "pld"), (ADD_OR_REMOVE_ONE, REPLACE_ONE, ZERO_OUT)))

# One event at delta 1e-5: RDP, then PLD, each under add-or-remove-one, replace-one and zero-out;
# None is refused. The privacy loss distribution under replace-one doubles the sensitivity itself.
TABLE: dict[str, tuple[events.DpEvent, tuple[float | None, ...]]] = {
    "Gaussian": (GAUSSIAN, (4.7285, 4.7285, 4.7285, 4.3772, 9.9973, 4.3772)),
    "Gaussian of half the noise": (
        events.GaussianDpEvent(0.5),
        (10.7255, 10.7255, 10.7255, 9.9973, 24.3816, 9.9973),
    ),
    "Poisson-sampled Gaussian": (
        events.PoissonSampledDpEvent(0.1, GAUSSIAN),
        (2.1330, None, 2.1330, 1.6845, 1.7892, 1.6845),
    ),
    "Poisson-sampled, two Gaussians": (
        events.PoissonSampledDpEvent(0.1, events.SelfComposedDpEvent(GAUSSIAN, 2)),
        (4.0699, None, 4.0699, None, None, None),
    ),
    "sampled without replacement": (
        events.SampledWithoutReplacementDpEvent(100, 10, GAUSSIAN),
        (None, 2.2751, None, None, None, None),
    ),
    "mixture of Gaussians": (
        events.MixtureOfGaussiansDpEvent(1.0, [0, 1], [0.9, 0.1]),
        (None, None, None, 1.6845, None, 1.6845),
    ),
    "truncated Poisson sample": (
        events.TruncatedSubsampledGaussianDpEvent(1000, 0.01, 20, 1.0),
        (None, None, None, 0.2344, 0.2429, 0.2344),
    ),
    "tree of one epoch": (
        events.SingleEpochTreeAggregationDpEvent(1.0, 8),
        (None, None, 10.73, None, None, None),
    ),
    "repeated and selected": (
        events.RepeatAndSelectDpEvent(GAUSSIAN, 10, 1),
        (8.51, 8.51, 8.51, None, None, None),
    ),
    "zero-concentrated": (events.ZCDpEvent(0.5), (4.73, 4.73, 4.73, None, None, None)),
    "Laplace": (events.LaplaceDpEvent(1.0), (1.0028, 1.0028, 1.0028, 1.0, None, 1.0)),
    "sampled twice": (
        events.PoissonSampledDpEvent(0.1, events.PoissonSampledDpEvent(0.1, GAUSSIAN)),
        (None,) * 6,
    ),
    "sampled zero-concentrated": (
        events.PoissonSampledDpEvent(0.1, events.ZCDpEvent(0.5)),
        (None,) * 6,
    ),
    "sampled with replacement": (
        events.SampledWithReplacementDpEvent(100, 10, GAUSSIAN),
        (None,) * 6,
    ),
}
# A search in Python builds these distributions: a coarser grid, and a bound above the fine one.
COARSELY = {"mixture of Gaussians": 1e-2, "truncated Poisson sample": 1e-3}


def accountant(name: str, relation: str, interval: float) -> dp_accounting.PrivacyAccountant:
    if name == "rdp":
        return RdpAccountant(neighboring_relation=RELATIONS[relation])
    return PLDAccountant(RELATIONS[relation], interval)


@pytest.mark.parametrize("name", TABLE)
def test_dp_accounting_says_of_each_event_what_feddp_relies_on(name: str) -> None:
    event, row = TABLE[name]
    interval = COARSELY.get(name, 1e-4)
    for (kind, relation), golden in zip(COLUMNS, row, strict=True):
        made = accountant(kind, relation, interval)
        assert made.supports(event) == (golden is not None), (kind, relation)
        if golden is not None:
            found = made.compose(event).get_epsilon(1e-5)
            tolerance = 1e-3 if kind == "rdp" else max(1e-3, 2 * interval)
            assert found == pytest.approx(golden, rel=tolerance), (kind, relation)


# (event, charges, delta): RDP, then PLD, each under the three relations; None is refused.
OURS: dict[str, tuple[Event, int, float, tuple[float | None, ...]]] = {
    "Gaussian": (
        GaussianEvent(1.0), 1, 1e-5, (4.7285, 10.7255, 4.7285, 4.3772, 9.9973, 4.3772),
    ),
    "Poisson, one coin": (
        PoissonGaussianEvent(0.1, 1.0), 1, 1e-5, (2.1330, None, 2.1330, 1.6845, 1.7892, 1.6845),
    ),
    "Poisson, two coins": (
        PoissonGaussianEvent(0.01, 1.0, 2), 1000, 1e-6, (None, None, None, 4.5545, None, 4.5545),
    ),
    "fixed size": (
        FixedSizeGaussianEvent(1000, 50, 1.0), 100, 1e-5, (None, 34.26, None, None, 19.464, None),
    ),
}  # fmt: skip


def by_pld(event: Event, count: int, delta: float, relation: str) -> float:
    composed = compose([(event, count)], relation=relation, interval=COARSE)
    return float(composed.get_epsilon_for_delta(delta))


@pytest.mark.parametrize("name", OURS)
def test_feddp_has_a_bound_for_each_cell_or_refuses_it(name: str) -> None:
    event, count, delta, row = OURS[name]
    for (kind, relation), golden in zip(COLUMNS, row, strict=True):
        if golden is None:
            with pytest.raises(ConfigError, match=r"No (accountant|Renyi bound|privacy loss)"):
                by_pld(event, count, delta, relation) if kind == "pld" else epsilon_rdp(
                    [(event, count)], delta, relation
                )
            continue
        found = (
            by_pld(event, count, delta, relation)
            if kind == "pld"
            else epsilon_rdp([(event, count)], delta, relation)
        )
        assert found == pytest.approx(golden, rel=1e-3), (kind, relation)


@pytest.mark.parametrize("name", OURS)
def test_the_certificate_is_the_tighter_of_the_accountants_that_cover_a_cell(name: str) -> None:
    event, count, delta, row = OURS[name]
    for relation, renyi, loss in zip(RELATIONS, *_ordered(row), strict=True):
        bounds = [bound for bound in (renyi, loss) if bound is not None]
        if not bounds:
            with pytest.raises(ConfigError, match="No accountant"):
                accountant_of([(event, 1)], relation)
            continue
        found = epsilon([(event, count)], delta=delta, relation=relation, interval=COARSE)
        assert found == pytest.approx(min(bounds), rel=1e-3)


def _ordered(row: tuple[float | None, ...]) -> list[list[float | None]]:
    """The two halves of a row in the order of RELATIONS."""
    cells = dict(zip(COLUMNS, row, strict=True))
    return [[cells[kind, relation] for relation in RELATIONS] for kind in ("rdp", "pld")]


def test_both_tables_are_complete() -> None:
    assert {relation for _, relation in COLUMNS} == set(RELATIONS)
    kinds = {type(event) for event, *_ in OURS.values()}
    assert kinds == {PoissonGaussianEvent, FixedSizeGaussianEvent, GaussianEvent}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_has_a_certificate_under_its_own_relation(mechanism: str) -> None:
    request = Request(
        target_epsilon=8.0,
        target_delta=1e-5,
        clipping_norm=1.0,
        num_rounds=40,
        expected_cohort_size=50.0,
    )
    schedule, _ = make_schedule(
        request,
        population=Population("user", "user", 1000, None, None, 1),
        mechanism=MECHANISMS[mechanism],
        trust=Trust("server"),
        dimension=100,
    )
    relation = schedule.mechanism.relation
    assert accountant_of(schedule.charges(2.0), relation) == schedule.accountant
    assert 0 < schedule.spent(2.0, COARSE) < float("inf")


# q = 1e-3, z = 2, 1e4 rounds, delta 1e-6 at intervals 1e-2 to 1e-5: a bound that a coarse grid
# makes larger than RDP's, .2447, and what it would be without connect-the-dots.
@pytest.mark.parametrize(
    ("connects", "golden"),
    [(True, (0.8295, 0.2626, 0.2056, 0.2049)), (False, (61.9, 5.627, 0.7052, 0.2549))],
)
def test_a_coarse_grid_is_a_larger_bound_and_never_a_smaller_one(
    connects: bool, golden: tuple[float, ...]
) -> None:
    found = [
        pld.from_gaussian_mechanism(
            2.0,
            sampling_prob=1e-3,
            value_discretization_interval=interval,
            use_connect_dots=connects,
        )
        .self_compose(10_000)
        .get_epsilon_for_delta(1e-6)
        for interval in (1e-2, 1e-3, 1e-4, 1e-5)
    ]
    assert found == pytest.approx(golden, rel=1e-3)
    assert found == sorted(found, reverse=True)


def test_gaussians_on_one_coin_are_one_gaussian_to_both() -> None:
    parts = events.ComposedDpEvent([events.GaussianDpEvent(z) for z in (1.0, 20.0)])
    made = RdpAccountant(neighboring_relation=RELATIONS[ADD_OR_REMOVE_ONE])
    made.compose(events.PoissonSampledDpEvent(0.1, parts), 100)
    combined = combined_noise_multiplier([1.0, 20.0])
    ours = epsilon_rdp([(PoissonGaussianEvent(0.1, combined), 100)], 1e-5, ADD_OR_REMOVE_ONE)
    assert made.get_epsilon(1e-5) == pytest.approx(7.922633, abs=1e-6)
    assert ours == pytest.approx(7.922633, abs=1e-6)


# N, q, and by cap (mean + 0 to 6 standard deviations): z = 1, 200 rounds, delta 1e-6, zero-out.
CAPPED = {
    (1000, 0.05): (
        5.4859,
        {50: 22.0506, 56: 16.4541, 63: 10.9592, 70: 7.9519, 77: 6.0699, 84: 5.5011, 91: 5.4861},
    ),
    (10_000, 0.01): (
        1.1498,
        {100: 7.8844, 109: 6.6247, 119: 5.3209, 129: 4.0200, 139: 2.1819, 149: 1.1628, 159: 1.1499},
    ),
}


def capped(num_users: int, q: float, cap: int) -> float:
    made = accountant("pld", ZERO_OUT, COARSE)
    made.compose(events.TruncatedSubsampledGaussianDpEvent(num_users, q, cap, 1.0), 200)
    return float(made.get_epsilon(1e-6))


@pytest.mark.parametrize(
    ("num_users", "q", "cap", "golden"),
    [
        pytest.param(
            num_users, q, cap, golden, marks=() if cap in (50, 91) else (pytest.mark.slow,)
        )
        for (num_users, q), (_, row) in CAPPED.items()
        for cap, golden in row.items()
    ],
)
def test_a_cap_on_the_cohort_costs_what_feddp_saves_by_having_none(
    num_users: int, q: float, cap: int, golden: float
) -> None:
    uncapped, _ = CAPPED[num_users, q]
    free = epsilon(
        [(PoissonGaussianEvent(q, 1.0), 200)], delta=1e-6, relation=ZERO_OUT, interval=COARSE
    )
    assert free == pytest.approx(uncapped, rel=1e-3)
    assert capped(num_users, q, cap) == pytest.approx(golden, rel=1e-3)
    assert capped(num_users, q, cap) > free * (1 - 1e-6)


def test_a_cap_that_nobody_can_pass_is_none() -> None:
    free = by_pld(PoissonGaussianEvent(0.05, 1.0), 200, 1e-6, ZERO_OUT)
    assert capped(1000, 0.05, 1000) == pytest.approx(free, rel=1e-6)
