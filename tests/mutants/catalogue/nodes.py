"""Bugs where users are: a node's own noise and memory, its bound, and the server's draw of nodes."""

from mutants.mutant import Mutant

OWN_NOISE = "client/own_noise.py"
HEADS = "client/service/known_ledgers.py"
DRAW = "server/cohort_draw.py"
TEST_OWN_NOISE = "tests/client/test_own_noise.py::"
TEST_HEADS = "tests/client/service/test_known_ledgers.py::"
TEST_DRAW = "tests/server/test_cohort_draw.py::"

NODES = (
    Mutant(
        "a node believes the noise that it is asked for",
        OWN_NOISE,
        {
            "            and request.noise_scale == mechanism.noise_scale\n": "",
        },
        (
            TEST_OWN_NOISE
            + "test_a_request_that_is_not_of_the_nodes_own_plan_is_refused_and_costs_nothing",
        ),
    ),
    Mutant(
        "a node with noise of its own sends a bare sum where it is asked for one",
        OWN_NOISE,
        {"if own_noise is not None:": "if own_noise is not None and request.noise_scale:"},
        (
            TEST_OWN_NOISE
            + "test_a_request_for_noise_is_refused_by_a_node_without_and_a_bare_one_by_a_node_with",
        ),
        is_quick=True,
    ),
    Mutant(
        "a node answers a round twice",
        OWN_NOISE,
        {
            "        if last is not None and request.round <= last.round:\n"
            '            raise RefusedError("answered")\n': ""
        },
        (
            TEST_OWN_NOISE
            + "test_another_adapter_for_an_answered_round_and_earlier_rounds_are_refused",
        ),
    ),
    Mutant(
        "a node's noise follows from the round",
        OWN_NOISE,
        {
            'fresh_key(f"{self._ledger.head}/{request.round}".encode(), total)': (
                "seeded_key(0, request.round, self._name)"
            )
        },
        (TEST_OWN_NOISE + "test_the_noise_of_an_answer_that_was_never_durable_is_not_drawn_again",),
    ),
    Mutant(
        "the answer of an earlier charge is adopted for an open one",
        OWN_NOISE,
        {"answer if is_whole and is_its and": "answer if is_whole and"},
        (TEST_OWN_NOISE + "test_a_crash_at_any_step_leaves_one_answer_per_charge",),
    ),
    Mutant(
        "a node whose answer is lost makes another",
        "common/privacy/ledger/release_protocol.py",
        {"if answer is None or _sha256(content)": "if answer is not None and _sha256(content)"},
        (TEST_OWN_NOISE + "test_a_lost_answer_is_refused_at_the_start",),
    ),
    Mutant(
        "a request without a head is accepted",
        HEADS,
        {'            raise RefusedError("no-head")\n': "            return\n"},
        (TEST_HEADS + "test_a_request_that_says_nothing_of_its_ledger_is_refused",),
    ),
    Mutant(
        "a rolled back ledger is noted, and served",
        HEADS,
        {'            raise RefusedError("rolled-back") from error\n': ""},
        (
            TEST_HEADS
            + "test_an_older_copy_of_the_ledger_is_refused_until_it_is_the_newer_one_again",
        ),
    ),
    Mutant(
        "heads of any key are believed",
        HEADS,
        {"public_key=self._public_key,": "public_key=None,"},
        (TEST_HEADS + "test_a_pinned_key_is_the_only_one_that_is_believed",),
    ),
    Mutant(
        "one memory for all populations",
        HEADS,
        {'f"head-{digest}.json"': '"head-of-all.json"'},
        (TEST_HEADS + "test_populations_are_remembered_apart",),
    ),
    Mutant(
        "a node holds one user more than it is registered for",
        "client/assembly.py",
        {"num_users > most": "num_users > most + 1"},
        (
            "tests/client/test_assembly.py::"
            "test_a_node_holds_too_many_users_from_one_more_than_it_is_registered_for",
        ),
    ),
    Mutant(
        "the server's coins are seeded in a private run",
        DRAW,
        {
            "coins = fresh_coins if request.seed is None": "coins = seeded_coins(0, 0) if request.seed is None"
        },
        (
            TEST_DRAW
            + "test_every_node_is_in_with_the_probability_and_independently_of_every_other",
        ),
    ),
    Mutant(
        "drawn nodes draw once more",
        DRAW,
        {"dataclasses.replace(request, draw=Draw())": "request"},
        (
            TEST_DRAW
            + "test_every_node_is_in_with_the_probability_and_independently_of_every_other",
        ),
    ),
    Mutant(
        "the population follows who is enrolled now",
        DRAW,
        {
            "        if self._names is None:\n            self._names = sorted": "        if names:\n            self._names = sorted"
        },
        (TEST_DRAW + "test_the_population_is_fixed_once_also_across_restarts",),
    ),
    Mutant(
        "nodes are asked before their turn is durable",
        DRAW,
        {"            self._write()  # durable before any node is asked\n": ""},
        (TEST_DRAW + "test_what_was_drawn_is_durable_before_it_is_told",),
    ),
    Mutant(
        "a run that has begun fixes its population anew",
        DRAW,
        {"        elif has_begun:": "        elif has_begun and separation > 1:"},
        (TEST_DRAW + "test_a_run_that_has_begun_is_not_drawn_without_its_file",),
    ),
)
