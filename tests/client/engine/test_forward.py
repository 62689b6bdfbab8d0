"""One pass: gradients, scores and logits of rows with an adapter each."""

import numpy as np
import pytest
import tiny
import torch
from engine_logits import logits_of
from plain_loop import layout_of, make_row, nonzero_start
from torch.nn import functional

from feddp.client.engine.forward import StackedForward
from feddp.client.engine.passes import PassRow
from feddp.common.data.tokens import IGNORE, TokenRow


def make_forward(base: object, layout: object) -> StackedForward:
    return StackedForward(
        base,  # type: ignore[arg-type]
        layout,  # type: ignore[arg-type]
        device="cpu",
        num_threads=1,
        is_recomputing=False,
        is_compiled=False,
    )


@pytest.fixture(scope="module", params=["causal-lm", "classification"])
def ready(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StackedForward, torch.Tensor, list[TokenRow]]:
    """A pass, one adapter, and rows of several lengths."""
    task = request.param
    base = tiny.load(tiny.save("llama", tmp_path_factory.mktemp("m"), task=task), task=task)
    layout = layout_of(base, "lora")
    adapter = torch.from_numpy(nonzero_start(layout).astype(np.float32))
    rng = np.random.default_rng(8)
    return make_forward(base, layout), adapter, [make_row(rng, task, n) for n in (5, 20, 9)]


def test_the_gradient_of_a_row_grows_with_its_weight_and_is_its_own(
    ready: tuple[StackedForward, torch.Tensor, list[TokenRow]],
) -> None:
    forward, adapter, rows = ready
    adapters = adapter.repeat(3, 1)

    def gradients(weights: tuple[float, ...]) -> torch.Tensor:
        part = [PassRow(i, row, w) for i, (row, w) in enumerate(zip(rows, weights, strict=True))]
        return torch.cat([g.reshape(3, -1) for g in forward.gradients(part, adapters)], dim=1)

    one, other = gradients((1.0, 1.0, 1.0)), gradients((2.0, 0.0, 1.0))
    assert one.any(dim=1).all()
    torch.testing.assert_close(other[0], 2 * one[0], rtol=1e-5, atol=1e-7)
    assert not other[1].any()
    torch.testing.assert_close(other[2], one[2], rtol=1e-5, atol=1e-7)


def test_scores_are_the_cross_entropy_of_the_logits(
    ready: tuple[StackedForward, torch.Tensor, list[TokenRow]],
) -> None:
    forward, adapter, rows = ready
    scores = forward.score(rows, adapter)
    expected, right = [], []
    for row in rows:
        logits = torch.from_numpy(logits_of(forward, row, adapter)).reshape(len(row.labels), -1)
        labels = torch.from_numpy(row.labels)
        keep = labels != IGNORE
        expected.append(functional.cross_entropy(logits[keep], labels[keep], reduction="none"))
        right.append(logits[keep].argmax(1) == labels[keep])
    torch.testing.assert_close(scores.losses, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert scores.corrects.tolist() == torch.cat(right).tolist()


def test_the_trained_tensors_are_views_into_a_stack(
    ready: tuple[StackedForward, torch.Tensor, list[TokenRow]],
) -> None:
    forward, adapter, _ = ready
    stack = adapter.repeat(2, 1)
    parts = forward.split(stack)
    assert torch.equal(torch.cat([part.reshape(2, -1) for part in parts], dim=1), stack)
    parts[0][1] = 7.0
    assert (stack[1, : parts[0][1].numel()] == 7.0).all()
    assert torch.equal(stack[0], adapter)
