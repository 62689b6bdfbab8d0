"""The oracle of the engine: one user at a time, with PEFT's own modules and full logits."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tiny
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.protocol import LocalMethod
from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import lay_out

User = list[list[TokenRow]]


def make_row(rng: np.random.Generator, task: str, length: int) -> TokenRow:
    ids = rng.integers(3, tiny.VOCABULARY, size=length)
    if task == "classification":
        return TokenRow(ids, rng.integers(0, len(tiny.LABELS), size=1))
    labels = np.append(ids[1:], 2)
    labels[: length // 3] = IGNORE
    return TokenRow(ids, labels)


def make_users(task: str, seed: int = 0) -> list[User]:
    """Ragged: 1 to 4 steps, 1 to 4 rows each, 2 to 50 tokens; one user without rows, one whose row
    predicts nothing."""
    rng = np.random.default_rng(seed)
    users = [
        [
            [make_row(rng, task, int(rng.integers(2, 50))) for _ in range(rng.integers(1, 5))]
            for _ in range(rng.integers(1, 5))
        ]
        for _ in range(7)
    ]
    users.append([])
    if task == "causal-lm":
        row = make_row(rng, task, 9)
        users.append([[replace(row, labels=np.full(9, IGNORE))]])
    return users


def layout_of(base: BaseModel, kind: str) -> AdapterLayout:
    return lay_out(base, kind=kind, rank=3, alpha=6.0, target_modules=None)


def nonzero_start(layout: AdapterLayout, dtype: type = np.float32) -> NDArray[np.floating]:
    """B = 0 would hide the gradient of A; heads start as loaded."""
    noise = np.random.default_rng(5).normal(size=layout.dimension) * 0.05
    return (layout.start + noise).astype(dtype)


def loop_updates(
    base: BaseModel,
    layout: AdapterLayout,
    start: NDArray[np.floating],
    users: Sequence[User],
    method: LocalMethod,
) -> NDArray[np.floating]:
    """The oracle: one user at a time, PEFT's modules, the library's forward, full logits."""
    config = LoraConfig(
        r=layout.rank,
        lora_alpha=int(layout.alpha),
        target_modules=list(layout.adapted),
        modules_to_save=list(layout.heads) or None,
        fan_in_fan_out=layout.is_transposed,
    )
    peft_model = get_peft_model(copy.deepcopy(base.model), config).eval()
    dtype = torch.float64 if start.dtype == np.float64 else torch.float32
    peft_model.to(dtype)
    parameters = dict(peft_model.named_parameters())

    def find(name: str) -> torch.nn.Parameter:
        plain = name.removesuffix(".weight")
        candidates = [name, f"{plain}.default.weight"]
        head = name.rpartition(".")
        for module in layout.heads:
            prefix = f"base_model.model.{module}"
            if name.startswith(prefix):
                rest = name[len(prefix) :]
                candidates.append(f"{prefix}.modules_to_save.default{rest}")
        assert head
        return next(parameters[c] for c in candidates if c in parameters)

    for module, a in layout.frozen.items():
        find(f"base_model.model.{module}.lora_A.weight").data = torch.from_numpy(a).to(dtype)
    trained = [find(entry.name) for entry in layout.entries]
    peft_model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    updates = []
    for user in users:
        offset = 0
        for parameter, entry in zip(trained, layout.entries, strict=True):
            part = torch.from_numpy(start[offset : offset + entry.size].copy())
            parameter.data = part.reshape(entry.shape).to(dtype)
            offset += entry.size
        optimizer = (
            torch.optim.SGD(trained, lr=method.learning_rate)
            if isinstance(method, SGD)
            else torch.optim.AdamW(trained, lr=method.learning_rate, weight_decay=0.0)
        )
        for step in user:
            optimizer.zero_grad(set_to_none=False)
            loop_loss(peft_model, base.task, step).backward()
            optimizer.step()
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in trained]).numpy()
        updates.append(flat - start)
    return np.stack(updates)


def loop_loss(model: torch.nn.Module, task: str, step: Sequence[TokenRow]) -> torch.Tensor:
    """Mean over what the step predicts, row by row, without padding."""
    total, count = torch.zeros((), dtype=next(model.parameters()).dtype), 0
    for row in step:
        ids = torch.from_numpy(row.input_ids)[None]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        labels = torch.from_numpy(row.labels)
        scores = logits[0] if task == "causal-lm" else logits
        total = total + functional.cross_entropy(
            scores, labels, ignore_index=IGNORE, reduction="sum"
        )
        count += int((labels != IGNORE).sum())
    return total / max(count, 1) + 0 * sum(p.sum() for p in model.parameters() if p.requires_grad)


def relative(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    assert np.isfinite(left).all()
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))
