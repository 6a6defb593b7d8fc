"""The ops of one view in their order, each applied to the samples that drew it and to no other.

Order of the released code: flip, the four colour jitters in a random order per sample, grayscale, blur, solarize, clip. Which
samples an op touches is computed on the CPU from the draws, so that no device is ever waited for, and rare ops cost little.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.views import draws, ops
from byol.views.blur import Border, blur
from byol.views.palette import Drawn, Palette
from byol.views.pipeline import Pipeline

Step = tuple[NDArray[np.intp], Drawn]
_ORDERS = torch.tensor(list(permutations(range(4))))  # (24, 4): which jitter comes first, second, third, fourth


def augment(x: Tensor, u: Tensor, steps: list[Step]) -> Tensor:
    """(B, C, H, W) in [0, 1], which is overwritten, and (B, k) draws on the CPU -> the view, in [0, 1]."""
    if not steps:
        return x.clamp_(0, 1)
    # One transfer for all indices; a pageable copy this small is staged at once and does not wait for the device.
    where = torch.from_numpy(np.concatenate([rows for rows, _ in steps])).to(x.device, non_blocking=True)
    u = u.to(x.device, non_blocking=True)
    for rows, (_, drawn) in zip(where.split_with_sizes([len(rows) for rows, _ in steps]), steps, strict=True):
        if len(rows) == len(x):
            x = drawn.op(x, u[:, drawn.columns]).contiguous()
        else:
            x.index_copy_(0, rows, drawn.op(x.index_select(0, rows), u.index_select(0, rows)[:, drawn.columns]))
    return x.clamp(0, 1)


def steps_of(pipeline: Pipeline, colours: Palette, taps: int, border: Border, u: Tensor) -> list[Step]:
    """(B, k) draws on the CPU -> (sample numbers, op) in the order of application; ops without samples are left out."""
    steps = ((chosen.nonzero()[:, 0].numpy(), drawn) for chosen, drawn in _asked(pipeline, colours, taps, border, u))
    return [(rows, drawn) for rows, drawn in steps if len(rows)]


def _asked(p: Pipeline, colours: Palette, taps: int, border: Border, u: Tensor) -> Iterator[tuple[Tensor, Drawn]]:
    """(B,) bool: which samples, and what is done to them."""

    def chosen(column: slice, probability: float) -> Tensor:
        return draws.chosen(u[:, column], probability)

    yield chosen(draws.FLIP, p.flip), Drawn(ops.flip, draws.FLIP)
    jittered = chosen(draws.JITTER, p.jitter)
    order = _ORDERS[(u[:, draws.ORDER][:, 0] * len(_ORDERS)).long()]
    for place in range(4):
        for number, drawn in colours.jitters.items():
            yield jittered & (order[:, place] == number), drawn
    yield chosen(draws.GRAY, p.gray), Drawn(colours.gray, draws.GRAY)
    if taps > 1:
        yield chosen(draws.BLUR, p.blur), Drawn(partial(blur, sigma=p.sigma, taps=taps, border=border), draws.SIGMA)
    yield chosen(draws.SOLARIZE, p.solarize), Drawn(ops.solarize, draws.SOLARIZE)
