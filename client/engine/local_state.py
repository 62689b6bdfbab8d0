"""Stacks: what the engine keeps of the users who are being trained, one slot each."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LocalState:
    """What one user has while being trained; float32.

    Attributes:
      delta: (P,), the local adapter minus the one that was sent; gradients are taken there.
      gradient: (P,), of the step under way.
      kept: (num_kept, P), what the local method carries from step to step.
    """

    delta: Tensor
    gradient: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Stacks:
    """One row per slot. Rows hold anything until `begin` gives the slot to a user, so that a stack
    takes memory for the slots in use alone.

    Attributes:
      delta: (slots, P).
      gradient: (slots, P).
      kept: (num_kept, slots, P).
    """

    delta: Tensor
    gradient: Tensor
    kept: Tensor

    @classmethod
    def like(cls, start: Tensor, slots: int, *, num_kept: int) -> "Stacks":
        """Stacks of vectors like `start`, float32 (P,)."""
        delta, gradient = start.new_empty(slots, len(start)), start.new_empty(slots, len(start))
        return cls(delta, gradient, start.new_empty(num_kept, slots, len(start)))

    def begin(self, slot: int) -> LocalState:
        """Gives a slot to a user, of whom nothing is known yet; views into the stacks."""
        state = LocalState(self.delta[slot], self.gradient[slot], self.kept[:, slot])
        for tensor in (state.delta, state.gradient, state.kept):
            tensor.zero_()
        return state
