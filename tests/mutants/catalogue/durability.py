"""Bugs of the protocol: charge, release, recovery, the ledger and the files.

Broken orders of whole steps, which need a crash to show, are also in `tests/server/crash_mutants.py`
and `tests/server/test_power_cuts.py`; there they are put in place while the process runs.
"""

from mutants.mutant import Mutant

ROUNDS = "server/rounds.py"
CHECKPOINT = "server/checkpoint.py"
LEDGER = "common/privacy/ledger.py"
ROWS = "common/privacy/rows.py"
DISK = "common/privacy/disk.py"
ORDER = (
    "tests/server/test_rounds.py::"
    "test_a_round_is_charged_drawn_checkpointed_released_and_only_then_published"
)
TEST_CHECKPOINT = "tests/server/test_checkpoint.py::"
TEST_LEDGER = "tests/common/privacy/test_ledger.py::"
TEST_DAMAGE = "tests/common/privacy/test_ledger_damage.py::"
TEST_ROWS = "tests/common/privacy/test_rows.py::"

CHARGED = "    charge = ledger.charge(number)  # charged, then drawn\n"
RELEASED = "    ledger.release(charge, digest)  # durable, then published\n"
WRITTEN = "    digest = write_checkpoint(training.checkpoints_path, checkpoint, disk)\n"

DURABILITY = (
    Mutant(
        "noise before charge",
        ROUNDS,
        {
            CHARGED: (
                "    if not isinstance(total, NoisedSum):\n"
                "        total = add_noise(plan, total, number, b'early')\n" + CHARGED
            )
        },
        (ORDER,),
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
        ROUNDS,
        {WRITTEN + RELEASED: ("    ledger.release(charge, '0' * 64)\n" + WRITTEN)},
        (ORDER,),
    ),
    Mutant(
        "a charge for a round that nobody asked for",
        ROUNDS,
        {CHARGED: CHARGED + "    ledger.burn(charge, 'operator')\n" + CHARGED},
        (ORDER,),
    ),
    Mutant(
        "file not synced",
        DISK,
        {
            "                view = view[os.write(descriptor, view) :]\n"
            "            os.fsync(descriptor)\n": (
                "                view = view[os.write(descriptor, view) :]\n"
            )
        },
        ("tests/common/privacy/test_disk.py::test_a_written_file_is_whole_private_and_durable",),
    ),
    Mutant(
        "name of a checkpoint not synced",
        CHECKPOINT,
        {
            '        disk.fsync_folder(folder)\n        disk.point("after checkpoint")': '        disk.point("after checkpoint")'
        },
        (
            TEST_CHECKPOINT
            + "test_the_bytes_are_durable_before_the_name_and_the_name_before_the_end",
        ),
    ),
    Mutant(
        "adopted without a second sync",
        CHECKPOINT,
        {
            "                disk.fsync(path)\n                disk.fsync_folder(folder)\n": (
                "                disk.point('adopting')\n"
            )
        },
        (TEST_CHECKPOINT + "test_an_adopted_file_is_synced_again_before_its_release",),
    ),
    Mutant(
        "checkpoint of another attempt adopted",
        CHECKPOINT,
        {
            "if checkpoint is not None and _answers(checkpoint, charge, plan_sha256):": (
                "if checkpoint is not None:"
            )
        },
        (TEST_CHECKPOINT + "test_without_its_own_whole_file_a_charge_is_burned",),
    ),
    Mutant(
        "a released file may be replaced",
        CHECKPOINT,
        {
            "if checkpoint is None or hashlib.sha256(content).hexdigest() != release.sha256:": (
                "if checkpoint is None:"
            )
        },
        (TEST_CHECKPOINT + "test_only_the_released_bytes_are_accepted",),
    ),
    Mutant(
        "content of a checkpoint unchecked",
        CHECKPOINT,
        {"return checkpoint if is_whole else None": "return checkpoint"},
        (TEST_CHECKPOINT + "test_any_flipped_bit_makes_a_checkpoint_unreadable",),
    ),
    Mutant(
        "checkpoint without the optimizer's moments",
        CHECKPOINT,
        {"for name, values in checkpoint.moments.items()}\n": "for name, values in ()}\n"},
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
        (TEST_ROWS + "test_a_burned_charge_stays_spent_and_its_round_gets_the_next_attempt",),
    ),
    Mutant(
        "one charge more than planned, in the rows",
        ROWS,
        {
            'and len(self.charges) < int(self.plan["num_charges"])': (
                'and len(self.charges) <= int(self.plan["num_charges"])'
            )
        },
        (TEST_ROWS + "test_the_last_planned_charge_is_taken_and_the_next_is_refused",),
        is_quick=True,
    ),
    Mutant(
        "> for >= in the budget",
        LEDGER,
        {
            'if self.num_charges >= int(plan["num_charges"]):': 'if self.num_charges > int(plan["num_charges"]):'
        },
        (TEST_LEDGER + "test_the_budget_is_spent_exactly_and_the_refusal_leaves_the_file_alone",),
    ),
    Mutant(
        "a second answer to one charge",
        ROWS,
        {"return is_known and charge == self.open_charge": "return is_known"},
        (TEST_ROWS + "test_a_charge_has_one_answer",),
    ),
    Mutant(
        "a charge cheaper than the plan",
        ROWS,
        {"            and body == charge_body(self.plan, charge)\n": ""},
        (TEST_ROWS + "test_a_charge_costs_what_the_plan_says",),
    ),
    Mutant(
        "chain unchecked",
        LEDGER,
        {
            "if not isinstance(body, dict) or _next_row(history, kind, body) != row:": (
                "if not isinstance(body, dict) or _next_row(history, kind, body)[:3] != row[:3]:"
            )
        },
        (TEST_DAMAGE + "test_tampered_rows_are_refused",),
    ),
    Mutant(
        "chain without the row before",
        ROWS,
        {
            "(SCHEMA.encode(), previous, kind.encode(), text.encode())": "(SCHEMA.encode(), kind.encode(), text.encode())"
        },
        (TEST_ROWS + "test_the_hash_binds_history_kind_and_body",),
    ),
    Mutant(
        "plan hash unchecked",
        LEDGER,
        {"if found != plan_sha256:": "if not plan_sha256:"},
        (TEST_LEDGER + "test_another_plan_is_refused",),
    ),
    Mutant(
        "lock removed",
        LEDGER,
        {"fcntl.LOCK_EX | fcntl.LOCK_NB": "fcntl.LOCK_SH | fcntl.LOCK_NB"},
        (TEST_LEDGER + "test_a_second_process_is_refused_and_told_who_holds_the_ledger",),
    ),
    Mutant(
        "commits of the ledger not fully synced",
        LEDGER,
        {'("synchronous", "EXTRA", 3)': '("synchronous", "NORMAL", 1)'},
        (TEST_LEDGER + "test_durability_settings_are_in_force",),
    ),
    Mutant(
        "goes on after a write error",
        LEDGER,
        {"        self._is_failed = True  # until the commit is known to be durable\n": ""},
        (TEST_LEDGER + "test_after_a_write_error_the_ledger_refuses_all_further_use",),
    ),
    Mutant(
        "rows may be deleted",
        LEDGER,
        {"for statement in (TABLE, NO_UPDATE, NO_DELETE):": "for statement in (TABLE, NO_UPDATE):"},
        (TEST_LEDGER + "test_rows_cannot_be_changed_through_sql",),
    ),
)
