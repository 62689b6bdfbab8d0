"""The ways to train that `feddp bench` compares, over one model, one start and the same rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.loss import LinearCrossEntropy
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.protocol import LocalWork
from feddp.client.engine.stacked import install
from feddp.common.data.tokens import IGNORE, TokenRow
from feddp.common.model.base import BaseModel
from feddp.common.model.layout import PEFT_PREFIX, AdapterLayout
from feddp.common.model.other_kinds import quiet_peft
from feddp.common.privacy.mechanism.clipping import clip_to_grid
from feddp.common.privacy.mechanism.gaussian import GaussianMechanism
from feddp.common.privacy.mechanism.noise import BitStream, seeded_key
from feddp.common.privacy.mechanism.sampling import PoissonSampler
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.simulations.bench.workload import User, copy_base, nonzero_start, rows_of

GRID_STEPS = 1 << 20
CLIPPING_NORM, NOISE_MULTIPLIER = 0.1, 1.0
LEARNING_RATE = 0.1
PASS_TOKENS = 2048  # per thread: with more, activations no longer fit its caches


class Plain:
    """One adapter for all rows of a batch: ordinary LoRA, without units."""

    def __init__(self, base: BaseModel, layout: AdapterLayout, *, device: str = "cpu"):
        model: Any = copy_base(base).model.to(device)
        self._model, self._layout, self._device = model, layout, device
        self._modules = install(model, layout)
        self.start = torch.from_numpy(nonzero_start(layout)).to(device)

    def gradient(
        self, rows: Sequence[TokenRow], vector: Tensor, weight: float, *, is_chunked: bool
    ) -> Tensor:
        """Gradient (P,) of weight times the summed loss of the rows, padded to the longest."""
        live = vector.clone().requires_grad_()
        offset = 0
        parts: dict[str, dict[str, Tensor]] = {}
        for entry in self._layout.entries:
            part = live[offset : offset + entry.size].view(1, *entry.shape)
            parts.setdefault(entry.module, {})[entry.role] = part
            offset += entry.size
        for path, tensors in parts.items():
            self._modules[path].bind(tensors)
        inputs, targets = collate(rows, self._device)
        if is_chunked:
            hidden = self._model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
            keep = targets != IGNORE
            weights = hidden.new_full((int(keep.sum()),), weight, dtype=torch.float32)
            head = self._model.lm_head.weight
            loss = LinearCrossEntropy.apply(hidden[keep], head, None, targets[keep], weights, None)  # type: ignore[no-untyped-call]
        else:
            loss = weight * _summed_loss(self._model, inputs, targets)
        (gradient,) = torch.autograd.grad(loss, live)
        return gradient


def collate(
    rows: Sequence[TokenRow], device: str, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Input ids and targets, right-padded to `width`, or to the longest row."""
    ids = [torch.from_numpy(row.input_ids) for row in rows]
    labels = [torch.from_numpy(row.labels) for row in rows]
    inputs = pad_sequence(ids, batch_first=True)
    targets = pad_sequence(labels, batch_first=True, padding_value=IGNORE)
    if width is not None:
        room = (0, width - inputs.shape[1])
        inputs, targets = functional.pad(inputs, room), functional.pad(targets, room, value=IGNORE)
    return inputs.to(device), targets.to(device)


def num_targets(rows: Sequence[TokenRow]) -> int:
    """Predicted positions."""
    return sum(int((row.labels != IGNORE).sum()) for row in rows)


def central(
    plain: Plain, users: Sequence[User], *, pass_tokens: int = PASS_TOKENS, is_chunked: bool = True
) -> Callable[[], Tensor]:
    """Non-private training without users: one step over all rows, in passes of similar length."""
    rows = sorted(rows_of(users), key=lambda row: len(row.labels))
    passes: list[list[TokenRow]] = [[]]
    for row in rows:
        if passes[-1] and (len(passes[-1]) + 1) * len(row.labels) > pass_tokens:
            passes.append([])
        passes[-1].append(row)
    weight = 1 / num_targets(rows)

    def run() -> Tensor:
        """Gradient of the mean loss over all rows, shape (P,)."""
        total = torch.zeros_like(plain.start)
        for part in passes:
            total += plain.gradient(part, plain.start, weight, is_chunked=is_chunked)
        return total

    return run


def loop(
    plain: Plain, users: Sequence[User], *, clipping_norm: float = CLIPPING_NORM
) -> Callable[[], UpdateSum]:
    """One user after another, with the library's forward and loss, clipped and added."""

    def run() -> UpdateSum:
        """Sum of the users' clipped updates."""
        total = UpdateSum.zeros(len(plain.start))
        for user in users:
            delta = torch.zeros_like(plain.start)
            for step in user:
                weight = 1 / max(num_targets(step), 1)
                delta -= LEARNING_RATE * plain.gradient(
                    step, plain.start + delta, weight, is_chunked=False
                )
            add_clipped(total, delta.cpu().numpy(), clipping_norm)
        return total

    return run


def engine(
    base: BaseModel,
    layout: AdapterLayout,
    users: Sequence[User],
    *,
    clipping_norm: float = CLIPPING_NORM,
    pass_tokens: int = PASS_TOKENS,
    slots: int = 512,
    device: str = "cpu",
    num_threads: int = 1,
) -> Callable[[], UpdateSum]:
    """The cohort engine: the same users, steps, clips and sum as `loop`."""
    cohort = CohortEngine(
        copy_base(base),
        layout,
        device=device,
        slots=slots,
        pass_tokens=pass_tokens,
        num_threads=num_threads,
    )
    order = sorted(range(len(users)), key=lambda user: -len(users[user]))
    work = [LocalWork(user, lambda steps=users[user]: steps) for user in order]  # type: ignore[misc]
    start = nonzero_start(layout)

    def run() -> UpdateSum:
        """Sum of the users' clipped updates."""
        total = UpdateSum.zeros(layout.dimension)
        cohort.train(
            start,
            work,
            method=SGD(LEARNING_RATE),
            sink=lambda _, update: add_clipped(total, update, clipping_norm),
        )
        return total

    return run


def add_clipped(total: UpdateSum, update: NDArray[np.float32], clipping_norm: float) -> None:
    """Clips one unit's update to the grid and adds it."""
    total.add(clip_to_grid(update, clipping_norm=clipping_norm, grid_steps=GRID_STEPS))


def opacus(
    base: BaseModel,
    layout: AdapterLayout,
    rows: Sequence[TokenRow],
    *,
    is_ghost: bool,
    clipping_norm: float = CLIPPING_NORM,
) -> Callable[[], Tensor]:
    """Example-level clipped gradient sum by Opacus: per-example gradients by hooks, or ghost."""
    wrapped, trained = _opacus_model(base, layout, clipping_norm, is_ghost)
    inputs, targets = collate(rows, "cpu")
    shares = torch.tensor([1 / max(num_targets([row]), 1) for row in rows])

    def losses() -> Any:
        """A mean loss per row, shape (rows,)."""
        logits = wrapped(input_ids=inputs, use_cache=False).logits
        each = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none"
        )
        return each.view_as(targets).sum(1) * shares

    def by_hooks() -> Tensor:
        """Clipped gradient sum, shape (P,), from a gradient per row."""
        losses().sum().backward()
        gradients = torch.cat([p.grad_sample.flatten(1) for p in trained], 1)
        wrapped.zero_grad()
        factors: Tensor = (clipping_norm / gradients.norm(dim=1)).clamp_max(1.0)
        return factors @ gradients

    def by_ghost() -> Tensor:
        """Clipped gradient sum, shape (P,), from norms and a second backward."""
        found = losses()
        found.sum().backward(retain_graph=True)
        factors = wrapped.get_clipping_coef()
        wrapped.zero_grad()
        wrapped.disable_hooks()
        weighted: Any = (factors * found).sum()
        weighted.backward()
        wrapped.enable_hooks()
        gradient = torch.cat([p.grad.flatten() for p in trained])
        wrapped.zero_grad()
        return gradient

    return by_ghost if is_ghost else by_hooks


def _opacus_model(
    base: BaseModel, layout: AdapterLayout, clipping_norm: float, is_ghost: bool
) -> tuple[Any, list[Any]]:
    """A PEFT model with the bench's start under Opacus, and its trained tensors in order."""
    model, trained = peft_model(base, layout)
    options: dict[str, Any] = {"batch_first": True, "loss_reduction": "sum", "strict": False}
    if is_ghost:
        wrapped: Any = GradSampleModuleFastGradientClipping(
            model, max_grad_norm=clipping_norm, use_ghost_clipping=True, **options
        )
    else:
        wrapped = GradSampleModule(model, **options)
    return wrapped, list(trained.values())


def peft_model(base: BaseModel, layout: AdapterLayout) -> tuple[Any, dict[str, Any]]:
    """A PEFT model with the bench's start, as peers train it, and its parameters in order."""
    config = LoraConfig(r=layout.rank, lora_alpha=layout.alpha, target_modules=list(layout.adapted))
    with quiet_peft():
        model: Any = get_peft_model(copy_base(base).model, config)
    parameters = dict(model.named_parameters())
    trained = {}
    for name, value in layout.unflatten(nonzero_start(layout)).items():
        assert name.startswith(PEFT_PREFIX)
        own_name = name.replace(".weight", ".default.weight")
        parameters[own_name].data = torch.from_numpy(value.copy())
        trained[own_name] = parameters[own_name]
    model.train()
    return model, trained


def mean_loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """The library's mean loss over the predicted positions of one local batch."""
    return _summed_loss(model, inputs, targets) / (targets != IGNORE).sum().clamp_min(1)


def _summed_loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    logits = model(input_ids=inputs, use_cache=False).logits.float()
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


def mean_update(
    total: UpdateSum, num_users: int, clipping_norm: float = CLIPPING_NORM
) -> NDArray[np.float64]:
    """A sum of clipped updates as the mean that frameworks keep in float32; without noise."""
    return total.total.astype(np.float64) * (clipping_norm / GRID_STEPS / num_users)


def private(
    run: Callable[[], UpdateSum], *, cohort_size: int, dimension: int
) -> Callable[[], object]:
    """The engine's sum, released with exact noise: what a framework does in one round.

    The cohort is drawn from a population a hundred times as large.
    """
    mechanism = GaussianMechanism(
        sampler=PoissonSampler(0.01),
        num_units=100 * cohort_size,
        expected_cohort_size=float(cohort_size),
        clipping_norm=CLIPPING_NORM,
        noise_multiplier=NOISE_MULTIPLIER,
        grid_steps=GRID_STEPS,
        dimension=dimension,
    )
    return lambda: mechanism.release(run(), bits=BitStream(seeded_key(0, 1)))
