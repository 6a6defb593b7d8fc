"""The ops of one view in their order, each applied to the samples that drew it and to no other.

Order of the released code: flip, the four colour jitters in a random order per sample, grayscale, blur, solarize, clip; with RandAugment
its operations after the blur, and then the graying (InfoMin's released code). Which
samples an op touches is computed on the CPU from the draws, so that no device is ever waited for, and rare ops cost little.
"""

from __future__ import annotations

from functools import partial
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.views import draws, operations, ops
from byol.views.blur import Border, blur, reaches
from byol.views.palette import Drawn, Palette
from byol.views.pipeline import Pipeline

Rows = NDArray[np.intp]
# Ops that are done at the same time, each to samples of its own.
Round = list[tuple[Rows, Drawn]]
_ORDERS = np.array(list(permutations(range(4))))  # (24, 4): which jitter comes first, second, third, fourth


def augment(x: Tensor, u: Tensor, rounds: list[Round]) -> Tensor:
    """(B, C, H, W) in [0, 1], which is overwritten, and (B, k) draws on the CPU -> the view, in [0, 1].

    Before each round the samples are sorted by op: ops then work in place on neighbours, and nothing is ever scattered, which on a
    CPU costs four times a copy.
    """
    if not rounds:
        return x.clamp_(0, 1)
    gathers = _gathers(len(x), rounds)
    used = [u.numpy()[rows, drawn.columns] for groups in rounds for rows, drawn in groups]
    # One transfer for all indices and one for all draws; pageable copies this small are staged at once and do not wait for the device.
    indices = iter(_sent([g for g in gathers if g is not None], x.device))
    values = iter(_sent(used, x.device))
    for groups, moved in zip(rounds, gathers, strict=False):
        x = x if moved is None else x.index_select(0, next(indices))
        for part, (_, drawn) in zip(x.split_with_sizes(_sizes(groups, len(x))), groups, strict=False):
            y = drawn.op(part, next(values))
            if y is not part:
                part.copy_(y)
    return (x if gathers[-1] is None else x.index_select(0, next(indices))).clamp_(0, 1)


def _gathers(batch: int, rounds: list[Round]) -> list[Rows | None]:
    """Where each sample of the sorted batch stands before the sorting, for every round and for the way back; None: all stay."""
    order, gathers = np.arange(batch), []
    for groups in rounds:
        wanted = np.concatenate([rows for rows, _ in groups])
        if len(wanted) < batch:
            idle = np.ones(batch, bool)
            idle[wanted] = False
            wanted = np.concatenate([wanted, order[idle[order]]])
        gathers.append(_from(order, wanted))
        order = wanted
    return [*gathers, _from(order, np.arange(batch))]


def _sizes(groups: Round, batch: int) -> list[int]:
    sizes = [len(rows) for rows, _ in groups]
    return [*sizes, batch - sum(sizes)]


def _from(order: Rows, wanted: Rows) -> Rows | None:
    """Where the wanted samples stand now; None when they already stand so."""
    if np.array_equal(order, wanted):
        return None
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[wanted]


def _sent(parts: list[NDArray[np.generic]], device: torch.device) -> list[Tensor]:
    """The arrays on the device, by way of one flat copy."""
    if not parts:
        return []
    flat = torch.from_numpy(np.concatenate([p.ravel() for p in parts])).to(device, non_blocking=True)
    return [t.view(p.shape) for t, p in zip(flat.split_with_sizes([p.size for p in parts]), parts, strict=True)]


def rounds_of(pipeline: Pipeline, colours: Palette, taps: int, border: Border, u: Tensor, *, by_reach: bool) -> list[Round]:
    """(B, k) draws on the CPU -> what is done to which samples, in the order of application; ops without samples are left out.

    `by_reach`: each sample is blurred as far as its own width reaches, which saves arithmetic and costs calls: for a CPU.
    """
    p, draw = pipeline, u.numpy()

    def chosen(column: slice, probability: float) -> Rows:
        return draws.chosen(draw[:, column.start], probability).nonzero()[0]

    order = _ORDERS[(draw[:, draws.ORDER.start] * len(_ORDERS)).astype(np.intp)]
    jittered = draws.chosen(draw[:, draws.JITTER.start], p.jitter)
    rounds: list[Round] = [[(chosen(draws.FLIP, p.flip), Drawn(ops.flip, draws.FLIP))]]
    for place in range(4):
        now = np.where(jittered, order[:, place], -1)
        rounds.append([((now == number).nonzero()[0], drawn) for number, drawn in colours.jitters.items()])
    gray = [(chosen(draws.GRAY, p.gray), Drawn(colours.gray, draws.GRAY))]
    if not p.operations:
        rounds.append(gray)
    if taps > 1:
        far = partial(blur, sigma=p.sigma, taps=taps, border=border)
        rows = chosen(draws.BLUR, p.blur)
        near = reaches(draw[rows, draws.SIGMA.start], p.sigma, taps) if by_reach else np.full(len(rows), taps // 2)
        rounds.append([(rows[near == r], Drawn(partial(far, reach=int(r)), draws.SIGMA)) for r in np.unique(near)])
    if p.operations:  # they may bring colours back, so that graying comes last
        rounds += [*operations.rounds_of(p.operations, p.magnitude, p.magnitude_spread, draw), gray]
    rounds.append([(chosen(draws.SOLARIZE, p.solarize), Drawn(ops.solarize, draws.SOLARIZE))])
    found = ([(rows, drawn) for rows, drawn in groups if len(rows)] for groups in rounds)
    return [groups for groups in found if groups]
