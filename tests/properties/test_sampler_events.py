"""Each sampler is charged for what it does: counted over many draws, against its event."""

import numpy as np
import pytest

from feddp.common.privacy.mechanism.events import FixedSizeGaussianEvent, PoissonGaussianEvent
from feddp.common.privacy.mechanism.sampling import (
    FixedSizeSampler,
    PoissonSampler,
    Sampler,
    seeded_coins,
)

KEYS = np.arange(1, 201, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
ROUNDS = 400
SAMPLERS: list[Sampler] = [
    PoissonSampler(0.1),
    PoissonSampler(0.1, num_coins=4),
    FixedSizeSampler(len(KEYS), 20),
]


def sizes(sampler: Sampler) -> list[int]:
    """Units drawn in each round."""
    return [len(sampler.draw.units(KEYS, r, seeded_coins(3, r))) for r in range(ROUNDS)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_each_sampler_is_charged_for_what_it_does(sampler: Sampler) -> None:
    """A cohort whose size varies as a binomial does is Poisson; one of a fixed size is not."""
    event, found = sampler.event(2.0), sizes(sampler)
    # Standard error of the mean is 0.21, of the variance 7 %.
    assert np.mean(found) == pytest.approx(sampler.mean_cohort(len(KEYS)), abs=1.0)
    if np.var(found) == 0:
        assert event == FixedSizeGaussianEvent(len(KEYS), found[0], 2.0)
        return
    assert isinstance(event, PoissonGaussianEvent)
    assert np.var(found) == pytest.approx(200 * 0.1 * 0.9, rel=0.3)
    assert event.sampling_probability == 0.1
    assert event.num_coins == (4 if sampler == SAMPLERS[1] else 1)
