"""Self-labels: which images of a batch are taken for the same thing, by how similar their projections are; what CCSL and CSSL share.

For Garg & Jain 2022 (arXiv 2204.04545), whose loss functions were published neither in the paper as far as it could be had nor with its
code. This is a reconstruction from the abstract and from two numbers of a script (0.8 and 0.2), and is unverified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import full_precision
from byol.methods import StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._targets import Follower, twins
from byol.optim import Group, Schedule, groups_at, target_momentum


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of CCSL and CSSL; sizes and thresholds are those of the released script, the rest is this project's reading."""

    hidden: int = 512  # units of the hidden layer of projector and predictor
    dim: int = 512  # units of the projection
    tau_base: float = 0.996  # target momentum at step 0
    tau_schedule: Schedule = "cosine"  # constant as in the script; cosine reaches 1 at the end, as in BYOL
    theta_positive: float = 0.8  # pairs of larger similarity count as the same
    theta_negative: float = 0.2  # pairs of smaller similarity count as different, with `negatives`
    negatives: bool = False  # whether anything counts as different (unverified: the abstract speaks of attraction only)
    labels_from: Literal["online", "target"] = "online"  # similarity of predictions with targets, or of targets with targets (unverified)
    warmup: float = 0.25  # share of the run that is plain BYOL, before labels are trusted (unverified)
    head_norm: Literal["batch", "layer", "none"] = "batch"  # between the two layers of each head
    projection_norm: Literal["none", "batch"] = "none"  # of the projector's output; batch: no scale or shift, as in SimSiam
    predictor_rate: float = 1.0  # times the learning rate, of the predictor
    target_init: Literal["fresh", "copy"] = "fresh"  # fresh: its own random weights; copy: those of the online network

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not -1 <= self.theta_negative <= self.theta_positive <= 1:
            given = f"theta_negative={self.theta_negative} and theta_positive={self.theta_positive}"
            raise ValueError(f"{given} are no thresholds of a similarity; give -1 <= theta_negative <= theta_positive <= 1")
        for name in ("tau_base", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")
        if not 0 <= self.predictor_rate < float("inf"):
            raise ValueError(f"predictor_rate is {self.predictor_rate}; give 0 or more")

    def tau(self, progress: float) -> float:
        """Target momentum at this progress."""
        return target_momentum(progress, self.tau_base, self.tau_schedule)

    def risks(self) -> dict[str, str]:
        """Labels that are believed at once: of a network that has learned nothing nearly all images are alike."""
        risks = {}
        if self.tau_base == 0:
            risks["the target is the online network itself (tau_base 0)"] = "tau_base=0.99"
        if self.warmup == 0:
            risks["labels are trusted from the start (warmup 0)"] = "warmup=0.25"
        if self.theta_positive < 0.5:
            risks[f"images of little similarity count as the same (theta_positive {self.theta_positive:g})"] = "theta_positive=0.8"
        return risks


class SelfLabelled(Follower):
    """Two views in, the loss over the labelled pairs of the batch out, `_direction`; `after_step` moves the target."""

    Config = Options
    progress: Tensor

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, norm=c.head_norm, output_norm=c.projection_norm == "batch")
        self.predictor = mlp(c.dim, c.hidden, c.dim, norm=c.head_norm)
        self.target_encoder, self.target_projector = twins((encoder, self.projector), fresh=c.target_init == "fresh")
        self.register_buffer("progress", torch.zeros(()))  # of the run, as of the last update
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the loss summed over both directions."""
        v, w = views
        z_v, z_w = (self.projector(self.encoder(x)) for x in (v, w))
        p_v, p_w = (at_least_float32(self.predictor(z)) for z in (z_v, z_w))
        with torch.no_grad():
            t_v, t_w = (at_least_float32(self.target_projector(self.target_encoder(x))) for x in (v, w))
        with full_precision(z_v):
            first, here = self._direction(p_v, t_v, t_w)
            second, _ = self._direction(p_w, t_w, t_v)
        metrics = {"target_cosine": cosine(at_least_float32(z_v.detach()), t_w), **found(here)}
        return StepOutput(first + second, (z_v.detach(), z_w.detach()), metrics)

    def _direction(self, p: Tensor, t: Tensor, other: Tensor) -> tuple[Tensor, Labels]:
        """Predictions of a view, and targets of it and of the other view, (b, dim) each -> loss, labels."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Move the target; and know how far the run is."""
        super().after_step(progress)
        self.progress.fill_(progress)

    def param_groups(self) -> list[Group]:
        """The online parameters, the predictor's with its factor on the rate."""
        return groups_at((self.encoder, 1.0), (self.projector, 1.0), (self.predictor, self.config.predictor_rate))

    def risks(self) -> dict[str, str]:
        """Labels that are believed at once: of a network that has learned nothing nearly all images are alike."""
        return self.config.risks()


@dataclass(frozen=True)
class Labels:
    """What is known of the pairs of b images here with the B of all processes, (b, B) each; neither: unknown."""

    same: Tensor  # bool
    different: Tensor  # bool


@torch.no_grad()
def labels(similarity: Tensor, *, above: float, below: float, trusted: Tensor | bool) -> Labels:
    """(b, B) similarities -> an image is the same as itself, as those more similar than `above`; different below `below`.

    Where they are not `trusted`, an image is the same as itself alone, and nothing is different.
    """
    b, total = similarity.shape
    own = dist.rank() * b + torch.arange(b, device=similarity.device)
    itself = own[:, None] == torch.arange(total, device=similarity.device)
    return Labels(itself | ((similarity > above) & trusted), (similarity < below) & ~itself & trusted)


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """(b, B), (b, B) bool -> (): the mean over the pairs of all processes, as far as the pairs here make it; 0 where there are none.

    Each process divides by the mean count of a process, so that the mean over processes is that over all pairs.
    """
    count = dist.mean(where.sum().to(values.dtype))
    return (values * where).sum() / count.clamp_min(1 / dist.size())


def found(here: Labels) -> dict[str, Tensor]:
    """Pairs an image beside itself that count as the same, and as different, () each."""
    b = here.same.shape[0]
    return {"pseudo_positives": here.same.sum() / b - 1, "pseudo_negatives": here.different.sum() / b}
