"""Mine Your Own vieW (Azabou et al. 2021, arXiv 2102.10106).

BYOL predicts one view of an image from another; MYOW also predicts another image: the nearest one, among candidates, to what the
encoder makes of this one. The mined views are predicted one level further, by a second projector and predictor behind the first:
y = f(x), z = g(y), v = h(z), with q on z for the two augmented views and q_m on v for the mined one. Mined views are mild: images
are only cropped a little and flipped, bins of a recording stay as they are. The weight of mining rises from 0 during the run: a
random network's neighbours mean nothing.

From the released code, whose candidates come from a second loader: another batch of the same images, where the image itself may
turn up by chance. Here they are the second mined view of the batch itself, over all processes: no image is decoded twice, the
candidates are those of one batch as there, and the image itself is always among them, so it is left out (own=exclude). Two more
differences: the last layer of each head has no bias (BYOL's), and the mined views pass from the first step on, with weight 0, so
that the statistics of batch norm always hold them. Of times and groups, where data have them, see `Options`.

Expect no published number: the paper's tables were not had.

Use it where views alone say too little of what belongs together, above all for recordings, whose neurons cannot be cropped or coloured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import normalise, regression_loss
from byol.methods import StepOutput, View
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._targets import Follower, twins
from byol.optim import Schedule, target_momentum

RECIPES = {
    "myow-cifar10-r18": {
        "about": "ResNet-18, batch 512, 800 epochs of CIFAR-10: the released set-up of MYOW; its result was not found",
        "expected": "none found: the paper's tables were not had",
        "source": "the released code of MYOW, CIFAR",
        "batch": 512,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 800, "optimizer": "sgd", "lr": 2.0, "weight_decay": 5e-5,
            "momentum": 0.9, "warmup_epochs": 30.0, "tau_base": 0.98, "hidden": 4096, "dim": 256, "mined_hidden": 1024,
            "mined_dim": 64, "neighbours": 1, "mined_weight": 1.0, "mined_from": 0.125, "mined_full": 0.1375,
            "views": "small", "min_area": 0.2, "saturation": 0.4, "solarize": 0.0,
        },
    },
}  # fmt: skip
# In a short run neighbours mean little for long: the weight of recordings, a tenth of that of 800 epochs of images.
AUTO = {"mined_weight": 0.1}
# The released code for reaching monkeys, whose mining begins after 10 of 1000 epochs and is full after 110.
AUTO_RECORDING = {
    "mined_hidden": 64, "mined_dim": 16, "neighbours": 3, "mined_weight": 0.1, "mined_from": 0.01, "mined_full": 0.11,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of MYOW; the defaults are those of the released code for CIFAR."""

    hidden: int = 4096  # units of the hidden layer of projector and predictor
    dim: int = 256  # units of the projection
    mined_hidden: int = 1024  # of the hidden layer of the second projector and predictor
    mined_dim: int = 64  # units of the second projection
    tau_base: float = 0.98  # target momentum at step 0
    tau_schedule: Schedule = "cosine"  # reaches 1 at the end; constant stays
    target_init: Literal["fresh", "copy"] = "copy"  # fresh: weights of its own; copy: those of the online network
    symmetric: bool = True  # both augmented views predict each other, and the loss is the mean; else the first predicts the second
    neighbours: int = 1  # one of so many nearest candidates is drawn; fewer where there are not as many
    mined_weight: float = 1.0  # w at its greatest; the losses weigh 1 / (1 + w) and w / (1 + w)
    mined_from: float = 0.125  # share of the run up to which w is 0: 100 of 800 epochs
    mined_full: float = 0.1375  # share of the run from which w is at its greatest: 110 of 800 epochs
    own: Literal["exclude", "keep"] = "exclude"  # whether an image may be its own candidate
    # Where data say of each sample which group (trial, clip) it is of, and when it was: who is no candidate besides.
    same_group: Literal["exclude", "keep"] = "exclude"
    gap: int = 0  # samples at most so many steps of time apart; 0: time does not matter

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "mined_hidden", "mined_dim", "neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.tau_base <= 1:
            raise ValueError(f"tau_base is {self.tau_base}; give a number from 0 (target = online) to 1 (target never moves)")
        if not 0 <= self.mined_weight < float("inf") or self.gap < 0:
            raise ValueError(f"mined_weight={self.mined_weight} and gap={self.gap} must be 0 or more")
        if not 0 <= self.mined_from <= self.mined_full <= 1:
            raise ValueError(
                f"mined_from={self.mined_from} and mined_full={self.mined_full} are shares of the run; give 0 <= from <= full <= 1"
            )

    def tau(self, progress: float) -> float:
        """Target momentum at this progress."""
        return target_momentum(progress, self.tau_base, self.tau_schedule)


class MYOW(Follower):
    """Two augmented and two mined views in, the weighted sum of both losses out; `after_step` moves the targets."""

    Config = Options
    VIEWS = (View(0), View(1), View(0, mild=True), View(0, mild=True))
    ROWS_IF_KNOWN = ("groups", "times")
    progress: Tensor

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim)
        self.mined_projector = mlp(c.dim, c.mined_hidden, c.mined_dim)
        self.predictor = mlp(c.dim, c.hidden, c.dim)
        self.mined_predictor = mlp(c.mined_dim, c.mined_hidden, c.mined_dim)
        followed = (encoder, self.projector, self.mined_projector)
        self.target_encoder, self.target_projector, self.target_mined_projector = twins(followed, fresh=c.target_init == "fresh")
        self.register_buffer("progress", torch.zeros(()))  # of the last step, from which the weight of mining follows
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, groups: Tensor | None = None, times: Tensor | None = None) -> StepOutput:
        """Four views, (B, C, S, S) each, and of recordings groups and times, (B,) int64, -1 unknown -> the loss, in 0 to 4."""
        v, w, anchor, other = views
        draws = self._draws(len(anchor), anchor.device)  # before any pass, while torch's generator stands where it does on all
        z_v = self.projector(self.encoder(v))
        z_w = self.projector(self.encoder(w)) if self.config.symmetric else None
        y = self.encoder(anchor)
        z = self.projector(y)
        predicted = self.mined_predictor(self.mined_projector(z))
        with torch.no_grad():
            t_w = self.target_projector(self.target_encoder(w))
            t_v = self.target_projector(self.target_encoder(v)) if z_w is not None else None
            here = self.target_encoder(other)
            pool = dist.gathered(here)
            candidates = self._candidates(y, pool, groups, times)
            rows = nearest(y, pool, candidates, self.config.neighbours, draws)
            mined = self.target_mined_projector(self.target_projector(pool[rows]))
            t = self.target_projector(here)  # what health looks at: of the image itself, where `mined` is of its neighbour
        loss = self._direction(z_v, t_w)
        if z_w is not None and t_v is not None:
            loss = (loss + self._direction(z_w, t_v)) / 2
        mining = _mined_loss(at_least_float32(predicted), at_least_float32(mined), candidates.any(1))
        weight = self._weight()
        metrics = {"target_cosine": cosine(z_v.detach().to(t_w.dtype), t_w), "mined_cosine": 1 - mining.detach() / 2}
        projections = (z_v.detach(), t_w if z_w is None else z_w.detach(), z.detach(), t)
        return StepOutput((loss + weight * mining) / (1 + weight), projections, metrics)

    def _direction(self, z: Tensor, target: Tensor) -> Tensor:
        return regression_loss(at_least_float32(self.predictor(z)), at_least_float32(target))

    def _draws(self, share: int, device: torch.device) -> Tensor:
        """(share,) in [0, 1): this process's part of what the first one draws for all, the same for any number of processes."""
        u = torch.rand(share * dist.size()).to(device)
        dist.from_first_tensors([u])
        return u[dist.rank() * share : (dist.rank() + 1) * share]

    def _candidates(self, y: Tensor, pool: Tensor, groups: Tensor | None, times: Tensor | None) -> Tensor:
        """(b, D) anchors, (B, D) pool -> (b, B) bool: who may be mined for whom."""
        allowed = torch.ones(len(y), len(pool), dtype=torch.bool, device=y.device)
        if self.config.own == "exclude":
            every = torch.arange(len(pool), device=y.device)
            allowed &= every[dist.rank() * len(y) :][: len(y), None] != every
        if groups is not None and self.config.same_group == "exclude":
            allowed &= (groups[:, None] != dist.gathered(groups)) | (groups[:, None] < 0)
        if times is not None and self.config.gap:
            allowed &= (times[:, None] - dist.gathered(times)).abs() > self.config.gap
        return allowed

    def _weight(self) -> Tensor:
        """w, (), at the progress of the last step."""
        c = self.config
        if c.mined_full == c.mined_from:
            return c.mined_weight * (self.progress >= c.mined_from)
        return c.mined_weight * ((self.progress - c.mined_from) / (c.mined_full - c.mined_from)).clamp(0, 1)

    def after_step(self, progress: float) -> None:
        """Move the targets, xi <- tau xi + (1 - tau) theta, with tau at progress = k/K; and the weight of mining."""
        super().after_step(progress)
        self.progress.fill_(progress)

    def diagnostics(self) -> dict[str, Tensor]:
        """The distance of online and target parameters over the norm of the online ones, and the weight of mining, () each."""
        return {**super().diagnostics(), "mined_weight": self._weight().detach()}

    def risks(self) -> dict[str, str]:
        """BYOL's."""
        return {"the target is the online network itself (tau_base 0)": "tau_base=0.98"} if self.config.tau_base == 0 else {}

    def _pairs(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """What follows, and what is followed."""
        targets: list[nn.Module] = [self.target_encoder, self.target_projector, self.target_mined_projector]
        return targets, [self.encoder, self.projector, self.mined_projector]


def nearest(y: Tensor, pool: Tensor, candidates: Tensor, k: int, draws: Tensor) -> Tensor:
    """(b, D) anchors, (B, D) pool, (b, B) bool, (b,) in [0, 1) -> (b,) one of the k candidates of greatest cosine, in equal parts.

    Where there are fewer candidates, one of those; any row where there is none.
    """
    k = min(k, len(pool))
    alike = normalise(at_least_float32(y)) @ normalise(at_least_float32(pool)).T
    best = alike.masked_fill(~candidates, -torch.inf).topk(k, dim=1).indices
    count = candidates.sum(1).clamp(1, k)
    # A draw next to 1 times a count may be rounded up to the count itself.
    chosen = torch.minimum((draws * count).long(), count - 1)
    return best.gather(1, chosen[:, None])[:, 0]


def _mined_loss(predicted: Tensor, mined: Tensor, found: Tensor) -> Tensor:
    """(B, D), (B, D), (B,) bool -> (): the mean of 2 - 2 cos over those of all processes that have a candidate; 0 if none has."""
    each = 2 - 2 * (normalise(predicted) * normalise(mined)).sum(-1)
    # Each process divides by its share of those of all, so that the mean over processes is the mean over samples.
    return (each * found).sum() / dist.mean(found.sum().to(each.dtype)).clamp_min(1e-6)


METHOD = MYOW
