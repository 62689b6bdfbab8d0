"""feddp.audit: canary users in the real pipeline bound epsilon from below.

A canary user sends C times a secret unit vector whenever it is drawn. Half of the canaries take
part, chosen by coins that only the audit knows; all of them count in N and q. A canary's score is
the projection of the released updates on its vector. An audit keeps nothing that it trains, and
makes no promise; its controls are deliberately not private.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feddp.client.assembly import build_node
from feddp.client.node import Node
from feddp.common.assembly import load_model, plan_from_config
from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.data.users import UsersView
from feddp.common.errors import ConfigError
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.mechanism.noise import BitStream, fresh_key, seeded_key
from feddp.common.privacy.mechanism.sampling import fresh_coins, seeded_coins
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.statement import delta_text, epsilon_text
from feddp.common.wire.messages import TrainReply, TrainRequest
from feddp.server.aggregation import add_replies
from feddp.server.optimizer import ServerOptimizer
from feddp.simulations.audit.bounds import AuditResult, audit_scores
from feddp.simulations.leakage.attacks import Scores
from feddp.simulations.run.progress import ignore
from feddp.simulations.run.simulate import load_given, pinned_threads
from feddp.simulations.run.users import Users, declare_users

ALPHA = 0.05
CONTROLS = {"as planned": 1.0, "half the noise": 0.5, "no noise": 0.0}


@dataclass(frozen=True)
class CanaryNode:
    """A node whose users are canaries: each sends C times its own vector when drawn.

    Attributes:
      directions: float32, shape (m, P), unit vectors.
      is_present: bool, shape (m,): which canaries take part.
      layout_sha256: of the adapter.
    """

    directions: NDArray[np.float32]
    is_present: NDArray[np.bool_]
    layout_sha256: str

    def train(self, request: TrainRequest) -> TrainReply:
        """The exact sum of the drawn canaries' clipped updates; as `Node.train`."""
        coins = fresh_coins if request.seed is None else seeded_coins(request.seed, request.round)
        keys = np.arange(len(self.directions), dtype=np.uint64)
        drawn = request.draw.units(keys, request.round, coins)
        total = UpdateSum.zeros(request.sum_dimension)
        for canary in drawn[self.is_present[drawn]]:
            # Slightly above C, so that clipping, not rounding, sets the norm.
            update = self.directions[canary].astype(np.float64) * (1.001 * request.clipping_norm)
            total.add(
                clip_to_grid(
                    update, clipping_norm=request.clipping_norm, grid_steps=request.grid_steps
                )
            )
        return TrainReply(request.round, self.layout_sha256, total)


@dataclass(frozen=True)
class AuditExtent:
    """How an audit is run.

    Attributes:
      num_canaries: m; each takes part with probability 1/2.
      num_users: training users of the data besides them.
      num_rounds: of each audited run.
      sampling_probability: q; at 1 the claim is a Gaussian one, which audits bound most tightly.
    """

    num_canaries: int = 1000
    num_users: int = 100
    num_rounds: int = 5
    sampling_probability: float = 1.0


@dataclass(frozen=True, repr=False)
class Audit:
    """The result of an audit; it prints as a table.

    Attributes:
      plan: the audited promise.
      extent: how it was audited.
      results: estimates and lower bounds of epsilon, by "as planned" and the two controls.
    """

    plan: PrivacyPlan
    extent: AuditExtent
    results: Mapping[str, AuditResult]

    @property
    def is_as_expected(self) -> bool:
        """Whether the planned pipeline is not refuted, and the run without noise is."""
        claim, found = self.plan.epsilon, self.results
        return found["as planned"].lower_bound <= claim and found["no noise"].lower_bound > claim

    def to_json(self) -> str:
        """All figures as JSON."""
        content = {
            "claim": {"epsilon": self.plan.epsilon, "delta": self.plan.delta, "unit": "user"},
            "confidence": 1 - ALPHA,
            "extent": asdict(self.extent),
            "results": {
                name: {**asdict(result), "lower_bound": result.lower_bound}
                for name, result in self.results.items()
            },
        }
        return json.dumps(content, indent=2) + "\n"

    def __repr__(self) -> str:
        lines = [result_line(n, found, self.plan.epsilon) for n, found in self.results.items()]
        return "\n".join([*about_lines(self.plan, self.extent), *lines])


def audit(
    config: RunConfig,
    users: Users | None = None,
    *,
    extent: AuditExtent = AuditExtent(),
    is_private_data: bool = False,
    on_plan: Callable[[PrivacyPlan], None] = ignore,
    on_result: Callable[[str, AuditResult], None] = ignore,
) -> Audit:
    """Audits a configuration's mechanism against its claim, with two controls; keeps nothing.

    Args:
      config: whose target, norm, adapter and local training are audited.
      users: given in Python; None: those of `data.path`.
      extent: of the audit.
      is_private_data: confirms an audit on data that is not generated.
      on_plan: called with the audited promise, before anything is trained.
      on_result: called with each result and its name as it arrives.

    Raises:
      ConfigError: the data is private without confirmation, or the mechanism cannot be audited.
    """
    config = declare_users(config, users)
    if not config.is_generated and not is_private_data:
        raise ConfigError(
            [
                "feddp audit: its controls train on the users without noise. Audit the demo with "
                "the same settings, or insist with --on-private-data; nothing trained is kept."
            ]
        )
    config = _audited(config, extent)
    with pinned_threads(config):
        base, layout = load_model(config)
        plan = plan_from_config(config, trust="simulation", base=base, layout=layout)
        training, evaluation = load_given(config, users)
        few = UsersView(training, np.arange(min(extent.num_users, training.num_users)))
        node = build_node(config, base, layout, few, evaluation)
        on_plan(plan)
        results = {}
        for name, factor in CONTROLS.items():
            present, absent = canary_scores(node, layout, plan, extent, noise_factor=factor)
            results[name] = audit_scores(
                present,
                absent,
                delta=plan.delta,
                alpha=ALPHA,
                is_gaussian=extent.sampling_probability == 1,
            )
            on_result(name, results[name])
    return Audit(plan, extent, results)


def canary_scores(
    node: Node,
    layout: AdapterLayout,
    plan: PrivacyPlan,
    extent: AuditExtent,
    *,
    noise_factor: float,
) -> tuple[Scores, Scores]:
    """Scores of present and absent canaries after a run with a multiple of the planned noise.

    A score is the inner product of a canary's vector with the sum of all released updates, in
    units of C / (q N): the number of rounds in which it was drawn, plus noise.
    """
    rng = np.random.default_rng(plan.seed)
    directions = rng.normal(size=(extent.num_canaries, layout.dimension)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    is_present = rng.random(extent.num_canaries) < 0.5
    canaries = CanaryNode(directions, is_present, layout.sha256)
    mechanism = plan.mechanism
    assert isinstance(mechanism, GaussianMechanism)  # `_audited`
    # The least that the grid allows stands in for no noise.
    factor = max(noise_factor, 4 / (mechanism.grid_steps * mechanism.noise_multiplier))
    weakened = replace(mechanism, noise_multiplier=mechanism.noise_multiplier * factor)
    moved = _run(node, canaries, layout, weakened, plan.seed, extent.num_rounds)
    scores = (directions @ moved.astype(np.float32)).astype(np.float64)
    scores *= mechanism.expected_cohort_size / mechanism.clipping_norm
    return scores[is_present], scores[~is_present]


def _run(
    node: Node,
    canaries: CanaryNode,
    layout: AdapterLayout,
    mechanism: GaussianMechanism,
    seed: int | None,
    num_rounds: int,
) -> NDArray[np.float64]:
    """The sum of all released updates: float64, (P,).

    The server optimizer is post-processing, so it is replaced by steps of size 1, with which the
    adapter is that sum.
    """
    optimizer = ServerOptimizer("fedavg", 1.0, 0.0, 0.0, 1.0)
    adapter = layout.initial()
    moments = optimizer.initial_moments(len(adapter))
    moved = np.zeros(len(adapter))
    for number in range(1, num_rounds + 1):
        request = TrainRequest(
            round=number,
            adapter=adapter,
            layout_sha256=layout.sha256,
            draw=mechanism.sampler.draw,
            clipping_norm=mechanism.clipping_norm,
            grid_steps=mechanism.grid_steps,
            bit_steps=0,
            noise_scale=0,
            seed=seed,
        )
        total = add_replies(
            [node.train(request), canaries.train(request)],
            request,
            num_units=mechanism.num_units,
            max_units_per_node=mechanism.num_units,
        )
        key = fresh_key(b"audit", total) if seed is None else seeded_key(seed, number)
        released = mechanism.release(total, bits=BitStream(key))
        moved += released.values
        adapter, moments = optimizer.step(adapter, released, moments)
    return moved


def _audited(config: RunConfig, extent: AuditExtent) -> RunConfig:
    """The configuration with the audit's schedule; noise is recalibrated to the same target.

    Raises:
      ConfigError: the audit does not support this mechanism.
    """
    asked = (config.privacy.unit, config.sampling.unit, config.privacy.clipping)
    mechanism = MECHANISMS[config.privacy.mechanism]
    if asked != ("user", "user", "fixed") or not mechanism.has_independent_rounds:
        raise ConfigError(
            [
                "feddp audit: audits users drawn by coins of their own under a fixed clipping norm "
                '(privacy.unit and sampling.unit "user", privacy.mechanism "poisson", '
                'privacy.clipping "fixed"). Nothing else is audited yet.'
            ]
        )
    num_units = extent.num_users + extent.num_canaries
    changes = {
        "run.rounds": extent.num_rounds,
        "privacy.num-users": num_units,
        "privacy.noise-multiplier": "auto",
        "sampling.expected-cohort-size": extent.sampling_probability * num_units,
    }
    return from_flat({**to_flat(config), **changes})


def about_lines(plan: PrivacyPlan, extent: AuditExtent) -> list[str]:
    """Lines that say what is audited, and the head of the table."""
    if not math.isclose(plan.sampling_probability, extent.sampling_probability):
        raise ValueError("the plan is not the audit's")
    return [
        f"Audit: {extent.num_canaries} canary users among {plan.num_users}, {plan.num_rounds} "
        f"rounds, q = {plan.sampling_probability:g}, noise multiplier {plan.noise_multiplier:.4f}",
        f"Claim: epsilon <= {epsilon_text(plan.epsilon)} at delta {delta_text(plan.delta)}, user, "
        f"{plan.relation}",
        "",
        f"  {'':<16}{'estimate':>10}{'normal':>10}{'one-run':>10}{'f-DP':>10}{'threshold':>11}",
    ]


def result_line(name: str, result: AuditResult, claim: float) -> str:
    """A row of the table: estimates and bounds, and whether they refute the claim."""
    bounds = (result.normal, result.one_run, result.f_dp, result.clopper_pearson)
    cells = "".join(
        f"{'-' if bound is None else f'{bound:.2f}':>{width}}"
        for bound, width in zip(bounds, (10, 10, 10, 11), strict=True)
    )
    verdict = "REFUTED" if result.lower_bound > claim else "not refuted"
    return f"  {name:<16}{result.one_shot:>10.2f}{cells}   {verdict}"
