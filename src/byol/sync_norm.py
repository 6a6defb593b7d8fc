"""Batch norm over the batches of all processes: the same statistics, and so the same losses, for any number of them.

Torch's own knows CUDA alone. This one takes the place of `torch.nn.functional.batch_norm` inside the modules that normalise, so that
it serves every kind of them, timm's included, and leaves parameters, buffers and their names as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as _SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from byol import dist


def synchronise(module: nn.Module) -> None:
    """Every batch norm of the module normalises with the statistics of all processes from now on; nothing with a single process."""
    if dist.size() == 1:
        return
    for part in module.modules():
        if isinstance(part, _BatchNorm) and not isinstance(part, _Synchronised):
            kind = type(part)
            part.__class__ = type(kind.__name__, (_Synchronised, kind), {"__module__": kind.__module__})


class _Synchronised(nn.Module):
    def forward(self, *args: Tensor) -> Tensor:
        with _Replaced():
            out: Tensor = super().forward(*args)
        return out


class _Replaced(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (batch_norm if func is nn.functional.batch_norm else func)(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(B, C, ...) -> the same shape: as torch's, with the statistics of all processes when training."""
    if not training:
        return nn.functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    out: Tensor
    if x.is_cuda:  # torch's own kernels
        sizes = (td.group.WORLD, dist.size())
        out = _SyncBatchNorm.apply(x.contiguous(), weight, bias, running_mean, running_var, eps, momentum, *sizes)
        return out
    out, mean, var, total = _BatchNormOverAll.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * (total / (total - 1))).to(running_var.dtype), momentum)
    return out


class _BatchNormOverAll(torch.autograd.Function):
    """The gradient crosses the processes as well: a sample moves the statistics with which all others are normalised."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x if x.dtype == torch.float64 else x.float()
        dims = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(wide, dims, correction=0)
        here = torch.full((1,), x.numel() / x.shape[1], dtype=wide.dtype, device=x.device)
        every = dist.gathered(torch.cat([mean, var, here])[None])
        counts = every[:, -1:]
        total = counts.sum()
        means, variances = every[:, :-1].chunk(2, 1)
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean).square())).sum(0) / total
        scale = torch.rsqrt(var + eps)
        normal = (wide - _along(mean, x)) * _along(scale, x)
        ctx.save_for_backward(normal, scale, weight, total)
        ctx.has_bias = bias is not None
        out = normal if weight is None else normal * _along(weight.to(wide.dtype), x)
        out = out if bias is None else out + _along(bias.to(wide.dtype), x)
        ctx.mark_non_differentiable(mean, var, total)
        return out.to(x.dtype), mean, var, total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        normal, scale, weight, total = ctx.saved_tensors
        g = grads[0].to(normal.dtype)
        dims = [0, *range(2, g.ndim)]
        sums = torch.stack([g.sum(dims), (g * normal).sum(dims)])
        d_bias, d_weight = sums.unbind()
        sums = sums.clone()
        td.all_reduce(sums)
        of_g, of_g_normal = sums / total
        inner = g - _along(of_g, g) - normal * _along(of_g_normal, g)
        dx = inner * _along(scale if weight is None else scale * weight.to(scale.dtype), g)
        return (
            dx.to(grads[0].dtype),
            None if weight is None else d_weight.to(weight.dtype),
            d_bias.to(weight.dtype if weight is not None else g.dtype) if ctx.has_bias else None,
            None,
        )


def _along(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), to be broadcast over x."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
