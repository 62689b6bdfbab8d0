"""Bugs of the release: noise, keys, divisor, and the step that follows."""

from mutants.mutant import Mutant

MECHANISM = "common/privacy/mechanism/gaussian.py"
NOISE = "common/privacy/mechanism/noise.py"
OPTIMIZER = "server/optimizer.py"
SERVER = "server/release.py"
TEST_MECHANISM = "tests/common/privacy/mechanism/test_gaussian.py::"
TEST_NOISE = "tests/common/privacy/mechanism/test_noise.py::"
TEST_POWER = "tests/properties/test_noise_power.py::"
DRAWN = "discrete_gaussian(bits, noise_scale, total.dimension)"
KEY = """        key = (
            fresh_key(context, total) if plan.seed is None else seeded_key(plan.seed, charge.round)
        )
"""

RELEASE = (
    Mutant(
        "half the noise",
        MECHANISM,
        {DRAWN: "discrete_gaussian(bits, noise_scale // 2, total.dimension)"},
        (TEST_MECHANISM + "test_empty_cohort_releases_noise_of_the_promised_size",),
        is_quick=True,
    ),
    Mutant(
        "noise of 0.99 sigma",
        MECHANISM,
        {DRAWN: "discrete_gaussian(bits, noise_scale * 99 // 100, total.dimension)"},
        (TEST_POWER + "test_a_release_has_exactly_the_promised_noise",),
    ),
    Mutant(
        "noise scale rounded down",
        MECHANISM,
        {"math.ceil(Fraction(self.noise_multiplier)": "math.floor(Fraction(self.noise_multiplier)"},
        (TEST_MECHANISM + "test_noise_scale_just_above_an_integer_is_the_next_integer",),
    ),
    Mutant(
        "noise from a seedable generator of floats",
        MECHANISM,
        {
            DRAWN: (
                "np.random.default_rng(int(bits.below(1 << 62, 1)[0])).normal("
                "scale=noise_scale, size=total.dimension).astype(np.float32).astype(np.int64)"
            )
        },
        (TEST_MECHANISM + "test_release_is_the_sum_and_the_noise_over_the_expected_cohort",),
    ),
    Mutant(
        "divisor is the realised count",
        MECHANISM,
        {
            "step = norm / self.update_steps / self.expected_cohort_size": (
                "count = max(1.0, round(float(np.abs(noised).max()) / self.grid_steps))\n"
                "        step = norm / self.update_steps / count"
            )
        },
        (TEST_MECHANISM + "test_divisor_and_noise_are_public_constants_whatever_the_cohort",),
    ),
    Mutant(
        "anybody may make a released update",
        MECHANISM,
        {
            "        if door is not _DOOR:\n"
            '            raise TypeError("only a mechanism\'s release makes a ReleasedUpdate")\n': ""
        },
        (TEST_MECHANISM + "test_released_update_is_made_by_a_mechanism_alone",),
    ),
    Mutant(
        "the adaptive norm moves the wrong way",
        "common/privacy/mechanism/quantile.py",
        {"math.exp(-self.rate *": "math.exp(self.rate *"},
        (TEST_MECHANISM + "test_the_norm_rises_when_all_are_clipped_and_falls_when_nobody_is",),
    ),
    Mutant(
        "scaled by the next clipping norm",
        MECHANISM,
        {
            "return ReleasedUpdate(_DOOR, update, step, next_norm)": (
                "return ReleasedUpdate(_DOOR, update, step * next_norm / norm, next_norm)"
            )
        },
        (TEST_MECHANISM + "test_noise_follows_the_norm_that_clipped",),
    ),
    Mutant(
        "the clip bit without its half",
        MECHANISM,
        {"share=bit + 0.5": "share=bit"},
        (TEST_MECHANISM + "test_the_norm_finds_the_quantile_of_five_distributions",),
    ),
    Mutant(
        "sampler forgets half a square",
        NOISE,
        {"((rest, scale), (whole % 2, 2))": "((rest, scale),)"},
        (TEST_NOISE + "test_small_scales_have_the_exact_masses",),
    ),
    Mutant(
        "sampler forgets what is left of the square",
        NOISE,
        {"survives = _bernoulli_exp_half_square(bits, rest, scale)": ("survives = rest < scale")},
        (TEST_NOISE + "test_small_scales_have_the_exact_masses",),
    ),
    Mutant(
        "zero drawn twice as often",
        NOISE,
        {"signed[~(is_negative & (magnitude == 0))]": "signed"},
        (TEST_NOISE + "test_small_scales_have_the_exact_masses",),
    ),
    Mutant(
        "noise without negative draws",
        NOISE,
        {
            "is_negative = bits.below(2, len(magnitude)) == 1": "is_negative = bits.below(2, len(magnitude)) == 2"
        },
        (TEST_NOISE + "test_large_scale_has_the_moments_of_a_normal",),
    ),
    Mutant(
        "coarse low bits of the noise",
        NOISE,
        {
            "magnitude = remainder + scale * quotient": "magnitude = (remainder & -16) + scale * quotient"
        },
        (TEST_NOISE + "test_low_bits_are_uniform_at_a_large_scale",),
    ),
    Mutant(
        "a stream under a constant key",
        NOISE,
        {"algorithms.ChaCha20(key, start)": "algorithms.ChaCha20(bytes(32), start)"},
        (TEST_POWER + "test_rounds_are_independent_over_coordinates",),
    ),
    Mutant(
        "one stream for all blocks",
        NOISE,
        {'start = bytes(8) + nonce.to_bytes(8, "little")': "start = bytes(16)"},
        (TEST_NOISE + "test_blocks_are_independent",),
        is_quick=True,
    ),
    Mutant(
        "the second draw takes the blocks of the first",
        NOISE,
        {"        self._num_split += count\n": ""},
        (TEST_NOISE + "test_a_stream_goes_on_and_does_not_repeat_itself",),
    ),
    Mutant(
        "key without entropy",
        NOISE,
        {"derive.derive(os.urandom(KEY_BYTES))": "derive.derive(bytes(KEY_BYTES))"},
        (TEST_NOISE + "test_fresh_keys_differ_for_the_same_context_and_sum",),
        is_quick=True,
    ),
    Mutant(
        "key without its context",
        NOISE,
        {"salt=context": 'salt=b""'},
        (TEST_NOISE + "test_keys_differ_with_context_and_sum_even_under_equal_entropy",),
    ),
    Mutant(
        "entropy source unchecked",
        NOISE,
        {"if os.urandom(KEY_BYTES) == os.urandom(KEY_BYTES):": "if not os.urandom(KEY_BYTES):"},
        (TEST_NOISE + "test_constant_entropy_source_is_refused",),
    ),
    Mutant(
        "noise seeded in a private run",
        SERVER,
        {KEY: "        key = seeded_key(plan.seed or 0, charge.round)\n"},
        ("tests/server/test_rounds.py::test_unseeded_runs_never_share_their_noise",),
    ),
    Mutant(
        "same noise for two attempts",
        SERVER,
        {KEY: KEY.replace("fresh_key(context, total)", "seeded_key(1, charge.round)")},
        ("tests/server/test_attempts.py::test_a_second_attempt_draws_other_noise",),
    ),
    Mutant(
        "key not bound to the attempt",
        SERVER,
        {
            'context = f"{training.ledger.head}/{charge.round}/{charge.attempt}".encode()': 'context = b"feddp"'
        },
        (
            "tests/server/test_attempts.py::"
            "test_a_second_attempt_draws_other_noise_even_under_equal_entropy",
        ),
    ),
    Mutant(
        "sign flip of the optimizer",
        OPTIMIZER,
        {"+ self.learning_rate * direction": "- self.learning_rate * direction"},
        ("tests/server/test_optimizer.py::test_an_update_moves_the_adapter_toward_itself",),
    ),
    Mutant(
        "second moment forgets its decay",
        OPTIMIZER,
        {"        second *= self.second_momentum\n": ""},
        ("tests/server/test_optimizer.py::test_fedadam_follows_its_published_recursion",),
    ),
)
