"""feddp.plan: what a run would promise, before it spends anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from feddp.common import assembly
from feddp.common.config.run_config import RunConfig
from feddp.common.privacy.plan import statement as words
from feddp.common.privacy.plan.plan import PrivacyPlan, planned_curve
from feddp.simulations.run.console import plan_lines, plan_rows
from feddp.simulations.run.html import html_table
from feddp.simulations.run.users import Users, declare_users


@dataclass(frozen=True, repr=False)
class Plan:
    """What one run promises, derived from its target; each number has a reason.

    It prints as, and in a notebook shows, a table of all derived numbers.

    Attributes:
      privacy_plan: every promised number; the content of plan.json.
      not_covered: what the promise does not cover, one line each.
    """

    privacy_plan: PrivacyPlan
    not_covered: tuple[str, ...]

    @property
    def epsilon(self) -> float:
        """Upper bound over the whole run at `delta`, also after an early stop."""
        return self.privacy_plan.epsilon

    @property
    def delta(self) -> float:
        """Of the promise."""
        return self.privacy_plan.delta

    @property
    def noise_multiplier(self) -> float:
        """z, standard deviation of the noise over the clipping norm."""
        return self.privacy_plan.noise_multiplier

    @property
    def num_rounds(self) -> int:
        """T."""
        return self.privacy_plan.num_rounds

    @property
    def expected_cohort_size(self) -> float:
        """q N, units drawn in a round on average."""
        return self.privacy_plan.expected_cohort_size

    @property
    def reasons(self) -> Mapping[str, str]:
        """The reason of each derived number, by its name."""
        return self.privacy_plan.reasons

    @property
    def statement(self) -> str:
        """The promise in words, as Markdown: what holds, for whom, and what is not covered."""
        return words.statement(self.privacy_plan, not_covered=self.not_covered)

    def curve(self) -> NDArray[np.float64]:
        """Epsilon after 1, 2, ... charges; float64, (charges,), non-decreasing.

        Only a meter: the promise is `epsilon`, even if the run stops early.
        """
        return planned_curve(self.privacy_plan)

    def __repr__(self) -> str:
        lines = ["Plan", *plan_lines(self.privacy_plan), "", self._guarantee]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        table = html_table(plan_rows(self.privacy_plan), head=("", "planned", "because"))
        return f"{table}<p>{escape(self._guarantee)}</p>"

    @property
    def _guarantee(self) -> str:
        return words.guarantee_line(self.privacy_plan)


def plan(config: RunConfig, users: Users | None = None) -> Plan:
    """What a run would promise. Loads the base model, and reads no private row.

    Args:
      config: the run.
      users: given in Python; only their column names are used.

    Raises:
      ConfigError: the promise cannot be made, or N is not declared.
      ModelError: the base model cannot be loaded.
    """
    config = declare_users(config, users)
    base, layout = assembly.load_model(config)
    trust = config.privacy.trust
    return describe_plan(
        assembly.plan_from_config(config, trust=trust, base=base, layout=layout), config
    )


def describe_plan(privacy_plan: PrivacyPlan, config: RunConfig) -> Plan:
    """A plan, with what it does not cover."""
    evaluation = assembly.describe_evaluation(config)
    outside = words.not_covered(evaluation, is_generated=config.is_generated)
    return Plan(privacy_plan, tuple(outside))
