"""The promise in words: one line for the console, paragraphs for the card, privacy.json."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal

from common.privacy.plan import PrivacyPlan

UNIT = "user"
RELATION = "add-or-remove-one"
ACCOUNTANT = "pld"
MECHANISM = "poisson-gaussian"
NOT_PRIVATE = "seeded: not private"


def accountant_version() -> str:
    """Name and version of the accountant behind every epsilon, as in "dp-accounting 0.6.0"."""
    return f"dp-accounting {importlib.metadata.version('dp-accounting')}"


def epsilon_text(value: float) -> str:
    """An epsilon with three decimals, never below the value.

    >>> epsilon_text(7.9962), epsilon_text(2.1241), epsilon_text(2.0)
    ('7.997', '2.125', '2.000')
    """
    return _up(value, Decimal("0.001"))


def delta_text(value: float) -> str:
    """A delta with three digits, never below the value.

    >>> delta_text(1e-05), delta_text(3.98107e-06)
    ('1e-05', '3.99e-06')
    """
    return f"{float(_up(value, Decimal(1).scaleb(Decimal(repr(float(value))).adjusted() - 2))):g}"


def guarantee_line(plan: PrivacyPlan) -> str:
    """One line: an epsilon with everything that gives it a meaning; rounded up, as delta is."""
    line = (
        f"epsilon <= {epsilon_text(plan.epsilon)} (upper bound; delta {delta_text(plan.delta)}, "
        f"unit {UNIT}, {RELATION}, trust {plan.trust}, PLD accountant of {accountant_version()})"
    )
    return line if plan.seed is None else f"{line} [{NOT_PRIVATE}]"


def privacy_record(
    plan: PrivacyPlan, *, ledger_head: str, not_covered: Sequence[str]
) -> Mapping[str, object]:
    """The machine-readable promise, enough to recompute epsilon without feddp."""
    return {
        "unit": UNIT,
        "neighboring_relation": RELATION,
        "trust": plan.trust,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "accountant": {
            "name": ACCOUNTANT,
            "package": "dp-accounting",
            "version": importlib.metadata.version("dp-accounting"),
        },
        "mechanism": MECHANISM,
        "noise_multiplier": plan.noise_multiplier,
        "clipping_norm": plan.clipping_norm,
        "sampling_probability": plan.sampling_probability,
        "num_users": plan.num_users,
        "num_rounds": plan.num_rounds,
        "num_charges": plan.num_charges,
        "grid_steps": plan.grid_steps,
        "dimension": plan.dimension,
        "accounting_delta": plan.accounting_delta,
        "bridge_epsilon": plan.bridge_epsilon,
        "bridge_delta": plan.bridge_delta,
        "seeded": plan.seed is not None,
        "plan_sha256": plan.sha256,
        "ledger_head": ledger_head,
        "scope": "this run only",
        "not_covered": list(not_covered),
    }


def record_to_json(record: Mapping[str, object]) -> str:
    """The content of privacy.json."""
    return json.dumps(record, indent=2) + "\n"


def statement(plan: PrivacyPlan, *, not_covered: Sequence[str]) -> str:
    """The promise in Markdown: what holds, for whom, against whom, and what is outside."""
    seeded = (
        ""
        if plan.seed is None
        else f"**{NOT_PRIVATE}.** The randomness of this run is known (seed {plan.seed}); whoever "
        "knows it can undo the noise. The numbers below hold for the same run without a seed.\n\n"
    )
    outside = "\n".join(f"- {item}" for item in not_covered)
    return (
        f"{seeded}"
        f"Whether or not any one {UNIT} took part with all of their data changes the distribution "
        "of everything released by this run (each round's adapter, this adapter, the ledger) by at "
        f"most **epsilon = {epsilon_text(plan.epsilon)} at delta = {delta_text(plan.delta)}** (an "
        f"upper bound; {RELATION}: neighbouring data sets differ by one {UNIT}; trust "
        f"{plan.trust}; PLD accountant of {accountant_version()}).\n\n"
        f"{_trust_text(plan.trust)}\n\n"
        f"{_how_text(plan)}\n\n"
        f"Not covered:\n\n{outside}\n"
    )


def _trust_text(trust: str) -> str:
    if trust == "simulation":
        return (
            "This run was a simulation: everything happened on one machine, so the promise "
            "describes the mathematics of what was released (semantics only), not the security of "
            "a deployment."
        )
    return (
        "The server app adds the noise and is trusted with the sums of each node before that, and "
        "so is the Flower SuperLink that passes them on; each node is trusted to sample and clip "
        "its own users. Other nodes see releases only. The network is not trusted where the "
        "connections use TLS, and is trusted where they do not."
    )


def _how_text(plan: PrivacyPlan) -> str:
    return (
        f"How: in each of {plan.num_rounds} rounds every one of N = {plan.num_users} declared "
        f"users is drawn with probability {plan.sampling_probability:.10g}; a user's whole update "
        f"is clipped to L2 norm {plan.clipping_norm:.10g}; the exact integer sum gets discrete "
        f"Gaussian noise of {plan.noise_multiplier:.10g} times that norm from a cryptographic "
        f"stream, and is divided by the constant {plan.expected_cohort_size:.10g}. The bound is "
        "the privacy loss distribution composed over "
        f"{plan.num_charges} charges: the rounds and {plan.num_charges - plan.num_rounds} spare "
        "attempts for crashes. It is the planned value, also after an early stop, and speaks of "
        "this run only: other runs on the same users add to it."
    )


def _up(value: float, step: Decimal) -> str:
    """The smallest multiple of a power of ten that is not below the float's shortest decimal."""
    if not math.isfinite(value):
        return str(value)
    return str(Decimal(repr(float(value))).quantize(step, rounding=ROUND_CEILING))


def not_covered(evaluation: str, *, is_generated: bool) -> tuple[str, ...]:
    """What the promise does not speak of.

    Args:
      evaluation: who the evaluation users are and how they were chosen.
      is_generated: the users are generated, so nobody real is concerned.
    """
    items = (
        f"{evaluation}; they are outside N, and their metrics carry no noise",
        "the base model and the data that it was made from",
        "choices made after looking at results on the same users: every look is a run of its own",
        "the number N of training users, which is declared and public",
        "several users who act or are alike: a group of k is protected by a weaker bound",
        "a user whose data lies on several nodes: each node draws and clips them on its own",
    )
    return (*items, "the users themselves: they are generated") if is_generated else items
