"""Bugs of the numbers: what a round costs, what is reported, what the plan promises."""

from mutants.mutant import Mutant

SOURCE = "common/privacy/accounting.py"
EVENTS = "common/privacy/events.py"
PLAN = "common/privacy/plan.py"
TEST_ACCOUNTING = "tests/common/privacy/test_accounting.py::"
TEST_EVENTS = "tests/common/privacy/test_events.py::"
TEST_PLAN = "tests/common/privacy/test_plan.py::"

SPENT = """        num_charges=schedule.num_charges,
        delta=schedule.accounting_delta,
        interval=interval,
"""

ACCOUNTING = (
    Mutant(
        "Renyi DP reported instead of the PLD",
        SOURCE,
        {
            "    return _read(one.self_compose(num_charges), delta)": (
                "    return epsilon_rdp(\n"
                "        sampling_probability=sampling_probability,\n"
                "        noise_multiplier=noise_multiplier,\n"
                "        num_charges=num_charges,\n"
                "        delta=delta,\n"
                "    )"
            )
        },
        (TEST_ACCOUNTING + "test_poisson_subsampled_gaussian_has_its_golden_values",),
    ),
    Mutant(
        "only the direction of an added user",
        SOURCE,
        {"composed.get_epsilon_for_delta(delta)": "composed._pmf_add.get_epsilon_for_delta(delta)"},
        (TEST_ACCOUNTING + "test_the_worse_direction_decides",),
    ),
    Mutant(
        "epsilon rounded down",
        SOURCE,
        {"_ROUND_UP = 1 + 1e-6": "_ROUND_UP = 1 - 1e-6"},
        (TEST_ACCOUNTING + "test_the_accountant_of_dp_accounting_alone_agrees",),
    ),
    Mutant(
        "sampling counted twice as amplification",
        SOURCE,
        {
            "        sampling_prob=sampling_probability,\n": "        sampling_prob=sampling_probability**2,\n"
        },
        (
            TEST_ACCOUNTING + "test_without_sampling_the_bound_is_the_exact_gaussian_and_not_below",
            TEST_ACCOUNTING + "test_poisson_subsampled_gaussian_has_its_golden_values",
        ),
    ),
    Mutant(
        "the bridge term forgets the number of rounds",
        SOURCE,
        {"math.sqrt(num_charges * dimension / 1152)": "math.sqrt(dimension / 1152)"},
        (TEST_ACCOUNTING + "test_bridge_term_has_its_golden_values",),
    ),
    Mutant(
        "the bridge term without e^epsilon",
        SOURCE,
        {"return (1 + math.exp(epsilon)) * variation * _ROUND_UP": "return variation * _ROUND_UP"},
        (TEST_ACCOUNTING + "test_bridge_covers_the_real_distance_of_discrete_and_rounded_noise",),
    ),
    Mutant(
        "several coins of a user accounted as one",
        EVENTS,
        {"        if self.num_coins == 1:\n": "        if self.num_coins >= 1:\n"},
        (TEST_EVENTS + "test_one_coin_is_plain_poisson_sampling_and_more_are_a_binomial_mixture",),
    ),
    Mutant(
        "replace-one at the multiplier of add-or-remove-one",
        EVENTS,
        {
            "dp_accounting.GaussianDpEvent(self.noise_multiplier / 2)": "dp_accounting.GaussianDpEvent(self.noise_multiplier)"
        },
        (TEST_EVENTS + "test_fixed_size_sampling_charges_twice_the_clip",),
    ),
    Mutant(
        "fixed-size sampling charged as Poisson",
        "common/privacy/sampling.py",
        {
            "return FixedSizeGaussianEvent(self.num_units, self.cohort_size, noise_multiplier)": (
                "return PoissonGaussianEvent(self.cohort_size / self.num_units, noise_multiplier)"
            )
        },
        ("tests/properties/test_sampler_events.py::test_each_sampler_is_charged_for_what_it_does",),
    ),
    Mutant(
        "a sampler that forgets its coins",
        "common/privacy/sampling.py",
        {
            "return PoissonGaussianEvent(self.probability, noise_multiplier, self.num_coins)": (
                "return PoissonGaussianEvent(self.probability, noise_multiplier)"
            )
        },
        ("tests/properties/test_sampler_events.py::test_each_sampler_is_charged_for_what_it_does",),
    ),
    Mutant(
        "charged for more noise than is added",
        "common/privacy/mechanism.py",
        {
            "return self.sampler.event(self.noise_multiplier)": "return self.sampler.event(2 * self.noise_multiplier)"
        },
        (
            "tests/common/privacy/test_mechanism.py::test_event_is_the_documented_one_and_reads_no_data",
        ),
    ),
    Mutant(
        "the bridge ignored in the plan",
        PLAN,
        {"        bridge_delta=added_delta,\n": "        bridge_delta=0.0,\n"},
        (TEST_PLAN + "test_the_parts_of_delta_fit_into_delta",),
    ),
    Mutant(
        "epsilon read at the whole delta",
        PLAN,
        {"ACCOUNTING_SHARE = 0.99": "ACCOUNTING_SHARE = 1.0"},
        (TEST_PLAN + "test_the_parts_of_delta_fit_into_delta",),
    ),
    Mutant(
        "spare attempts outside the promise",
        PLAN,
        {SPENT: SPENT.replace("schedule.num_charges", "schedule.num_rounds")},
        (TEST_PLAN + "test_promise_holds_for_a_second_accountant",),
    ),
    Mutant(
        "a given noise that misses the target is taken",
        PLAN,
        {
            "    if spent > schedule.target_epsilon:\n": "    if spent > 2 * schedule.target_epsilon:\n"
        },
        (TEST_PLAN + "test_given_noise_just_below_the_calibrated_one_is_refused",),
    ),
    Mutant(
        "delta of 1/N allowed",
        PLAN,
        {"if delta >= 1 / num_users:": "if delta > 1 / num_users:"},
        (TEST_PLAN + "test_delta_of_one_over_n_or_more_is_refused",),
    ),
    Mutant(
        "plan changed after the run began",
        "server/run.py",
        {'if plan.details["config_sha256"] != _config_sha256(config):': "if not plan.details:"},
        ("tests/server/test_run.py::test_a_configuration_changed_after_the_plan_is_refused",),
    ),
    Mutant(
        "epsilon printed rounded down",
        "common/privacy/statement.py",
        {"rounding=ROUND_CEILING": 'rounding="ROUND_FLOOR"'},
        ("tests/common/privacy/test_statement.py::test_printed_epsilon_is_never_below_the_bound",),
    ),
)
