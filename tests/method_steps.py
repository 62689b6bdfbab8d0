"""Drives a local method by hand: the state of one user, and one given gradient per step."""

import numpy as np
import torch
from numpy.typing import NDArray

from feddp.client.engine.local_state import LocalState, Stacks
from feddp.client.engine.protocol import LocalMethod

GRADIENTS = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)


def updates_of(method: LocalMethod, gradients: NDArray[np.float32]) -> NDArray[np.float32]:
    """The update after these gradients, as the engine would have it."""
    state: LocalState = Stacks.like(torch.zeros(6), 1, num_kept=method.num_kept).begin(0)
    for number, gradient in enumerate(gradients, start=1):
        state.gradient.copy_(torch.from_numpy(gradient))
        method.step(state, number)
        state.gradient.zero_()
    return np.asarray(method.update(state).numpy())


def torch_updates(
    optimizer: type[torch.optim.Optimizer], gradients: NDArray[np.float32], **settings: float
) -> NDArray[np.float32]:
    """The same steps by torch's own optimizer, from zero."""
    parameter = torch.nn.Parameter(torch.zeros(6))
    steps = optimizer([parameter], **settings)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient).clone()
        steps.step()
    return np.asarray(parameter.detach().numpy())
