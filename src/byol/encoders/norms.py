"""Networks without batch statistics: every batch norm replaced, and weights standardised (Richemond et al. 2020, arXiv 2010.10241).

BYOL works so as well: 73.9 % against 74.3 % linear top-1 with group norm and weight standardisation (ResNet-50, 1000 epochs of
ImageNet; abstract). The paper's text was not had. Unverified, and so options with these defaults: 16 groups; standard deviations
with Bessel's correction, and 1e-5 beside them (as published for weight standardisation by Qiao et al. 2019, arXiv 1903.10520).

Names of parameters stay, those of the running statistics go. What a name can say is a suffix: `resnet50+gn+ws`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from byol import dist

Norm = Literal["batch", "group", "layer", "none", "scale", "data"]

GROUPS: Final = 16
_WORDS: Final[dict[str, Norm]] = {"gn": "group", "ln": "layer", "none": "none", "scale": "scale", "data": "data"}
_SAID: Final = {
    "group": "group norm for batch norm, up to {groups} groups",
    "layer": "layer norm over channels and places for batch norm",
    "none": "no batch norm",
    "scale": "a scale and shift for batch norm",
    "data": "a scale and shift, set by the first batch, for batch norm",
}


@dataclass(frozen=True)
class Changes:
    """What a name like `resnet50+gn+ws` says after its first +."""

    norm: Norm = "batch"
    groups: int = GROUPS
    standardise: bool = False

    def __str__(self) -> str:
        """The suffix, in its one spelling."""
        word = next((w for w, norm in _WORDS.items() if norm == self.norm), "")
        number = str(self.groups) if self.norm == "group" and self.groups != GROUPS else ""
        return (f"+{word}{number}" if word else "") + ("+ws" if self.standardise else "")

    def describe(self) -> str:
        """What is other than usual, in words; empty where nothing is."""
        found = [_SAID[self.norm].format(groups=self.groups)] if self.norm != "batch" else []
        return ", ".join([*found, *(["weights standardised"] if self.standardise else [])])


def parse(name: str) -> tuple[str, Changes]:
    """The name before the first +, and what comes after it; ValueError for a suffix that there is not."""
    base, *words = name.split("+")
    norm, groups, standardise = None, GROUPS, False
    for word in words:
        found = re.fullmatch(r"(gn)([1-9]\d{0,3})|([a-z]+)", word)
        kind = found and (found[1] or found[3])
        if kind == "ws" and not standardise:
            standardise = True
        elif found and kind in _WORDS and norm is None:
            norm, groups = _WORDS[kind], int(found[2] or GROUPS)
        else:
            known = ", ".join(f"+{w}" for w in _WORDS)
            raise ValueError(f"no encoder {name!r}: +{word} cannot stand there; give one of {known}, and +ws")
    return base, Changes(norm or "batch", groups, standardise)


def without_batch_norm(module: nn.Module, norm: Norm = "group", *, groups: int = GROUPS, standardise: bool = False) -> nn.Module:
    """The module itself, every batch norm in it replaced, timm's with an activation too; scales, shifts and modes stay.

    `group`: group norm of so many `groups`, or of the most below that divide the channels. `layer`: of a single group. `none`: nothing.
    `scale`: a scale and shift for each channel. `data`: these set by the first batch of a run, so that outputs are a batch norm's
    then. `batch`: all stay. `standardise`: also `standardise_weights`. ValueError where there is no batch norm to replace.
    """
    if norm not in ("batch", *_SAID):
        raise ValueError(f"norm is {norm!r}; give one of batch, {', '.join(_SAID)}")
    if groups < 1:
        raise ValueError(f"groups is {groups}; give 1 or more")
    if standardise and norm in ("none", "scale"):
        why = f"standardised weights multiply what passes by the root of the fan-in, and norm={norm} takes nothing back"
        raise ValueError(f"{why}; give group, layer or data")
    if norm != "batch":
        found = [(parent, name, part) for parent in module.modules() for name, part in parent.named_children() if _is_batch_norm(part)]
        if not found and not _is_batch_norm(module):
            raise ValueError(f"{type(module).__name__} has no batch norm to replace; leave norm={norm} out")
        made: dict[nn.Module, nn.Module] = {}  # one that stands in two places is one layer
        for parent, name, part in found:
            setattr(parent, name, made.setdefault(part, _replacement(part, norm, groups)))
        module = _replacement(module, norm, groups) if _is_batch_norm(module) else module
        if norm == "none":
            _out_of_place(module)
    return standardise_weights(module) if standardise else module


def standardise_weights(module: nn.Module, *, eps: float = 1e-5, correction: int = 1) -> nn.Module:
    """The module itself; its convolutions and linear layers use `standardised` weights from now on, and keep and learn their own.

    Layers with a fan-in of 1 stay as they are: there is nothing to standardise. ValueError for a layer of another kind.
    """
    for name, part in module.named_modules():
        if isinstance(part, _Standardised) or not isinstance(part, _ConvNd | nn.Linear) or part.weight[0].numel() == 1:
            continue
        kind = _STANDARDISED.get(type(part))
        if kind is None:
            raise ValueError(f"{name or 'the module'} is a {type(part).__name__}, whose weights are not standardised here; leave +ws out")
        part.__class__ = kind  # type: ignore[assignment]  # a subclass of its own type, without tensors of its own
        assert isinstance(part, _Standardised)
        part.eps, part.correction = eps, correction
    return module


def standardised(weight: Tensor, *, eps: float = 1e-5, correction: int = 1) -> Tensor:
    """(O, I, ...) -> the same shape: (W - mean) / (std + eps) over the fan-in of each output; the gradient passes through all of it."""
    std, mean = torch.std_mean(weight, tuple(range(1, weight.ndim)), correction=correction, keepdim=True)
    return (weight - mean) / (std + eps)


def groups_of(channels: int, most: int = GROUPS) -> int:
    """The largest number of equal groups that is at most `most`."""
    return next(g for g in range(min(most, channels), 0, -1) if channels % g == 0)


class Scale(nn.Module):
    """(B, C, ...) -> the same shape: a scale and a shift for each channel, without statistics.

    `from_data`: `set_by_data` sets them. `eps` is beside the variance then.
    """

    def __init__(self, channels: int, *, from_data: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.from_data, self.eps = from_data, eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        along = (1, -1, *[1] * (x.ndim - 2))
        return x * self.weight.view(along) + self.bias.view(along)

    def reset_parameters(self) -> None:
        """Back to the identity."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, from_data={self.from_data}"

    def waits(self) -> bool:
        """Whether it is to be set by data, and is still as it began."""
        return self.from_data and bool((self.weight == 1).all() and (self.bias == 0).all())


def waits_for_data(module: nn.Module) -> bool:
    """Whether a part of the module is to be set by data, and is not yet."""
    return any(part.waits() for part in module.modules() if isinstance(part, Scale))


@contextmanager
def set_by_data(module: nn.Module) -> Iterator[None]:
    """Within it, every scale that waits for data takes what makes its first output that of a batch norm in training.

    A pass through the module then sets them one after the other, so that each sees what it would see in a network with batch
    norms. The statistics are those of all processes, which have to give equal shares.
    """
    handles = [part.register_forward_pre_hook(_set) for part in module.modules() if isinstance(part, Scale) and part.waits()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _set(scale: nn.Module, args: tuple[Tensor, ...]) -> None:
    assert isinstance(scale, Scale)
    if not scale.waits():
        return
    x = args[0].to(scale.weight.dtype)
    along, dims = (1, -1, *[1] * (x.ndim - 2)), [0, *range(2, x.ndim)]
    mean = dist.mean(x.mean(dims))
    var = dist.mean((x - mean.view(along)).square().mean(dims))
    scale.weight.copy_((var + scale.eps).rsqrt())
    scale.bias.copy_(-mean * scale.weight)


def _is_batch_norm(part: nn.Module) -> bool:
    return isinstance(part, _BatchNorm)


def _replacement(old: nn.Module, norm: Norm, groups: int) -> nn.Module:
    """What takes the place of a batch norm, with what it applies after it: timm's fused layers drop and activate."""
    assert isinstance(old, _BatchNorm)
    then = hasattr(old, "act")
    new: nn.Module
    if norm in ("group", "layer"):
        wanted = 1 if norm == "layer" else groups_of(old.num_features, groups)
        new = (GroupNormAct if then else nn.GroupNorm)(wanted, old.num_features, eps=old.eps, affine=old.affine)
    elif norm == "none":
        new = (IdentityAct if then else nn.Identity)()
    else:
        new = (ScaleAct if then else Scale)(old.num_features, from_data=norm == "data", eps=old.eps)
    if then:
        new.act, new.drop = old.act, getattr(old, "drop", nn.Identity())
    like = next((t for t in (old.weight, old.running_mean) if t is not None), None)
    if like is not None:
        new.to(like.device, like.dtype)
    if old.affine and norm != "none":
        new.load_state_dict({"weight": old.weight, "bias": old.bias}, strict=False)
    return new.train(old.training)


def _out_of_place(module: nn.Module) -> None:
    """Activations write into a tensor of their own: what a batch norm gave was new, and what is there now may be needed elsewhere."""
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]  # an attribute of activations and dropout


class _Act(nn.Module):
    """What timm's fused layers do after their normalisation."""

    act: nn.Module
    drop: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class GroupNormAct(_Act, nn.GroupNorm):
    """Group norm, then an activation."""


class ScaleAct(_Act, Scale):
    """A scale and shift for each channel, then an activation."""


class IdentityAct(_Act, nn.Identity):
    """An activation alone."""


class _Standardised(nn.Module):
    eps: float
    correction: int

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weights standardised"


class _StandardisedConv(_Standardised):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = standardised(weight, eps=self.eps, correction=self.correction)
        y: Tensor = super()._conv_forward(x, weight, bias)  # type: ignore[misc]  # of the convolution that it is mixed into
        return y


class StandardisedConv1d(_StandardisedConv, nn.Conv1d):
    """A convolution whose weights are standardised at every pass."""


class StandardisedConv2d(_StandardisedConv, nn.Conv2d):
    """A convolution whose weights are standardised at every pass."""


class StandardisedConv3d(_StandardisedConv, nn.Conv3d):
    """A convolution whose weights are standardised at every pass."""


class StandardisedLinear(_Standardised, nn.Linear):
    """A linear layer whose weights are standardised at every pass."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, standardised(self.weight, eps=self.eps, correction=self.correction), self.bias)


_STANDARDISED: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.Conv1d: StandardisedConv1d,
    nn.Conv2d: StandardisedConv2d,
    nn.Conv3d: StandardisedConv3d,
    nn.Linear: StandardisedLinear,
}
