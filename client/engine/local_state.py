"""Stacks: the engine's state of the users being trained, one slot each."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LocalState:
    """State of one user in training; float32.

    Attributes:
      delta: (P,), the local adapter minus the one that was sent.
      gradient: (P,), of the current step, taken at the local adapter.
      kept: (num_kept, P), what the local method carries from step to step.
    """

    delta: Tensor
    gradient: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Stacks:
    """One row per slot. A row is uninitialised until `begin` gives the slot to a user, so unused
    slots take no memory.

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
        """Clears a slot for a new user; returns views into the stacks."""
        state = LocalState(self.delta[slot], self.gradient[slot], self.kept[:, slot])
        for tensor in (state.delta, state.gradient, state.kept):
            tensor.zero_()
        return state
