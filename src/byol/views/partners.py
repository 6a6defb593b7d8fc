"""A view of another sample of the same group, so far away in time: another frame of a sequence, a later visit of a patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Column = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partners:
    """Who may be seen beside each sample: two stretches of the order of groups and times, before it and after it."""

    order: Tensor  # (N,) the samples, group after group, each in the order of time
    starts: Tensor  # (N, 2) where the stretches begin in that order: of earlier ones, of later ones
    counts: Tensor  # (N, 2) how many samples they hold

    @classmethod
    def of(cls, groups: Column, times: Column, low: int, high: int = 0) -> Partners:
        """(N,) groups and times -> partners whose times differ by `low` to `high`, in the same unit; `high` 0: or more.

        ValueError for bounds that are none. A group below 0 is unknown: such a sample has no partner.
        """
        if low < 1 or (high and high < low):
            raise ValueError(f"partners {low} to {high} apart are not possible; give 1 or more, and then as much or more (0: no end)")
        span = int(np.ptp(times)) + 1 if len(times) else 1
        most = min(high, span) if high else span
        order = np.lexsort((times, groups))
        numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        # Groups lie so far apart on one line that no stretch reaches from one into the next.
        line = numbers * 4 * (span + 1) + (times - (times.min() if len(times) else 0))
        placed, low = line[order], min(low, span + 1)
        ends = [(line - most, line - low), (line + low, line + max(most, low))]
        starts = np.stack([np.searchsorted(placed, first, "left") for first, _ in ends], 1)
        counts = np.stack([np.searchsorted(placed, last, "right") for _, last in ends], 1) - starts
        counts[groups < 0] = 0
        return cls(*(torch.from_numpy(a.astype(np.int64)) for a in (order, starts, counts)))

    @property
    def has(self) -> NDArray[np.bool_]:
        """(N,) which samples have a partner."""
        found: NDArray[np.bool_] = (self.counts.sum(1) > 0).numpy()
        return found

    def draw(self, ids: Tensor, u: Tensor) -> Tensor:
        """(B,) samples, (B,) in [0, 1) -> (B,) partners, each as likely; a sample without any is its own."""
        starts, counts = self.starts[ids], self.counts[ids]
        # In float64 a draw of 24 bits reaches every one of 2^24 partners and never the number of them.
        at = (u.double() * counts.sum(1)).long()
        later = at >= counts[:, 0]
        place = torch.where(later, starts[:, 1] + at - counts[:, 0], starts[:, 0] + at)
        return torch.where(counts.sum(1) > 0, self.order[place.clamp(max=len(self.order) - 1)], ids)
