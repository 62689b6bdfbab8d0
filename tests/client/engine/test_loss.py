import pytest
import torch
from torch.nn import functional

from feddp.client.engine.loss import (
    CHUNK_POSITIONS,
    ROW_MULTIPLE,
    LinearCrossEntropy,
    score_positions,
    select_positions,
)

IGNORE = -100


def problem(num_positions: int, *, has_bias: bool) -> dict[str, torch.Tensor | None]:
    torch.manual_seed(num_positions)
    return {
        "hidden": torch.randn(num_positions, 12, dtype=torch.float64, requires_grad=True),
        "weight": torch.randn(37, 12, dtype=torch.float64),
        "bias": torch.randn(37, dtype=torch.float64) if has_bias else None,
        "targets": torch.randint(0, 37, (num_positions,)),
        "weights": torch.rand(num_positions, dtype=torch.float64),
    }


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_positions", [1, 17, CHUNK_POSITIONS, 2 * CHUNK_POSITIONS + 3])
def test_value_and_gradient_equal_the_stock_cross_entropy(
    num_positions: int, has_bias: bool, softcap: float | None
) -> None:
    p = problem(num_positions, has_bias=has_bias)
    logits = functional.linear(p["hidden"], p["weight"], p["bias"])
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = functional.cross_entropy(logits, p["targets"], reduction="none")
    expected = (losses * p["weights"]).sum()
    (slope,) = torch.autograd.grad(expected, p["hidden"])
    found = LinearCrossEntropy.apply(*p.values(), softcap)
    (gradient,) = torch.autograd.grad(3 * found, p["hidden"])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, 3 * slope, rtol=1e-12, atol=1e-12)


def test_large_logits_stay_finite() -> None:
    hidden = torch.full((3, 2), 1e4, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.5, 0.5]])
    targets, weights = torch.tensor([0, 1, 2]), torch.ones(3)
    loss = LinearCrossEntropy.apply(hidden, weight, None, targets, weights, None)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_only_labelled_positions_are_kept_and_padding_weighs_nothing() -> None:
    hidden = torch.randn(2, 5, 3)
    targets = torch.full((2, 5), IGNORE)
    targets[0, 1], targets[1, 4] = 7, 8
    kept, labels, weights = select_positions(
        hidden, targets, torch.tensor([[0.5], [0.25]]).expand(2, 5), ignore=IGNORE
    )
    assert len(kept) == len(labels) == len(weights) == ROW_MULTIPLE
    torch.testing.assert_close(kept[:2], torch.stack([hidden[0, 1], hidden[1, 4]]))
    assert labels[:2].tolist() == [7, 8]
    assert weights.tolist() == [0.5, 0.25] + [0.0] * (ROW_MULTIPLE - 2)


def test_without_targets_nothing_is_kept() -> None:
    targets = torch.full((2, 5), IGNORE)
    kept, _, _ = select_positions(torch.randn(2, 5, 3), targets, torch.ones(2, 5), ignore=IGNORE)
    assert len(kept) == 0


def test_scores_are_losses_and_hits_of_every_position() -> None:
    p = problem(CHUNK_POSITIONS + 9, has_bias=True)
    with torch.no_grad():
        logits = functional.linear(p["hidden"], p["weight"], p["bias"])
    scores = score_positions(p["hidden"], p["weight"], p["bias"], p["targets"], None)
    losses, hits = functional.cross_entropy(logits, p["targets"], reduction="none"), scores.corrects
    torch.testing.assert_close(scores.losses, losses)
    assert torch.equal(hits, logits.argmax(1) == p["targets"])
    expected = (pytest.approx(float(losses.double().sum())), len(losses), int(hits.sum()))
    sums = scores.sums()
    assert (sums.loss_sum, sums.num_targets, sums.num_correct) == expected
