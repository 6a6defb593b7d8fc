"""What registers two frames: the features of a network, colour, nothing at all, and Open3D's ICP and FPFH."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from byol import rng
from byol.encoders import Encoder
from byol.geometry import fit_by_subsets, matches, nearest
from byol.registration.metrics import Alignment, Matches
from byol.registration.protocol import Registration
from byol.registration.task import Frame

Features = dict[str, Tensor]  # "visual", "geometric" -> (n, d), l2-normalised, a row for each point of a frame
_CACHE: Final = 64  # frames; those of a pair come again in later pairs
_PATCH: Final = 5  # pixels
# Drawn apart: the shares of matches, the points whose nearest are counted, those of the chamfer distance.
_SUBSETS, _NEAREST, _SAMPLE = 0, 1, 2


class Subject(Protocol):
    """What can be scored."""

    def __call__(self, a: Frame, b: Frame, number: int) -> Mapping[str, Alignment]:
        """Two frames and the number of the pair, for its draws -> an alignment by each kind of features."""
        ...


def uniforms(seed: int, number: int, purpose: int, rows: int, columns: int) -> Tensor:
    """(rows, columns) in [0, 1) of one pair, for one purpose."""
    ids = torch.arange(rows) + (number << 20)
    return rng.uniforms(seed, purpose, rng.STREAM_SAMPLE, ids, columns)


def drawn(seed: int, number: int, purpose: int, n: int, most: int) -> Tensor:
    """(min(n, most),) int64 of 0 .. n-1, each once."""
    if n <= most:
        return torch.arange(n)
    return uniforms(seed, number, purpose, n, 1)[:, 0].argsort(stable=True)[:most]


def sample(seed: int, number: int, frame: Frame, most: int) -> Tensor:
    """(k,) int64: points of a frame for the chamfer distance."""
    return drawn(seed, number, _SAMPLE, len(frame.points), most)


class ByFeatures:
    """Matches by features, and the best of many fits to a share of them."""

    def __init__(self, describe: Callable[[Frame], Features], protocol: Registration, seed: int) -> None:
        self.describe = lru_cache(_CACHE)(describe)
        self.protocol, self.seed = protocol, seed

    def __call__(self, a: Frame, b: Frame, number: int) -> dict[str, Alignment]:
        """The alignment by each kind, and by the matches of both together where there are two."""
        f, g = self.describe(a), self.describe(b)
        found = {kind: matches(f[kind], g[kind], keep=self.protocol.keep) for kind in f}
        kinds = {kind: (m, f[kind], g[kind]) for kind, m in found.items()}
        if len(kinds) > 1:
            both = tuple(torch.cat(parts) for parts in zip(*found.values(), strict=True))
            kinds = {"both": (both, *(torch.cat(list(x.values()), 1) for x in (f, g))), **kinds}  # type: ignore[dict-item]  # three tensors
        return {kind: self._align(a, b, m, of_a, of_b, number) for kind, (m, of_a, of_b) in kinds.items()}

    def _align(self, a: Frame, b: Frame, m: tuple[Tensor, Tensor, Tensor], of_a: Tensor, of_b: Tensor, number: int) -> Alignment:
        i, j, w = (part.cpu() for part in m)
        p, q, many = a.points[i], b.points[j], self.protocol.subsets
        u = uniforms(self.seed, number, _SUBSETS, many, len(i))
        R, t = fit_by_subsets(p, q, w, subsets=many, share=self.protocol.share, u=u)
        return Alignment(R, t, Matches(p, q), self._nearest(a, b, of_a, of_b, number))

    def _nearest(self, a: Frame, b: Frame, of_a: Tensor, of_b: Tensor, number: int) -> Matches:
        """Of the frame with fewer points so many as the protocol says, each with the nearest of all of the other."""
        fewer, more, f, g = (a, b, of_a, of_b) if len(a.points) < len(b.points) else (b, a, of_b, of_a)
        rows = drawn(self.seed, number, _NEAREST, len(fewer.points), self.protocol.points)
        near = nearest(f[rows.to(f.device)], g, k=1).cpu()
        if not near.numel():
            return Matches(a.points[:0], b.points[:0])
        p, q = fewer.points[rows], more.points[near[:, 0]]
        return Matches(p, q) if fewer is a else Matches(q, p)


def still(a: Frame, b: Frame, number: int) -> dict[str, Alignment]:
    """No motion at all: what every registration has to beat."""
    return {"none": Alignment(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))}


def colour(frame: Frame) -> Features:
    """The colours of the 5 x 5 pixels around each point, less their mean over the frame."""
    edge = _PATCH // 2
    wide = pad(frame.x[None, :3], (edge,) * 4, mode="replicate")
    patches = torch.nn.functional.unfold(wide, _PATCH)[0].T[frame.pixels]
    return {"visual": normalize(patches - patches.mean(0), dim=1)}


def _described(encoder: Encoder, which: str, device: str, precision: str) -> Callable[[Frame], Features]:
    """The features of a network's points; ValueError for a network that has none."""
    visual, geometric = (getattr(encoder.net, name, None) for name in ("visual", "geometric"))
    if not callable(visual) or not callable(geometric):
        raise ValueError(f"{encoder.name} has no features of single points, which registration needs; give one of byoc or byoc-wN")
    encoder.to(device).eval()

    @torch.no_grad()
    def describe(frame: Frame) -> Features:
        pixels = frame.pixels.to(device)
        found: Features = {}
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            if which != "geometric":
                found["visual"] = visual(frame.x[None].to(device))[0].flatten(1).T[pixels].float()
            if which != "visual":
                found["geometric"] = geometric([frame.points.to(device)])[0].float()
        return found

    return describe


def of_features(encoder: Encoder, protocol: Registration, seed: int, device: str, precision: str) -> ByFeatures:
    """The encoder as what registers; ValueError for one without features of single points."""
    return ByFeatures(_described(encoder, protocol.features, device, precision), protocol, seed)


def open3d_is_there() -> bool:
    """Whether the classical methods can be compared with."""
    return find_spec("open3d") is not None
