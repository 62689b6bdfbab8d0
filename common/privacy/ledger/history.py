"""The rows of the ledger: a closed schema, its canonical text, and the order that they keep."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from feddp.common.errors import ConfigError, LedgerDamagedError
from feddp.common.privacy.ledger.budget import ADAPTIVE, FIXED_SCHEDULE, Budget, budget_of
from feddp.common.privacy.ledger.charge_terms import UPDATE, Slot, read_slot, slot_from_body
from feddp.common.privacy.mechanism.events import RELATIONS

Body = Mapping[str, Any]  # texts and integers; `event` and `schedule` as in charge_terms.py

FIELDS: Mapping[str, Mapping[str, type]] = {
    "PLAN": {
        "schema": str,
        "population": str,
        "scope": str,
        "unit": str,
        "relation": str,
        "trust": str,
        "seeded": str,
        "num_users": int,
        "mode": str,
        "accountant": str,
        "target_epsilon": str,
        "target_delta": str,
        "accounting_delta": str,
        "schedule": list,
        "alpha": str,
        "budget": str,
        "plan_sha256": str,
        "public_key": str,
    },
    "OPEN": {
        "run": str,
        "epoch": int,
        "host": str,
        "slot": dict,
        "num_charges": int,
        "num_rounds": int,
        "plan_sha256": str,
        "config_sha256": str,
        "base_sha256": str,
        "layout_sha256": str,
        "seal_pubkey": str,
    },
    "CHARGE": {
        "run": str,
        "round": int,
        "attempt": int,
        "purpose": str,
        "event": dict,
        "dimension": int,
        "noise_scale": int,
        "cost": str,
    },
    "RELEASE": {"round": int, "attempt": int, "sha256": str, "next_clipping_norm": str},
    "BURN": {"round": int, "attempt": int, "cause": str},
    "KEY": {"new_public_key": str},
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "unit": ("user", "example"),
    "relation": tuple(RELATIONS),
    "trust": ("simulation", "server", "node"),
    "seeded": ("no", "yes"),
    "mode": (FIXED_SCHEDULE, ADAPTIVE),
    "scope": ("run", "population"),
    "cause": ("crash", "disk", "operator"),
}
SCHEMA = "feddp-ledger-1"
# What a run says again at each of its starts.
_KEPT = ("slot", "num_charges", "num_rounds", "plan_sha256", "base_sha256", "layout_sha256")
GENESIS = bytes(32)


@dataclass(frozen=True)
class Charge:
    """One durable promise to spend: its answer is adopted, or it is burned; never refunded.

    Attributes:
      round: an update's own round; another purpose looks at the last released one.
      attempt: from 1, of this purpose in this round.
      purpose: of the charge.
    """

    round: int
    attempt: int
    purpose: str = UPDATE


@dataclass(frozen=True)
class Release:
    """The one answer to an update's charge, by the digest of its checkpoint file."""

    round: int
    attempt: int
    sha256: str
    next_clipping_norm: str = ""


@dataclass
class RunHistory:
    """What the rows say of one run.

    A burned attempt is its round: the next update's charge is for the round after it. Only runs
    whose plan has spare attempts, as all had once, charge a burned round again.

    Attributes:
      opened: body of its last OPEN row.
      releases: of its updates, in order of rounds.
      num_charges: all of them, released, burned or open.
      last_charged: round of the last update that was charged; 0 before the first.
      attempts: charges by purpose since its last released round.
    """

    opened: Body
    releases: list[Release] = field(default_factory=list)
    num_charges: int = 0
    last_charged: int = 0
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def has_spare_attempts(self) -> bool:
        """Its plan counts more charges than rounds, so that burned rounds are charged again."""
        return bool(self.opened["num_charges"] > self.opened["num_rounds"])

    @property
    def last_released(self) -> int:
        """The newest released round; 0 before the first."""
        return self.releases[-1].round if self.releases else 0

    @property
    def num_burned(self) -> int:
        """Rounds that were charged, are closed, and were never released."""
        return max(self.next_round - 1 - len(self.releases), 0)

    @property
    def next_round(self) -> int:
        """The round that an update is charged for next."""
        return (self.last_released if self.has_spare_attempts else self.last_charged) + 1

    @property
    def num_kept(self) -> int:
        """Charges that it may still want: none once all of its rounds are released."""
        if self.next_round > self.opened["num_rounds"]:
            return 0
        return int(self.opened["num_charges"]) - self.num_charges

    def next_charge(self, purpose: str) -> Charge:
        """The charge of a purpose that comes next."""
        number = self.next_round if purpose == UPDATE else self.last_released
        is_first = purpose == UPDATE and number > self.last_charged
        return Charge(number, 1 if is_first else self.attempts.get(purpose, 0) + 1, purpose)

    def may_charge(self, charge: Charge) -> bool:
        """Whether a charge may come next: `next_charge`, or a burned round again, as once."""
        again = Charge(self.last_charged, self.attempts.get(UPDATE, 0) + 1)
        is_burned = self.last_charged > self.last_released
        return charge == self.next_charge(charge.purpose) or (is_burned and charge == again)


@dataclass
class History:
    """What the rows so far say; refuses every row that cannot follow them.

    Attributes:
      plan: body of the PLAN row.
      budget: what the plan still allows; None before it.
      digests: of the rows, in order.
      heads: hashes that chain them; heads[n] is the head after n rows.
      public_key: that signs the next row.
      open_charge: charged, and neither released nor burned yet.
      charges: bodies of all CHARGE rows.
      runs: by name, in order of their first start.
      run: name of the run that was opened last.
      num_opened: OPEN rows, the epoch of the last start.
      num_released: RELEASE rows, of any purpose.
    """

    plan: Body = field(default_factory=dict)
    budget: Budget | None = None
    digests: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=lambda: [GENESIS])
    public_key: bytes = b""
    open_charge: Charge | None = None
    charges: list[Body] = field(default_factory=list)
    runs: dict[str, RunHistory] = field(default_factory=dict)
    run: str = ""
    num_opened: int = 0
    num_released: int = 0

    @property
    def num_rows(self) -> int:
        """All rows; also the number of the last one."""
        return len(self.digests)

    @property
    def head(self) -> bytes:
        """Hash of the last row."""
        return self.heads[-1]

    @property
    def releases(self) -> list[Release]:
        """The releases of all runs, run by run."""
        return [release for run in self.runs.values() for release in run.releases]

    def kept_for_others(self, slot: Slot, run: str) -> int:
        """Charges of a slot that a fixed schedule keeps for runs that have begun and not ended.

        A filter keeps none: it is for runs that were not foreseen.
        """
        if self.plan["mode"] == ADAPTIVE:
            return 0
        return sum(
            other.num_kept
            for name, other in self.runs.items()
            if name != run and other.opened["slot"] == slot.to_body()
        )

    def apply(self, kind: str, body: Body) -> bytes:
        """Takes one row more and returns its hash.

        Raises:
          LedgerDamagedError: the row has a wrong field or cannot follow; nothing changes.
        """
        row = f"Ledger row {self.num_rows + 1}"
        if kind not in FIELDS or set(body) != set(FIELDS[kind]):
            raise LedgerDamagedError(f"{row}: not a row that this version knows.")
        if any(type(body[name]) is not kept for name, kept in FIELDS[kind].items()):
            raise LedgerDamagedError(f"{row}: a value of a wrong type.")
        if any(body[name] not in allowed for name, allowed in CHOICES.items() if name in body):
            raise LedgerDamagedError(f"{row}: a value that this version does not know.")
        try:
            if not self._can_follow(kind, body):
                raise LedgerDamagedError(f"{row}: {kind} cannot stand here.")
            self._take(kind, body)
        except (ValueError, ConfigError) as error:
            raise LedgerDamagedError(f"{row}: {error}.") from error
        digest = row_digest(kind, canonical(body))
        self.digests.append(digest)
        self.heads.append(row_hash(self.head, digest))
        return self.head

    def _can_follow(self, kind: str, body: Body) -> bool:
        if kind == "PLAN" or self.num_rows == 0:
            return kind == "PLAN" and self.num_rows == 0 and body["schema"] == SCHEMA
        match kind:
            case "OPEN":
                return body["epoch"] == self.num_opened + 1 and self._can_open(body)
            case "CHARGE":
                return self._can_charge(body)
            case "KEY":
                return _key(body["new_public_key"]) != self.public_key
        charge = self.open_charge
        is_its = charge and (body["round"], body["attempt"]) == (charge.round, charge.attempt)
        # A run that was opened since may burn another's charge, but never answer it.
        return bool(is_its) and (kind == "BURN" or self.charges[-1]["run"] == self.run)

    def _can_open(self, body: Body) -> bool:
        known, slot = self.runs.get(body["run"]), read_slot(body["slot"])
        if known is not None:
            return all(body[name] == known.opened[name] for name in _KEPT)
        is_planned = self.plan["plan_sha256"] in ("", body["plan_sha256"])
        is_alone = self.plan["scope"] == "population" or not self.runs
        counts = (body["num_charges"], body["num_rounds"])
        return is_planned and is_alone and min(counts) >= 0 and self._is_room(slot, body)

    def _is_room(self, slot: Slot, body: Body) -> bool:
        """Whether a new run fits.

        A filter's costs, which may differ in their last digits on another machine, are checked as
        they are charged.
        """
        if self.plan["mode"] == ADAPTIVE or self.budget is None:
            return self.budget is not None
        kept = self.kept_for_others(slot, body["run"])
        return self.budget.shortage(slot, body["num_charges"], kept=kept) is None

    def _can_charge(self, body: Body) -> bool:
        run, slot = self.runs.get(self.run), slot_from_body(body)
        if run is None or self.budget is None or self.open_charge is not None:
            return False
        charge = Charge(body["round"], body["attempt"], slot.purpose)
        return (
            body["run"] == self.run
            and run.may_charge(charge)
            and run.num_charges < run.opened["num_charges"]
            and self.budget.accepts(slot, body["cost"], kept=self.kept_for_others(slot, self.run))
        )

    def _take(self, kind: str, body: Body) -> None:
        match kind:
            case "PLAN":
                key = _key(body["public_key"])
                self.budget, self.plan, self.public_key = budget_of(body), body, key
            case "OPEN":
                self.num_opened += 1
                self.run = body["run"]
                self.runs.setdefault(self.run, RunHistory(body)).opened = body
            case "CHARGE":
                self._take_charge(body)
            case "RELEASE":
                self._take_release(body)
            case "BURN":
                self.open_charge = None
            case "KEY":
                self.public_key = _key(body["new_public_key"])

    def _take_charge(self, body: Body) -> None:
        run, slot = self.runs[self.run], slot_from_body(body)
        assert self.budget is not None  # `_can_charge`
        self.budget.take(slot, body["cost"])
        self.open_charge = Charge(body["round"], body["attempt"], slot.purpose)
        self.charges.append(body)
        run.num_charges += 1
        run.attempts[slot.purpose] = self.open_charge.attempt
        if slot.purpose == UPDATE:
            run.last_charged = self.open_charge.round

    def _take_release(self, body: Body) -> None:
        assert self.open_charge is not None  # `_can_follow`
        run, charge = self.runs[self.run], self.open_charge
        if charge.purpose == UPDATE:
            release = Release(
                charge.round, charge.attempt, body["sha256"], body["next_clipping_norm"]
            )
            run.releases.append(release)
            run.attempts.clear()
        self.num_released += 1
        self.open_charge = None


def charge_body(run: str, charge: Charge, slot: Slot, cost: str) -> Body:
    """The CHARGE row of a slot."""
    own = {"run": run, "round": charge.round, "attempt": charge.attempt, "cost": cost}
    return {**slot.to_body(), **own}


def canonical(body: Body) -> str:
    """The only text of a body: sorted keys, no spaces, no floats."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def row_digest(kind: str, text: str) -> bytes:
    """SHA-256 of a row's content without its place: 32 bytes prove it to any holder of the head."""
    return hashlib.sha256(b"\n".join((SCHEMA.encode(), kind.encode(), text.encode()))).digest()


def row_hash(previous: bytes, digest: bytes) -> bytes:
    """SHA-256 that chains a row to all rows before it."""
    return hashlib.sha256(SCHEMA.encode() + b" chain\n" + previous + digest).digest()


def _key(text: str) -> bytes:
    """A public key from its hex text.

    Raises:
      ValueError: not 32 bytes in lower case.
    """
    key = bytes.fromhex(text)
    if len(key) != 32 or key.hex() != text:
        raise ValueError("not a public key")
    return key
