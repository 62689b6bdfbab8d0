"""Bugs of the numbers: what a round costs, what is reported, what the plan promises."""

from mutants.mutant import Mutant

BRIDGE = "common/privacy/accounting/bridge.py"
SCHEDULE = "common/privacy/plan/schedule.py"
MULTIPLIER = "common/privacy/plan/noise_choice.py"
SOURCE = "common/privacy/accounting/epsilon.py"
EVENTS = "common/privacy/mechanism/events.py"
TEST_EVENTS = "tests/common/privacy/mechanism/test_events.py::"
TEST_PLAN = "tests/common/privacy/plan/test_plan.py::"

GOLDEN = "tests/golden/test_epsilon.py::test_each_kind_of_event_has_its_golden_epsilon"
BRIDGE_TERM = "tests/golden/test_epsilon.py::test_the_bridge_term_has_its_golden_values"
SAMPLERS = "tests/properties/test_sampler_events.py::test_each_sampler_is_charged_for_what_it_does"
COUNTS = "event(noise_multiplier), cohorts.num_charges),)"

ACCOUNTING = (
    Mutant(
        "Renyi DP reported instead of the PLD",
        SOURCE,
        {
            "    return _read(compose(charged, relation=relation, interval=interval), delta)": (
                "    return epsilon_rdp(charged, delta, relation) * ROUND_UP"
            )
        },
        (GOLDEN,),
    ),
    Mutant(
        "only the direction of an added user",
        SOURCE,
        {"composed.get_epsilon_for_delta(delta)": "composed._pmf_add.get_epsilon_for_delta(delta)"},
        (GOLDEN,),
    ),
    Mutant(
        "epsilon rounded down",
        SOURCE,
        {"ROUND_UP = 1 + 1e-6": "ROUND_UP = 1 - 1e-6"},
        ("tests/golden/test_epsilon.py::test_epsilon_is_rounded_up_and_never_down",),
    ),
    Mutant(
        "sampling counted twice as amplification",
        SOURCE,
        {"        sampling_prob=probability,\n": "        sampling_prob=probability**2,\n"},
        (GOLDEN,),
    ),
    Mutant(
        "several coins of a user composed as one",
        SOURCE,
        {"if isinstance(event, PoissonGaussianEvent) and event.num_coins > 1:": "if False:"},
        (GOLDEN,),
    ),
    Mutant(
        "independent Gaussians composed as one",
        SOURCE,
        {"event.noise_multiplier / math.sqrt(count)": "event.noise_multiplier"},
        (GOLDEN,),
    ),
    Mutant(
        "the bridge term forgets the number of rounds",
        BRIDGE,
        {"math.sqrt(num_charges * dimension / 1152)": "math.sqrt(dimension / 1152)"},
        (BRIDGE_TERM,),
        is_quick=True,
    ),
    Mutant(
        "the bridge term without e^epsilon",
        BRIDGE,
        {"return (1 + math.exp(epsilon)) * variation * _ROUND_UP": "return variation * _ROUND_UP"},
        (BRIDGE_TERM,),
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
        "common/privacy/mechanism/sampling.py",
        {
            "return FixedSizeGaussianEvent(self.num_units, self.cohort_size, noise_multiplier)": (
                "return PoissonGaussianEvent(self.cohort_size / self.num_units, noise_multiplier)"
            )
        },
        (SAMPLERS,),
    ),
    Mutant(
        "a sampler that forgets its coins",
        "common/privacy/mechanism/sampling.py",
        {
            "self.probability, noise_multiplier, self.num_coins, self.num_releases\n": (
                "self.probability, noise_multiplier, 1, self.num_releases\n"
            )
        },
        (SAMPLERS,),
    ),
    Mutant(
        "charged for more noise than is added",
        "common/privacy/mechanism/gaussian.py",
        {
            "return self.sampler.event(self.noise_multiplier)": "return self.sampler.event(2 * self.noise_multiplier)"
        },
        (
            "tests/common/privacy/mechanism/test_gaussian.py::test_event_is_the_documented_one_and_reads_no_data",
        ),
    ),
    Mutant(
        "the bridge ignored in the plan",
        MULTIPLIER,
        {"        bridge_delta=added_delta,\n": "        bridge_delta=0.0,\n"},
        (TEST_PLAN + "test_the_parts_of_delta_fit_into_delta",),
    ),
    Mutant(
        "epsilon read at the whole delta",
        SCHEDULE,
        {"ACCOUNTING_SHARE = 0.99": "ACCOUNTING_SHARE = 1.0"},
        (TEST_PLAN + "test_the_parts_of_delta_fit_into_delta",),
    ),
    Mutant(
        "spare attempts outside the promise",
        "common/privacy/mechanism/poisson.py",
        {COUNTS: COUNTS.replace("num_charges", "num_rounds")},
        (TEST_PLAN + "test_a_plan_of_before_keeps_its_spare_attempts",),
    ),
    Mutant(
        "one pair alone for cohorts of fixed size",
        "common/privacy/accounting/mixture.py",
        {"[mixture.added(losses[below]), ": "[mixture.removed(losses[below]), "},
        (
            "tests/common/privacy/accounting/test_mixture.py::test_one_pair_alone_would_take_too_little_noise",
        ),
    ),
    Mutant(
        "several nodes that add the noise counted as one",
        SCHEDULE,
        {
            "num_releases = population.max_nodes_per_user if has_several_noises else 1": (
                "num_releases = population.num_coins if has_several_noises else 1"
            )
        },
        ("tests/common/privacy/plan/test_schedule.py::test_each_kind_charges_its_event",),
    ),
    Mutant(
        "a charge of several releases composed as one",
        "common/privacy/accounting/epsilon.py",
        {"        count *= event.num_releases\n": ""},
        (
            "tests/common/privacy/plan/test_schedule.py::test_the_record_alone_is_enough_to_recompute_epsilon",
        ),
    ),
    Mutant(
        "a given noise that misses the target is taken",
        MULTIPLIER,
        {
            "    if spent > schedule.target_epsilon:\n": (
                "    if spent > 2 * schedule.target_epsilon:\n"
            ),
            "    if spent + added_epsilon > schedule.target_epsilon:\n": (
                "    if spent > 2 * schedule.target_epsilon:\n"
            ),
        },
        (TEST_PLAN + "test_given_noise_just_below_the_calibrated_one_is_refused",),
    ),
    Mutant(
        "delta of 1/N allowed",
        SCHEDULE,
        {"    if delta >= 1 / protected:": "    if delta > 1 / protected:"},
        (TEST_PLAN + "test_delta_of_one_over_n_or_more_is_refused",),
    ),
    Mutant(
        "plan changed after the run began",
        "server/run.py",
        {'if plan.details["config_sha256"] != config_digest:': "if not plan.details:"},
        ("tests/server/test_run.py::test_a_configuration_changed_after_the_plan_is_refused",),
    ),
    Mutant(
        "epsilon printed rounded down",
        "common/privacy/plan/statement.py",
        {"rounding=ROUND_CEILING": 'rounding="ROUND_FLOOR"'},
        (
            "tests/common/privacy/plan/test_statement.py::test_printed_epsilon_is_never_below_the_bound",
        ),
    ),
)
