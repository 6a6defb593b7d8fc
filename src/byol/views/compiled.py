"""Views made by `kernels` on a CPU: the crop and the rounds of `chain`, one sample after the other, each in the cache through all of them.

The boxes, the draws and the order are those of the torch version, made by the same code. Only the arithmetic is written a second
time, in `kernels`, and tests/test_views_compiled.py holds the two together. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.encoders import Input
from byol.views import channels, kernels, ops
from byol.views.blur import blur
from byol.views.chain import Round
from byol.views.palette import Drawn

Floats = NDArray[np.float32]

_PART = 1 << 16  # values that are worked on between two calls: 256 KiB, so that a view is still in the cache when it is changed

_CODES: dict[Callable[..., Tensor], int] = {
    ops.brightness_added: kernels.ADD,
    ops.brightness_scaled: kernels.SCALE,
    channels.gain: kernels.SCALE,
    ops.contrast_of_channels: kernels.CONTRAST,
    ops.contrast_of_gray: kernels.CONTRAST_OF_GRAY,
    ops.saturation_blended: kernels.BLEND,
    ops.grayscale: kernels.BLEND,
    channels.towards_mean: kernels.BLEND,
    channels.mean_everywhere: kernels.BLEND,
    ops.saturation_hsv: kernels.SATURATION,
    ops.hue: kernels.HUE,
    blur: kernels.BLUR,
    ops.solarize: kernels.SOLARIZE,
    channels.gamma: kernels.GAMMA,
    channels.stretch: kernels.STRETCH,
}


class Program(NamedTuple):
    """What is done to every sample: the ops in their order, and the numbers of each."""

    gray: Floats  # (C,) weights of the channels in the gray image
    mirrored: NDArray[np.bool_]  # (B,)
    codes: NDArray[np.uint8]  # (B, R)
    values: Floats  # (B, R, max(C, 2))


def supports(x: Tensor) -> bool:
    """Whether these images are what the compiled version reads; for all others there is the torch version."""
    return x.device.type == "cpu" and x.dtype in (torch.uint8, torch.float32)


def program(rounds: list[Round], u: Tensor, gray: Sequence[float]) -> Program:
    """The rounds of `chain.rounds_of` and the (B, k) draws -> the same for the compiled loop; `gray`: a weight for each channel."""
    batch, width = len(u), max(len(gray), 2)
    mirrored = np.zeros(batch, np.bool_)
    codes, values = np.zeros((batch, len(rounds)), np.uint8), np.zeros((batch, len(rounds), width), np.float32)
    draw = u.numpy()
    for place, groups in enumerate(rounds):
        for rows, drawn in groups:
            if drawn.op is ops.flip:  # no op knows left from right, so it may as well come first: the crop then reads backwards
                mirrored[rows] = True
            else:
                codes[rows, place], values[rows, place] = _instruction(drawn, draw[rows, drawn.columns], width)
    return Program(np.array(gray, np.float32), mirrored, codes, values)


def _instruction(drawn: Drawn, u: Floats, width: int) -> tuple[int, Floats]:
    """The code of an op, and its numbers for (n, k) draws: (n, width)."""
    function, settings = (drawn.op.func, drawn.op.keywords) if isinstance(drawn.op, partial) else (drawn.op, {})
    code = _CODES[function]
    out = np.zeros((len(u), width), np.float32)
    if code == kernels.BLUR:
        low, high = settings["sigma"]
        out[:, 0], out[:, 1] = (low + (high - low) * u)[:, 0], settings["reach"]
        return (kernels.BLUR_REFLECTED if settings["border"] == "reflect" else kernels.BLUR), out
    if "strength" in settings:  # what has none takes all colour away, or draws nothing
        middle, reach = {kernels.ADD: (0, 1), kernels.HUE: (0, 6)}.get(code, (1, 1))
        low, high = middle - reach * settings["strength"], middle + reach * settings["strength"]
        out[:] = low + (high - low) * u
    return code, out


def views(x: Tensor, boxes: Tensor, program: Program, input: Input, out: Tensor) -> None:
    """(B, C, H, W) images that it `supports`, (B, 4) boxes -> normalised views in out (B, C, S, S), float32.

    With as many threads as torch uses. They are started anew in every call: a pool that waits would not survive a fork.
    """
    raw, cut_at, seen = x.detach().contiguous().numpy(), boxes.contiguous().numpy(), out.numpy()
    values = np.float32(input.low), np.float32(1 / (input.high - input.low))
    last = np.array(input.mean, np.float32), (1 / np.array(input.std)).astype(np.float32)

    def part(rows: slice) -> None:
        kernels.cut(raw[rows], cut_at[rows], program.mirrored[rows], *values, seen[rows])
        kernels.change(program.codes[rows], program.values[rows], program.gray, *last, seen[rows])

    step = max(1, _PART // out[0].numel())
    parts = [slice(start, start + step) for start in range(0, len(x), step)]
    threads = min(torch.get_num_threads(), len(parts))
    if threads < 2:
        for rows in parts:
            part(rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, parts))
