"""Bootstrap Your Own Correspondences (El Banani & Johnson 2021, arXiv 2106.00677).

Two RGB-D frames of a scene, a few moments apart, in; an encoder of colours and one of points give every point features. Points of one
frame are matched with those of the other by their features, in both directions, with Lowe's ratio as weight; the motion between the
cameras that fits the matches best is found in closed form (weighted Procrustes); and how far the matched points then are from each other
is the loss of either encoder, without a label or a pose. Random visual features match well enough to begin with, so that their matches
teach the geometric features as well: these are made alike at them as in SimSiam, with a predictor and a stop-gradient.

    L_vis = sum w |R p + t - q| / sum w      of the visual matches, under the motion that fits them
    L_geo = mean |R p + t - q|               of the geometric matches, under the motion that fits them
    L_v2g = mean 2 - cos(sg f, g(f')) - cos(g(f), sg f')     of geometric features f, f' at the visual matches

Matched are cells, as in the released code: one point of each, since all of them share their geometric features; here the first, with
the visual features of its own pixel, where the released code takes them between pixels.

The second cloud is turned and moved at random before its geometric features are taken, and points are matched where they were. In the
released code `not self.eval()` stands where the mode is asked for: it is never true, so that nothing is ever turned, and it switches the
network to evaluation mode, so that batch norm does not use the batch. Here the clouds are turned (`rotate`, `shift`), and batch norm
uses the batch; `rotate=0 shift=0` leaves out what the released code leaves out.

Expect no published number that could be checked: the paper's tables were not had.

Use it for recordings of a depth camera, to register frames and to find the same place in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from byol import dist, geometry
from byol.methods import Base, Curve, StepOutput
from byol.methods._heads import at_least_float32, mlp, width

MODALITY = "rgbd"
RECIPES = {
    "byoc-scannet": {
        "about": "the whole networks, batch 8, 128 px, frames 20 apart, 200,000 updates on ScanNet: the released set-up of BYOC",
        "expected": "none that could be checked: the paper's tables were not had",
        "modality": "rgbd",
        "source": "the released code of BYOC; that an epoch of ScanNet's frames is about 200,000 updates is unverified",
        "values": {
            "encoder": "byoc", "image_size": 128, "batch_size": 8, "accumulate": 1, "epochs": 1, "optimizer": "adam", "lr": 3.2e-3,
            "eps": 1e-4, "weight_decay": 1e-6, "warmup_epochs": 0.0, "lr_schedule": "constant",
            "views": "frames", "apart": (20, 20), "keep": 200,
        },
    },
}  # fmt: skip
AUTO_RGBD = {"points": 1024}
_SAMPLED = 32  # matches of each pair, from the best to the worst, whose features health looks at
_INLIER = 0.1  # metres between matched points under the fitted motion


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of BYOC; the defaults are those of the released code, but for `rotate` and `shift` (see above)."""

    keep: int = 200  # matches in each direction: those of greatest weight
    points: int = 0  # cells of a frame that are matched, drawn anew at each step; 0: all
    rotate: float = 0.7  # radians, the greatest half-angle by which the second cloud is turned, about any axis
    shift: float = 0.5  # metres, the greatest length by which it is moved, in any direction
    visual: float = 1.0  # weight of L_vis
    geometric: float = 1.0  # weight of L_geo
    transfer: float = 1.0  # weight of L_v2g

    def __post_init__(self) -> None:
        if self.keep < 3 or self.points < 0:
            raise ValueError(f"keep={self.keep} and points={self.points} are not possible; give 3 or more, and 0 (all) or more")
        for name in ("rotate", "shift", "visual", "geometric", "transfer"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.rotate > 3.15 or self.shift > 2:
            raise ValueError(f"rotate={self.rotate} and shift={self.shift} go too far; give at most 3.15 rad and 2 m")


class Network(Protocol):
    """The encoder that BYOC takes: see `byol.encoders.RGBD`."""

    def visual(self, x: Tensor) -> Tensor: ...
    def geometric(self, points: list[Tensor]) -> list[Tensor]: ...
    def thin(self, points: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Cloud:
    """Of one frame, for the first point of every cell."""

    pixels: Tensor  # (n,) int64, row by row
    points: Tensor  # (n, 3) metres in the camera's coordinates
    moved: Tensor  # (n, 3) turned and moved, for the geometric encoder


@dataclass(frozen=True)
class Side:
    """What is matched of one frame."""

    points: Tensor  # (n, 3) metres in the camera's coordinates
    visual: Tensor  # (n, D) of length 1
    geometric: Tensor  # (n, D) of length 1


@dataclass(frozen=True)
class Pair:
    """What is computed of two frames, () each but for the samples."""

    visual: Tensor  # L_vis
    geometric: Tensor  # L_geo
    transfer: Tensor  # L_v2g
    visual_inliers: Tensor  # share of the matches within 10 cm under the motion fitted to them
    geometric_inliers: Tensor
    sampled: tuple[Tensor, Tensor]  # (32, D) geometric features at visual matches, of either frame
    visual_sampled: Tensor  # (32, D) visual features of the first


class BYOC(Base):
    """Two frames of a scene in, the weighted sum of the three losses out. The encoder is one of RGB-D frames, such as `byoc`.

    The released code decays what has no decay here (biases, normalisation) as well, by 1e-6.
    """

    Config = Options
    CURVES = (
        Curve(("loss",), "Loss", "", "The weighted sum of the three losses.", True),
        Curve(
            ("loss_visual", "loss_geometric"),
            "Distance of matched points",
            "m",
            "Mean distance under the motion that fits the matches best, weighted for visual ones.",
            True,
        ),
        Curve(
            ("loss_transfer",), "Transfer", "0 to 4", "2 − cos − cos of geometric features at visual matches; collapse makes it low too."
        ),
        Curve(("visual_inliers", "geometric_inliers"), "Inliers", "share", "Matches within 10 cm under the motion fitted to them.", True),
        Curve(("visual_spread",), "Spread of visual features", "", "Over sampled points: 1 in all directions, 0 in one point.", True),
    )

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        self.config = config or Options()
        self.encoder = encoder
        dim = width(encoder) // 2  # of visual features and of geometric ones, which stand side by side
        self.predictor = mlp(dim, dim, dim, norm="layer", output_bias=True)
        _network(encoder)
        self.train()  # a loaded encoder comes in evaluation mode

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, 6, S, S) each -> the weighted sum of the mean losses of all pairs; 0 of a pair without a match."""
        x, y = views
        net = _network(self.encoder)
        draws = self._draws(len(x), x[0, 0].numel(), x)
        seen = [net.visual(view).flatten(2).mT for view in views]  # (B, S S, D)
        # What follows is exact or nothing: distances in metres and ratios of small distances.
        with torch.autocast(x.device.type, enabled=False):
            R, t = self._motions(draws)
            clouds = [[cloud(frame, net) for frame in x], [cloud(*each) for each in zip(y, [net] * len(y), R, t, strict=True)]]
            features = [net.geometric([c.moved for c in those]) for those in clouds]
            pairs = [
                self._pair(*(self._side(clouds[k][b], seen[k][b], features[k][b], draws, b, k) for k in (0, 1))) for b in range(len(x))
            ]
        return self._output(pairs, x.dtype)

    def _draws(self, share: int, pixels: int, like: Tensor) -> Tensor:
        """(share, 6 or more) in [0, 1): this process's part of what the first one draws for all, the same for any number of them."""
        u = torch.rand(share * dist.size(), 6 + (2 * pixels if self.config.points else 0)).to(like)
        dist.from_first_tensors([u])
        return u[dist.rank() * share :][:share]

    def _motions(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6 or more) -> R (B, 3, 3), t (B, 3): how the second clouds are turned and moved."""
        c = self.config
        R = geometry.rotation_about(geometry.directions(u[:, :2]), 2 * c.rotate * u[:, 2])
        return R, geometry.directions(u[:, 3:5]) * c.shift * u[:, 5:6]

    def _side(self, of: Cloud, seen: Tensor, geometric: Tensor, u: Tensor, b: int, k: int) -> Side:
        """What is matched of one frame: all its cells, or those of the smallest draws."""
        visual, points, most = seen[of.pixels], of.points, self.config.points
        if most and len(points) > most:
            rows = u[b, 6 + k * len(seen) :][of.pixels].topk(most, largest=False).indices
            visual, points, geometric = visual[rows], points[rows], geometric[rows]
        return Side(points, at_least_float32(visual), geometric)

    def _pair(self, a: Side, b: Side) -> Pair:
        """The losses of one pair of frames."""
        i, j, w = geometry.matches(a.visual, b.visual, keep=self.config.keep)
        apart = _apart(a.points[i], b.points[j], w)
        f, g = a.geometric[i], b.geometric[j]
        transfer = _mean(2 - _cosines(f.detach(), self.predictor(g)) - _cosines(self.predictor(f), g.detach()))
        gi, gj, gw = geometry.matches(a.geometric, b.geometric, keep=self.config.keep)
        geometric_apart = _apart(a.points[gi], b.points[gj], gw)
        return Pair(
            geometry.weighted_mean(apart, w),
            _mean(geometric_apart),
            transfer,
            _mean((apart.detach() < _INLIER).to(w.dtype)),
            _mean((geometric_apart.detach() < _INLIER).to(w.dtype)),
            (_sampled(f), _sampled(g)),
            _sampled(a.visual[i]),
        )

    def _output(self, pairs: list[Pair], dtype: torch.dtype) -> StepOutput:
        c = self.config
        losses = {"loss_visual": c.visual, "loss_geometric": c.geometric, "loss_transfer": c.transfer}
        means = {
            key: torch.stack([getattr(pair, key.removeprefix("loss_")) for pair in pairs]).mean()
            for key in (*losses, "visual_inliers", "geometric_inliers")
        }
        loss = torch.stack([weight * means[key] for key, weight in losses.items()]).sum()
        projections = tuple(torch.cat([pair.sampled[k] for pair in pairs]) for k in (0, 1))
        metrics = {key: value.detach() for key, value in means.items()} | {"visual_spread": _spread([p.visual_sampled for p in pairs])}
        return StepOutput(loss, projections, metrics)

    def risks(self) -> dict[str, str]:
        """Geometric features that are made alike and nothing else are so soonest by being all the same."""
        c = self.config
        return {"nothing but the transfer holds the geometric features (geometric 0)": "geometric=1"} if not c.geometric else {}


def cloud(frame: Tensor, net: Network, R: Tensor | None = None, t: Tensor | None = None) -> Cloud:
    """(6, S, S) -> the first valid point of every cell, after it is turned and moved; a pixel is valid where its depth is above 0."""
    points = frame[3:].flatten(1).T
    pixels = (points[:, 2] > 0).nonzero()[:, 0]
    points = points[pixels]
    moved = points if R is None or t is None else geometry.move(R, t, points)
    rows = net.thin(moved)
    return Cloud(pixels[rows], points[rows], moved[rows])


def _network(encoder: nn.Module) -> Network:
    """The module with both encoders; ValueError where there are none."""
    net = getattr(encoder, "net", encoder)
    if not all(hasattr(net, part) for part in ("visual", "geometric", "thin")):
        name = getattr(encoder, "name", type(encoder).__name__)
        raise ValueError(f"byoc needs an encoder of RGB-D frames, and {name} is none; give --encoder byoc or byoc-w16")
    return cast(Network, net)


def _apart(p: Tensor, q: Tensor, w: Tensor) -> Tensor:
    """(n, 3), (n, 3), (n,) -> (n,) metres between matched points, under the motion that fits them best."""
    R, t = geometry.procrustes(p, q, w)
    return geometry.residuals(R, t, p, q)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(n, D), (n, D) -> (n,)"""
    return nn.functional.cosine_similarity(a, b, dim=-1)


def _mean(x: Tensor) -> Tensor:
    """(n,) -> (), 0 where n is."""
    return x.sum() / max(1, len(x))


def _sampled(x: Tensor) -> Tensor:
    """(n, D) -> (32, D) of its rows, evenly from the first to the last, without gradient; 0 where there is none."""
    if len(x) == 0:
        return x.new_zeros(_SAMPLED, x.shape[1])
    return x.detach()[torch.arange(_SAMPLED, device=x.device) * len(x) // _SAMPLED]


def _spread(sampled: list[Tensor]) -> Tensor:
    """(n, D) each -> (): the deviation over all rows times sqrt(D), as health measures it."""
    x = torch.cat(sampled)
    spread: Tensor = (x - x.mean(0)).square().mean(0).sqrt().mean() * x.shape[1] ** 0.5
    return spread


METHOD = BYOC
