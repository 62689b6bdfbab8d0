"""Statistics of public users that stand in for private ones: update norms and their similarity."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feddp.client.assembly import build_engine, build_node, local_method
from feddp.client.engine.protocol import Engine, LocalMethod, LocalWork
from feddp.client.node import Node
from feddp.common.assembly import load_model, load_users
from feddp.common.config.run_config import RunConfig
from feddp.common.data.demo import demo_users
from feddp.common.data.tokens import TokenRow, tokenize_example
from feddp.common.data.users import Users, UsersView
from feddp.common.errors import ConfigError
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.wire.messages import TrainRequest
from feddp.server.run import optimizer_from_config
from feddp.simulations.run.non_private import train_without_privacy

NUM_DEMO_USERS, DEMO_SEED = 400, 1  # not the demo's seed: none of them is a user of the demo
MAX_USERS, MAX_EXAMPLES = 48, 8
WARM_ROUNDS, WARM_COHORT = 8, 40.0
_FEWEST = 8
_SEED = 0


@dataclass(frozen=True)
class Proxy:
    """Statistics of public users; arrays hold one value per measured user.

    The mean of k of a user's updates has the squared norm a / k + (1 - 1 / k) b on average over the
    choice of the k.

    Attributes:
      counts: int64, examples of each.
      squares: float64, a: mean squared L2 norm of the update that one example makes alone.
      products: float64, b: mean inner product of two of them; 0 for a single example.
    """

    counts: NDArray[np.int64]
    squares: NDArray[np.float64]
    products: NDArray[np.float64]

    @property
    def correlation(self) -> float:
        """Mean inner product of two updates of one user over the mean squared norm."""
        several = self.counts > 1
        return float(self.products[several].sum() / self.squares[several].sum())

    @property
    def median_count(self) -> float:
        """Examples of the median user."""
        return float(np.median(self.counts))

    def mean_examples(self, group_size: int) -> float:
        """Average examples used per user, at most G each."""
        return float(np.minimum(self.counts, group_size).mean())

    def norm(self, group_size: int) -> float:
        """Median norm of the mean update of at most G examples of one user: C(G).

        >>> alike = Proxy(np.array([4, 4]), np.array([4.0, 4.0]), np.array([4.0, 4.0]))
        >>> unlike = Proxy(np.array([4, 4]), np.array([4.0, 4.0]), np.array([0.0, 0.0]))
        >>> alike.norm(4), unlike.norm(4)
        (2.0, 1.0)
        """
        kept = np.minimum(self.counts, group_size)
        squared = self.squares / kept + (1 - 1 / kept) * self.products
        return float(np.sqrt(np.median(np.maximum(squared, 0))))


def public_users(config: RunConfig, path: str | None) -> Users:
    """The users of a file declared public, with the columns of the run's; else generated ones.

    Raises:
      ConfigError: the file is the run's own data, there are too few users, or the task is
        classification, for which no users are generated.
      DataError: the file cannot be read.
    """
    if path is None:
        if config.model.task == "classification":
            raise ConfigError(
                ["Generated users have no classes. Name public users in data's columns: --proxy."]
            )
        return demo_users(NUM_DEMO_USERS, DEMO_SEED)
    if os.path.realpath(path) == os.path.realpath(config.data.path):
        raise ConfigError(
            [f"--proxy {path}: is data.path, whose users are protected. Name public users."]
        )
    data = replace(config.data, path=path, evaluation_path="", evaluation_users=0)
    plain = replace(config, data=data, evaluation=replace(config.evaluation, poison_users=0))
    users, _ = load_users(plain)
    if users.num_users < _FEWEST:
        raise ConfigError([f"--proxy {path}: {users.num_users} users; needs at least {_FEWEST}."])
    return users


def warm_adapter(config: RunConfig, users: Users) -> NDArray[np.float32]:
    """An adapter trained on public users for some rounds, typical of most rounds of a run.

    At the start, all users' updates share a direction, which is soon learnt.
    """
    node, layout = _node(config, users)
    adapter, _ = train_without_privacy(
        node,
        layout,
        num_rounds=WARM_ROUNDS,
        sampling_probability=min(1.0, WARM_COHORT / users.num_users),
        optimizer=optimizer_from_config(config),
        seed=_SEED,
    )
    return adapter


def measure_proxy(config: RunConfig, users: Users, adapter: NDArray[np.float32]) -> Proxy:
    """Statistics of up to `MAX_USERS` public users from one local step of each of their examples.

    Raises:
      ConfigError: too few users have examples to learn from, or updates are not finite.
    """
    base, layout = load_model(config)
    engine = build_engine(config, base, layout)
    method = local_method(config.local)
    found = []
    for user in _sample(users):
        rows = (
            tokenize_example(
                example,
                base.tokenizer,
                task=config.model.task,
                max_tokens=config.model.max_tokens,
                labels=config.labels,
            )
            for example in users.examples(int(user))
        )
        steps = [step for step in rows if step]
        if steps:
            updates = _updates(engine, adapter, steps[:MAX_EXAMPLES], method)
            found.append((len(steps), *_moments(updates)))
    if len(found) < _FEWEST or not np.isfinite(np.array(found)).all():
        raise ConfigError(["The public users' updates say nothing: too few of them are finite."])
    counts, squares, products = (np.array(column) for column in zip(*found, strict=True))
    return Proxy(counts, squares, products)


def clipping_norm_of(
    config: RunConfig, users: Users, adapter: NDArray[np.float32], *, unit: str, group_size: int
) -> float:
    """Median norm of what would be clipped: the updates of public users, or of their examples.

    They start at the adapter, float32 (P,); a user has `group_size` examples.
    """
    size = group_size if unit == "user" else 1
    data = replace(config.data, max_examples_per_user=size, selection="random")
    own = replace(config, data=data, sampling=replace(config.sampling, unit="user"))
    node, layout = _node(own, UsersView(users, _sample(users)))
    norms = []
    request = TrainRequest(
        round=1,
        adapter=adapter,
        layout_sha256=layout.sha256,
        draw=Draw(),
        clipping_norm=math.inf,
        grid_steps=1,
        bit_steps=0,
        noise_scale=0,
        seed=_SEED,
    )
    node.train_locally(request, sink=lambda _, update: norms.append(np.linalg.norm(update)))
    return float(np.median(norms))


def _node(config: RunConfig, users: Users) -> tuple[Node, AdapterLayout]:
    base, layout = load_model(config)
    return build_node(
        config, base, layout, users, UsersView(users, np.zeros(0, dtype=np.int64))
    ), layout


def _sample(users: Users) -> NDArray[np.int64]:
    order = np.random.default_rng(_SEED).permutation(users.num_users)
    return order[:MAX_USERS].astype(np.int64)


def _updates(
    engine: Engine,
    adapter: NDArray[np.float32],
    steps: Sequence[Sequence[TokenRow]],
    method: LocalMethod,
) -> NDArray[np.float64]:
    """The update of each example alone, in one local step; float64 (examples, P)."""
    found: dict[int, NDArray[np.float32]] = {}
    work = [LocalWork(key, lambda step=step: [step]) for key, step in enumerate(steps)]  # type: ignore[misc]
    engine.train(adapter, work, method=method, sink=found.__setitem__)
    return np.stack([found[key] for key in range(len(steps))]).astype(np.float64)


def _moments(updates: NDArray[np.float64]) -> tuple[float, float]:
    """(mean squared norm, mean inner product of two different rows) of (examples, P)."""
    products = updates @ updates.T
    num, trace = len(updates), float(np.trace(products))
    between = (float(products.sum()) - trace) / max(num * (num - 1), 1)
    return trace / num, between if num > 1 else 0.0
