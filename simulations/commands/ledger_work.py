"""feddp ledger: create, look at, verify, export, anchor, back up, and give a new key."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from feddp.common.assembly import load_model, plan_from_config
from feddp.common.config.run_config import RunConfig
from feddp.common.disk import Disk
from feddp.common.errors import ConfigError, DiskError, LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger.budget import ADAPTIVE, FilterBudget
from feddp.common.privacy.ledger.charge_terms import Planned, Slot
from feddp.common.privacy.ledger.history import Body, History
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.remembered_head import anchor_of, check_anchor_file, write_anchor
from feddp.common.privacy.ledger.store import Content, copy_file
from feddp.common.privacy.plan.ledger_entries import plan_row, planned_of, terms_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.shared_population import (
    planned_epsilon,
    population_row,
    spent_epsilon,
)
from feddp.common.privacy.plan.statement import (
    NOT_PRIVATE,
    delta_text,
    epsilon_text,
    privacy_record,
)
from feddp.server.run import CONFIG_NAME, Run, load_run
from feddp.server.run_ledger import LEDGER_NAME, anchor_path, key_path

# What privacy.json has to repeat of the plan, exactly.
PROMISED = (
    "unit",
    "neighboring_relation",
    "trust",
    "epsilon",
    "delta",
    "noise_multiplier",
    "clipping_norm",
    "sampling_probability",
    "num_users",
    "num_charges",
    "accounting_delta",
    "bridge_epsilon",
    "bridge_delta",
    "seeded",
    "plan_sha256",
)
SHORT = 12  # digits of a hash that a table shows


def create_ledger(
    path: Path,
    configs: Sequence[RunConfig],
    *,
    population: str,
    mode: str,
    num_users: int | None,
    target_epsilon: float | None,
    target_delta: float | None,
    num_runs: int,
) -> int:
    """Makes the ledger of a population from the plans of its expected runs.

    Args:
      path: of the ledger; its key goes beside it, or to `privacy.ledger-key`.
      configs: of the runs; each is planned `num_runs` times.
      population: name of the users.
      mode: "fixed-schedule" or "adaptive".
      num_users: N; None: the configs'.
      target_epsilon: of everything ever released; None: the first config's.
      target_delta: of the same; None: the first plan's.
      num_runs: of each config.

    Raises:
      ConfigError: the plans contradict each other, or cost more than the target.
      DiskError: the ledger exists already, or cannot be written.
    """
    if path.exists():
        raise DiskError(f"{path}: exists already; a ledger is never overwritten.")
    plans = [_plan(config, num_users) for config in configs]
    terms = terms_of(plans[0])
    if any(terms_of(plan) != terms for plan in plans):
        raise ConfigError(
            ["The runs differ in num-users, trust or seed: they are not of one population."]
        )
    row = population_row(
        population=population,
        mode=mode,
        terms=terms,
        target_epsilon=target_epsilon or plans[0].target_epsilon,
        target_delta=target_delta or plans[0].delta,
        schedule=_schedule(plans, num_runs),
    )
    key = key_path(configs[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    Ledger.create(path, row, key_path=key)
    history = Ledger.read(path)
    print(f"{path}: the ledger of {population}\n" + "\n".join(_promise_lines(history)))
    print(f"  key       {history.public_key.hex()} (public)")
    print("  Keep its private key secret, and the ledger where no backup can replace it unseen.")
    return 0


def show(path: Path) -> int:
    """Prints the rows as a table, what they spent, and what is left."""
    path, _ = _locate(path)
    content = Ledger.read_content(path)
    print(f"{path}")
    print("\n".join(_table(content)))
    print("\n".join([*_promise_lines(content.history), *_spent_lines(content.history)]))
    return 0


def verify(path: Path, *, anchor: Path | None) -> int:
    """Checks rows, signatures, anchor, plan and promise; recomputes epsilon from the events.

    Raises:
      LedgerDamagedError: the ledger does not verify, or privacy.json promises something else.
      RolledBackError: it does not extend the anchor.
      PlanDiffersError: the run's plan is not the ledger's.
    """
    path, run = _locate(path)
    history = Ledger.read(path)
    if anchor is not None and not anchor.is_file():
        raise ConfigError([f"--anchor {anchor}: no such file."])
    anchor = anchor or (anchor_path(run.config) if run else None)
    check_anchor_file(path, history, anchor)
    print(f"{path}: {history.num_rows} rows, each in its place and signed")
    print(f"  key       {history.public_key.hex()} (public)")
    print("\n".join([*_promise_lines(history), *_spent_lines(history)]))
    if anchor is not None:
        print(f"  verified  extends the head that {anchor} remembers")
    if run is not None:
        _check_plan(run, history)
    _verify_epsilon(path, history)
    if run is not None:
        _verify_record(run)
    return 0


def export(path: Path) -> int:
    """Prints the rows as JSON lines; all of it is public."""
    path, _ = _locate(path)
    for seq, kind, text, previous, head, signature in Ledger.read_content(path).rows:
        line = {
            "seq": seq,
            "kind": kind,
            "body": json.loads(text),
            "prev": previous.hex(),
            "hash": head.hex(),
            "sig": signature.hex(),
        }
        sys.stdout.write(json.dumps(line, sort_keys=True) + "\n")
    return 0


def anchor(path: Path, *, file: Path) -> int:
    """Remembers the ledger's head in a file; refuses to forget a newer one.

    Raises:
      RolledBackError: the ledger does not extend what the file remembers.
    """
    path, _ = _locate(path)
    content = Ledger.read_content(path)
    if file.is_file():
        check_anchor_file(path, content.history, file)
    made = anchor_of(content.history, content.signature)
    write_anchor(file, made, Disk())
    print(f"{file}: remembers row {made.seq} of {made.population or path}, head {made.head}")
    return 0


def rotate(path: Path) -> int:
    """Replaces the key that signs; the old one signs the new one."""
    path, run = _locate(path)
    key = key_path(run.config) if run else None
    with Ledger.open(path, key_path=key) as ledger:
        ledger.rotate()
        print(f"{path}: row {ledger.history.num_rows} names the new key")
        print(f"  key       {ledger.history.public_key.hex()} (public)")
    return 0


def backup(path: Path, *, target: Path) -> int:
    """Copies the ledger, verifies the copy, and says which head it holds."""
    path, _ = _locate(path)
    history = copy_file(path, target, Disk()).history
    print(f"{target}: verified, {history.num_rows} rows, head {history.head.hex()}")
    print("  An older copy is no ledger to go on with: whatever came after it would be forgotten.")
    return 0


def _locate(path: Path) -> tuple[Path, Run | None]:
    """The ledger of a path, and the run if it is one.

    Raises:
      ConfigError: there is neither.
    """
    if (path / CONFIG_NAME).is_file():
        run = load_run(path)
        return run.ledger_path, run
    if path.is_dir() or not path.exists():
        raise ConfigError([f"{path}: no run here and no ledger."])
    if path.name == LEDGER_NAME and (path.parent / CONFIG_NAME).is_file():
        return path, load_run(path.parent)
    return path, None


def _plan(config: RunConfig, num_users: int | None) -> PrivacyPlan:
    base, layout = load_model(config)
    declared = config.privacy.num_users
    if num_users and declared and num_users != declared:
        raise ConfigError([f"--num-users = {num_users}: privacy.num-users of a run is {declared}."])
    trust = config.privacy.trust
    if num_users:
        config = replace(config, privacy=replace(config.privacy, num_users=num_users))
    return plan_from_config(config, trust=trust, base=base, layout=layout)


def _schedule(plans: Sequence[PrivacyPlan], num_runs: int) -> list[Planned]:
    """The charges of all runs; equal slots are one entry."""
    merged: dict[Slot, Planned] = {}
    for planned in map(planned_of, plans):
        known = merged.get(planned.slot, Planned(planned.slot, 0, 0))
        merged[planned.slot] = Planned(
            planned.slot,
            known.count + num_runs * planned.count,
            known.num_events + num_runs * planned.num_events,
        )
    return list(merged.values())


def _table(content: Content) -> list[str]:
    lines = [f"  {'row':>5}  {'kind':<8}{'what':<58}hash"]
    for seq, kind, text, _, head, _ in content.rows:
        lines.append(
            f"  {seq:>5}  {kind:<8}{_summary(kind, json.loads(text)):<58}{head.hex()[:SHORT]}"
        )
    return lines


def _summary(kind: str, body: Body) -> str:
    match kind:
        case "PLAN":
            name = body["population"] or "-"
            return f"{name}, {body['mode']}, {body['scope']}, N {body['num_users']}"
        case "OPEN":
            return f"{body['run']}, start {body['epoch']}, plan {body['plan_sha256'][:SHORT]}"
        case "CHARGE":
            cost = f", cost {body['cost']}" if body["cost"] else ""
            event = body["event"]["event"]
            return f"{body['round']}/{body['attempt']} {body['purpose']}, {event}{cost}"
        case "RELEASE":
            return f"{body['round']}/{body['attempt']} file {body['sha256'][:SHORT]}"
        case "BURN":
            return f"{body['round']}/{body['attempt']} {body['cause']}"
        case _:
            return f"new key {body['new_public_key'][:SHORT]}"


def _promise_lines(history: History) -> list[str]:
    plan = history.plan
    seeded = f" [{NOT_PRIVATE}]" if plan["seeded"] == "yes" else ""
    covers = "this run only" if plan["scope"] == "run" else "every run on it"
    epsilon, delta = epsilon_text(planned_epsilon(plan)), delta_text(float(plan["target_delta"]))
    return [
        f"  promise   epsilon <= {epsilon} (upper bound; delta {delta}, unit {plan['unit']}, "
        f"{plan['relation']}, trust {plan['trust']}, {plan['accountant']}), {covers}{seeded}"
    ]


def _spent_lines(history: History) -> list[str]:
    plan, num_open = history.plan, int(history.open_charge is not None)
    num_charges, num_released = len(history.charges), history.num_released
    num_burned = num_charges - num_released - num_open
    spent = spent_epsilon(plan, history.charges)
    lines = [
        f"  starts    {history.num_opened}, of {len(history.runs)} runs",
        f"  charges   {num_charges}{_of_all(history)}: {num_released} released, {num_burned} "
        f"burned, {num_open} open",
        f"  spent     epsilon <= {epsilon_text(spent)} so far, a meter; the promise is the whole",
    ]
    if isinstance(history.budget, FilterBudget):
        left = float(history.budget.remaining)
        lines.append(f"  left      {left:.6g} of the filter's budget, as much as of epsilon")
    return [*lines, f"  head      {history.head.hex()}"]


def _of_all(history: History) -> str:
    if history.plan["mode"] == ADAPTIVE:
        return ""
    return f" of {sum(entry['count'] for entry in history.plan['schedule'])}"


def _verify_epsilon(path: Path, history: History) -> None:
    """Recomputes what all planned charges cost. Reading has refused every charge beyond the plan.

    Raises:
      LedgerDamagedError: they cost more than the plan promises.
    """
    whole, target = planned_epsilon(history.plan), float(history.plan["target_epsilon"])
    if whole > target:
        raise LedgerDamagedError(
            f"{path}: promises epsilon {epsilon_text(target)}, and its planned charges cost "
            f"{epsilon_text(whole)}. Do not publish what it released."
        )
    print(f"  verified  the events cost epsilon <= {epsilon_text(whole)}, within the target")


def _check_plan(run: Run, history: History) -> None:
    """Refuses a plan that says anything else than the ledger; versions may differ."""
    known = history.runs.get(run.name)
    if history.plan["scope"] == "population":
        if known is not None and known.opened["plan_sha256"] != run.plan.sha256:
            raise PlanDiffersError(f"{run.path}: plan.json is not the one that charged the ledger.")
        return
    expected = plan_row(run.plan)
    for name, value in history.plan.items():
        if name not in ("accountant", "population", "public_key") and value != expected[name]:
            raise PlanDiffersError(
                f"{run.path}: {name} of plan.json is not the ledger's ({expected[name]} against "
                f"{value}). Restore the file."
            )
    whole = planned_epsilon(history.plan)
    if whole > run.plan.epsilon * (1 + 1e-9):
        raise LedgerDamagedError(
            f"{run.path}: plan.json promises epsilon {epsilon_text(run.plan.epsilon)}, and its "
            f"{run.plan.num_charges} charges cost {epsilon_text(whole)}. Do not publish this run."
        )


def _verify_record(run: Run) -> None:
    """Refuses a privacy.json that promises anything else than the plan; without one, does nothing.

    The file is there once all rounds are released.
    """
    record_path = run.path / "privacy.json"
    if not record_path.is_file():
        return
    try:
        found = json.loads(record_path.read_text(encoding="utf-8"))
        head = str(found["ledger_head"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerDamagedError(
            f"{record_path}: damaged. `feddp simulate --resume {run.path}` writes it anew."
        ) from error
    expected = privacy_record(run.plan, ledger_head=head, not_covered=())
    for name in PROMISED:
        if found.get(name) != expected[name]:
            raise LedgerDamagedError(
                f"{record_path}: {name} = {found.get(name)}, and the ledger's plan says "
                f"{expected[name]}. `feddp simulate --resume {run.path}` writes it anew."
            )
    print("  verified  privacy.json promises what the plan does")
