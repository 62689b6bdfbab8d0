"""feddp.evaluate: what a run's adapter leaks about its users, compared with what DP allows."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feddp.client.assembly import build_node
from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig
from feddp.common.data.demo import DEMO_NUM_USERS, demo_user_id, fresh_messages
from feddp.common.data.poisoned_users import PoisonedUsers, is_in, poison
from feddp.common.data.users import Example, Users, UsersView, keys_of, user_digest
from feddp.common.errors import ConfigError
from feddp.common.evaluation import Evaluation
from feddp.common.model.lora import save_adapter
from feddp.server.run import optimizer_from_config
from feddp.simulations.leakage.scoring import BaseScores, Scorer
from feddp.simulations.leakage.suite import Ceilings, Leakage, Subject, Subjects, exceeded, measure
from feddp.simulations.leakage.table import LEAKAGE_NAME, leakage_lines, write_leakage
from feddp.simulations.run.non_private import train_without_privacy
from feddp.simulations.run.progress import ignore
from feddp.simulations.run.run import Run as RunFolder
from feddp.simulations.run.run import load_run, path_of
from feddp.simulations.run.simulate import check_users, load_given, pinned_threads
from feddp.simulations.run.users import Users as GivenUsers

Given = tuple[GivenUsers | None, GivenUsers | None]
"""All users of a run, and those to evaluate on; None: those that the configuration names."""

_OWN_EXAMPLES, _FRESH_EXAMPLES = 4, 8
_OVERFIT_ROUNDS, _OVERFIT_EXAMPLES, _OVERFIT_PASSES, _OVERFIT_RATE = 25, 8, 2, 2.5


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
      num_users: most users per side (members, non-members).
      num_secrets: most secrets per side whose exact rank is searched for.
      num_unknown_digits: of an order id, 1 to 6; the others are given to the attacker.
      num_overfitted: users of the positive control; 0 leaves it out.
      seed: of the choice of users and of the bootstrap.
    """

    num_users: int = 300
    num_secrets: int = 20
    num_unknown_digits: int = 3
    num_overfitted: int = 0
    seed: int = 0


@dataclass(frozen=True, repr=False)
class LeakageTable:
    """What a run's adapter leaks, beside what its promise allows; it prints as a table.

    If it measures real users it is private: neither noised nor charged.

    Attributes:
      models: "base" (the negative control), "private", and "overfitted" if requested.
      ceilings: the most that the promise allows each attack.
      violations: figures of the private adapter above their ceilings; any refutes the promise.
      path: the file with every figure.
    """

    models: Mapping[str, Leakage]
    ceilings: Ceilings
    violations: tuple[str, ...]
    path: Path

    def __repr__(self) -> str:
        return "\n".join(leakage_lines(self.models, self.ceilings))


def evaluate(
    run: RunFolder | Path | str,
    users: GivenUsers | None = None,
    *,
    evaluation_users: GivenUsers | None = None,
    extent: Extent = Extent(),
    measurements_path: Path | None = None,
    on_control: Callable[[], None] = ignore,
) -> LeakageTable:
    """Measures what a finished run's adapter leaks about its users, and writes leakage.json.

    Args:
      run: the run, or its folder.
      users: the run's, if they were given in Python.
      evaluation_users: the run's, if they were given in Python.
      extent: how much is measured.
      measurements_path: for real data: a folder outside the run for measurements on private users.
      on_control: called before the positive control is trained, which takes a while.

    Raises:
      ConfigError: the run is not finished, or has real users and `measurements_path` is missing.
    """
    folder = load_run(path_of(run))
    config, plan = folder.config, folder.plan.privacy_plan
    target = _target(folder, measurements_path)
    adapter_path = folder.adapter
    check_users(config, users, evaluation_users)
    given = (users, evaluation_users)
    # A promise to examples puts no ceiling on attacks on users.
    ceilings = Ceilings(plan.epsilon if plan.unit == "user" else math.inf, plan.delta)
    with pinned_threads(config):
        models = measure_adapter(config, adapter_path, extent, given=given)
        if extent.num_overfitted:
            on_control()
            models["overfitted"] = measure_overfitted(config, extent, given)
    write_leakage(target, models, ceilings, asdict(extent))
    return LeakageTable(models, ceilings, tuple(exceeded(models["private"], ceilings)), target)


def measure_adapter(
    config: RunConfig,
    adapter_path: Path,
    extent: Extent,
    users: Users | None = None,
    *,
    has_control: bool = True,
    base_scores: BaseScores | None = None,
    given: Given = (None, None),
) -> dict[str, Leakage]:
    """Leakage of an adapter ("private") and, first, of its base ("base", the negative control).

    `users` are those who were trained on; None is everybody. `base_scores`: see `Scorer`.
    """
    base, _ = load_model(config)
    scorer = Scorer(base, adapter_path, max_tokens=config.model.max_tokens, base_scores=base_scores)
    training, evaluation = load_given(config, *given)
    subjects = choose_subjects(config, users or training, evaluation, scorer, extent)
    return {
        name: measure(
            scorer,
            subjects,
            is_base=name == "base",
            num_secrets=extent.num_secrets,
            num_unknown_digits=extent.num_unknown_digits,
            rng=np.random.default_rng(extent.seed),
        )
        for name in (("base", "private") if has_control else ("private",))
    }


def measure_overfitted(config: RunConfig, extent: Extent, given: Given = (None, None)) -> Leakage:
    """Leakage of an adapter trained without privacy on few users: every attack must detect it.

    More rows, passes and learning rate than the run's make sure that it memorises them.
    """
    plain = replace(
        config,
        data=replace(config.data, max_examples_per_user=_OVERFIT_EXAMPLES),
        local=replace(config.local, epochs=_OVERFIT_PASSES),
        server=replace(config.server, learning_rate=_OVERFIT_RATE * config.server.learning_rate),
        evaluation=replace(config.evaluation, poison_users=0),
    )
    everyone, evaluation = load_given(plain, *given)
    num_users = min(extent.num_overfitted, everyone.num_users)
    few: Users = UsersView(everyone, np.arange(num_users))
    few = PoisonedUsers(few, num_users // 2, config.labels)
    with tempfile.TemporaryDirectory() as folder:
        train_to_folder(
            plain, few, evaluation, Path(folder), num_rounds=_OVERFIT_ROUNDS, probability=1
        )
        found = measure_adapter(config, Path(folder), extent, few, has_control=False, given=given)
        return found["private"]


def train_to_folder(
    config: RunConfig,
    users: Users,
    evaluation: Users,
    folder: Path,
    *,
    num_rounds: int,
    probability: float,
) -> Evaluation | None:
    """Trains without privacy and saves the adapter in PEFT's format; returns its evaluation."""
    base, layout = load_model(config)
    node = build_node(config, base, layout, users, evaluation)
    adapter, evaluated = train_without_privacy(
        node,
        layout,
        num_rounds=num_rounds,
        sampling_probability=probability,
        optimizer=optimizer_from_config(config),
        seed=config.run.seed,
    )
    save_adapter(folder, adapter, layout, load_model(config)[0])
    return evaluated


def choose_subjects(
    config: RunConfig, training: Users, evaluation: Users, scorer: Scorer, extent: Extent
) -> Subjects:
    """Random members, non-members and marked users; users with nothing to score are skipped."""
    rng = np.random.default_rng(extent.seed)
    ids = _demo_ids() if config.is_generated else {}

    def scorable(examples: Sequence[Example]) -> list[Example]:
        """Those that predict something."""
        return [example for example in examples if scorer.rows_of(example)]

    def subject(users: Users, user: int, *, is_marked: bool = False) -> Subject | None:
        """A user with scorable examples; None where nothing is."""
        key = int(users.keys[user])
        own = scorable(users.examples(user))[:_OWN_EXAMPLES]
        fresh = own
        if key in ids:
            texts = fresh_messages(ids[key], _FRESH_EXAMPLES)
            fresh = scorable([Example(text=text) for text in texts])
        elif is_marked:
            fresh = scorable(training_as_they_are.examples(user))
        if not own or not fresh:
            return None
        endings = [poison(example, key, config.labels) for example in fresh] if is_marked else []
        return Subject(own, fresh, endings)

    def draw(users: Users, indices: NDArray[np.int64], **kind: bool) -> list[Subject]:
        """Those of the users who have something to score."""
        found = (subject(users, int(user), **kind) for user in indices)
        return [one for one in found if one is not None]

    marked = training.marked if isinstance(training, PoisonedUsers) else np.zeros(0, np.int64)
    training_as_they_are = training.source if isinstance(training, PoisonedUsers) else training
    coins = np.array([is_in(int(training.keys[user])) for user in marked], dtype=bool)
    # The rows of a marked user look unlike anybody else's: those who are in are left out elsewhere.
    plain = np.setdiff1d(np.arange(training.num_users), marked[coins])
    members = draw(training, rng.permutation(plain)[: extent.num_users])
    non_members = draw(evaluation, rng.permutation(evaluation.num_users)[: extent.num_users])
    if not members or not non_members:
        raise ConfigError(
            "feddp evaluate: compares users who were trained on with users who were not, and there "
            f"are {len(members)} and {len(non_members)} with a row to score. Name others as "
            "data.evaluation-path, or hold some out: data.evaluation-users."
        )
    return Subjects(
        members=members,
        non_members=non_members,
        poisoned_in=draw(training, marked[coins], is_marked=True),
        poisoned_out=draw(training, marked[~coins], is_marked=True),
    )


def _target(run: RunFolder, measurements_path: Path | None) -> Path:
    """Where leakage.json goes: into the run for generated users, outside it otherwise."""
    if run.config.is_generated and measurements_path is None:
        return run.path / LEAKAGE_NAME
    if measurements_path is None:
        raise ConfigError(
            [
                "feddp evaluate: what it measures on real users is neither noised nor charged, and "
                "voids the promise if it is published. If you want it for your eyes only, name a "
                "folder for it outside the run: --measurements-dir FOLDER."
            ]
        )
    if measurements_path.resolve().is_relative_to(run.path.resolve().parent):
        raise ConfigError(
            [f"--measurements-dir {measurements_path}: must lie outside {run.path.parent}."]
        )
    return measurements_path / f"{run.path.name}-{LEAKAGE_NAME}"


def _demo_ids() -> dict[int, str]:
    """The demo's user ids by their keys."""
    ids = [demo_user_id(index) for index in range(DEMO_NUM_USERS)]
    digests = np.frombuffer(b"".join(map(user_digest, ids)), dtype=np.uint8).reshape(-1, 32)
    return dict(zip((int(key) for key in keys_of(digests)), ids, strict=True))
