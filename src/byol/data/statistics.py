"""Mean, deviation and value range of a source, as an encoder's input needs them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from byol.data.parallel import each
from byol.data.source import Source, Unreadable

_Floats = npt.NDArray[np.float64]
_TOGETHER: Final = 1 << 26  # values of an image at a time


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Per channel, of values scaled so that `low` is 0 and `high` is 1; every image counts the same, whatever its size."""

    mean: tuple[float, ...]  # (C,)
    std: tuple[float, ...]  # (C,); 1 for a channel without any variation, so that dividing by it is safe
    low: float  # raw value: 0 for 8 bit, else the smallest that was seen
    high: float  # raw value: 255 for 8 bit, else the largest that was seen
    height: float  # pixels, median
    width: float  # pixels, median
    count: int  # images that were read

    def with_range(self, low: float, high: float) -> Statistics:
        """The same for another value range: the one of all images, say, where these statistics are of a sample."""
        if high <= low:
            return self
        old, new = self.high - self.low, high - low
        mean = tuple((m * old + self.low - low) / new for m in self.mean)
        std = tuple(s * old / new if s != 1.0 else 1.0 for s in self.std)
        return replace(self, mean=mean, std=std, low=low, high=high)


@dataclass(frozen=True)
class Moments:
    """Raw first and second moments of one image, per channel, and its extremes."""

    mean: _Floats  # (C,)
    var: _Floats  # (C,) about the mean
    low: float
    high: float
    height: int
    width: int


def moments(image: npt.NDArray[np.generic]) -> Moments:
    """(H, W, C) -> its moments in float64; of a very large image a part at a time, as float64 takes eight times its memory."""
    pixels = image.reshape(-1, image.shape[2])
    step = max(1, _TOGETHER // image.shape[2])
    parts = [_moments(pixels[at : at + step]) for at in range(0, len(pixels), step)]
    low, high = min(p[2] for p in parts), max(p[3] for p in parts)
    mean, var = parts[0][:2]
    if len(parts) > 1:
        weights = np.minimum(step, len(pixels) - step * np.arange(len(parts)))[:, None] / len(pixels)
        mean = (weights * [p[0] for p in parts]).sum(0)
        var = (weights * [p[1] + (p[0] - mean) ** 2 for p in parts]).sum(0)
    return Moments(mean, var, low, high, *image.shape[:2])


def _moments(pixels: npt.NDArray[np.generic]) -> tuple[_Floats, _Floats, float, float]:
    """(N, C) -> mean, variance, lowest, highest."""
    # One contiguous row per channel: reducing over the outer axis of (N, C) is ten times slower.
    x = np.ascontiguousarray(pixels.T, dtype=np.float64)
    mean, low, high = x.mean(axis=1), float(x.min()), float(x.max())
    x -= mean[:, None]
    return mean, np.einsum("ij,ij->i", x, x) / x.shape[1], low, high


def combine(parts: list[Moments], dtype: str) -> Statistics:
    """Moments of images -> those of the whole: var = E[var_i] + E[(mean_i - mean)^2]."""
    low, high = (0.0, 255.0) if dtype == "uint8" else (min(p.low for p in parts), max(p.high for p in parts))
    if high <= low:
        high = low + 1.0
    means = np.stack([p.mean for p in parts])
    mean = means.mean(axis=0)
    std = np.sqrt(np.stack([p.var for p in parts]).mean(axis=0) + ((means - mean) ** 2).mean(axis=0)) / (high - low)
    return Statistics(
        mean=tuple(float(m) for m in (mean - low) / (high - low)),
        std=tuple(float(s) if s > 1e-8 else 1.0 for s in std),
        low=low,
        high=high,
        height=float(np.median([p.height for p in parts])),
        width=float(np.median([p.width for p in parts])),
        count=len(parts),
    )


def statistics(source: Source, *, sample: int | None = None, seed: int = 0) -> Statistics:
    """Statistics of up to `sample` samples (1024 images, every bin of a recording), drawn by the seed; unreadable ones are passed over."""
    import torch

    from byol import rng

    n = len(source)
    sample = sample or (1024 if source.modality == "image" else n)
    rows = rng.permuted(seed, 0, n, torch.arange(min(sample, n)), rng.STREAM_SAMPLE).tolist()
    parts = [p for p in each(lambda i: _moments_or_none(source, i), rows) if p is not None]
    if not parts:
        raise ValueError(f"none of {len(rows):,} images of {source.spec} can be decoded; byol doctor {source.spec} says why")
    return combine(parts, source.dtype)


def _moments_or_none(source: Source, index: int) -> Moments | None:
    try:
        return moments(source.read(index))
    except Unreadable:
        return None
