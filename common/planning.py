"""From a RunConfig to the plan that it promises; the same on every machine that reads it."""

import hashlib
from collections.abc import Callable

from feddp.common.assembly import declared_sizes
from feddp.common.config.run_config import LEDGER_KEYS, RunConfig, to_flat
from feddp.common.model.base import BaseModel
from feddp.common.model.lora import AdapterLayout
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.plan.plan import PrivacyPlan, make_plan

MOST_CLIPPING_CHANGE = 64.0
PLACES = ("run.name", "run.output-dir", "run.resume", "nodes.registry", "nodes.server-key")


def plan_from_config(
    config: RunConfig, *, trust: str, base: BaseModel, layout: AdapterLayout
) -> PrivacyPlan:
    """The plan of a configuration: numbers, and fingerprints of everything they rest on.

    Args:
      config: the run.
      trust: who is trusted where it runs; a simulation promises semantics only, whatever it asks.
      base: the frozen model.
      layout: of the trained numbers.

    Raises:
      ConfigError: the promise cannot be made; see `make_plan`.
    """
    privacy, sizes = config.privacy, declared_sizes(config)
    return make_plan(
        unit=privacy.unit,
        sampling_unit=config.sampling.unit,
        mechanism=privacy.mechanism,
        num_users=sizes.num_users,
        num_examples=sizes.num_examples,
        max_examples_per_user=config.data.max_examples_per_user,
        max_nodes_per_user=privacy.max_nodes_per_user,
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        noise_multiplier=privacy.noise_multiplier,
        clipping_norm=privacy.clipping_norm,
        num_rounds=config.run.rounds,
        expected_cohort_size=config.sampling.expected_cohort_size,
        separation=config.sampling.separation,
        quantile=_quantile(config) if privacy.clipping == "quantile" else None,
        is_noised_by_nodes=privacy.trust == "node",
        drawn_by=config.sampling.by,
        asks_everyone=config.sampling.ask == "all",
        spare_attempts=privacy.spare_attempts,
        dimension=layout.dimension,
        trust=trust,
        seed=config.run.seed,
        details={
            "config_sha256": config_sha256(config),
            "base_sha256": base.fingerprint,
            "layout_sha256": layout.sha256,
        },
    )


def config_sha256(config: RunConfig) -> str:
    """Hash of every setting except where things are kept, which a move may change."""
    places = (*PLACES, *LEDGER_KEYS)
    flat = {key: value for key, value in to_flat(config).items() if key not in places}
    return hashlib.sha256(repr(sorted(flat.items())).encode()).hexdigest()


def _quantile(config: RunConfig) -> Callable[[float], QuantileClipping]:
    privacy = config.privacy

    def make(cohort: float) -> QuantileClipping:
        return QuantileClipping(
            quantile=privacy.clipping_quantile,
            rate=privacy.clipping_rate,
            bit_noise=privacy.clipping_bit_noise or cohort / 20,
            smallest=privacy.clipping_norm / MOST_CLIPPING_CHANGE,
            largest=privacy.clipping_norm * MOST_CLIPPING_CHANGE,
        )

    return make
