"""OwnNoise: a node that trusts nobody adds noise to its own sum, charged to its own ledger."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from feddp.client.refusal import RefusedError
from feddp.common.assembly import plan_from_config
from feddp.common.config.run_config import RunConfig
from feddp.common.disk import Disk
from feddp.common.errors import BudgetSpentError, ConfigError
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.ledger.history import Charge, Release
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import charge_and_release, read_released, recover
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism, NoisedSum
from feddp.common.privacy.mechanism.noise import BitStream, check_entropy, fresh_key, seeded_key
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.privacy.plan.ledger_entries import start_of
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.wire.messages import TrainReply, TrainRequest

_ABOUT = "feddp-answer"


@dataclass(frozen=True)
class _Answer:
    """What the answer file holds.

    Attributes:
      charge: in the node's ledger; its rounds count this node's answers.
      noised: what leaves.
    """

    round: int
    asked: str
    charge: Charge | Release
    noised: NoisedSum


@dataclass(frozen=True)
class _AnswerFile:
    """A node's one answer file, in which each answer replaces the last."""

    file_path: Path
    remedy: ClassVar[str] = "A round is answered once: restore the file."

    def path(self, charge: Charge | Release) -> Path:
        """See `AnswerFiles`."""
        return self.file_path

    def to_bytes(self, answer: _Answer) -> bytes:
        """See `AnswerFiles`."""
        total = answer.noised.total
        about = {
            "round": answer.round,
            "asked": answer.asked,
            "charge": [answer.charge.round, answer.charge.attempt],
            "sum_sha256": hashlib.sha256(total.tobytes()).hexdigest(),
        }
        content: bytes = save({"sum": total}, metadata={_ABOUT: json.dumps(about)})
        return content

    def parse(self, content: bytes, charge: Charge | Release) -> _Answer | None:
        """See `AnswerFiles`."""
        try:
            total = load(content)["sum"]
            size = int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_ABOUT])
            noised = NoisedSum.from_node(total)
            answer = _Answer(about["round"], about["asked"], charge, noised)
            is_whole = about["sum_sha256"] == hashlib.sha256(total.tobytes()).hexdigest()
            is_its = about["charge"] == [charge.round, charge.attempt]
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
            return None
        return answer if is_whole and is_its and total.dtype == np.int64 else None

    def next_clipping_norm(self, answer: _Answer) -> str:
        """See `AnswerFiles`."""
        return ""


class OwnNoise:
    """Answers each round with one noised sum, charged to the node's ledger before noise is drawn.

    **Guarantee:** whatever the server app does or asks for, what leaves is private under the node's
    own plan: every number in a request that affects draw, clip or noise must match the plan. A
    round is answered once: repeating the request returns the same bytes; a different request for
    it, or one for an earlier round, is refused. If a crash prevents an answer from becoming
    durable, the charge stays spent, and no noise is drawn for it again.

    **Edge cases:**

    | what happens | what follows |
    |---|---|
    | the node misses a round | it costs this node nothing |
    | the plan's charges are spent | the node stops answering |
    | a crash after the answer file is in place | the answer is adopted: the same bytes |
    | a crash between charge and answer file | the charge is burned, the round asked for again |
    | the answer file is lost | refused at the start: its round would be answered twice |

    Args:
      ledger: of the node, open, with its run started.
      answer_path: where the last answer is kept; it is public.
      name: of the node; in seeded runs it makes the node's noise differ from that of others.

    Raises:
      LedgerDamagedError: the answer file is not the last one that was released.
      DiskError: recovery from a crash failed.
    """

    def __init__(
        self,
        plan: PrivacyPlan,
        ledger: Ledger,
        answer_path: Path,
        *,
        name: str,
        disk: Disk | None = None,
    ):
        mechanism = plan.mechanism
        if not plan.trust.is_noised_by_nodes or not isinstance(mechanism, GaussianMechanism):
            raise ValueError("the plan has no noise of the nodes' own")
        self._plan, self._mechanism, self._ledger = plan, mechanism, ledger
        self._file, self._name, self._disk = _AnswerFile(answer_path), name, disk or Disk()
        self._recover()

    def answer(self, request: TrainRequest, train: Callable[[], UpdateSum]) -> NoisedSum:
        """The noised sum of a round; `train` runs only where it was not answered before.

        Raises:
          RefusedError: "another-plan", "answered" or "budget-spent"; nothing was drawn.
          LedgerDamagedError: see the class.
          DiskError: ledger or answer cannot be written; what was charged stays spent.
        """
        self._check(request)
        asked, last = _request_sha256(request), self._recover()
        if last is not None and (last.round, last.asked) == (request.round, asked):
            return last.noised
        if last is not None and request.round <= last.round:
            raise RefusedError("answered")
        total = train()

        def draw(charge: Charge) -> _Answer:
            """The sum with noise, drawn after its charge."""
            noised = self._mechanism.add_noise(total, bits=BitStream(self._key(request, total)))
            return _Answer(request.round, asked, charge, noised)

        try:
            return charge_and_release(self._ledger, self._file, self._disk, draw).noised
        except BudgetSpentError as error:
            raise RefusedError("budget-spent") from error

    def _key(self, request: TrainRequest, total: UpdateSum) -> bytes:
        if request.seed is not None:
            return seeded_key(request.seed, request.round, self._name)
        return fresh_key(f"{self._ledger.head}/{request.round}".encode(), total)

    def _check(self, request: TrainRequest) -> None:
        """Refuses a request whose draw, clip or noise differs from the node's plan."""
        plan, mechanism, quantile = self._plan, self._mechanism, self._plan.clipping.quantile
        is_planned = (
            (request.draw, request.seed) == (plan.draw, plan.seed)
            and request.grid_steps == mechanism.grid_steps
            and request.bit_steps == mechanism.bit_steps
            and request.noise_scale == mechanism.noise_scale
            and request.sum_dimension == mechanism.sum_dimension
        )
        norm = request.clipping_norm
        is_its_norm = (
            norm == plan.clipping_norm
            if quantile is None
            else quantile.smallest <= norm <= quantile.largest
        )
        if not (is_planned and is_its_norm and 1 <= request.round <= plan.num_rounds):
            raise RefusedError("another-plan")

    def _recover(self) -> _Answer | None:
        """Recovers from a crash; returns the last answer, or None before the first."""
        recover(self._ledger, self._file, self._disk)
        released = self._ledger.last_release
        return None if released is None else read_released(self._file, released)


@contextmanager
def open_own_noise(
    plan: PrivacyPlan, *, ledger_path: Path, run: str, name: str, key_path: Path | None = None
) -> Iterator[OwnNoise]:
    """A node's `OwnNoise` over the ledger that its owner made, held open by this context.

    Args:
      ledger_path: of the node's ledger; the last answer lies beside it, and the key without
        `key_path`.
      run: its name; the same name continues the same run.

    Raises:
      LedgerDamagedError, LedgerLockedError, PlanDiffersError, BudgetSpentError, ConfigError,
        DiskError: see `Ledger.open` and `Ledger.open_run`.
    """
    check_entropy()
    with Ledger.open(ledger_path, key_path=key_path) as ledger:
        ledger.open_run(start_of(run, plan))
        digest = hashlib.sha256(run.encode()).hexdigest()[:16]  # a run's name need not be a file's
        answer_path = ledger_path.with_name(f"{ledger_path.name}.answer-{digest}")
        yield OwnNoise(plan, ledger, answer_path, name=name)


def own_noise_of(
    config: RunConfig,
    base: BaseModel,
    layout: AdapterLayout,
    *,
    ledger_path: Path | None,
    key_path: Path | None,
    name: str,
) -> AbstractContextManager[OwnNoise | None]:
    """The `OwnNoise` that a node's configuration asks for; None unless `privacy.trust = "node"`.

    Args:
      config: the node's own, whose plan its ledger was made for.
      ledger_path: made by the owner of the data, with `feddp ledger create`.

    Raises:
      RefusedError: "ledger-missing".
      ConfigError: the run has no name, by which the ledger would recognise it.
    """
    if config.privacy.trust != "node":
        return nullcontext()
    if ledger_path is None or not ledger_path.is_file():
        raise RefusedError("ledger-missing")
    if config.run.name is None:
        raise ConfigError(
            'run.name = "auto": a node that adds the noise itself knows a run by its name. '
            "Name the run; the same name goes on with the same run."
        )
    plan = plan_from_config(config, trust="node", base=base, layout=layout)
    return open_own_noise(
        plan, ledger_path=ledger_path, run=config.run.name, name=name, key_path=key_path
    )


def answer_round(
    request: TrainRequest, own_noise: OwnNoise | None, train: Callable[[], UpdateSum]
) -> TrainReply:
    """A node's reply: its exact sum, or a noised one if the node adds the noise itself.

    **Guarantee:** a node never answers a request for a noised sum with a bare one, or vice versa.

    Raises:
      RefusedError: "no-own-noise" if the node has none; otherwise see `OwnNoise.answer`.
    """
    if own_noise is not None:
        total: UpdateSum | NoisedSum = own_noise.answer(request, train)
    elif request.noise_scale:
        raise RefusedError("no-own-noise")
    else:
        total = train()
    return TrainReply(request.round, request.layout_sha256, total)


def _request_sha256(request: TrainRequest) -> str:
    """What tells two requests apart besides the plan: round, layout, adapter and clipping norm."""
    head = f"{request.round}/{request.layout_sha256}/{request.clipping_norm!r}/".encode()
    return hashlib.sha256(head + request.adapter.tobytes()).hexdigest()
