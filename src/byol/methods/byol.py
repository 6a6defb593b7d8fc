"""Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733).

An online network (encoder, projector, predictor) predicts from one view what the target network (encoder, projector)
makes of the other; the target is an exponential moving average of the online parameters. No negative pairs.
Expect, with the paper's recipe, ResNet-50, 1000 epochs of ImageNet: 74.3 % linear top-1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol.losses import regression_loss
from byol.methods import StepOutput
from byol.methods._heads import cosine, frozen, mlp, reset, width
from byol.optim import Group, param_groups, target_momentum


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of BYOL; the defaults are the paper's for 1000 epochs."""

    hidden: int = 4096  # units of the hidden layer of projector and predictor
    dim: int = 256  # units of the projection
    tau_base: float = 0.996  # target momentum at step 0; reaches 1 at the end
    head_norm: Literal["batch", "layer", "none"] = "batch"  # between the two layers of each head
    projection_norm: Literal["none", "batch"] = "none"  # none: as in the paper; batch: no scale or shift, as in SimSiam
    predictor: Literal["mlp", "none"] = "mlp"  # none collapses: the paper's ablation, 0.2 %
    # Times the learning rate: mu and lambda of the paper's study without a moving average (appendix), where lambda 10 trains even
    # with tau_base 0. They are the `lr_scale` of the groups of `param_groups`; a loop of one's own has to multiply by it.
    projector_rate: float = 1.0
    predictor_rate: float = 1.0
    target_init: Literal["fresh", "copy"] = "fresh"  # fresh: its own random weights, as released; copy: those of the online network

    def __post_init__(self) -> None:
        if self.projector_rate < 0 or self.predictor_rate < 0:
            raise ValueError(f"projector_rate={self.projector_rate} and predictor_rate={self.predictor_rate} must be 0 or more")
        if not 0 <= self.tau_base <= 1:
            raise ValueError(f"tau_base is {self.tau_base}; give a number from 0 (target = online) to 1 (target never moves)")
        if self.hidden < 1 or self.dim < 1:
            raise ValueError(f"hidden={self.hidden} and dim={self.dim} must be 1 or more")


class BYOL(nn.Module):
    """Two views in, the symmetric loss out (eq. 2 and its mirror); `after_step` moves the target.

    `encoder` is any module from images to (B, dim) with `.dim`. `projector` and `predictor` replace the paper's heads.
    An encoder without `reset_parameters` (a pre-trained one, say) is copied into the target.
    """

    Config = Options

    def __init__(
        self,
        encoder: nn.Module,
        config: Options | None = None,
        *,
        projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        if projector is None:
            projector = mlp(width(encoder), c.hidden, c.dim, norm=c.head_norm, output_norm=c.projection_norm == "batch")
        self.projector = projector
        if predictor is None:
            predictor = mlp(c.dim, c.hidden, c.dim, norm=c.head_norm) if c.predictor == "mlp" else nn.Identity()
        self.predictor = predictor
        self.target_encoder = frozen(copy.deepcopy(encoder))
        self.target_projector = frozen(copy.deepcopy(self.projector))
        if c.target_init == "fresh" and reset(self.target_encoder):
            reset(self.target_projector)
        self.train()  # a loaded encoder comes in evaluation mode

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the loss summed over both directions, in 0 to 8."""
        v, w = views
        # Each view passes on its own, so that batch norm sees one view at a time, as in the released code.
        z_v, z_w = self.projector(self.encoder(v)), self.projector(self.encoder(w))
        p_v, p_w = self.predictor(z_v), self.predictor(z_w)
        with torch.no_grad():
            # The target stays in train mode: it normalises with the statistics of its own current batch.
            t_v, t_w = self.target_projector(self.target_encoder(v)), self.target_projector(self.target_encoder(w))
        p_v, p_w, t_v, t_w = (_at_least_float32(x) for x in (p_v, p_w, t_v, t_w))
        loss = regression_loss(p_v, t_w) + regression_loss(p_w, t_v)
        return StepOutput(loss, (z_v.detach(), z_w.detach()), {"target_cosine": cosine(z_v.detach().to(t_w.dtype), t_w)})

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the target, xi <- tau xi + (1 - tau) theta, with tau at progress = k/K; parameters only, never buffers."""
        online, target = self._pairs()
        torch._foreach_lerp_(target, online, 1 - target_momentum(progress, self.config.tau_base))

    def param_groups(self) -> list[Group]:
        """The online parameters, each part with its factor on the rate; the target has no gradient and so no place in them."""
        c = self.config
        if c.projector_rate == c.predictor_rate == 1:
            return param_groups(self)
        parts = ((self.encoder, 1.0), (self.projector, c.projector_rate), (self.predictor, c.predictor_rate))
        return [Group(**{**group, "lr_scale": rate}) for part, rate in parts for group in param_groups(part)]

    def schedule(self, progress: float) -> dict[str, float]:
        """What `after_step` uses at this progress, for the log."""
        return {"tau": target_momentum(progress, self.config.tau_base)}

    @torch.no_grad()
    def diagnostics(self) -> dict[str, Tensor]:
        """The distance of online and target parameters over the norm of the online ones, ()."""
        online, target = self._pairs()
        gap = torch.stack(torch._foreach_norm(torch._foreach_sub(online, target))).norm()
        return {"online_target_distance": gap / torch.stack(torch._foreach_norm(online)).norm()}

    def risks(self) -> dict[str, str]:
        """Without a predictor the paper reached 0.2 % on ImageNet, with a target that is the online network 0.3 %."""
        c = self.config
        found = {"there is no predictor": "predictor=mlp"} if c.predictor == "none" else {}
        return found | ({"the target is the online network itself (tau_base 0)": "tau_base=0.99"} if c.tau_base == 0 else {})

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        online = [*self.encoder.parameters(), *self.projector.parameters()]
        target = [*self.target_encoder.parameters(), *self.target_projector.parameters()]
        return list(online), list(target)


def _at_least_float32(x: Tensor) -> Tensor:
    # Under bf16 the loss itself is taken in float32; float64 stays, for parity with the reference.
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


METHOD = BYOL
