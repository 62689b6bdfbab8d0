"""Mechanisms: each answers for itself, and the configuration offers all of them."""

import dataclasses

import pytest

from feddp.common.config.run_config import from_flat
from feddp.common.config.sections import PrivacySection
from feddp.common.privacy.mechanism.cohorts import Cohorts, Population
from feddp.common.privacy.mechanism.correlated import CorrelatedGaussian
from feddp.common.privacy.mechanism.events import RELATIONS
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS, Mechanism
from feddp.common.privacy.mechanism.quantile import Clipping

USERS = Population("user", "user", 100, None, None, 1)


@pytest.mark.parametrize("name", MECHANISMS)
def test_each_mechanism_makes_what_it_charges_for(name: str) -> None:
    mechanism = MECHANISMS[name]
    size, separation = mechanism.arrange(100, 20.0, None)
    cohorts = Cohorts(USERS, size, 10, 12, separation)
    assert isinstance(mechanism, Mechanism)
    assert mechanism.relation in RELATIONS
    assert mechanism.number_problems(cohorts) == []
    made = mechanism.make(
        cohorts,
        Clipping(0.5),
        noise_multiplier=2.0,
        grid_steps=1 << 20,
        dimension=3,
        matrix=mechanism.choose_matrix(cohorts),
    )
    ((event, count),) = mechanism.charges(cohorts, 2.0)
    if isinstance(made, CorrelatedGaussian):
        assert mechanism.is_correlated
        assert (made.event(), made.relation) == ((event, count), mechanism.relation)
    else:
        assert (made.event(), made.sampler.relation) == (event, mechanism.relation)
        assert count == cohorts.num_charges
    assert mechanism.draw(cohorts, "ab" * 32).separation == separation
    assert "N = 100 declared users" in mechanism.draw_text(cohorts)


def test_the_configuration_offers_every_mechanism_and_no_other() -> None:
    (setting,) = [f for f in dataclasses.fields(PrivacySection) if f.name == "mechanism"]
    assert tuple(MECHANISMS) == setting.metadata["choices"]
    assert from_flat({}).privacy.mechanism in MECHANISMS
