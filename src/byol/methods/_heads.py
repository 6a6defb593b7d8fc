"""The multi-layer perceptrons behind the encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from byol.encoders import standardise_weights
from byol.encoders.norms import GROUPS, Scale, groups_of


def mlp(
    inputs: int,
    hidden: int,
    outputs: int,
    *,
    norm: str = "batch",
    output_norm: bool = False,
    layers: int = 2,
    output_bias: bool = False,
    standardise: bool = False,
) -> nn.Sequential:
    """(B, inputs) -> (B, outputs): Linear, batch norm, ReLU, Linear; the projector and the predictor of BYOL.

    Sizes as in Grill et al. 2020, section 3.3.
    The last layer has neither bias nor normalisation, unlike SimCLR's and SimSiam's; `output_norm` adds SimSiam's batch norm
    without scale and shift, `output_bias` a bias. `norm`: a word of NORMS. `layers`: linear ones in all; each but the last gives
    `hidden` units. `standardise`: the weights of all of them are standardised at every pass.
    """
    if norm not in NORMS:
        raise ValueError(f"no head normalisation {norm!r}; give {', '.join(NORMS)}")
    between = NORMS[norm]
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(inputs, hidden), between(hidden), nn.ReLU(inplace=True)]
        inputs = hidden
    parts.append(nn.Linear(inputs, outputs, bias=output_bias))
    head = nn.Sequential(*parts, *([nn.BatchNorm1d(outputs, affine=False)] if output_norm else []))
    if standardise:
        standardise_weights(head)
    return head


def _group_norm(units: int) -> nn.GroupNorm:
    """16 groups, or fewer, so that each holds 16 units: what is normalised among a few of them says little of each."""
    return nn.GroupNorm(groups_of(units, max(1, min(GROUPS, units // 16))), units)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "group": _group_norm,
    "data": partial(Scale, from_data=True),  # a scale and shift, set by the first batch of a run
    "none": nn.Identity,
}


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
