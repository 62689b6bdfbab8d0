"""Root-mean-square norms and rotary positions in fewer passes over memory.

Elementwise operations take a third of a small model's time. The gradients of these norms and
rotations need few operations; autograd takes many, and keeps all intermediate tensors. A module is
replaced only if its replacement matches the library's outputs and gradients on random input, up to
rounding; everything else stays as it is.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

ROTATION = "apply_rotary_pos_emb"
ROUNDINGS = 32
Context = torch.autograd.function.FunctionCtx


class RootMeanSquareNorm(torch.autograd.Function):
    """w x / sqrt(mean(x^2) + epsilon), computed in float32; w is frozen."""

    @staticmethod
    def forward(context: Context, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x over its root mean square, times `weight`; shape of `x`."""
        wide = x.float()
        factor = wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        context.save_for_backward(x, weight, factor)
        return weight * (wide * factor).to(x.dtype)

    @staticmethod
    def backward(context: Context, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of `x`; weight and epsilon are frozen."""
        x, weight, factor = context.saved_tensors  # type: ignore[attr-defined]
        wide, gradient = x.float(), (gradient * weight).float()
        share = (gradient * wide).mean(-1, keepdim=True).mul_(factor**3)
        # Not addcmul_: it may round once or twice, depending on a number's place in a vector.
        return gradient.mul_(factor).sub_(wide * share).to(x.dtype), None, None


class Rotation(torch.autograd.Function):
    """x cos + (-x_2, x_1) sin, with x_1 and x_2 the halves of x.

    No vector operation spans two positions, so a row's bits do not depend on other rows.
    """

    @staticmethod
    def forward(context: Context, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x with its halves turned by the angles of `cos` and `sin`; shape of `x`."""
        context.save_for_backward(cos, sin)
        low, high = x.chunk(2, -1)
        out = x * cos
        out_low, out_high = out.chunk(2, -1)
        sin_low, sin_high = sin.chunk(2, -1)
        out_low.addcmul_(high, sin_low, value=-1)
        out_high.addcmul_(low, sin_high)
        return out

    @staticmethod
    def backward(context: Context, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of `x`, turned back."""
        cos, sin = context.saved_tensors  # type: ignore[attr-defined]
        low, high = gradient.chunk(2, -1)
        out = gradient * cos
        out_low, out_high = out.chunk(2, -1)
        sin_low, sin_high = sin.chunk(2, -1)
        out_low.addcmul_(high, sin_high)
        out_high.addcmul_(low, sin_low, value=-1)
        return out, None, None


def rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Replaces the library's `apply_rotary_pos_emb`; may rotate only the first dimensions."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _turn(q, cos, sin), _turn(k, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    width = cos.shape[-1]
    turned: Tensor = Rotation.apply(x[..., :width], cos, sin)  # type: ignore[no-untyped-call]
    return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], -1)


def fuse_norms(model: nn.Module) -> int:
    """Replaces the norms and rotations of a frozen model that pass the check; returns how many."""
    changed = 0
    for module in model.modules():
        if is_root_mean_square(module):
            module.forward = MethodType(_normalise, module)
            changed += 1
        elif (forward := _with_rotation(module)) is not None:
            module.forward = forward
            changed += 1
    return changed


def is_root_mean_square(module: nn.Module) -> bool:
    """Whether a module is the norm that `RootMeanSquareNorm` computes."""
    weight: Any = getattr(module, "weight", None)
    is_named_so = type(module).__name__.endswith("RMSNorm")
    if not is_named_so or weight is None or not hasattr(module, "variance_epsilon"):
        return False
    x, gradient = _numbers((2, 3, len(weight)), weight), _numbers((2, 3, len(weight)), weight)
    return _agree(module, partial(_normalise, module), (x,), (gradient,))


def _normalise(module: Any, hidden_states: Tensor) -> Tensor:
    """Replaces a norm's own forward."""
    output: Tensor = RootMeanSquareNorm.apply(  # type: ignore[no-untyped-call]
        hidden_states, module.weight, module.variance_epsilon
    )
    return output


def _with_rotation(module: nn.Module) -> Callable[..., Any] | None:
    """An attention module's forward that calls `rotate`; None if it cannot be replaced.

    The library's modules look their rotation up in module globals, which all models of a process
    share, so the function is copied with its own globals.
    """
    forward: Any = inspect.unwrap(type(module).forward)
    if not isinstance(forward, FunctionType) or ROTATION not in forward.__code__.co_names:
        return None
    globals_ = forward.__globals__
    like = next(module.parameters(), None)
    if like is None or not _is_rotation(globals_[ROTATION], like):
        return None
    copied = FunctionType(
        forward.__code__,
        {**globals_, ROTATION: rotate},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    copied.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(copied, module)


def _is_rotation(function: Callable[..., Any], like: Tensor) -> bool:
    """Whether a function of (q, k, cos, sin) is what `rotate` computes."""
    q, k, *output_gradients = (_numbers((2, 4, 3, 8), like) for _ in range(4))
    for width in (8, 4):
        cos, sin = _numbers((1, 3, width), like), _numbers((1, 3, width), like)
        own, ours = (partial(f, cos=cos, sin=sin) for f in (function, rotate))
        try:
            if not _agree(own, ours, (q, k), output_gradients):
                return False
        except (TypeError, RuntimeError):  # another signature or width
            if width == 8:
                return False
    return True


def _numbers(shape: tuple[int, ...], like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    dtype = like.dtype if like.dtype.is_floating_point else torch.float32
    return torch.randn(shape, generator=generator).to(like.device, dtype)


def _agree(
    function: Callable[..., Any],
    other: Callable[..., Any],
    inputs: Sequence[Tensor],
    output_gradients: Sequence[Tensor],
) -> bool:
    """Whether two functions give the same tensors, and gradients of their inputs."""
    found = []
    for each in (function, other):
        live = [x.clone().requires_grad_() for x in inputs]
        with torch.enable_grad():
            outputs = each(*live)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            gradients = torch.autograd.grad(outputs, live, output_gradients)
        found.append([*outputs, *gradients])
    tolerance = ROUNDINGS * torch.finfo(inputs[0].dtype).eps
    return all(
        one.shape == two.shape
        and one.dtype == two.dtype
        and torch.allclose(one, two, rtol=tolerance, atol=tolerance)
        for one, two in zip(*found, strict=True)
    )
