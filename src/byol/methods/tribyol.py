"""TriBYOL: three views, one online network and two targets, for small batches (Li et al. 2022, arXiv 2206.03012).

The online network predicts the first target's projection of the second view and the second target's of the third: BYOL's loss with two
targets that do not share weights. The paper claims to beat BYOL, SimCLR and SimSiam at batches of 32 to 128; its numbers and its
full text were not to be had. What follows is put together from its abstract and two re-implementations (A and B), and is unverified
against the paper: whether the loss is symmetric (A is, B is not), and what keeps the targets apart (A moves them in turns).

Two targets that begin equal and follow alike stay one network, and the method is then BYOL with a second positive. They are kept apart
by weights of their own (`target_init=fresh`), by moving in turns (`updates=alternate`) or by another `second_tau_base`; the
log says how far apart they are. Compare at equal compute: BYOL takes 4 passes an image, this 7 with symmetry and 3 without.

Expect no published number: the paper's were not to be had.

Use it with batches of 32 to 128, for which it is meant, and beside a BYOL that trains for as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol.losses import regression_loss
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._targets import distance, twins
from byol.optim import Group, Schedule, groups_at, target_momentum

RECIPES = {
    "tribyol-cifar10-r18": {
        "about": "ResNet-18, batch 64, 80 epochs of CIFAR-10 with SGD, symmetric, targets in turns (a re-implementation, not the paper)",
        "expected": "none published that could be found",
        "source": "re-implementation A of TriBYOL, unverified against the paper; its rate 0.03 at a batch of the paper's 64",
        "batch": 64,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 80, "optimizer": "sgd", "lr": 0.12, "momentum": 0.9, "weight_decay": 4e-4,
            "warmup_epochs": 0.0, "views": "small", "min_area": 0.2, "saturation": 0.4, "solarize": 0.0, "hidden": 512, "dim": 128,
            "tau_base": 0.996, "tau_schedule": "constant", "symmetric": True, "updates": "alternate",
        },
    },
    "tribyol-cifar10-r18-one-way": {
        "about": "ResNet-18, batch 64, 80 epochs of CIFAR-10 with SGD, one way, targets together (a re-implementation, not the paper)",
        "expected": "none published that could be found",
        "source": "re-implementation B of TriBYOL, unverified against the paper; epochs of A; its rate 0.03 at the paper's batch of 64",
        "batch": 64,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 80, "optimizer": "sgd", "lr": 0.12, "momentum": 0.9, "weight_decay": 4e-4,
            "warmup_epochs": 0.0, "views": "small", "min_area": 0.2, "saturation": 0.4, "solarize": 0.0, "hidden": 512, "dim": 128,
            "tau_base": 0.996, "tau_schedule": "constant", "symmetric": False, "updates": "both", "target_init": "fresh",
        },
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options; the defaults are re-implementation A's, the paper's being unknown."""

    hidden: int = 512  # units of the hidden layer of projector and predictor
    dim: int = 128  # units of the projection
    tau_base: float = 0.996  # momentum of the targets at step 0
    second_tau_base: float | None = None  # of the second target; none: as the first
    tau_schedule: Schedule = "cosine"  # cosine reaches 1 at the end, as in BYOL
    symmetric: bool = True  # all three views online and the mean of both directions; else the first predicts the others (unverified)
    updates: Literal["alternate", "both"] = "alternate"  # one target an update, in turns; or both in every one (unverified)
    target_init: Literal["fresh", "copy"] = "fresh"  # fresh: each its own random weights; copy: both those of the online network
    head_norm: Literal["batch", "layer", "none"] = "batch"  # between the two layers of each head
    projection_norm: Literal["none", "batch"] = "none"  # of the projector's output; batch: no scale or shift, as in SimSiam
    predictor_rate: float = 1.0  # times the learning rate, of the predictor

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("tau_base", "second_tau_base"):
            if (tau := getattr(self, name)) is not None and not 0 <= tau <= 1:
                raise ValueError(f"{name} is {tau}; give a number from 0 (target = online) to 1 (target never moves)")
        if not 0 <= self.predictor_rate < float("inf"):
            raise ValueError(f"predictor_rate is {self.predictor_rate}; give 0 or more")

    def taus(self, progress: float) -> tuple[float, float]:
        """tau of both targets at this progress."""
        bases = self.tau_base, self.tau_base if self.second_tau_base is None else self.second_tau_base
        first, second = (target_momentum(progress, base, self.tau_schedule) for base in bases)
        return first, second


class TriBYOL(Base):
    """Three views in, the loss out; `after_step` moves one target, or both."""

    Config = Options
    updates_done: Tensor
    VIEWS = (View(0), View(1), View(2))
    CURVES = (
        Curve(("loss",), "Loss", "0 to 8", "2 − 2 cos to both targets, summed. Low is not good by itself: collapse is low too."),
        Curve(("targets_distance",), "Between the targets", "of the norm", "Of their parameters; at 0 they are one network.", True),
        Curve(("second_target_distance",), "Online to second target", "of the online norm", "Distance of the two networks' parameters."),
        Curve(("online_passes", "target_passes"), "Passes", "an image", "Through the online network and through both targets.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, norm=c.head_norm, output_norm=c.projection_norm == "batch")
        self.predictor = mlp(c.dim, c.hidden, c.dim, norm=c.head_norm)
        online, fresh = (encoder, self.projector), c.target_init == "fresh"
        self.target_encoder, self.target_projector = twins(online, fresh=fresh)
        self.second_target_encoder, self.second_target_projector = twins(online, fresh=fresh)
        self.register_buffer("updates_done", torch.zeros((), dtype=torch.int64))  # whose turn it is
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Three views, (B, C, S, S) each -> the loss, in 0 to 8.

        `projections` are the online ones, and without symmetry, where two views are seen by a target alone, that target's.
        """
        # Each view passes on its own through each network, as in BYOL.
        seen = views if self.config.symmetric else views[:1]
        z = [self.projector(self.encoder(x)) for x in seen]
        p = [at_least_float32(self.predictor(x)) for x in z]
        with torch.no_grad():
            first = self._projected(self.target_encoder, self.target_projector, views, 1)
            second = self._projected(self.second_target_encoder, self.second_target_projector, views, 2)
        loss = regression_loss(p[0], first[-1]) + regression_loss(p[0], second[-1])
        if self.config.symmetric:
            loss = (loss + regression_loss(p[1], first[0]) + regression_loss(p[2], second[0])) / 2
        projections = tuple(x.detach() for x in (z if self.config.symmetric else (z[0], first[-1], second[-1])))
        return StepOutput(loss, projections, {"target_cosine": cosine(at_least_float32(z[0].detach()), first[-1])})

    def _projected(self, encoder: nn.Module, projector: nn.Module, views: tuple[Tensor, ...], which: int) -> list[Tensor]:
        """A target's projections of the first view, where the loss asks for it, and of the one that is its own, (B, dim) each."""
        wanted = (0, which) if self.config.symmetric else (which,)
        return [at_least_float32(projector(encoder(views[i]))) for i in wanted]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the target whose turn it is, or both, xi <- tau xi + (1 - tau) theta; parameters only, never buffers."""
        first, second = self.config.taus(progress)
        turns: tuple[float | Tensor, float | Tensor] = (1.0, 1.0)
        if self.config.updates == "alternate":
            odd = (self.updates_done % 2).to(next(self.projector.parameters()).dtype)  # a tensor, so that no device is waited for
            turns = (1 - odd, odd)
        _move(self._first(), self._online(), (1 - first) * turns[0])
        _move(self._second(), self._online(), (1 - second) * turns[1])
        self.updates_done.add_(1)

    def param_groups(self) -> list[Group]:
        """The online parameters, the predictor's with its factor on the rate."""
        return groups_at((self.encoder, 1.0), (self.projector, 1.0), (self.predictor, self.config.predictor_rate))

    def schedule(self, progress: float) -> dict[str, float]:
        """What `after_step` uses at this progress, for the log."""
        first, second = self.config.taus(progress)
        return {"tau": first} | ({} if self.config.second_tau_base is None else {"second_tau": second})

    def diagnostics(self) -> dict[str, Tensor]:
        """Distances of the three networks' parameters, each over the norm of the second named, and the passes of a step, () each."""
        to_first, to_second = (distance(target, self._online()) for target in (self._first(), self._second()))
        online, targets = (3.0, 4.0) if self.config.symmetric else (1.0, 2.0)
        return {
            "online_target_distance": to_first,
            "second_target_distance": to_second,
            "targets_distance": distance(self._first(), self._second()),
            "online_passes": to_first.new_tensor(online),
            "target_passes": to_first.new_tensor(targets),
        }

    def risks(self) -> dict[str, str]:
        """As BYOL with the online network as target."""
        if min(self.config.taus(0.0)) == 0:
            return {"a target is the online network itself (tau_base 0)": "tau_base=0.99"}
        return {}

    def _online(self) -> list[nn.Module]:
        return [self.encoder, self.projector]

    def _first(self) -> list[nn.Module]:
        return [self.target_encoder, self.target_projector]

    def _second(self) -> list[nn.Module]:
        return [self.second_target_encoder, self.second_target_projector]


def _move(targets: list[nn.Module], networks: list[nn.Module], share: float | Tensor) -> None:
    """xi <- xi + share (theta - xi), parameter by parameter; a tensor of 0 moves nothing."""
    xi: list[Tensor] = [p for network in targets for p in network.parameters()]
    theta: list[Tensor] = [p for network in networks for p in network.parameters()]
    gap = torch._foreach_sub(theta, xi)
    torch._foreach_mul_(gap, share)
    torch._foreach_add_(xi, gap)


METHOD = TriBYOL
