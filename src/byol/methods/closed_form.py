"""BYOL with a linear predictor in closed form (The Edge of Orthogonality, Richemond et al. 2023, arXiv 2302.04817).

Instead of being trained, the predictor is a matrix that follows from the second moments of every batch: the published ones
(`ne`, `visser`, `ns`, `ns2`, `stiefel`), those before them (`lrp` of BYOL's appendix, `direct_pred`, `direct_copy`), and `trainable`, a
linear layer, to compare with. The paper's claim: they all keep the predictor near an orthogonal matrix, and that is what
prevents collapse.

Expect, with its ResNet-50 and otherwise BYOL's settings, ImageNet linear top-1 after 100 / 300 epochs: Stiefel 68.8 / 72.1 (alpha 0.3),
NS2 68.8 / 72.1 (0.9), Visser 68.4 / 71.6 (0), NE 68.5 / 71.8 (0.15), trainable 67.6 / 71.5.

Use it where the predictor's learning rate is one thing too many to choose, and to study what keeps BYOL from collapsing.

The appendix with its settings was not to be had. Not known, so options here, or fixed and said: whether rows are normalised before the
moments (`unit_rows`), the decay of the predictor's moving average (`predictor_decay`), what the ridge is relative to
(`rescale_predictor`), `eta`, and how many iterations Visser's takes (`n`). One matrix serves both directions, its moments are
taken over both views of the images of all processes, no gradient passes through it, and the ridge comes after average and scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import full_precision, normalise, regression_loss
from byol.methods import Curve, StepOutput
from byol.methods import _predictors as forms
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._targets import Follower, twins
from byol.optim import Group, Schedule, groups_at, param_groups, target_momentum

RECIPES = {
    "closed_form-imagenet-r50-100": {
        "about": "ResNet-50, 100 epochs of ImageNet, batch 4096, Stiefel: 68.8 % linear top-1 (paper; some of its settings are not known)",
        "expected": "68.8 % linear top-1 on ImageNet (Richemond et al. 2023, table; decay, rows and scale of the predictor unverified)",
        "source": "Richemond et al. 2023; Grill et al.'s preset of 100 epochs; predictor_decay, unit_rows, rescale_predictor unverified",
        "batch": 4096,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 100, "optimizer": "lars", "lr": 0.45, "weight_decay": 1e-6, "momentum": 0.9,
            "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "views": "paper", "hidden": 4096, "dim": 256, "tau_base": 0.99,
            "predictor": "stiefel", "alpha": 0.3, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "closed_form-imagenet-r50-300": {
        "about": "ResNet-50, 300 epochs of ImageNet, batch 4096, Stiefel: 72.1 % linear top-1 (paper; some of its settings are not known)",
        "expected": "72.1 % linear top-1 on ImageNet (Richemond et al. 2023, table; decay, rows and scale of the predictor unverified)",
        "source": "Richemond et al. 2023; Grill et al.'s preset of 300 epochs; predictor_decay, unit_rows, rescale_predictor unverified",
        "batch": 4096,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 300, "optimizer": "lars", "lr": 0.3, "weight_decay": 1e-6, "momentum": 0.9,
            "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "views": "paper", "hidden": 4096, "dim": 256, "tau_base": 0.99,
            "predictor": "stiefel", "alpha": 0.3, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "closed_form-imagenet-r50-lrp": {
        "about": "ResNet-50, 300 epochs of ImageNet, optimal linear predictor, no moving average: 52.5 % linear top-1 (BYOL's paper)",
        "expected": "52.5 % linear top-1 on ImageNet (Grill et al. 2020, main text; the table in the appendix has no value)",
        "source": "Grill et al. 2020, section 5 and appendix; raw rows and no average of the predictor unverified",
        "batch": 4096,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 300, "optimizer": "lars", "lr": 0.3, "weight_decay": 1e-6, "momentum": 0.9,
            "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "views": "paper", "hidden": 4096, "dim": 256, "target": "stop-gradient",
            "predictor": "lrp", "alpha": 0.0, "predictor_decay": 0.0, "rescale_predictor": "none", "unit_rows": False,
            "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
}  # fmt: skip
# Small networks have few directions to begin with: scaled to norm 1 their P is little beside the published ridges, and BYOL with a P
# that is all ridge collapses (docs/results.md). As it comes, with its projections at the length that batch norm gives them, it is not.
PUBLISHED = "Closed-form predictor"
AUTO = {"predictor": "ns2", "unit_rows": False, "rescale_predictor": "none"}

ITERATIONS = {"visser": 50, "ns": 9, "ns2": 7, "stiefel": 9}  # the paper's; of Visser's it says several dozen


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options; where the paper is silent the default is this project's reading, and says so."""

    hidden: int = 4096  # units of the hidden layer of the projector
    dim: int = 256  # units of the projection
    tau_base: float = 0.99  # target momentum at step 0; that of BYOL's presets for 100 and 300 epochs
    tau_schedule: Schedule = "cosine"  # reaches 1 at the end; constant stays
    predictor: Literal["stiefel", "ns2", "ns", "visser", "ne", "lrp", "direct_pred", "direct_copy", "trainable"] = "stiefel"
    alpha: float = 0.3  # ridge: alpha I is added to the predictor; the paper's 0 to 0.9
    n: int | None = None  # iterations of visser, ns, ns2 and stiefel; none: 50, 9, 7 and 9, the paper's but for visser (unverified)
    eta: float | None = None  # step of visser; none: 1 / (2 root of the Frobenius norm of the moments), always stable (unverified)
    predictor_decay: float = 0.9  # of the moving average of the predictor; 0 takes each batch for itself (the paper's value unverified)
    rescale_predictor: Literal["none", "spectral"] = "spectral"  # before the ridge: as it comes, or to spectral norm 1 (unverified)
    unit_rows: bool = True  # projections have length 1 in the moments, whose trace is then 1 (unverified)
    predictor_rate: float = 1.0  # times the learning rate, of `trainable` alone
    head_norm: Literal["batch", "layer", "none"] = "batch"  # between the layers of the projector
    projection_norm: Literal["none", "batch"] = "none"  # none: as in the paper; batch: no scale or shift, as in SimSiam
    projector_layers: int = 2  # linear layers
    target_init: Literal["fresh", "copy"] = "fresh"  # fresh: its own random weights; copy: those of the online network
    target: Literal["ema", "stop-gradient"] = "ema"  # stop-gradient: the online network itself, "hard-copied"

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "projector_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.tau_base <= 1:
            raise ValueError(f"tau_base is {self.tau_base}; give a number from 0 (target = online) to 1 (target never moves)")
        if not 0 <= self.predictor_decay < 1:
            raise ValueError(f"predictor_decay is {self.predictor_decay}; give a number from 0 (each batch for itself) to below 1")
        for name in ("alpha", "predictor_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.n is not None and self.n < 1:
            raise ValueError(f"n is {self.n}; give 1 or more, or none for the paper's")
        if self.eta is not None and not 0 < self.eta < math.inf:
            raise ValueError(f"eta is {self.eta}; give a number above 0, or none for one that is always stable")

    def tau(self, progress: float) -> float:
        """Target momentum at this progress."""
        return target_momentum(progress, self.tau_base, self.tau_schedule)


class ClosedForm(Follower):
    """Two views in, BYOL's loss out; the predictor is set anew in every pass, and `after_step` moves the target."""

    Config = Options
    CURVES = (
        Curve(("predictor_stable_rank",), "Stable rank of the predictor", "of dim", "|P|² over its largest singular value².", True),
        Curve(("predictor_trace",), "Trace of the predictor", "of dim", "With its largest singular value scaled to 1.", True),
        Curve(("predictor_polar_distance",), "Predictor to orthogonal", "of √dim", "To its polar factor, largest value scaled to 1.", True),
        Curve(
            ("predictor_value_q10", "predictor_value_q50", "predictor_value_q90"),
            "Singular values of the predictor",
            "of the largest",
            "Deciles 1, 5 and 9; the eigenvalues, where P is symmetric and positive. The paper sees them go to 0 or 1.",
            True,
        ),
    )
    predictor_matrix: Tensor
    predictor_started: Tensor

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        batch = c.projection_norm == "batch"
        self.projector = mlp(width(encoder), c.hidden, c.dim, norm=c.head_norm, output_norm=batch, layers=c.projector_layers)
        self.predictor = nn.Linear(c.dim, c.dim, bias=False) if c.predictor == "trainable" else None
        if self.predictor is None:
            self.register_buffer("predictor_matrix", torch.eye(c.dim))  # the average, before scale and ridge
            self.register_buffer("predictor_started", torch.zeros(()))  # 1 once it is an average of something
        self.target_encoder, self.target_projector = twins((encoder, self.projector), fresh=c.target_init == "fresh")
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the loss summed over both directions, in 0 to 8."""
        v, w = views
        z_v, z_w = (at_least_float32(self.projector(self.encoder(x))) for x in (v, w))
        t_v, t_w = self._targets(v, w, z_v, z_w)
        with full_precision(z_v):
            if self.predictor is None:
                self._look(torch.cat([z_v, z_w]), torch.cat([t_w, t_v]))
            p = self._matrix()
            loss = regression_loss(z_v @ p, t_w) + regression_loss(z_w @ p, t_v)
        return StepOutput(loss, (z_v.detach(), z_w.detach()), {"target_cosine": cosine(z_v.detach(), t_w)})

    def _targets(self, v: Tensor, w: Tensor, z_v: Tensor, z_w: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) for each view, without gradients."""
        if self.config.target == "stop-gradient":
            return z_v.detach(), z_w.detach()
        with torch.no_grad():
            t_v, t_w = (at_least_float32(self.target_projector(self.target_encoder(x))) for x in (v, w))
            return t_v, t_w

    @torch.no_grad()
    def _look(self, z: Tensor, t: Tensor) -> None:
        """Projections of both views and their targets, (2B, dim) each: the predictor of these goes into the average."""
        c = self.config
        z, t = (normalise(x) if c.unit_rows else x for x in (z, t))
        sigma, cross = dist.mean(torch.stack([z.T @ z, z.T @ t]) / len(z))
        # The first batch is the average of itself. A tensor decides, so that no device is waited for.
        self.predictor_matrix.lerp_(predictor(c, sigma, cross), 1 - c.predictor_decay * self.predictor_started)
        self.predictor_started.fill_(1)

    def _matrix(self) -> Tensor:
        """(dim, dim): what projections, as rows, are multiplied by."""
        c = self.config
        if isinstance(self.predictor, nn.Linear):
            return at_least_float32(self.predictor.weight).T
        p = self.predictor_matrix
        if c.rescale_predictor == "spectral":
            p = p / forms.spectral_norm(p)
        return p + c.alpha * torch.eye(c.dim, dtype=p.dtype, device=p.device)

    def param_groups(self) -> list[Group]:
        """The online parameters; a trainable predictor with its factor on the rate."""
        c = self.config
        if self.predictor is None or c.predictor_rate == 1:
            return param_groups(self)
        return groups_at((self.encoder, 1.0), (self.projector, 1.0), (self.predictor, c.predictor_rate))

    @torch.no_grad()
    def diagnostics(self) -> dict[str, Tensor]:
        """How far the predictor is from orthogonal, and the target from the online network, () each."""
        return {**super().diagnostics(), **orthogonality(self._matrix())}

    def risks(self) -> dict[str, str]:
        """A ridge much larger than the predictor leaves none: 0.2 % on ImageNet with the identity (Grill et al. 2020)."""
        c = self.config
        if c.predictor == "trainable" or c.alpha == 0:
            return {}
        if c.rescale_predictor == "none" and c.unit_rows:
            return {f"the ridge (alpha={c.alpha:g}) may be all of the predictor, whose moments have trace 1": "unit_rows=false"}
        if c.rescale_predictor == "spectral" and c.alpha >= 0.3:
            return {f"the ridge (alpha={c.alpha:g}) may be most of a predictor that is scaled to norm 1": "alpha=0.1"}
        return {}


def predictor(c: Options, sigma: Tensor, cross: Tensor) -> Tensor:
    """Second moments, (D, D) each -> the matrix of the method, (D, D), before average, scale and ridge."""
    n = c.n or ITERATIONS.get(c.predictor, 0)
    of: dict[str, Callable[[], Tensor]] = {
        "lrp": lambda: forms.optimal(sigma, cross),
        "direct_pred": lambda: forms.direct_pred(sigma),
        "direct_copy": lambda: forms.direct_copy(sigma),
        "ne": lambda: forms.neumann(sigma, cross),
        "visser": lambda: forms.visser(sigma, n=n, eta=c.eta),
        "ns": lambda: forms.ns(sigma, n=n),
        "ns2": lambda: forms.ns2(sigma, n=n),
        "stiefel": lambda: forms.stiefel(sigma, n=n),
    }
    return of[c.predictor]()


def orthogonality(p: Tensor) -> dict[str, Tensor]:
    """(D, D) -> how near to orthogonal, whatever its scale, () each: an orthogonal matrix gives 1, 0 and quantiles of 1.

    With singular values s over the largest: stable rank mean(s^2), trace over D s_1, distance of the polar factor root of mean((1 - s)^2).
    """
    p = p.double()
    values = torch.linalg.svdvals(p)
    largest = values[0].clamp_min(1e-300)
    s = values / largest
    levels = s.new_tensor([0.1, 0.5, 0.9])
    quantiles = dict(zip(("q10", "q50", "q90"), torch.quantile(s, levels).unbind(), strict=True))
    return {
        "predictor_stable_rank": s.square().mean(),
        "predictor_trace": p.trace() / (len(p) * largest),
        "predictor_polar_distance": (1 - s).square().mean().sqrt(),
        **{f"predictor_value_{name}": value for name, value in quantiles.items()},
    }


METHOD = ClosedForm
