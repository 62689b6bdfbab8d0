import pytest

from feddp.common.privacy.mechanism.events import (
    Event,
    FixedSizeGaussianEvent,
    GaussianEvent,
    PoissonGaussianEvent,
    from_body,
    to_body,
)

EVENTS: list[Event] = [
    PoissonGaussianEvent(0.01, 1.0),
    PoissonGaussianEvent(0.01, 1.0, 4),
    FixedSizeGaussianEvent(100, 10, 2.0),
    GaussianEvent(1.5),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_survives_its_body(event: Event) -> None:
    assert from_body(to_body(event)) == event


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "laplace", "noise_multiplier": "1.0"},
        {"event": "gaussian"},
        {"event": "gaussian", "noise_multiplier": "1.0", "more": 1},
        {"event": "gaussian", "noise_multiplier": "1"},
        {"event": "gaussian", "noise_multiplier": "nan"},
        {"event": "gaussian", "noise_multiplier": "-1.0"},
        {"event": "gaussian", "noise_multiplier": 1},
        {
            "event": "fixed-size-gaussian",
            "num_users": 3,
            "cohort_size": 4,
            "noise_multiplier": "1.0",
        },
        {
            "event": "poisson-gaussian",
            "sampling_probability": "1.5",
            "noise_multiplier": "1.0",
            "num_coins": 1,
        },
    ],
)
def test_a_body_that_is_no_event_is_refused(wrong: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match=r"event|numbers"):
        from_body(wrong)


def test_one_coin_is_plain_poisson_sampling_and_more_are_a_binomial_mixture() -> None:
    plain, mixed = PoissonGaussianEvent(0.25, 2.0), PoissonGaussianEvent(0.25, 2.0, 2)
    assert "PoissonSampled" in repr(plain.to_dp_event())
    mixture = mixed.to_dp_event()
    assert list(mixture.sensitivities) == [0, 1, 2]
    assert list(mixture.sampling_probs) == pytest.approx([0.5625, 0.375, 0.0625])


def test_fixed_size_sampling_charges_twice_the_clip() -> None:
    event = FixedSizeGaussianEvent(100, 10, 2.0).to_dp_event()
    assert event.event.noise_multiplier == 1.0
