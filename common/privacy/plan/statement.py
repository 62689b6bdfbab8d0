"""The promise in words: one line for the console, paragraphs for the card, privacy.json."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal

from feddp.common.privacy.accounting.epsilon import PLD, RDP
from feddp.common.privacy.mechanism.cohorts import EXAMPLE, NODE, USER
from feddp.common.privacy.mechanism.events import ADD_OR_REMOVE_ONE, REPLACE_ONE, ZERO_OUT, to_body
from feddp.common.privacy.plan.plan import PrivacyPlan

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
    """One line: an epsilon with everything that gives it meaning; rounded up, like delta."""
    line = (
        f"epsilon <= {epsilon_text(plan.epsilon)} (upper bound; delta {delta_text(plan.delta)}, "
        f"unit {plan.unit}, {plan.relation}, trust {plan.trust.model}, "
        f"{plan.schedule.accountant.upper()} accountant of {accountant_version()})"
    )
    return line if plan.seed is None else f"{line} [{NOT_PRIVATE}]"


def privacy_record(
    plan: PrivacyPlan, *, ledger_head: str, not_covered: Sequence[str]
) -> Mapping[str, object]:
    """The machine-readable promise, enough to recompute epsilon without feddp.

    `charges` holds every event with its count: epsilon is that of their composition under
    neighboring_relation at accounting_delta, plus bridge_epsilon.
    """
    return {
        "unit": plan.unit,
        "sampling_unit": plan.population.sampling_unit,
        "neighboring_relation": plan.relation,
        "trust": plan.trust.model,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "accountant": {
            "name": plan.schedule.accountant,
            "package": "dp-accounting",
            "version": importlib.metadata.version("dp-accounting"),
        },
        "mechanism": to_body(plan.event)["event"],
        "sampling": plan.schedule.mechanism.name,
        "charges": [{**to_body(event), "count": count} for event, count in plan.charges],
        "noise_multiplier": plan.noise_multiplier,
        "clipping_norm": plan.clipping_norm,
        "sampling_probability": plan.sampling_probability,
        "num_users": plan.num_users,
        "num_examples": plan.population.num_examples,
        "max_examples_per_user": plan.population.max_examples_per_user,
        "max_nodes_per_user": plan.population.max_nodes_per_user,
        "num_coins": plan.population.num_coins,
        "num_rounds": plan.num_rounds,
        "num_charges": plan.num_charges,
        "separation": plan.cohorts.separation,
        "grid_steps": plan.noise.grid_steps,
        "dimension": plan.dimension,
        "sum_dimension": plan.sum_dimension,
        "accounting_delta": plan.accounting_delta,
        "bridge_epsilon": plan.noise.bridge_epsilon,
        "bridge_delta": plan.noise.bridge_delta,
        "drawn_by": plan.trust.drawn_by,
        "asks_everyone": plan.trust.asks_everyone,
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
        f"{_whose_text(plan)} changes the distribution of everything released by this run (each "
        f"round's adapter, this adapter, the ledger) by at most **epsilon = "
        f"{epsilon_text(plan.epsilon)} at delta = {delta_text(plan.delta)}** (an upper bound; "
        f"{plan.relation}: {_RELATION_TEXTS[plan.relation].format(unit=plan.unit)}; trust "
        f"{plan.trust.model}; {plan.schedule.accountant.upper()} accountant of "
        f"{accountant_version()}).\n\n"
        f"{_unit_text(plan)}"
        f"{_TRUST_TEXTS[plan.trust.model]}\n\n"
        f"{_how_text(plan)}\n\n"
        f"{_drawer_text(plan)}"
        f"Not covered:\n\n{outside}\n"
    )


_RELATION_TEXTS = {
    ADD_OR_REMOVE_ONE: "neighbouring data sets differ by one {unit}",
    ZERO_OUT: "neighbouring data sets differ in one {unit}, whose contribution is zero in one",
    REPLACE_ONE: "neighbouring data sets differ in one {unit}, who is another one in each",
}

_TRUST_TEXTS = {
    "simulation": (
        "This run was a simulation: everything happened on one machine, so the promise describes "
        "the mathematics of what was released (semantics only), not the security of a deployment."
    ),
    "server": (
        "The server app adds the noise and is trusted with the sums of each node before that, and "
        "so is the Flower SuperLink that passes them on; each node is trusted to sample and clip "
        "its own users. Other nodes see releases only. The network is not trusted where the "
        "connections use TLS, and is trusted where they do not."
    ),
    "node": (
        "Each node adds the whole noise itself before its sum leaves it, and is trusted to sample "
        "and clip its own users; neither the server app, nor the Flower SuperLink, nor the network "
        "nor any other node is trusted. A sum of several nodes carries the noise of each, which "
        "costs accuracy; the promise counts one of them."
    ),
}


def _whose_text(plan: PrivacyPlan) -> str:
    if plan.unit == EXAMPLE:
        return "Whether or not any one example was there"
    if plan.relation == REPLACE_ONE:
        return "Whether any one user's data, all of it, is theirs or another user's"
    return "Whether or not any one user took part with all of their data"


def _unit_text(plan: PrivacyPlan) -> str:
    if plan.unit == EXAMPLE:
        return (
            "The unit is an example, not a user: a user with k examples is protected by no more "
            "than k epsilon, at delta (e^(k epsilon) - 1) / (e^epsilon - 1).\n\n"
        )
    if plan.population.sampling_unit == EXAMPLE:
        most = plan.population.num_coins
        return (
            f"Examples are drawn and clipped, at most {most} of a user, and the promise counts all "
            "of them together (a mixture of Gaussians). That no user has more, and that each was "
            "clipped, is up to the nodes: the server app can only check that a user's sum stays "
            f"within {most} x {plan.clipping_norm:.10g}.\n\n"
        )
    if plan.population.num_coins > 1:
        does = "draws, clips and noises" if plan.cohorts.num_releases > 1 else "draws and clips"
        return (
            f"A user may have data on up to {plan.population.num_coins} nodes, each of which "
            f"{does} them on its own; the promise counts all of them together.\n\n"
        )
    return ""


def _drawer_text(plan: PrivacyPlan) -> str:
    if plan.trust.drawn_by == NODE:
        return ""
    who = (
        "The server app draws, among nodes of one user each that were fixed before round 1, and "
        "never among those that are online. "
    )
    if plan.trust.asks_everyone:
        return (
            f"{who}Every node is asked and answers under a seal of the same size; the answers of "
            "nodes that were not drawn are dropped unopened, so the traffic does not show who was "
            "drawn.\n\n"
        )
    if not plan.schedule.mechanism.is_amplified:
        return f"{who}Whoever sees the traffic sees whose turn it is, which is no secret here.\n\n"
    return (
        f"{who}It asks those that it has drawn, so whoever sees the traffic between the machines "
        "sees who took part: the promise holds against readers of releases only.\n\n"
    )


def _how_text(plan: PrivacyPlan) -> str:
    scale = f"{plan.noise_multiplier:.10g}"
    unit = "a user" if plan.population.sampling_unit == USER else "an example"
    kind = "discrete Gaussian noise" if plan.noise.matrix is None else "correlated Gaussian noise"
    clip = (
        f"is clipped to L2 norm {plan.clipping_norm:.10g}"
        if plan.clipping.quantile is None
        else f"is clipped to an L2 norm that starts at {plan.clipping_norm:.10g} and follows a "
        "noised quantile of the norms, which is part of the same release"
    )
    return (
        f"How: in each of {plan.num_rounds} rounds "
        f"{plan.schedule.mechanism.draw_text(plan.cohorts)}; {unit}'s whole update {clip}; the "
        f"exact integer sum gets {kind} of {scale} times that norm from a cryptographic stream, "
        f"and is divided by the constant {plan.expected_cohort_size:.10g}. The bound is "
        f"{_ACCOUNTANT_TEXTS[plan.schedule.accountant]} composed over {plan.num_charges} charges: "
        f"{_charges_text(plan.cohorts.num_spare)}. It is the "
        "planned value, also after an early stop, and speaks of this run only: other runs on the "
        "same users add to it."
    )


def _charges_text(num_spare: int) -> str:
    if num_spare:  # of a plan from before a burned attempt was its round
        return f"the rounds and {num_spare} spare attempts for crashes"
    return "one a round; a round that a crash burns is charged, and not repeated"


_ACCOUNTANT_TEXTS = {
    PLD: "the privacy loss distribution",
    RDP: "the Renyi divergence at the best of fixed orders,",
}


def _up(value: float, step: Decimal) -> str:
    """The smallest multiple of a power of ten that is not below the float's shortest decimal."""
    if not math.isfinite(value):
        return str(value)
    return str(Decimal(repr(float(value))).quantize(step, rounding=ROUND_CEILING))


def not_covered(evaluation: str, *, is_generated: bool) -> tuple[str, ...]:
    """What the promise does not speak of.

    Args:
      evaluation: who the evaluation users are and how they were chosen.
      is_generated: the users are generated, so no real person is concerned.
    """
    items = (
        f"{evaluation}; they are outside N, and their metrics carry no noise",
        "the base model and the data that it was made from",
        "choices made after looking at results on the same users: every look is a run of its own",
        "the number N of training users, which is declared and public",
        "several users who act or are alike: a group of k is protected by a weaker bound",
        "data of a user on several nodes, if more than privacy.max-nodes-per-user: each node draws "
        "and clips them on its own",
        "roundings by which a user moves others' updates, where nodes train on accelerators or "
        "with nodes.compile; on processors without it there are none",
    )
    return (*items, "the users themselves: they are generated") if is_generated else items
