"""Evaluation: sums that add up, and the metrics that a run tells of them."""

import math
from dataclasses import fields

import numpy as np
import pytest

from feddp.common.config.sections import ModelSection
from feddp.common.evaluation import METRICS, Evaluation, add_evaluations, metrics_of


def test_evaluations_are_weighted_by_targets() -> None:
    found = add_evaluations([Evaluation(2.0, 1, 1), Evaluation(10.0, 9, 4)])
    assert found is not None
    assert (found.loss, found.accuracy, found.num_targets) == (1.2, 0.5, 10)
    assert metrics_of(found, task="classification") == {"loss": 1.2, "accuracy": 0.5}
    assert metrics_of(found, task="causal-lm")["perplexity"] == pytest.approx(np.exp(1.2))


def test_without_evaluation_users_there_are_no_metrics() -> None:
    assert add_evaluations([]) is None
    assert add_evaluations([Evaluation(0.0, 0, 0)]) is None
    assert metrics_of(None, task="causal-lm") == {}


def test_every_field_adds_up() -> None:
    values = range(1, 1 + len(fields(Evaluation)))
    one = Evaluation(*values)
    assert one + one == Evaluation(*(2 * value for value in values))
    assert one + Evaluation() == one


def test_sums_that_no_rows_give_are_not_sound() -> None:
    assert Evaluation(1.5, 10, 10).is_sound
    for sums in ((math.nan, 1, 0), (math.inf, 1, 0), (1.0, 1, 2), (1.0, -1, -1)):
        assert not Evaluation(*sums).is_sound


def test_a_loss_beyond_exp_has_a_finite_perplexity() -> None:
    assert math.isfinite(Evaluation(1e6, 1, 0).perplexity)


def test_every_task_has_metrics() -> None:
    choices = ModelSection.__dataclass_fields__["task"].metadata["choices"]
    assert set(METRICS) == set(choices)
