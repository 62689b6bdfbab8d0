"""Encodings: what is clipped and released is encoded, and what comes back is still released."""

import numpy as np
import pytest
from sketch import Sketch

from feddp.common.privacy.mechanism.encoding import Encoding, Identity
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism, ReleasedUpdate
from feddp.common.privacy.mechanism.noise import BitStream, seeded_key
from feddp.common.privacy.mechanism.sampling import PoissonSampler
from feddp.common.privacy.mechanism.summation import UpdateSum


def released(dimension: int) -> ReleasedUpdate:
    mechanism = GaussianMechanism(
        sampler=PoissonSampler(0.5),
        num_units=8,
        expected_cohort_size=4.0,
        clipping_norm=0.5,
        noise_multiplier=1.0,
        grid_steps=1 << 20,
        dimension=dimension,
    )
    return mechanism.release(UpdateSum.zeros(dimension), bits=BitStream(seeded_key(3, 1)))


def test_the_identity_hands_on_what_it_is_given() -> None:
    identity: Encoding = Identity(5)
    update, mean = np.ones(5, dtype=np.float32), released(5)
    assert identity.dimension == 5
    assert identity.encode(update) is update
    assert identity.decode(mean) is mean


def test_what_is_decoded_is_a_released_update_of_the_adapters_size() -> None:
    sketch: Encoding = Sketch(num_trained=40, dimension=16)
    mean = released(16)
    decoded = sketch.decode(mean)
    assert isinstance(decoded, ReleasedUpdate)
    assert decoded.values.shape == (40,)
    assert decoded.next_clipping_norm == mean.next_clipping_norm
    np.testing.assert_allclose(
        decoded.values, mean.values @ Sketch(num_trained=40, dimension=16).signs / 16, rtol=1e-12
    )
    with pytest.raises(ValueError, match="read-only"):
        decoded.values[0] = 1.0


def test_a_non_finite_update_stays_non_finite_when_encoded() -> None:
    with np.errstate(invalid="ignore"):
        for bad in (np.nan, np.inf):
            update = np.full(40, bad, dtype=np.float32)
            assert not np.isfinite(Sketch(40).encode(update)).all()
            assert not np.isfinite(Identity(40).encode(update)).all()
