import numpy as np
import torch
from method_steps import GRADIENTS, torch_updates, updates_of

from feddp.client.engine.methods.sgd import SGD


def test_steps_are_those_of_torch() -> None:
    expected = torch_updates(torch.optim.SGD, GRADIENTS, lr=0.3)
    np.testing.assert_allclose(updates_of(SGD(0.3), GRADIENTS), expected, rtol=1e-6)
    assert not np.allclose(updates_of(SGD(0.31), GRADIENTS), expected, rtol=1e-3)


def test_without_a_step_the_update_is_zero() -> None:
    assert not updates_of(SGD(0.3), GRADIENTS[:0]).any()
