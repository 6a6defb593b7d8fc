"""Small images that are changed each by itself, as a method may need it beyond its views: mirrored, their colours changed or taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from byol.views import chain, draws
from byol.views.palette import palette
from byol.views.pipeline import Pipeline

# Inception's colours, as TensorFlow's models change them: 32 / 255 of brightness, contrast and saturation by a half, hue by a fifth.
_COLOURS = Pipeline(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.2, blur=0.0, solarize=0.0)
_DROP, _KEPT = draws.TOP.start, draws.LEFT.start  # columns of the draws: nothing is cropped here


def columns(channels: int) -> int:
    """How many random numbers an image of so many channels takes."""
    many: int = draws.each_channel(2, channels).stop
    return many


@torch.no_grad()
def alter(
    x: Tensor, u: Tensor, *, mean: Sequence[float], std: Sequence[float], flip: float, jitter: float, gray: float, drop: float
) -> Tensor:
    """(n, C, p, p) normalised by `mean` and `std`, (n, `columns(C)`) draws on the CPU -> (n, C, p, p), each changed with these odds.

    `drop` takes away all channels but one: the mean of the data is in their place. The draws are on the CPU so that the host knows
    which images an operation touches, and no step waits for the device.
    """
    channels = x.shape[1]
    shift, scale = (torch.tensor(v, dtype=x.dtype).view(-1, 1, 1).to(x.device) for v in (mean, std))
    pipeline = replace(_COLOURS, flip=flip, jitter=jitter, gray=gray)
    colours = palette("paper", "rgb" if channels == 3 else "channels", channels, pipeline)
    rounds = chain.rounds_of(pipeline, colours, 1, "reflect", u, by_reach=False)
    x = (chain.augment((x * scale + shift).clamp_(0, 1), u, rounds) - shift) / scale
    return x.masked_fill(dropped(u, drop, channels).to(x.device)[:, :, None, None], 0) if channels > 1 else x


def dropped(u: Tensor, probability: float, channels: int) -> Tensor:
    """(n, k) draws -> (n, channels) bool: which channels are taken away, all but one of some images."""
    chosen = torch.from_numpy(draws.chosen(u[:, _DROP].numpy(), probability))
    kept = (u[:, _KEPT] * channels).long()
    return chosen[:, None] & (torch.arange(channels) != kept[:, None])
