"""The rows of the ledger: a closed schema, its canonical text, and the order that they keep."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import LedgerDamagedError

Body = Mapping[str, str | int]

FIELDS: Mapping[str, Mapping[str, type]] = {
    "PLAN": {
        "schema": str,
        "unit": str,
        "relation": str,
        "trust": str,
        "mode": str,
        "seeded": str,
        "accountant": str,
        "target_epsilon": str,
        "accounting_delta": str,
        "num_users": int,
        "sampling_probability": str,
        "noise_multiplier": str,
        "clipping_norm": str,
        "grid_steps": int,
        "dimension": int,
        "num_rounds": int,
        "num_charges": int,
        "plan_sha256": str,
    },
    "OPEN": {"run": str, "epoch": int, "plan_sha256": str},
    "CHARGE": {
        "round": int,
        "attempt": int,
        "purpose": str,
        "event": str,
        "sampling_probability": str,
        "noise_multiplier": str,
    },
    "RELEASE": {"round": int, "attempt": int, "sha256": str},
    "BURN": {"round": int, "attempt": int, "cause": str},
}
CAUSES = ("crash", "disk", "operator")
SCHEMA = "feddp-ledger-1"
GENESIS = bytes(32)


@dataclass(frozen=True)
class Charge:
    """One durable promise to spend: its answer is adopted, or it is burned; never refunded."""

    round: int
    attempt: int


@dataclass(frozen=True)
class Release:
    """The one answer to a charge, by the digest of its checkpoint file."""

    round: int
    attempt: int
    sha256: str


@dataclass
class History:
    """What the rows so far say; refuses every row that cannot follow them.

    Attributes:
      plan: body of the PLAN row.
      head: hash of the last row.
      num_rows: all of them; also the number of the last one.
      open_charge: charged, and neither released nor burned yet.
      charges: bodies of all CHARGE rows.
      releases: in order of rounds.
      num_opened: OPEN rows, the epoch of the last start.
      num_attempts: charges since the last release.
    """

    plan: Body = field(default_factory=dict)
    head: bytes = GENESIS
    num_rows: int = 0
    open_charge: Charge | None = None
    charges: list[Body] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    num_opened: int = 0
    num_attempts: int = 0

    @property
    def next_round(self) -> int:
        """The first round without a release."""
        return len(self.releases) + 1

    @property
    def next_charge(self) -> Charge:
        """The only charge that may come next."""
        return Charge(self.next_round, self.num_attempts + 1)

    def apply(self, kind: str, body: Body) -> bytes:
        """Adds one row and returns its hash. A refused row changes nothing.

        Raises:
          LedgerDamagedError: unknown kind, wrong fields, or a row that cannot follow.
        """
        row = f"Ledger row {self.num_rows + 1}"
        if kind not in FIELDS or set(body) != set(FIELDS[kind]):
            raise LedgerDamagedError(f"{row}: not a row that this version knows.")
        if any(type(body[name]) is not kept for name, kept in FIELDS[kind].items()):
            raise LedgerDamagedError(f"{row}: a value of a wrong type.")
        if not self._can_follow(kind, body):
            raise LedgerDamagedError(f"{row}: {kind} cannot stand here.")
        self._take(kind, body)
        self.head = row_hash(self.head, kind, canonical(body))
        self.num_rows += 1
        return self.head

    def _can_follow(self, kind: str, body: Body) -> bool:
        if kind == "PLAN" or self.num_rows == 0:
            return kind == "PLAN" and self.num_rows == 0 and body["schema"] == SCHEMA
        if kind == "OPEN":
            expected = (self.num_opened + 1, self.plan["plan_sha256"])
            return (body["epoch"], body["plan_sha256"]) == expected
        charge = Charge(int(body["round"]), int(body["attempt"]))
        if kind != "CHARGE":  # an answer
            is_known = kind == "RELEASE" or body["cause"] in CAUSES
            return is_known and charge == self.open_charge
        return (
            self.num_opened > 0
            and self.open_charge is None
            and charge == self.next_charge
            and len(self.charges) < int(self.plan["num_charges"])
            and body == charge_body(self.plan, charge)
        )

    def _take(self, kind: str, body: Body) -> None:
        match kind:
            case "PLAN":
                self.plan = body
            case "OPEN":
                self.num_opened += 1
            case "CHARGE":
                self.open_charge = self.next_charge
                self.charges.append(body)
                self.num_attempts += 1
            case "RELEASE" if self.open_charge is not None:
                number, attempt = self.open_charge.round, self.open_charge.attempt
                self.releases.append(Release(number, attempt, str(body["sha256"])))
                self.open_charge, self.num_attempts = None, 0
            case "BURN":
                self.open_charge = None


def charge_body(plan: Body, charge: Charge) -> Body:
    """The one CHARGE row of a charge: this version knows one event, with the plan's numbers."""
    return {
        "round": charge.round,
        "attempt": charge.attempt,
        "purpose": "update",
        "event": "poisson-gaussian",
        "sampling_probability": plan["sampling_probability"],
        "noise_multiplier": plan["noise_multiplier"],
    }


def canonical(body: Body) -> str:
    """The one text of a body: sorted keys, no spaces, no floats."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def row_hash(previous: bytes, kind: str, text: str) -> bytes:
    """SHA-256 that chains a row to all rows before it."""
    return hashlib.sha256(
        b"\n".join((SCHEMA.encode(), previous, kind.encode(), text.encode()))
    ).digest()
