"""Small real plans, and a ledger whose heads a node is shown: it grows, and can be put back."""

import functools
from pathlib import Path

from flat_plan import flat_plan

from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.remembered_head import HeadClaim
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.plan import PrivacyPlan

DIMENSION = 16
NUM_USERS = 40
LAYOUT_SHA256 = "1" * 64


@functools.cache
def small_plan(
    *,
    seed: int | None = None,
    spare_attempts: int = 0,
    num_rounds: int = 3,
    target_epsilon: float = 20.0,
    dimension: int = DIMENSION,
) -> PrivacyPlan:
    """A real plan; with spare attempts it is one of before a burned attempt was its round."""
    return flat_plan(
        num_users=NUM_USERS,
        target_epsilon=target_epsilon,
        target_delta=1e-3,
        noise_multiplier=1.0,
        clipping_norm=0.5,
        num_rounds=num_rounds,
        expected_cohort_size=10.0,
        spare_attempts=spare_attempts,
        dimension=dimension,
        trust="simulation",
        seed=seed,
        details={"layout_sha256": LAYOUT_SHA256},
    )


PLAN = small_plan(num_rounds=30, target_epsilon=90.0)


class HeadedLedger:
    """A run's ledger that is opened anew for whatever is done to it, as after a restart."""

    def __init__(self, path: Path, *, run: str = "small"):
        self.path, self._run = path, run
        Ledger.create(path, plan_row(PLAN, run))
        self.grow(0)

    @property
    def public_key(self) -> bytes:
        """Of the key that signs its heads."""
        return Ledger.read(self.path).public_key

    def claim(self, *, num_rows: int = 1 << 15) -> HeadClaim:
        """What its next request would say."""
        with Ledger.open(self.path) as ledger:
            return ledger.claim(num_rows=num_rows)

    def grow(self, num_rounds: int, *, value: str = "0") -> None:
        """A restart for every round, its charge and its release."""
        for _ in range(max(1, num_rounds)):
            with Ledger.open(self.path) as ledger:
                ledger.open_run(start_of(self._run, PLAN))
                if num_rounds:
                    ledger.release(ledger.charge(ledger.next_round), value.ljust(64, "0"))
