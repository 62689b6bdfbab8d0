"""Stacks: a slot that another user had says nothing of that user."""

import torch

from feddp.client.engine.local_state import Stacks


def test_who_begins_finds_zeros_and_writes_into_the_stacks() -> None:
    stacks = Stacks.like(torch.zeros(5), 3, num_kept=2)
    for tensor in (stacks.delta, stacks.gradient, stacks.kept):
        tensor.fill_(torch.nan)
    state = stacks.begin(1)
    for tensor in (state.delta, state.gradient, state.kept):
        assert not tensor.any()
    state.delta.add_(1)
    state.kept[0].add_(2)
    assert stacks.delta[1].tolist() == [1.0] * 5
    assert stacks.kept[:, 1].tolist() == [[2.0] * 5, [0.0] * 5]
    assert stacks.delta[0].isnan().all()
    assert stacks.kept[:, 2].isnan().all()


def test_a_method_that_keeps_nothing_costs_no_memory() -> None:
    stacks = Stacks.like(torch.zeros(5), 3, num_kept=0)
    assert stacks.kept.numel() == 0
    assert stacks.begin(0).kept.shape == (0, 5)
