"""The blocks of a transformer: recomputed in the backward pass, or skipped below the first adapter.

Blocks with no adapter in or below them give a row the same output in every step, epoch and round,
so it can be cached. Both only need a list of blocks that pass hidden states on.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from feddp.common.data.tokens import TokenRow
from feddp.common.model.layout import AdapterLayout


@dataclass(frozen=True)
class Blocks:
    """The blocks below the first adapter, and the rest."""

    below: tuple[nn.Module, ...]
    above: tuple[nn.Module, ...]


def find_blocks(model: nn.Module, layout: AdapterLayout) -> Blocks | None:
    """The list of blocks that holds every adapted module; None if there is no such list."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList):
            continue
        inside = [name for name in layout.adapted if name.startswith(f"{path}.")]
        if inside and len(inside) == len(layout.adapted):
            first = min(int(name[len(path) + 1 :].split(".")[0]) for name in inside)
            blocks = tuple(module)
            return Blocks(blocks[:first], blocks[first:])
    return None


def compile_blocks(blocks: Blocks) -> None:
    """Compiles every block for all pass sizes; blocks of one kind share the compiled code."""
    for block in (*blocks.below, *blocks.above):
        block.forward = torch.compile(block.forward, dynamic=True)


def recompute(blocks: Blocks) -> None:
    """Makes trained blocks keep only their input, and recompute the rest in the backward pass."""
    for block in blocks.above:
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )


class _PrefixEndError(Exception):
    """Ends a forward pass where the first adapted block begins."""


class PrefixCache:
    """Hidden states that enter the first adapted block, by row; least recently used evicted first.

    **Guarantee:** a row's hidden states depend on its tokens and padded length alone. On the CPU
    they are bit-identical to what the blocks would compute. As sensitive as the rows.

    Each cache belongs to one copy of the frozen base model.
    """

    def __init__(self, blocks: Blocks, *, max_bytes: int, row_multiple: int):
        self.is_on = True
        self._is_tuple = False  # whether a block returns one, as last seen
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._row_multiple = row_multiple  # of a pass
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._pass = threading.local()
        for block in blocks.below:
            is_last = block is blocks.below[-1]
            block.forward = partial(self._forward, block.forward, is_last)

    @contextmanager
    def entered(
        self, rows: Sequence[TokenRow], length: int, run: Callable[[list[int]], object]
    ) -> Iterator[None]:
        """Context in which a forward pass over `rows` reads the frozen part's output from here.

        `run`: a forward pass over some of the rows, by index; called for those not cached.
        """
        if not self.is_on:
            yield
            return
        keys = [_key(row, length) for row in rows]
        found = {key: hidden for key in keys if (hidden := self._get(key)) is not None}
        missing = {key: index for index, key in enumerate(keys) if key not in found}
        if missing:
            computed = self._compute(run, list(missing.values()))
            for key, hidden in zip(missing, computed, strict=True):
                found[key] = hidden.to("cpu", copy=True)
                self._put(key, found[key])
        self._pass.now = SimpleNamespace(hidden=torch.stack([found[key] for key in keys]))
        try:
            yield
        finally:
            self._pass.now = None

    @torch.no_grad()
    def _compute(self, run: Callable[[list[int]], object], indices: list[int]) -> Tensor:
        self._pass.now = now = SimpleNamespace(hidden=None, output=None)
        missing = -len(indices) % self._row_multiple
        try:
            run([*indices, *indices[-1:] * missing])
        except _PrefixEndError:
            pass
        finally:
            self._pass.now = None
        hidden: Tensor = now.output[: len(indices)]
        return hidden

    def _forward(
        self, forward: Callable[..., Any], is_last: bool, *args: Any, **kwargs: Any
    ) -> Any:
        """Replaces a block's own forward."""
        now = getattr(self._pass, "now", None)
        if now is None:
            return forward(*args, **kwargs)
        given = args[0] if args else kwargs["hidden_states"]
        if now.hidden is not None:  # only the last block's output is used
            hidden = now.hidden.to(given.device) if is_last else given
            return (hidden, None) if self._is_tuple else hidden
        output = forward(*args, **kwargs)
        self._is_tuple = isinstance(output, tuple)
        if not is_last:
            return output
        now.output = output[0] if self._is_tuple else output
        raise _PrefixEndError

    def _get(self, key: bytes) -> Tensor | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _put(self, key: bytes, hidden: Tensor) -> None:
        with self._lock:
            if key in self._kept or hidden.nbytes > self._max_bytes:
                return
            self._kept[key] = hidden
            self._num_bytes += hidden.nbytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._kept.popitem(last=False)[1].nbytes


def _key(row: TokenRow, length: int) -> bytes:
    return hashlib.blake2b(row.input_ids.tobytes(), digest_size=16).digest() + b"%d" % length
