"""Optimisers and schedules as the released code has them: LARS with its exclusions, warm-up and cosine, cosine tau.

Schedules are pure functions of the step, counted from 0: there is no scheduler to save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, NotRequired, TypeAlias, TypedDict, overload

import torch
from torch import Tensor, nn

Schedule: TypeAlias = Literal["cosine", "constant"]  # half a cosine over the run, as in BYOL; constant, as in BYOL-A
NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


class Group(TypedDict):
    """A parameter group; `exclude` means neither weight decay nor LARS adaptation."""

    params: list[nn.Parameter]
    exclude: bool
    weight_decay: NotRequired[float]  # the optimiser's own unless given
    lr_scale: NotRequired[float]  # a factor on the scheduled rate; 1 unless given
    constant: NotRequired[bool]  # the peak rate at every step, in place of the scheduled one
    betas: NotRequired[tuple[float, float]]  # of Adam and AdamW; torch's own, 0.9 and 0.999, unless given


def param_groups(module: nn.Module) -> list[Group]:
    """Two groups of the trainable parameters: those that decay and adapt, and the excluded biases and normalisation.

    Both exclusions are those of Grill et al. 2020, section 3.3.
    Any parameter with at most one dimension counts as normalisation or bias: layer scales and the like of other networks.
    """
    normal: list[nn.Parameter] = []
    excluded: list[nn.Parameter] = []
    seen: set[int] = set()
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            if p.requires_grad and id(p) not in seen:  # tied weights are one parameter
                seen.add(id(p))
                bare = p.ndim <= 1 or name.endswith("bias") or isinstance(part, NORMALISATION)
                (excluded if bare else normal).append(p)
    groups = [
        Group(params=normal, exclude=False),
        Group(params=excluded, exclude=True, weight_decay=0.0),
    ]
    return [g for g in groups if g["params"]]


def groups_at(*parts: tuple[nn.Module, float]) -> list[Group]:
    """The groups of several modules, each with its factor on the learning rate."""
    return [Group(**{**group, "lr_scale": rate}) for part, rate in parts for group in param_groups(part)]


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling in the released code's order: decay, trust ratio, momentum, then the rate.

    A group with `"exclude": True` gets neither decay nor adaptation. The ratio is 1 where either norm is 0. No Nesterov.
    As with torch's fused optimisers a tensor `found_inf`, (), that is not 0 leaves everything as it is, and no device waits.
    """

    _step_supports_amp_scaling = True  # how torch says that

    def __init__(
        self,
        param_groups: Iterable[Tensor] | Iterable[Group] | Iterable[dict[str, object]],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 1e-3,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1 or trust_coefficient <= 0:
            raise ValueError(
                f"LARS takes lr >= 0, weight_decay >= 0, momentum in [0, 1), trust_coefficient > 0, "
                f"not {lr}, {weight_decay}, {momentum}, {trust_coefficient}"
            )
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust_coefficient": trust_coefficient, "exclude": False}
        super().__init__(param_groups, defaults)  # type: ignore[arg-type]  # torch types its groups as Any dicts

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; returns the closure's loss if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, float]) -> None:
        """The same few kernels for all parameters of a group, whatever their number."""
        grads: tuple[Tensor, ...] | list[Tensor] = [p.grad for p in params if p.grad is not None]
        if not group["exclude"]:
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            p_norm, g_norm = (torch.stack(torch._foreach_norm(t)) for t in (params, grads))
            ratio = group["trust_coefficient"] * p_norm / g_norm
            ratio = torch.where((p_norm > 0) & (g_norm > 0), ratio, torch.ones_like(ratio))
            scale = torch._foreach_mul_ if group["weight_decay"] else torch._foreach_mul  # in place only on what is ours
            grads = scale(grads, list(ratio.unbind())) or grads
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        found: Tensor | None = getattr(self, "found_inf", None)
        if found is None:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])
        else:
            bad = found != 0
            momentum, rate = (buffers[0].new_full((), group[name]) for name in ("momentum", "lr"))
            torch._foreach_mul_(buffers, momentum.masked_fill(bad, 1))
            torch._foreach_add_(buffers, [g.masked_fill(bad, 0) for g in grads])
            torch._foreach_sub_(params, torch._foreach_mul(buffers, rate.masked_fill(bad, 0)))


def make(
    name: str,
    groups: list[Group],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    trust_coefficient: float,
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """The optimiser `lars`, `sgd`, `adam` or `adamw` over groups made by `param_groups`.

    Momentum is SGD's and LARS's only, eps that of the other two. The decay of `adam` is part of the gradient.
    """
    plain: list[dict[str, object]] = [dict(g) for g in groups]
    if name == "lars":
        return LARS(plain, lr=lr, weight_decay=weight_decay, momentum=momentum, trust_coefficient=trust_coefficient)
    # One pass over the memory: half the time of torch's default on a CPU, and no more kernels than needed on a GPU.
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    if name == "sgd":
        sgd = torch.optim.SGD(plain, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=fused)
        # Torch's own first step takes memory as it finds it, and leaves it so where `found_inf` has that step left out.
        for p in (p for group in groups for p in group["params"] if momentum):
            sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return sgd
    if name in ("adam", "adamw"):
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        return kind(plain, lr=lr, weight_decay=weight_decay, eps=eps, fused=fused)
    raise ValueError(f"no optimizer {name!r}; give lars, sgd, adam or adamw")


def learning_rate(step: int, *, peak: float, warmup: int, total: int, schedule: Schedule = "cosine") -> float:
    """The rate of step 0 .. total-1: linear from 0 over `warmup` steps, then half a cosine to 0 (Grill et al. 2020, section 3.3).

    A constant one stays at its peak instead.
    """
    if step < warmup:
        return peak * step / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def target_momentum(progress: float, base: float, schedule: Schedule = "cosine") -> float:
    """tau at progress k/K in [0, 1]: from `base` to 1 along half a cosine (Grill et al. 2020, section 3.3), or constant."""
    if schedule == "constant":
        return base
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2
