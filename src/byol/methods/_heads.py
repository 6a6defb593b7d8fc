"""The multi-layer perceptrons behind the encoder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def mlp(inputs: int, hidden: int, outputs: int, *, norm: str = "batch", output_norm: bool = False, layers: int = 2) -> nn.Sequential:
    """(B, inputs) -> (B, outputs): Linear, batch norm, ReLU, Linear; the projector and the predictor of BYOL.

    Sizes as in Grill et al. 2020, section 3.3.
    The last layer has neither bias nor normalisation, unlike SimCLR's and SimSiam's; `output_norm` adds SimSiam's batch norm
    without scale and shift. `norm`: `batch`, `layer` or `none`. `layers`: linear ones in all; each but the last gives `hidden` units.
    """
    if norm not in ("batch", "layer", "none"):
        raise ValueError(f"no head normalisation {norm!r}; give batch, layer or none")
    between = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}[norm]
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(inputs, hidden), between(hidden), nn.ReLU(inplace=True)]
        inputs = hidden
    parts.append(nn.Linear(inputs, outputs, bias=False))
    return nn.Sequential(*parts, *([nn.BatchNorm1d(outputs, affine=False)] if output_norm else []))


def width(encoder: nn.Module) -> int:
    """The number of features that the encoder gives."""
    dim = getattr(encoder, "dim", None)
    if not isinstance(dim, int):
        raise ValueError(f"{type(encoder).__name__} does not say how many features it gives; set .dim, or use byol.encoders.wrap(module)")
    return dim


def reset(module: nn.Module) -> bool:
    """Draw the weights of a module anew; False, and nothing done, if it has no `reset_parameters` of its own."""
    own = getattr(module, "reset_parameters", None)
    if own is not None:
        own()
    elif isinstance(module, nn.Sequential):
        for part in module:
            reset(part)
    return own is not None or isinstance(module, nn.Sequential)


def frozen(module: nn.Module) -> nn.Module:
    """The module without gradients: said once, where it is decided."""
    return module.requires_grad_(False)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(B, D), (B, D) -> (): the mean cosine of pairs of rows."""
    return nn.functional.cosine_similarity(a, b, dim=-1).mean()


def at_least_float32(x: Tensor) -> Tensor:
    """Under bf16 the loss itself is taken in float32; float64 stays, for parity with the reference."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Where products are not rounded to bf16, on the device of the tensor; tensors without memory (`meta`) know no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
