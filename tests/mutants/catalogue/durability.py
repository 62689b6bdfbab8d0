"""Bugs of the protocol: charge, release, recovery, the ledger and the files.

Broken orders of whole steps, which need a crash to show, are also in `tests/server/crash_mutants.py`
and `tests/server/test_power_cuts.py`; there they are put in place while the process runs.
"""

from mutants.mutant import Mutant

ROUNDS = "server/rounds.py"
CHECKPOINT = "server/checkpoint.py"
PROTOCOL = "common/privacy/ledger/release_protocol.py"
LEDGER = "common/privacy/ledger/ledger.py"
ROWS = "common/privacy/ledger/history.py"
STORE = "common/privacy/ledger/store.py"
BUDGET = "common/privacy/ledger/budget.py"
DISK = "common/disk.py"
ORDER = (
    "tests/server/test_rounds.py::"
    "test_a_round_is_charged_drawn_checkpointed_released_and_only_then_published"
)
TEST_CHECKPOINT = "tests/server/test_checkpoint.py::"
TEST_PROTOCOL = "tests/common/privacy/ledger/test_release_protocol.py::"
TEST_LEDGER = "tests/common/privacy/ledger/test_ledger.py::"
TEST_STORE = "tests/common/privacy/ledger/test_store.py::"
TEST_DAMAGE = "tests/common/privacy/ledger/test_ledger_damage.py::"
TEST_ROWS = "tests/common/privacy/ledger/test_history.py::"

CHARGED = "    charge = ledger.charge(ledger.next_round)  # charged, then drawn\n"
DRAWN = "    answer = draw(charge)\n"
WRITTEN = "    with disk_errors(path):\n        disk.replace(path, content)\n"
RELEASED = "    _release(ledger, files, charge, answer, content)  # durable, then published\n"

DURABILITY = (
    Mutant(
        "noise before charge",
        PROTOCOL,
        {
            CHARGED + DRAWN: (
                "    answer = draw(Charge(ledger.next_round, 1))\n"
                + CHARGED.replace("# charged", "# drawn")
            )
        },
        (
            ORDER,
            TEST_PROTOCOL + "test_an_answer_is_charged_drawn_written_and_released_in_this_order",
        ),
    ),
    Mutant(
        "published before the release row",
        ROUNDS,
        {
            "        state = release(training, state, total)\n"
            "        evaluation = evaluate(training, state) if is_due(training, state.round) else "
            "None\n": (
                "        evaluation = evaluate(training, state)\n"
                "        state = release(training, state, total)\n"
            )
        },
        (ORDER,),
    ),
    Mutant(
        "release row before the checkpoint",
        PROTOCOL,
        {WRITTEN + RELEASED: RELEASED + WRITTEN},
        (
            ORDER,
            TEST_PROTOCOL + "test_an_answer_is_charged_drawn_written_and_released_in_this_order",
        ),
    ),
    Mutant(
        "a charge for a round that nobody asked for",
        PROTOCOL,
        {CHARGED: CHARGED + "    ledger.burn(charge, 'operator')\n" + CHARGED},
        (ORDER,),
    ),
    Mutant(
        "file not synced",
        DISK,
        {
            "            os.utime(descriptor, ns=(TIME_NS, TIME_NS))\n            os.fsync(descriptor)\n": (
                "            os.utime(descriptor, ns=(TIME_NS, TIME_NS))\n"
            )
        },
        ("tests/common/test_disk.py::test_a_written_file_is_whole_private_and_durable",),
    ),
    Mutant(
        "name of a replaced file not synced",
        DISK,
        {
            "        self.rename(source, target)\n        self.fsync_folder(target.parent)\n": (
                "        self.rename(source, target)\n"
            )
        },
        (
            TEST_CHECKPOINT
            + "test_the_bytes_are_durable_before_the_name_and_the_name_before_the_end",
        ),
    ),
    Mutant(
        "adopted without a second sync",
        PROTOCOL,
        {
            "        disk.fsync(path)\n        disk.fsync_folder(path.parent)\n": (
                "        disk.point('adopting')\n"
            )
        },
        (
            TEST_CHECKPOINT + "test_an_adopted_file_is_synced_again_before_its_release",
            TEST_PROTOCOL + "test_a_whole_answer_is_synced_again_and_adopted",
        ),
    ),
    Mutant(
        "the answer to another purpose adopted",
        PROTOCOL,
        {
            "files.parse(content, charge) if charge.purpose == UPDATE else None": (
                "files.parse(content, charge)"
            )
        },
        (TEST_PROTOCOL + "test_a_charge_that_was_not_for_an_update_is_burned",),
    ),
    Mutant(
        "checkpoint of another attempt adopted",
        CHECKPOINT,
        {
            "return checkpoint if is_whole and is_its else None": "return checkpoint if is_whole else None"
        },
        (TEST_CHECKPOINT + "test_without_its_own_whole_file_a_charge_is_burned",),
    ),
    Mutant(
        "a released file may be replaced",
        PROTOCOL,
        {"if answer is None or _sha256(content) != release.sha256:": "if answer is None:"},
        (TEST_CHECKPOINT + "test_only_the_released_bytes_are_accepted",),
    ),
    Mutant(
        "content of a checkpoint unchecked",
        CHECKPOINT,
        {
            "return checkpoint if is_whole and is_its else None": "return checkpoint if is_its else None"
        },
        (TEST_CHECKPOINT + "test_any_flipped_bit_makes_a_checkpoint_unreadable",),
    ),
    Mutant(
        "checkpoint without the optimizer's moments",
        CHECKPOINT,
        {"for name, values in checkpoint.state.moments.items()}\n": "for name, values in ()}\n"},
        (TEST_CHECKPOINT + "test_a_checkpoint_is_read_back_bit_for_bit",),
    ),
    Mutant(
        "crash refunds its charge",
        ROWS,
        {
            '            case "BURN":\n                self.open_charge = None\n': (
                '            case "BURN":\n'
                "                self.open_charge = None\n"
                "                self.charges.pop()\n"
            )
        },
        (TEST_ROWS + "test_a_burned_charge_stays_spent_and_is_its_round",),
    ),
    Mutant(
        "one charge more than planned, in the rows",
        ROWS,
        {
            'run.num_charges < run.opened["num_charges"]': 'run.num_charges <= run.opened["num_charges"]'
        },
        (
            "tests/common/privacy/ledger/test_overspent_rows.py::test_a_run_charges_what_it_planned_and_not_once_more",
        ),
        is_quick=True,
    ),
    Mutant(
        "> for >= in the budget",
        LEDGER,
        {
            "self._start.num_charges - self.num_charges) <= 0:": "self._start.num_charges - self.num_charges) < 0:"
        },
        (
            "tests/common/privacy/ledger/test_budget.py::test_a_run_keeps_to_the_charges_of_its_own_plan",
        ),
    ),
    Mutant(
        "a run takes what another may still charge",
        ROWS,
        {
            '        if self.plan["mode"] == ADAPTIVE:\n            return 0\n        return sum(': (
                "        if slot:\n            return 0\n        return sum("
            )
        },
        (
            "tests/common/privacy/ledger/test_run_start.py::test_what_a_begun_run_may_still_charge_is_kept_for_it",
        ),
    ),
    Mutant(
        "nothing is kept for a run's spare attempts",
        ROWS,
        {
            'return int(self.opened["num_charges"]) - self.num_charges': (
                'return int(self.opened["num_rounds"]) + 1 - self.next_round'
            )
        },
        (
            "tests/common/privacy/ledger/test_run_start.py::test_what_a_begun_run_may_still_charge_is_kept_for_it",
        ),
    ),
    Mutant(
        "a burned round is charged again without a spare attempt",
        ROWS,
        {"return bool(self.opened[": "return True or bool(self.opened["},
        (
            "tests/common/privacy/ledger/test_history.py::test_a_burned_charge_stays_spent_and_is_its_round",
        ),
    ),
    Mutant(
        "a burned row moves the sums before it by a row",
        "common/privacy/mechanism/correlated.py",
        {"        for _ in range(row - self._next_row):\n": "        for _ in range(0):\n"},
        (
            "tests/common/privacy/mechanism/test_correlated_history.py::test_a_burned_row_is_in_no_later_row_and_its_noise_is_in_none",
        ),
    ),
    Mutant(
        "secrets in the run folder",
        "server/run_secrets.py",
        {
            "return run_path.absolute().parent / SECRETS / run_path.absolute().name": (
                "return run_path.absolute() / SECRETS"
            )
        },
        (
            "tests/server/test_run_secrets.py::test_the_folder_lies_beside_the_run_and_is_its_owners_alone",
        ),
    ),
    Mutant(
        "secrets that outlive their run",
        "server/run_secrets.py",
        {"    shutil.rmtree(secrets_folder(run_path), ignore_errors=True)\n    with": "    with"},
        (
            "tests/server/test_run_secrets.py::test_destroying_leaves_other_runs_alone_and_may_be_done_again",
        ),
    ),
    Mutant(
        "durations released",
        "server/publisher.py",
        {
            'tracker.log(report.round, {"epsilon": epsilon, **line})': (
                'tracker.log(report.round, {"epsilon": epsilon, **line, "seconds": report.seconds})'
            )
        },
        ("tests/server/test_publisher.py::test_a_round_is_shown_with_the_epsilon_of_its_charges",),
    ),
    Mutant(
        "time stamps released",
        "common/disk.py",
        {"            os.utime(descriptor, ns=(TIME_NS, TIME_NS))\n": ""},
        ("tests/common/test_disk.py::test_what_is_written_tells_no_time",),
    ),
    Mutant(
        "real users held out without their consent",
        "common/config/run_config.py",
        {
            "return DEMO_EVALUATION if self.is_generated and not self.data.evaluation_path else 0": (
                "return DEMO_EVALUATION"
            )
        },
        ("tests/common/test_assembly.py::test_nobody_is_held_out_by_default_but_generated_users",),
    ),
    Mutant(
        "a user's panic stops the node",
        "client/engine/protocol.py",
        {
            "STOPS = (KeyboardInterrupt, GeneratorExit)": "STOPS = (KeyboardInterrupt, BaseException)"
        },
        ("tests/client/engine/test_cohort.py::test_one_users_fault_zeroes_that_user_alone",),
    ),
    Mutant(
        "a run answers the charge of another",
        ROWS,
        {'(kind == "BURN" or self.charges[-1]["run"] == self.run)': "True"},
        (
            "tests/common/privacy/ledger/test_budget.py::test_a_run_never_answers_the_charge_of_another",
        ),
    ),
    Mutant(
        "a charge may cost less than its event",
        BUDGET,
        {"return each * _TOLERANCE <= exact(cost) <= left": "return exact(cost) <= left"},
        (
            "tests/common/privacy/ledger/test_budget.py::test_a_charge_that_says_less_than_it_costs_is_refused",
        ),
    ),
    Mutant(
        "the filter is not exact at its edge",
        BUDGET,
        {"exact(cost) <= left and": "exact(cost) <= 9 * left and"},
        (
            "tests/common/privacy/ledger/test_overspent_rows.py::test_a_filter_is_spent_to_its_edge_and_not_beyond",
        ),
    ),
    Mutant(
        "a charge refunds the filter",
        BUDGET,
        {"self._left -= exact(cost)": "self._left += exact(cost)"},
        (
            "tests/common/privacy/ledger/test_budget.py::test_runs_with_different_plans_share_one_filter",
        ),
    ),
    Mutant(
        "chain unchecked",
        STORE,
        {
            " or previous != history.head:": ":",
            "if (history.apply(kind, body), history.num_rows) != (head, seq):": (
                "if history.apply(kind, body) and history.num_rows != seq:"
            ),
        },
        (TEST_DAMAGE + "test_tampered_rows_are_refused",),
    ),
    Mutant(
        "signature unchecked",
        STORE,
        {"if not is_signed(key or history.public_key, head, signature):": "if not signature:"},
        (
            "tests/common/privacy/ledger/test_signing.py::test_rows_that_another_key_signed_are_refused",
        ),
    ),
    Mutant(
        "chain without the row before",
        ROWS,
        {'b" chain\\n" + previous + digest': 'b" chain\\n" + digest'},
        (TEST_ROWS + "test_the_hash_binds_history_kind_and_body",),
    ),
    Mutant(
        "plan hash unchecked",
        LEDGER,
        {'if found not in ("", start.plan_sha256):': "if not start.plan_sha256:"},
        (TEST_LEDGER + "test_another_plan_is_refused",),
    ),
    Mutant(
        "lock removed",
        STORE,
        {"fcntl.LOCK_EX | fcntl.LOCK_NB": "fcntl.LOCK_SH | fcntl.LOCK_NB"},
        (TEST_LEDGER + "test_a_second_process_is_refused_and_told_who_holds_the_ledger",),
    ),
    Mutant(
        "commits of the ledger not fully synced",
        STORE,
        {'("synchronous", "EXTRA", 3)': '("synchronous", "NORMAL", 1)'},
        (TEST_STORE + "test_durability_settings_are_in_force",),
    ),
    Mutant(
        "goes on after a write error",
        LEDGER,
        {"        self._is_failed = True  # until the commit is known to be durable\n": ""},
        (TEST_LEDGER + "test_after_a_write_error_the_ledger_refuses_all_further_use",),
    ),
    Mutant(
        "rows may be deleted",
        STORE,
        {"for statement in (TABLE, NO_UPDATE, NO_DELETE):": "for statement in (TABLE, NO_UPDATE):"},
        (TEST_STORE + "test_rows_cannot_be_changed_through_sql",),
    ),
)
