"""Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733).

An online network (encoder, projector, predictor) predicts from one view what the target network (encoder, projector)
makes of the other; the target is an exponential moving average of the online parameters. No negative pairs.

Expect, with the paper's recipe, ResNet-50, 1000 epochs of ImageNet: 74.3 % linear top-1.

Use it as the first choice: it needs no negative pairs, so that small batches and milder views cost it little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol.losses import objective, squared_distance
from byol.methods import Curve, StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._targets import Follower, twins
from byol.optim import Group, Schedule, groups_at, param_groups, target_momentum

_LOSS = "Both directions of 2 − 2 cos, summed. Low is not good by itself: collapse makes it low too."


PUBLISHED = "BYOL"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of BYOL; the defaults are the paper's for 1000 epochs."""

    hidden: int = 4096  # units of the hidden layer of projector and predictor
    dim: int = 256  # units of the projection
    tau_base: float = 0.996  # target momentum at step 0
    tau_schedule: Schedule = "cosine"  # reaches 1 at the end; constant stays
    # data: a scale and shift, set by the first batch so that it does then what batch norm would.
    head_norm: Literal["batch", "layer", "group", "data", "none"] = "batch"  # between the two layers of each head
    projection_norm: Literal["none", "batch"] = "none"  # none: as in the paper; batch: no scale or shift, as in SimSiam
    predictor: Literal["mlp", "none"] = "mlp"  # none collapses: the paper's ablation, 0.2 %
    # Times the learning rate: mu and lambda of the paper's study without a moving average (appendix), where lambda 10 trains even
    # with tau_base 0. They are the `lr_scale` of the groups of `param_groups`; a loop of one's own has to multiply by it.
    projector_rate: float = 1.0
    predictor_rate: float = 1.0
    target_init: Literal["fresh", "copy"] = "fresh"  # fresh: its own random weights, as released; copy: those of the online network
    # What the paper's ablations vary; the defaults are BYOL.
    target: Literal["ema", "stop-gradient", "online"] = "ema"  # what is predicted, its gradient cut but for online
    beta: float = 0.0  # weight of the negative pairs; 1 with predictor=none target=online is SimCLR's loss times 4 alpha, plus 4
    alpha: float = 0.1  # temperature of the negative pairs
    loss_norm: Literal["l2", "layer", "batch", "none"] = "l2"  # of predictions and targets in the loss; layer and batch over sqrt(dim)
    projector_layers: int = 2  # linear layers
    predictor_layers: int = 2  # linear layers
    predictor_norm: Literal["same", "batch", "layer", "group", "data", "none"] = "same"  # as head_norm, for the predictor alone
    # Weights of the heads standardised at every pass, as for BYOL without batch statistics (Richemond et al. 2020), with head_norm=group
    # and an encoder like resnet50+gn+ws.
    head_standardise: bool = False

    def __post_init__(self) -> None:
        if self.projector_rate < 0 or self.predictor_rate < 0:
            raise ValueError(f"projector_rate={self.projector_rate} and predictor_rate={self.predictor_rate} must be 0 or more")
        if not 0 <= self.tau_base <= 1:
            raise ValueError(f"tau_base is {self.tau_base}; give a number from 0 (target = online) to 1 (target never moves)")
        for name in ("hidden", "dim", "projector_layers", "predictor_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not (0 <= self.beta < math.inf and 0 < self.alpha < math.inf):
            raise ValueError(f"beta={self.beta} and alpha={self.alpha} are not possible; give beta 0 or more and alpha above 0")
        if self.beta and self.loss_norm != "l2":
            raise ValueError(f"loss_norm={self.loss_norm} has no negative pairs; give beta=0 or loss_norm=l2")

    def tau(self, progress: float) -> float:
        """Target momentum at this progress."""
        return target_momentum(progress, self.tau_base, self.tau_schedule)


class BYOL(Follower):
    """Two views in, the symmetric loss out (eq. 2 and its mirror); `after_step` moves the target.

    `encoder` is any module from images to (B, dim) with `.dim`. `projector` and `predictor` replace the paper's heads.
    An encoder without `reset_parameters` (a pre-trained one, say) is copied into the target.
    """

    Config = Options
    CURVES = (Curve(("loss",), "Loss", "0 to 8", _LOSS),)

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
            batch = c.projection_norm == "batch"
            shape = (width(encoder), c.hidden, c.dim)
            projector = mlp(*shape, norm=c.head_norm, output_norm=batch, layers=c.projector_layers, standardise=c.head_standardise)
        self.projector = projector
        if predictor is None:
            norm = c.head_norm if c.predictor_norm == "same" else c.predictor_norm
            predictor = nn.Identity()
            if c.predictor == "mlp":
                predictor = mlp(c.dim, c.hidden, c.dim, norm=norm, layers=c.predictor_layers, standardise=c.head_standardise)
        self.predictor = predictor
        if c.loss_norm != "l2":
            self.loss_norm = _loss_norm(c.loss_norm, c.dim)
        self.target_encoder, self.target_projector = twins((encoder, self.projector), fresh=c.target_init == "fresh")
        self.train()  # a loaded encoder comes in evaluation mode

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the loss summed over both directions, in 0 to 8."""
        v, w = views
        # Each view passes on its own, so that batch norm sees one view at a time, as in the released code.
        z_v, z_w = self.projector(self.encoder(v)), self.projector(self.encoder(w))
        p_v, p_w = self.predictor(z_v), self.predictor(z_w)
        t_v, t_w = self._targets(v, w, z_v, z_w)
        p_v, p_w, t_v, t_w = (at_least_float32(x) for x in (p_v, p_w, t_v, t_w))
        loss = self._loss((p_v, p_w), (t_v, t_w))
        return StepOutput(loss, (z_v.detach(), z_w.detach()), {"target_cosine": cosine(z_v.detach().to(t_w.dtype), t_w.detach())})

    def _targets(self, v: Tensor, w: Tensor, z_v: Tensor, z_w: Tensor) -> tuple[Tensor, Tensor]:
        """What is predicted, (B, D) for each view: projections of the target network, or of the online one in the ablations."""
        if self.config.target == "online":
            return z_v, z_w
        if self.config.target == "stop-gradient":
            return z_v.detach(), z_w.detach()
        with torch.no_grad():
            # The target stays in train mode: it normalises with the statistics of its own current batch.
            return self.target_projector(self.target_encoder(v)), self.target_projector(self.target_encoder(w))

    def _loss(self, p: tuple[Tensor, Tensor], t: tuple[Tensor, Tensor]) -> Tensor:
        """Both directions; with the defaults 2 - 2 cos each."""
        c = self.config
        if c.loss_norm == "l2":
            return objective(p, t, alpha=c.alpha, beta=c.beta)
        scale = 1 if c.loss_norm == "none" else p[0].shape[1] ** -0.5
        p_v, p_w, t_v, t_w = (scale * self.loss_norm(x) for x in (*p, *t))
        return squared_distance(p_v, t_w) + squared_distance(p_w, t_v)

    def param_groups(self) -> list[Group]:
        """The online parameters, each part with its factor on the rate; the target has no gradient and so no place in them."""
        c = self.config
        if c.projector_rate == c.predictor_rate == 1:
            return param_groups(self)
        return groups_at((self.encoder, 1.0), (self.projector, c.projector_rate), (self.predictor, c.predictor_rate))

    def risks(self) -> dict[str, str]:
        """Without negative pairs: 0.2 % on ImageNet without a predictor, 0.3 % with the online network as target (paper)."""
        c = self.config
        found: dict[str, str] = {}
        if c.beta:
            return found
        if c.predictor == "none":
            found["there is no predictor"] = "predictor=mlp"
        if c.target != "ema":
            found[f"the target is the online network itself (target={c.target})"] = "target=ema"
        elif c.tau_base == 0:
            found["the target is the online network itself (tau_base 0)"] = "tau_base=0.99"
        return found


def _loss_norm(kind: str, dim: int) -> nn.Module:
    """(B, dim) -> (B, dim), without parameters; the batch norm is a module, so that processes share its statistics."""
    if kind == "layer":
        return nn.LayerNorm(dim, elementwise_affine=False)
    return nn.BatchNorm1d(dim, affine=False, track_running_stats=False) if kind == "batch" else nn.Identity()


METHOD = BYOL
