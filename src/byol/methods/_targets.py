"""Networks that follow others: the moving average of the parameters, never of buffers (Grill et al. 2020, section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from byol.methods._heads import frozen, reset


def twins(networks: Sequence[nn.Module], *, fresh: bool) -> list[nn.Module]:
    """Copies without gradients; `fresh`: with weights of their own where the first of them can draw any, else as they are."""
    copies = [frozen(copy.deepcopy(network)) for network in networks]
    if fresh and reset(copies[0]):
        for network in copies[1:]:
            reset(network)
    return copies


@torch.no_grad()
def follow(targets: Sequence[nn.Module], networks: Sequence[nn.Module], tau: float) -> None:
    """xi <- tau xi + (1 - tau) theta, parameter by parameter."""
    torch._foreach_lerp_(_parameters(targets), _parameters(networks), 1 - tau)


@torch.no_grad()
def distance(targets: Sequence[nn.Module], networks: Sequence[nn.Module]) -> Tensor:
    """The distance of the parameters over the norm of those followed, ()."""
    online = _parameters(networks)
    gap: Tensor = torch.stack(torch._foreach_norm(torch._foreach_sub(online, _parameters(targets)))).norm()
    norm: Tensor = torch.stack(torch._foreach_norm(online)).norm()
    return gap / norm


def _parameters(networks: Sequence[nn.Module]) -> list[Tensor]:
    return [p for network in networks for p in network.parameters()]
