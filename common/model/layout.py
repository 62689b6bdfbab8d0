"""Names, order and shapes of everything that is trained, behind one flat float32 vector."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Entry:
    """One trained tensor.

    Attributes:
      module: path in the base model; "" for virtual tokens, which belong to no module.
      role: "lora_A", "lora_B", "ia3_l", "prompt_embeddings", or the name of a parameter.
    """

    module: str
    role: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name in PEFT's adapter file."""
        if not self.module:
            return self.role
        suffix = f"{self.role}.weight" if self.role.startswith("lora") else self.role
        return f"{PEFT_PREFIX}{self.module}.{suffix}"

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AdapterLayout:
    """Names, order and shapes of all trained tensors, behind one flat float32 vector of P numbers.

    Attributes:
      kind: "ffa-lora" (A frozen at a public seed, B trained), "lora", or one of
        `other_kinds.KINDS`.
      rank: of the adapter, or the number of virtual tokens.
      alpha: the adapter is scaled by alpha / rank.
      entries: the trained tensors, in the order of the vector.
      frozen: the frozen A of each adapted module, float32 (rank, in); empty for "lora".
      heads: paths of the modules trained whole.
      start: float32, shape (P,), where training starts: B = 0, heads as loaded.
      is_transposed: the adapted modules keep their weight as (in, out), like GPT-2.
      targets: what `adapter.target-modules` asked for, where PEFT attaches the method.
    """

    kind: str
    rank: int
    alpha: float
    entries: tuple[Entry, ...]
    frozen: Mapping[str, NDArray[np.float32]]
    heads: tuple[str, ...]
    start: NDArray[np.float32]
    is_transposed: bool
    targets: tuple[str, ...] | None = None

    @property
    def dimension(self) -> int:
        """P."""
        return sum(entry.size for entry in self.entries)

    @property
    def scale(self) -> float:
        """Factor of the adapter's output."""
        return self.alpha / self.rank

    @property
    def adapted(self) -> tuple[str, ...]:
        """Paths of the modules with an adapter, in order."""
        return tuple(entry.module for entry in self.entries if entry.role == "lora_B")

    @property
    def sha256(self) -> str:
        """Hash of everything that gives the P numbers a meaning, hex."""
        content = [self.kind, self.rank, self.alpha, [[e.name, e.shape] for e in self.entries]]
        digest = hashlib.sha256(json.dumps(content).encode())
        for module in sorted(self.frozen):
            digest.update(module.encode() + self.frozen[module].tobytes())
        digest.update(self.start.tobytes())
        return digest.hexdigest()

    def initial(self) -> NDArray[np.float32]:
        """A copy of `start`."""
        return self.start.copy()

    def unflatten(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The trained tensors by their PEFT names; views of the vector."""
        tensors, offset = {}, 0
        for entry in self.entries:
            tensors[entry.name] = vector[offset : offset + entry.size].reshape(entry.shape)
            offset += entry.size
        return tensors

    def flatten(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The vector behind named tensors; names in any order, all of them needed."""
        return np.concatenate(
            [tensors[entry.name].astype(np.float32).reshape(-1) for entry in self.entries]
        )
