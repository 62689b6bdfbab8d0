import numpy as np
import torch
from method_steps import GRADIENTS, torch_updates, updates_of

from feddp.client.engine.methods.adamw import AdamW


def test_steps_are_those_of_torch_without_weight_decay() -> None:
    expected = torch_updates(torch.optim.AdamW, GRADIENTS, lr=0.1, weight_decay=0.0)
    np.testing.assert_allclose(updates_of(AdamW(0.1), GRADIENTS), expected, rtol=1e-5)


def test_the_first_step_is_the_sign_of_the_gradient() -> None:
    found = updates_of(AdamW(0.1), GRADIENTS[:1])
    np.testing.assert_allclose(found, -0.1 * np.sign(GRADIENTS[0]), rtol=1e-4)


def test_every_user_begins_with_moments_of_zero() -> None:
    method = AdamW(0.1)
    first = updates_of(method, GRADIENTS)
    assert updates_of(method, GRADIENTS).tobytes() == first.tobytes()
