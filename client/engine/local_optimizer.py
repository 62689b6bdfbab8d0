"""Slots: the deltas, gradients and moments of the users who are being trained."""

from dataclasses import dataclass

from torch import Tensor

from feddp.client.engine.protocol import LocalTraining

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Stacks:
    """One row per slot. Rows hold anything until `clear` gives the slot to a user, so that a stack
    takes memory for the slots in use alone.

    Attributes:
      delta: (slots, P), the local adapter minus the one that was sent.
      gradient: (slots, P), of the step under way.
      moments: (2, slots, P) for "adamw", (0, slots, P) for "sgd".
    """

    delta: Tensor
    gradient: Tensor
    moments: Tensor

    @classmethod
    def like(cls, start: Tensor, slots: int, *, has_moments: bool) -> "Stacks":
        """Stacks of vectors like `start`, float32 (P,)."""
        delta, gradient = start.new_empty(slots, len(start)), start.new_empty(slots, len(start))
        return cls(delta, gradient, start.new_empty(2 * has_moments, slots, len(start)))

    @property
    def has_moments(self) -> bool:
        """Whether they serve "adamw"."""
        return len(self.moments) > 0

    def clear(self, slot: int) -> None:
        """A user comes: nothing learnt yet."""
        self.delta[slot] = 0
        self.gradient[slot] = 0
        self.moments[:, slot] = 0

    def step(self, slot: int, number: int, training: LocalTraining) -> None:
        """The `number`-th local step of a slot's user, from 1; clears the gradient."""
        delta, gradient, rate = self.delta[slot], self.gradient[slot], training.learning_rate
        if training.optimizer == "sgd":
            delta.sub_(gradient, alpha=rate)
        else:
            first, second = self.moments[:, slot]
            first.lerp_(gradient, 1 - ADAM_BETAS[0])
            second.lerp_(gradient**2, 1 - ADAM_BETAS[1])
            corrected = (second / (1 - ADAM_BETAS[1] ** number)).sqrt() + ADAM_EPSILON
            delta.sub_(first / corrected, alpha=rate / (1 - ADAM_BETAS[0] ** number))
        gradient.zero_()
