"""From a RunConfig to its parts: the base model with its layout, the users, and the plan."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from feddp.common.config.run_config import LEDGER_KEYS, RunConfig, to_flat
from feddp.common.config.sections import AdapterSection
from feddp.common.data.demo import demo_users, num_demo_users
from feddp.common.data.poisoned_users import PoisonedUsers
from feddp.common.data.user_index import open_users
from feddp.common.data.users import Columns, Users, UsersView, partition
from feddp.common.errors import DataError
from feddp.common.model.base import BaseModel, load_base
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import lay_out
from feddp.common.privacy.mechanism.cohorts import declare_population
from feddp.common.privacy.mechanism.mechanisms import MECHANISMS
from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.plan.plan import PrivacyPlan, make_plan
from feddp.common.privacy.plan.request import Request, Trust

MOST_CLIPPING_CHANGE = 64.0
PLACES = ("run.name", "run.output-dir", "run.resume", "nodes.registry", "nodes.server-key")


@dataclass(frozen=True)
class Part:
    """One of `num_parts` disjoint sets of users, which are spread by their hash."""

    index: int = 0
    num_parts: int = 1

    def __str__(self) -> str:
        return f"part {self.index} of {self.num_parts}"


def load_model(config: RunConfig) -> tuple[BaseModel, AdapterLayout]:
    """The frozen base model, and the layout of what is trained on it.

    Raises:
      ModelError: the base cannot be loaded, or lacks the target modules.
    """
    base = load_base(
        config.model.base,
        task=config.model.task,
        labels=config.labels,
        dtype=config.model.dtype,
        pooling=config.model.pooling,
        quantization=config.model.quantization,
    )
    return base, layout_of(config.adapter, base)


def layout_of(adapter: AdapterSection, base: BaseModel) -> AdapterLayout:
    """The layout of what an adapter trains on a base model.

    Raises:
      ModelError: the base lacks the target modules.
    """
    names = adapter.target_modules
    return lay_out(
        base,
        kind=adapter.kind,
        rank=adapter.rank,
        alpha=adapter.alpha,
        target_modules=None if names is None else tuple(n.strip() for n in names.split(",")),
    )


def load_users(
    config: RunConfig,
    part: Part = Part(),
    *,
    everyone: Users | None = None,
    evaluation: Users | None = None,
) -> tuple[Users, Users]:
    """(training users, evaluation users) of one part, told apart by a hash of the id alone.

    Args:
      everyone: users that are open already; None opens `data.path`.
      evaluation: the same for `data.evaluation-path`.

    Raises:
      DataError: the data cannot be read as configured, or an evaluation user is trained on.
    """
    if everyone is None:
        everyone = demo_users() if config.is_generated else _open(config, config.data.path)
    if config.data.evaluation_path:
        training = everyone
        evaluation = evaluation or _open(config, config.data.evaluation_path)
        _check_apart(config, training, evaluation)
    else:
        is_held_out = everyone.held_out(config.evaluation_one_in)
        training = UsersView(everyone, np.flatnonzero(~is_held_out))
        evaluation = UsersView(everyone, np.flatnonzero(is_held_out))
    if config.evaluation.poison_users:
        training = PoisonedUsers(training, config.evaluation.poison_users, config.labels)
    index, num_parts = part.index, part.num_parts
    return partition(training, index, num_parts), partition(evaluation, index, num_parts)


def _check_apart(config: RunConfig, training: Users, evaluation: Users) -> None:
    """Refuses a user who is both protected and measured without noise."""
    if np.isin(evaluation.keys, training.keys).any():
        raise DataError(
            f'data.evaluation-path = "{config.data.evaluation_path}": has users of data.path. '
            "What is measured on evaluation users carries no noise, so nobody may be both: "
            "take other users (or other ids), or hold some out with data.evaluation-users."
        )


def declared_sizes(config: RunConfig) -> tuple[int, int | None]:
    """(N, examples of all users together): as declared, or counted of the demo's users; public.

    Examples are bounded per user where users are protected, and None where users are drawn.
    """
    privacy, draws_examples = config.privacy, config.sampling.unit == "example"
    num_examples = privacy.num_examples if draws_examples else None
    if not config.is_generated:
        assert privacy.num_users is not None  # the configuration refuses it
        return privacy.num_users, num_examples
    num_users = privacy.num_users or num_demo_users(config.evaluation_one_in)
    if not draws_examples or num_examples is not None:
        return num_users, num_examples
    counts = load_users(config)[0].counts
    if privacy.unit == "user":
        counts = np.minimum(counts, config.data.max_examples_per_user)
    return num_users, int(counts.sum())


def plan_from_config(
    config: RunConfig, *, trust: str, base: BaseModel, layout: AdapterLayout
) -> PrivacyPlan:
    """The plan of a configuration: numbers, and fingerprints of everything they rest on.

    `trust`: who is trusted where it runs; a simulation promises semantics only, whatever it asks.

    Raises:
      ConfigError: the promise cannot be made; see `make_plan`.
    """
    privacy, (num_users, num_examples) = config.privacy, declared_sizes(config)
    request = Request(
        target_epsilon=privacy.target_epsilon,
        target_delta=privacy.target_delta,
        noise_multiplier=privacy.noise_multiplier,
        clipping_norm=privacy.clipping_norm,
        num_rounds=config.run.rounds,
        expected_cohort_size=config.sampling.expected_cohort_size,
        separation=config.sampling.separation,
        quantile=_quantile(config) if privacy.clipping == "quantile" else None,
    )
    population = declare_population(
        unit=privacy.unit,
        sampling_unit=config.sampling.unit,
        num_users=num_users,
        num_examples=num_examples,
        max_examples_per_user=config.data.max_examples_per_user,
        max_nodes_per_user=privacy.max_nodes_per_user,
    )
    return make_plan(
        request,
        population=population,
        mechanism=MECHANISMS[privacy.mechanism],
        trust=Trust(
            model=trust,
            is_noised_by_nodes=privacy.trust == "node",
            drawn_by=config.sampling.by,
            asks_everyone=config.sampling.ask == "all",
        ),
        dimension=layout.dimension,
        seed=config.run.seed,
        details={
            "config_sha256": config_sha256(to_flat(config)),
            "base_sha256": base.fingerprint,
            "layout_sha256": layout.sha256,
        },
    )


def config_sha256(flat: Mapping[str, object]) -> str:
    """Hash of the settings that a run's config.toml names, with the defaults of its time.

    Keys that came later are not in it, so that an old run keeps its hash. Where things are kept,
    which a move may change, is left out.

    Args:
      flat: dotted keys; of a new run all of them.
    """
    places = (*PLACES, *LEDGER_KEYS)
    kept = {key: value for key, value in flat.items() if key not in places}
    return hashlib.sha256(repr(sorted(kept.items())).encode()).hexdigest()


def _quantile(config: RunConfig) -> Callable[[float], QuantileClipping]:
    privacy = config.privacy

    def make(cohort: float) -> QuantileClipping:
        """The clipping of a cohort of that expected size."""
        return QuantileClipping(
            quantile=privacy.clipping_quantile,
            rate=privacy.clipping_rate,
            bit_noise=privacy.clipping_bit_noise or cohort / 20,
            smallest=privacy.clipping_norm / MOST_CLIPPING_CHANGE,
            largest=privacy.clipping_norm * MOST_CLIPPING_CHANGE,
        )

    return make


def describe_evaluation(config: RunConfig) -> str:
    """Who the evaluation users are, in words, for the statement."""
    if config.data.evaluation_path:
        return "evaluation users: those of data.evaluation-path, declared public or consenting"
    if config.evaluation_one_in == 0:
        return "evaluation users: none"
    return (
        f"evaluation users: one in {config.evaluation_one_in} (SHA-256 of the id is 0 modulo "
        "it), declared consenting"
    )


def pin_threads(config: RunConfig) -> None:
    """Fixes torch's threads: runtimes such as Ray set their own."""
    torch.set_num_threads(config.nodes.threads or os.cpu_count() or 1)


def columns_of(config: RunConfig) -> Columns:
    """Which columns of the data are read."""
    data = config.data
    has_other = bool(data.messages_column or data.completion_column)
    return Columns(
        user=data.user_column,
        text="" if has_other else data.text_column,
        messages=data.messages_column,
        prompt=data.prompt_column,
        completion=data.completion_column,
        label=data.label_column,
    )


def _open(config: RunConfig, path: str) -> Users:
    return open_users(path, columns=columns_of(config))
