"""What the views of sound remember from step to step, as buffers: a checkpoint that holds them goes on exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from byol import dist
from byol.logmel import EPS
from byol.views.sound_norm import combined, moments


class SoundState(nn.Module):
    """The bank of the last sounds, first in, first out, and the statistics that sounds are normalised with.

    Every process holds the same: what enters is the whole batch, in its order, whoever made its parts.
    """

    bank: Tensor  # (memory, 1, F, T), normalised and unchanged otherwise; zeros where nothing is yet
    pointer: Tensor  # (), where the next one goes
    count: Tensor  # (), how many there are
    mean: Tensor  # (), of the log-mels
    variance: Tensor  # (), of the log-mels
    seen: Tensor  # (), samples that the running statistics are of

    def __init__(self, bands: int, frames: int, memory: int) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(memory, 1, bands, frames))
        for name in ("pointer", "count", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))

    @torch.no_grad()
    def push(self, x: Tensor) -> None:
        """(B, 1, F, T) of all processes over the oldest ones; of more than the bank holds, the last."""
        size = len(self.bank)
        if not size:
            return
        last = x[-size:]
        places = (self.pointer + len(x) - len(last) + torch.arange(len(last), device=x.device)) % size
        self.bank.index_copy_(0, places, last.to(self.bank.dtype))
        self.pointer.copy_((self.pointer + len(x)) % size)
        self.count.copy_((self.count + len(x)).clamp(max=size))

    def drawn(self, u: Tensor) -> Tensor:
        """(B,) in [0, 1) -> (B, 1, F, T): an entry for each, uniform over those that there are; zeros of an empty bank."""
        # No step waits for the device to say how many there are.
        return self.bank[(u * self.count).long().clamp_(max=len(self.bank) - 1)]

    @torch.no_grad()
    def settle(self, mean: float, std: float) -> None:
        """Statistics measured beforehand."""
        self.mean.fill_(mean)
        self.variance.fill_(std**2)

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Running statistics: (B, 1, F, T), this process's log-mels, those of the others beside them."""
        found = dist.gathered(moments(x))
        mean, variance = combined(found)
        old = self.seen / (self.seen + len(found))
        gap = mean - self.mean
        self.variance.copy_(old * self.variance + (1 - old) * variance + old * (1 - old) * gap.square())
        self.mean.add_((1 - old) * gap)
        self.seen.add_(len(found))

    def std(self) -> Tensor:
        """The deviation of the log-mels, ()."""
        return self.variance.sqrt().clamp(min=EPS)

    def normalised(self, x: Tensor) -> Tensor:
        """(B, 1, F, T) log-mels -> of zero mean and unit deviation over the data."""
        return torch.sub(x, self.mean).div_(self.std())
