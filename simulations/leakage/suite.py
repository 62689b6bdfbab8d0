"""The leakage suite: runs every attack on one model's scores."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feddp.common.data.users import Example
from feddp.simulations.leakage.attacks import (
    Attack,
    Interval,
    Scores,
    advantage_ceiling,
    auc_ceiling,
    difference_interval,
    exposure,
    exposure_ceiling,
    mean_interval,
    min_k_score,
    proportion,
    run_attack,
    true_positive_rate_ceiling,
    user_inference_scores,
)
from feddp.simulations.leakage.exposure import digit_ids, digits_of_order, secret_rank
from feddp.simulations.leakage.scoring import ExampleScore, Scorer, sensitive_mask

HIGH_EXPOSURE_BITS = 8


@dataclass(frozen=True)
class Subject:
    """A user as the attacks see them.

    Attributes:
      own: examples that were trained on, or of a held-out user could have been; at least one.
      fresh: other examples of the same user; `own` where there are no others.
      ending: what a marked user's fresh examples end with or are labelled, as examples; () for
        users who are not marked.
    """

    own: Sequence[Example]
    fresh: Sequence[Example]
    ending: Sequence[Example] = ()


@dataclass(frozen=True)
class Subjects:
    """The attacked users: members, non-members, and marked users by their coin."""

    members: Sequence[Subject]
    non_members: Sequence[Subject]
    poisoned_in: Sequence[Subject] = ()
    poisoned_out: Sequence[Subject] = ()


@dataclass(frozen=True)
class Exposure:
    """Exposure of planted secrets, in bits.

    Attributes:
      bits: one value per secret, of training users and of held-out users (the null).
      null_bits: see `bits`.
      num_candidates: |R|; log2 of it is the most a secret can be exposed.
      share_high: share of training users' secrets exposed by `HIGH_EXPOSURE_BITS` or more.
    """

    bits: Sequence[float]
    null_bits: Sequence[float]
    mean: Interval
    null_mean: Interval
    num_candidates: int
    share_high: Interval


@dataclass(frozen=True)
class SensitiveTokens:
    """Losses by token, in nats.

    Attributes:
      sensitive: over sensitive tokens of training users.
      held_out_sensitive: over those of held-out users.
      non_sensitive: over the other tokens of held-out users: utility.
      controlled_gain: held-out minus training, sensitive tokens; 0 without memorisation.
      lowest: 5 % quantile over sensitive tokens of training users; guards against a mean that one
        confident error raises.
    """

    sensitive: float
    held_out_sensitive: float
    non_sensitive: float
    controlled_gain: Interval
    lowest: float
    held_out_lowest: float


@dataclass(frozen=True)
class Leakage:
    """All measurements of one model; None where the data does not allow one."""

    user_inference: Attack
    membership: dict[str, Attack]
    exposure: Exposure | None = None
    poison_gap: Interval | None = None
    sensitive_tokens: SensitiveTokens | None = None


@dataclass(frozen=True)
class Ceilings:
    """The most that (epsilon, delta)-DP of users allows each attack."""

    epsilon: float
    delta: float
    auc: float = field(init=False)
    true_positive_rate: float = field(init=False)
    share_high_exposure: float = field(init=False)
    poison_gap: float = field(init=False)

    def __post_init__(self) -> None:
        values = {
            "auc": auc_ceiling(self.epsilon, self.delta),
            "true_positive_rate": true_positive_rate_ceiling(self.epsilon, self.delta),
            "share_high_exposure": exposure_ceiling(HIGH_EXPOSURE_BITS, self.epsilon, self.delta),
            "poison_gap": advantage_ceiling(self.epsilon, self.delta),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


def measure(
    scorer: Scorer,
    subjects: Subjects,
    *,
    is_base: bool,
    num_secrets: int,
    num_unknown_digits: int,
    rng: np.random.Generator,
) -> Leakage:
    """Runs every attack that the data allows on the adapter, or on the base, the control.

    Args:
      num_secrets: most secrets of each side whose exposure is searched for.
      num_unknown_digits: of an order id; the others are given to the attacker.
      rng: of the bootstrap.
    """
    members = _score(scorer, subjects.members, is_base)
    others = _score(scorer, subjects.non_members, is_base)
    return Leakage(
        user_inference=run_attack(_user_scores(members), _user_scores(others), rng=rng),
        membership={
            name: run_attack(
                np.array([score(user) for user in members]),
                np.array([score(user) for user in others]),
                rng=rng,
            )
            for name, score in _MEMBERSHIP.items()
        },
        exposure=_exposure(scorer, subjects, is_base, num_secrets, num_unknown_digits),
        poison_gap=_poison_gap(scorer, subjects, is_base),
        sensitive_tokens=_sensitive_tokens(scorer, subjects, members, others),
    )


def exceeded(leakage: Leakage, ceilings: Ceilings) -> list[str]:
    """The attacks whose interval lies wholly above its ceiling: each refutes the promise."""
    pairs = {
        "user inference, AUC": (leakage.user_inference.auc, ceilings.auc),
        "user inference, TPR": (
            leakage.user_inference.true_positive_rate,
            ceilings.true_positive_rate,
        ),
    }
    for name, attack in leakage.membership.items():
        pairs[f"membership by {name}, AUC"] = (attack.auc, ceilings.auc)
    if leakage.exposure is not None:
        pairs["exposure"] = (leakage.exposure.share_high, ceilings.share_high_exposure)
    if leakage.poison_gap is not None:
        pairs["poisoning"] = (leakage.poison_gap, ceilings.poison_gap)
    return [name for name, (interval, ceiling) in pairs.items() if interval.low > ceiling]


@dataclass(frozen=True)
class _Scored:
    """A subject's scores: own and fresh under the attacked model, and under the base or None."""

    own: Sequence[ExampleScore]
    fresh: Sequence[ExampleScore]
    base_own: Sequence[ExampleScore] | None
    base_fresh: Sequence[ExampleScore] | None


def _score(scorer: Scorer, users: Sequence[Subject], is_base: bool) -> list[_Scored]:
    """Scores all users in shared passes; in the order of the users."""
    sides = [[user.own for user in users], [user.fresh for user in users]]
    own, fresh = (_scores(scorer, side, is_base) for side in sides)
    if is_base:
        return [_Scored(*pair, None, None) for pair in zip(own, fresh, strict=True)]
    base_own, base_fresh = (_scores(scorer, side, True) for side in sides)
    return [_Scored(*four) for four in zip(own, fresh, base_own, base_fresh, strict=True)]


def _scores(
    scorer: Scorer, groups: Sequence[Sequence[Example]], is_base: bool
) -> list[list[ExampleScore]]:
    """Scores of groups of examples that all predict something."""
    flat = scorer.score([example for group in groups for example in group], is_base=is_base)
    scores = iter(score for score in flat if score is not None)
    return [list(itertools.islice(scores, len(group))) for group in groups]


def _user_scores(users: Sequence[_Scored]) -> NDArray[np.float64]:
    """T(u); on the base, which has no reference, minus the mean loss."""
    fresh = [np.array([score.loss for score in user.fresh]) for user in users]
    base = [
        np.array([score.loss for score in user.base_fresh]) if user.base_fresh else 0 * losses
        for user, losses in zip(users, fresh, strict=True)
    ]
    return user_inference_scores(fresh, base)


# Of the first own example: one per user, so that what is scored is independent.
_MEMBERSHIP: dict[str, Callable[[_Scored], float]] = {
    "loss": lambda user: -user.own[0].loss,
    "reference": lambda user: (user.base_own[0].loss if user.base_own else 0) - user.own[0].loss,
    "min-k": lambda user: min_k_score(-user.own[0].losses),
}


def _exposure(
    scorer: Scorer, subjects: Subjects, is_base: bool, num_secrets: int, num_unknown: int
) -> Exposure | None:
    ids = digit_ids(scorer.tokenizer) if scorer.is_causal and num_secrets else None
    if ids is None:
        return None
    next_after = functools.partial(scorer.next_log_probabilities, is_base=is_base)
    sides = []
    for users in (subjects.members, subjects.non_members):
        known = [pair for user in users if (pair := _secret(scorer, user, num_unknown))]
        ranks = [secret_rank(*pair, ids, next_after) for pair in known[:num_secrets]]
        sides.append(np.array([exposure(rank, 10**num_unknown) for rank in ranks]))
    bits, null_bits = sides
    if len(bits) < 2 or len(null_bits) < 2:
        return None
    num_high = int((bits >= HIGH_EXPOSURE_BITS).sum())
    return Exposure(
        bits=bits.tolist(),
        null_bits=null_bits.tolist(),
        mean=mean_interval(bits),
        null_mean=mean_interval(null_bits),
        num_candidates=10**num_unknown,
        share_high=proportion(num_high, len(bits)),
    )


def _secret(scorer: Scorer, user: Subject, num_unknown: int) -> tuple[list[int], list[int]] | None:
    """Context and unknown digits of the first order id that a user wrote."""
    texts = (example.text for example in user.own)
    found = (digits_of_order(text, scorer.tokenizer, num_unknown=num_unknown) for text in texts)
    return next((pair for pair in found if pair is not None), None)


def _poison_gap(scorer: Scorer, subjects: Subjects, is_base: bool) -> Interval | None:
    """How much more often planted answers are given for marked users in the data than out of it."""
    inside, outside = (
        _wrong_shares(scorer, users, is_base)
        for users in (subjects.poisoned_in, subjects.poisoned_out)
    )
    if min(len(inside), len(outside)) < 2:
        return None
    return difference_interval(inside, outside)


def _wrong_shares(scorer: Scorer, users: Sequence[Subject], is_base: bool) -> Scores:
    """How often the model gives each user's planted answer; for texts, over the ending's tokens."""
    scores = _scores(scorer, [user.ending for user in users], is_base)
    return np.array(
        [
            np.mean(
                [
                    score.corrects[-_num_planted(scorer, *pair) :].mean()
                    for score, *pair in zip(found, user.ending, user.fresh, strict=True)
                ]
            )
            for user, found in zip(users, scores, strict=True)
        ]
    )


def _num_planted(scorer: Scorer, planted: Example, plain: Example) -> int:
    """How many of the last predictions form the planted answer: one class, or an ending."""
    if not scorer.is_causal:
        return 1
    ids = scorer.tokenizer(planted.text[len(plain.text) :], add_special_tokens=False)["input_ids"]
    return len(ids) + (scorer.tokenizer.eos_token_id is not None)


def _sensitive_tokens(
    scorer: Scorer, subjects: Subjects, members: Sequence[_Scored], others: Sequence[_Scored]
) -> SensitiveTokens | None:
    if not scorer.is_causal:
        return None
    train = [_split(scorer, *pair) for pair in zip(subjects.members, members, strict=True)]
    held_out = [_split(scorer, *pair) for pair in zip(subjects.non_members, others, strict=True)]
    held_out_means, train_means = (
        np.array([sensitive.mean() for sensitive, _ in side if len(sensitive)])
        for side in (held_out, train)
    )
    if min(len(held_out_means), len(train_means)) < 2:
        return None
    sensitive, held_out_sensitive = (
        np.concatenate([part for part, _ in side]) for side in (train, held_out)
    )
    return SensitiveTokens(
        sensitive=float(sensitive.mean()),
        held_out_sensitive=float(held_out_sensitive.mean()),
        non_sensitive=float(np.concatenate([rest for _, rest in held_out]).mean()),
        controlled_gain=difference_interval(held_out_means, train_means),
        lowest=float(np.quantile(sensitive, 0.05)),
        held_out_lowest=float(np.quantile(held_out_sensitive, 0.05)),
    )


def _split(
    scorer: Scorer, subject: Subject, scored: _Scored
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses of a user's sensitive tokens, and of the others; of plain texts alone."""
    marked, rest = [np.zeros(0)], [np.zeros(0)]
    for example, score in zip(subject.own, scored.own, strict=True):
        if example.prompt or example.messages:
            continue
        mask = sensitive_mask(example.text, scorer.tokenizer)
        marked.append(score.losses[mask])
        rest.append(score.losses[~mask])
    return np.concatenate(marked), np.concatenate(rest)
