"""Requests: what was not asked for is left to the rule."""

from feddp.common.privacy.mechanism.quantile import QuantileClipping
from feddp.common.privacy.plan.request import Request, Trust


def test_only_a_quantile_makes_the_norm_adapt() -> None:
    fixed = Request(target_epsilon=8.0, clipping_norm=0.5)
    clipping = QuantileClipping(0.5, 0.2, 2.5, 0.01, 10.0)
    assert not fixed.is_adaptive
    assert Request(
        target_epsilon=8.0, clipping_norm=0.5, quantile=lambda cohort: clipping
    ).is_adaptive


def test_by_default_nodes_draw_and_the_server_adds_the_noise() -> None:
    assert Trust("server") == Trust("server", False, "node", False)
