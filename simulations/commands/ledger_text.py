"""A ledger as text: its rows, its promise, and what is spent and left."""

import json

from feddp.common.privacy.ledger.budget import ADAPTIVE, FilterBudget
from feddp.common.privacy.ledger.history import Body, History
from feddp.common.privacy.ledger.store import Content
from feddp.common.privacy.plan.shared_population import planned_epsilon, spent_epsilon
from feddp.common.privacy.plan.statement import NOT_PRIVATE, delta_text, epsilon_text

SHORT = 12  # hex digits of a hash in a table


def table_lines(content: Content) -> list[str]:
    """The rows as a table."""
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


def promise_lines(history: History) -> list[str]:
    """What the ledger's plan promises."""
    plan = history.plan
    seeded = f" [{NOT_PRIVATE}]" if plan["seeded"] == "yes" else ""
    covers = "this run only" if plan["scope"] == "run" else "every run on it"
    epsilon, delta = epsilon_text(planned_epsilon(plan)), delta_text(float(plan["target_delta"]))
    return [
        f"  promise   epsilon <= {epsilon} (upper bound; delta {delta}, unit {plan['unit']}, "
        f"{plan['relation']}, trust {plan['trust']}, {plan['accountant']}), {covers}{seeded}"
    ]


def spent_lines(history: History) -> list[str]:
    """Starts, charges, epsilon so far, what a filter has left, and the head."""
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
