"""The rows of the ledger: a closed schema, its canonical text, and the state machine of their order."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import LedgerDamagedError

Body = Mapping[str, str | int]

FIELDS: Mapping[str, frozenset[str]] = {
    "PLAN": frozenset(
        {
            "schema",
            "unit",
            "relation",
            "trust",
            "mode",
            "seeded",
            "accountant",
            "target_epsilon",
            "accounting_delta",
            "num_users",
            "sampling_probability",
            "noise_multiplier",
            "clipping_norm",
            "grid_steps",
            "dimension",
            "num_rounds",
            "num_charges",
            "plan_sha256",
        }
    ),
    "OPEN": frozenset({"run", "epoch", "plan_sha256"}),
    "CHARGE": frozenset(
        {"round", "attempt", "purpose", "event", "sampling_probability", "noise_multiplier"}
    ),
    "RELEASE": frozenset({"round", "attempt", "sha256"}),
    "BURN": frozenset({"round", "attempt", "cause"}),
}
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
      open_charge: charged, and neither released nor burned yet.
      charges: bodies of all CHARGE rows.
      releases: in order of rounds.
      num_opened: OPEN rows, the epoch of the last start.
    """

    plan: Body = field(default_factory=dict)
    head: bytes = GENESIS
    num_rows: int = 0
    open_charge: Charge | None = None
    charges: list[Body] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    num_opened: int = 0

    @property
    def next_round(self) -> int:
        """The first round without a release."""
        return len(self.releases) + 1

    @property
    def next_charge(self) -> Charge:
        """The only charge that may come next."""
        number = self.next_round
        return Charge(number, 1 + sum(body["round"] == number for body in self.charges))

    def apply(self, kind: str, body: Body) -> bytes:
        """Adds one row and returns its hash.

        Raises:
          LedgerDamagedError: unknown kind, wrong fields, or a row that cannot follow.
        """
        if kind not in FIELDS or set(body) != FIELDS[kind]:
            raise LedgerDamagedError(f"Ledger row {self.num_rows + 1}: not a known row.")
        if not all(type(value) in (str, int) for value in body.values()):
            raise LedgerDamagedError(f"Ledger row {self.num_rows + 1}: a value of a wrong type.")
        if not self._follows(kind, body):
            raise LedgerDamagedError(f"Ledger row {self.num_rows + 1}: {kind} cannot stand here.")
        self.head = row_hash(self.head, kind, canonical(body))
        self.num_rows += 1
        return self.head

    def _follows(self, kind: str, body: Body) -> bool:
        """Whether the row may come next; if so, takes it in."""
        if (kind == "PLAN") != (self.num_rows == 0):
            return False
        match kind:
            case "PLAN":
                self.plan = body
                return body["schema"] == SCHEMA
            case "OPEN":
                self.num_opened += 1
                return (body["epoch"], body["plan_sha256"]) == (
                    self.num_opened,
                    self.plan["plan_sha256"],
                )
            case "CHARGE":
                charge = Charge(int(body["round"]), int(body["attempt"]))
                is_next = self.open_charge is None and charge == self.next_charge
                is_opened = self.num_opened > 0
                self.charges.append(body)
                self.open_charge = charge
                return is_next and is_opened and len(self.charges) <= int(self.plan["num_charges"])
        closed, self.open_charge = self.open_charge, None
        if kind == "RELEASE":
            self.releases.append(
                Release(int(body["round"]), int(body["attempt"]), str(body["sha256"]))
            )
        return closed == Charge(int(body["round"]), int(body["attempt"]))


def canonical(body: Body) -> str:
    """The one text of a body: sorted keys, no spaces, no floats."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def row_hash(previous: bytes, kind: str, text: str) -> bytes:
    """SHA-256 that chains a row to all rows before it."""
    return hashlib.sha256(
        b"\n".join((SCHEMA.encode(), previous, kind.encode(), text.encode()))
    ).digest()
