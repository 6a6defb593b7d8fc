"""Networks that follow others: the moving average of the parameters, never of buffers (Grill et al. 2020, section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from byol.methods import Base
from byol.methods._heads import frozen, reset


class Follower(Base):
    """A method whose target follows it, `config.tau(progress)` saying how closely; `_pairs` and `_tau` where it is otherwise."""

    encoder: nn.Module
    projector: nn.Module
    target_encoder: nn.Module
    target_projector: nn.Module

    def after_step(self, progress: float) -> None:
        """Move the target, xi <- tau xi + (1 - tau) theta, with tau at progress = k/K; parameters only, never buffers."""
        follow(*self._pairs(), self._tau(progress))

    def schedule(self, progress: float) -> dict[str, float]:
        """What `after_step` uses at this progress, for the log."""
        return {"tau": self._tau(progress)}

    def diagnostics(self) -> dict[str, Tensor]:
        """The distance of the parameters of target and online network over the norm of the online ones, ()."""
        return {"online_target_distance": distance(*self._pairs())}

    def _tau(self, progress: float) -> float:
        """How much of itself the target keeps in a step."""
        tau: float = cast(Any, self).config.tau(progress)
        return tau

    def _pairs(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """What follows, and what is followed."""
        return [self.target_encoder, self.target_projector], [self.encoder, self.projector]


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
