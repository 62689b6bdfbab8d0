"""Start: what a run says of itself when it opens a ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feddp.common.disk import host_id
from feddp.common.privacy.ledger.charge_terms import Slot


@dataclass(frozen=True)
class Start:
    """What a run says of itself when it opens a ledger; the same at each of its starts.

    Attributes:
      run: name; the same name goes on with the same run.
      slot: of its updates.
      num_charges: most charges that it may take, for any purpose.
      num_rounds: releases of updates after which the run has ended and keeps no more charges.
      terms: what must stand in the PLAN row as well: unit, relation, trust, seeded, num_users.
      plan_sha256: of its plan.
      config_sha256: of its configuration.
      base_sha256: of its base model.
      layout_sha256: of its adapter.
      seal_pubkey: to which nodes seal their replies; "" without seals.
    """

    run: str
    slot: Slot
    num_charges: int
    num_rounds: int
    terms: Mapping[str, str | int]
    plan_sha256: str
    config_sha256: str = ""
    base_sha256: str = ""
    layout_sha256: str = ""
    seal_pubkey: str = ""

    def to_body(self, epoch: int) -> dict[str, Any]:
        """The OPEN row of the start with this number, from 1, on this machine."""
        return {
            "run": self.run,
            "epoch": epoch,
            "host": host_id(),
            "slot": self.slot.to_body(),
            "num_charges": self.num_charges,
            "num_rounds": self.num_rounds,
            "plan_sha256": self.plan_sha256,
            "config_sha256": self.config_sha256,
            "base_sha256": self.base_sha256,
            "layout_sha256": self.layout_sha256,
            "seal_pubkey": self.seal_pubkey,
        }
