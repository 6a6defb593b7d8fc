"""Which colour ops a plan uses: by dialect, and by whether its channels are red, green and blue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from byol.views import channels, draws, ops
from byol.views.pipeline import Pipeline

Dialect = Literal["paper", "torchvision"]
Color = Literal["rgb", "channels"]
Op = Callable[[Tensor, Tensor], Tensor]


class Drawn(NamedTuple):
    """An op and the columns that it reads."""

    op: Op
    columns: slice


class Palette(NamedTuple):
    """The jitters that have a strength, by their place in the order's table, and what takes the colours away."""

    jitters: dict[int, Drawn]
    gray: Op


def palette(dialect: Dialect, color: Color, count: int, p: Pipeline) -> Palette:
    """The colour ops of a pipeline for images of `count` channels."""
    jitters = _rgb(dialect, p) if color == "rgb" else _per_channel(dialect, count, p)
    strengths = (p.brightness, p.contrast, p.saturation, p.hue)
    kept = {i: drawn for i, (drawn, strength) in enumerate(zip(jitters, strengths, strict=True)) if strength > 0}
    return Palette(kept, ops.grayscale if color == "rgb" else channels.mean_everywhere if count > 1 else channels.stretch)


def _rgb(dialect: Dialect, p: Pipeline) -> tuple[Drawn, ...]:
    """Brightness, contrast, saturation, hue: one draw a sample each."""
    paper = dialect == "paper"
    return (
        Drawn(partial(ops.brightness_added if paper else ops.brightness_scaled, strength=p.brightness), draws.BRIGHTNESS),
        Drawn(partial(ops.contrast_of_channels if paper else ops.contrast_of_gray, strength=p.contrast), draws.CONTRAST),
        Drawn(partial(ops.saturation_hsv if paper else ops.saturation_blended, strength=p.saturation), draws.SATURATION),
        Drawn(partial(ops.hue, strength=p.hue), draws.HUE),
    )


def _per_channel(dialect: Dialect, count: int, p: Pipeline) -> tuple[Drawn, ...]:
    """Brightness, contrast, what stands for saturation, what stands for hue."""
    brightness = ops.brightness_added if dialect == "paper" else ops.brightness_scaled
    return (
        Drawn(partial(brightness, strength=p.brightness), draws.each_channel(0, count)),
        Drawn(partial(ops.contrast_of_channels, strength=p.contrast), draws.each_channel(1, count)),
        Drawn(partial(channels.towards_mean if count > 1 else channels.gamma, strength=p.saturation), draws.SATURATION),
        Drawn(partial(channels.gain, strength=p.hue), draws.each_channel(2, count)),
    )
