"""CCSL: BYOL that draws similar images together, by cosine (Garg & Jain 2022, arXiv 2204.04545); a reconstruction.

The paper labels its own batch: images whose projections are similar are taken for the same, and are drawn together as the two views of
one image are. Its loss was published neither in what could be had of the paper nor with its code. This is a RECONSTRUCTION from the
abstract and from two thresholds (0.8, 0.2) of a script, unverified, with what is not known as options: `negatives`, `labels_from`
and `warmup`. With C_ij = cos(q(z_i), z'_j) over the batch of all processes, T_ij = 1 if i = j or C_ij > theta_positive, and 0 if
C_ij < theta_negative: the loss of a direction is the mean of 2 - 2 C_ij over T = 1, plus with `negatives` that of max(0, C_ij) over T = 0.

Theirs: 76.87 % on STL-10 (ResNet-18, 96 px) beside 71.04 of their BYOL, with an encoder that their script does not seem to freeze:
not comparable with linear probes, and not with this reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import full_precision, normalise
from byol.methods import Curve, StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._self_labels import Labels, found, labels, mean_where
from byol.methods._targets import distance, follow, twins
from byol.optim import Group, param_groups, target_momentum

RECIPES = {
    "ccsl-stl10-r18": {
        "about": "ResNet-18, batch 16, 100 epochs of STL-10 with SGD: 76.87 % (theirs, encoder perhaps fine-tuned; a reconstruction here)",
        "expected": "none: 76.87 % on STL-10 is theirs, with losses that were not published and an encoder that may have been fine-tuned",
        "source": "script of Garg & Jain 2022 (rate 0.03 at a batch of 16; its step schedule is left out); the loss is a reconstruction",
        "batch": 16,
        "values": {
            "encoder": "resnet18", "image_size": 96, "epochs": 100, "optimizer": "sgd", "lr": 0.48, "momentum": 0.9, "weight_decay": 4e-4,
            "warmup_epochs": 0.0, "views": "small", "min_area": 1.0, "saturation": 0.4, "solarize": 0.0, "hidden": 512, "dim": 512,
            "tau_base": 0.996, "tau_schedule": "constant",
        },
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options; sizes and thresholds are those of the released script, the rest is this project's reading."""

    hidden: int = 512  # units of the hidden layer of projector and predictor
    dim: int = 512  # units of the projection
    tau_base: float = 0.996  # target momentum at step 0
    tau_schedule: Literal["constant", "cosine"] = "cosine"  # constant as in the script; cosine reaches 1 at the end, as in BYOL
    theta_positive: float = 0.8  # pairs with a larger cosine are drawn together
    theta_negative: float = 0.2  # pairs with a smaller cosine are pushed apart, with `negatives`
    negatives: bool = False  # whether anything is pushed apart (unverified: the abstract speaks of attraction only)
    labels_from: Literal["online", "target"] = "online"  # cosines of predictions with targets, or of targets with targets (unverified)
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
            raise ValueError(f"{given} are no thresholds of a cosine; give -1 <= theta_negative <= theta_positive <= 1")
        for name in ("tau_base", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")
        if not 0 <= self.predictor_rate < float("inf"):
            raise ValueError(f"predictor_rate is {self.predictor_rate}; give 0 or more")

    def tau(self, progress: float) -> float:
        """Target momentum at this progress."""
        return self.tau_base if self.tau_schedule == "constant" else target_momentum(progress, self.tau_base)


class CCSL(nn.Module):
    """Two views in, the loss over the labelled pairs of the batch out; `after_step` moves the target."""

    Config = Options
    progress: Tensor
    CURVES = (
        Curve(("loss",), "Loss", "0 to 8", "Both directions of 2 − 2 cos over all pairs that count as one thing; plain BYOL at first."),
        Curve(("pseudo_positives", "pseudo_negatives"), "Self-labels", "an image", "Others that count as the same, or as different.", True),
    )  # fmt: skip

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
        c = self.config
        others = dist.gathered(other)
        similar = normalise(p) @ normalise(others).T
        judged = similar if c.labels_from == "online" else normalise(t) @ normalise(others).T
        here = labels(judged, above=c.theta_positive, below=c.theta_negative, trusted=self.progress >= c.warmup)
        loss = mean_where(2 - 2 * similar, here.same)
        if c.negatives:
            loss = loss + mean_where(similar.clamp_min(0), here.different)
        return loss, here

    def after_step(self, progress: float) -> None:
        """Move the target, xi <- tau xi + (1 - tau) theta; and know how far the run is."""
        follow(*self._pairs(), self.config.tau(progress))
        self.progress.fill_(progress)

    def param_groups(self) -> list[Group]:
        """The online parameters, the predictor's with its factor on the rate."""
        parts = ((self.encoder, 1.0), (self.projector, 1.0), (self.predictor, self.config.predictor_rate))
        return [Group(**{**group, "lr_scale": rate}) for part, rate in parts for group in param_groups(part)]

    def schedule(self, progress: float) -> dict[str, float]:
        """What `after_step` uses at this progress, for the log."""
        return {"tau": self.config.tau(progress)}

    def diagnostics(self) -> dict[str, Tensor]:
        """The distance of online and target parameters over the norm of the online ones, ()."""
        return {"online_target_distance": distance(*self._pairs())}

    def risks(self) -> dict[str, str]:
        """Labels that are believed at once: of a network that has learned nothing nearly all images are alike."""
        c = self.config
        risks = {}
        if c.tau_base == 0:
            risks["the target is the online network itself (tau_base 0)"] = "tau_base=0.99"
        if c.warmup == 0:
            risks["labels are trusted from the start (warmup 0)"] = "warmup=0.25"
        if c.theta_positive < 0.5:
            risks[f"images of little similarity count as the same (theta_positive {c.theta_positive:g})"] = "theta_positive=0.8"
        return risks

    def _pairs(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """What follows, and what is followed."""
        return [self.target_encoder, self.target_projector], [self.encoder, self.projector]


METHOD = CCSL
