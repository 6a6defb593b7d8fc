"""A bank: what the network last made of every sample, and noise-contrastive estimation with rows of it as negatives (Wu et al. 2018).

A row is of a sample, found by its index, and is written after the optimiser's step: every row that the update saw becomes
n(m row + (1 - m) v). What the passes of an update made is kept until then, gathered over the processes, so that all write the same rows.
An update that is left out leaves no trace: on a CPU `after_step` is not called, and what was kept is dropped by the first pass of the
next update, which is known by parameters without a gradient; on a GPU the loop puts buffers back.

The bank is a buffer: 4 D bytes a sample in memory and in each of the two checkpoints (5 MB for 10,000 samples, 656 MB for
ImageNet), and as much again while training, which holds what it puts back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import full_precision, normalise, products
from byol.methods._draws import words
from byol.methods._heads import mlp

EPSILON = 1e-7  # beside the probabilities, as in the released code
CHEAP = 16  # rows of the bank for a row that is asked for, up to which all products cost less than gathering those


@dataclass(frozen=True, kw_only=True)
class BankOptions:
    """What the methods with a bank share."""

    samples: int = 0  # of the data, a row of the bank each; a run fills it in
    dim: int = 128  # units of a row
    negatives: int = 4096  # rows drawn for every image, with replacement; 0: all rows, in a softmax
    loss: Literal["nce", "softmax"] = "nce"  # each negative for itself against noise, or the cross-entropy of finding the right row
    temperature: float = 0.07  # of the similarities
    bank_momentum: float = 0.5  # how much of itself a row keeps when it is written
    projection_norm: Literal["none", "batch"] = "none"  # of what heads give; batch: no scale or shift, so that no two begin alike

    def __post_init__(self) -> None:
        if self.samples < 1 and self.banks():
            raise ValueError(f"samples is {self.samples}, and the bank has a row for each sample of the data; give their number")
        if self.dim < 1 or self.negatives < 0:
            raise ValueError(f"dim={self.dim} and negatives={self.negatives} are not possible; give dim 1 and negatives 0 or more")
        for name, known in (("loss", ("nce", "softmax")), ("projection_norm", ("none", "batch"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give {' or '.join(known)}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; give a number above 0")
        if not 0 <= self.bank_momentum <= 1:
            raise ValueError(f"bank_momentum is {self.bank_momentum}; give a number from 0 (the last v) to 1 (rows never change)")

    def banks(self) -> bool:
        """Whether there is a bank at all."""
        return True


@dataclass(frozen=True)
class Found:
    """What came of looking for the right rows, () each; all but the loss without gradient."""

    loss: Tensor
    similarity: Tensor  # mean cosine of the images with their own rows
    share: Tensor  # of the images whose own row is more similar than all negatives


class Bank(nn.Module):
    """(N, D) rows of length about 1, and the constant Z that makes probabilities of exp(v m / T)."""

    rows: Tensor
    normaliser: Tensor  # (), Z; -1 until the first pass has estimated it

    def __init__(self, config: BankOptions, *, unit: bool) -> None:
        """`unit`: the first rows lie on the sphere; else they are uniform in a cube, which has them of length 1 on average."""
        super().__init__()
        self.config = config
        rows = (2 * torch.rand(config.samples, config.dim) - 1) * (3 / config.dim) ** 0.5
        self.register_buffer("rows", normalise(rows) if unit else rows)
        self.register_buffer("normaliser", -torch.ones(()))
        self._pending: list[tuple[Tensor, Tensor]] = []

    def columns(self, index: Tensor) -> Tensor | None:
        """(B,) -> (B, 1 + K) the rows to compare with: its own, and K drawn from all, which may hit it; None if all are compared.

        To be called before any pass, while torch's generator stands alike in all processes.
        """
        c = self.config
        if not c.negatives:
            return None
        return torch.cat([index[:, None], words(len(index), c.negatives, index.device) % c.samples], 1)

    def contrast(self, v: Tensor, index: Tensor, columns: Tensor | None, every: Tensor | None = None) -> Found:
        """(B, D) of length 1, (B,), (B, 1 + K) or None -> the loss of finding the right rows, and how well they are found.

        `every`: the scores of all rows, (B, N), where they are known.
        """
        if columns is None:
            every = self.scores(v) if every is None else every
            own = every.gather(1, index[:, None])
            return self._found(nn.functional.cross_entropy(every, index), own, every)
        scores = self.scores(v, columns) if every is None else every.gather(1, columns)
        return self._found(self.loss(scores), scores[:, :1], scores[:, 1:])

    def scores(self, v: Tensor, columns: Tensor | None = None) -> Tensor:
        """(B, D), (B, k) -> (B, k) v m / T; of all rows, (B, N), without columns."""
        rows = self.rows.to(v.dtype)
        if columns is None or len(rows) <= CHEAP * columns.shape[1]:
            every = products(v, rows) / self.config.temperature
            return every if columns is None else every.gather(1, columns)
        with full_precision(v):
            return (rows[columns] @ v[:, :, None])[:, :, 0] / self.config.temperature

    def loss(self, scores: Tensor) -> Tensor:
        """(B, 1 + K), the right one first -> (); the first pass of all estimates Z by what it sees, over all processes."""
        if self.config.loss == "softmax":
            return nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device))
        n = len(self.rows)
        estimate = n * dist.mean(scores.detach().exp().mean())
        z = torch.where(self.normaliser < 0, estimate.to(self.normaliser.dtype), self.normaliser)
        self.normaliser.copy_(z)
        return nce(scores.exp() / z, n)

    def _found(self, loss: Tensor, own: Tensor, others: Tensor) -> Found:
        own, others = own.detach(), others.detach()
        right = (own[:, 0] >= others.amax(1)).to(own.dtype).mean()
        return Found(loss, own.mean() * self.config.temperature, right)

    def keep(self, index: Tensor, v: Tensor, encoder: nn.Module) -> None:
        """(B,), (B, D) of a pass, to be written by `write`; the `encoder` tells whether the pass is the first of an update."""
        if all(p.grad is None for p in encoder.parameters()):
            self._pending.clear()
        self._pending.append((index, v.detach()))

    @torch.no_grad()
    def write(self) -> None:
        """The rows that the passes of the update saw, those of all processes, one pass after the other."""
        m = self.config.bank_momentum
        for index, v in self._pending:
            every, made = dist.gathered(index), dist.gathered(v).to(self.rows.dtype)
            # A sample may be twice in a batch, in the place of one that cannot be read: equal values, in whatever order they are written.
            made = made[_last(every)]
            self.rows.index_copy_(0, every, normalise(m * self.rows[every] + (1 - m) * made))
        self._pending.clear()


def head(inputs: int, config: BankOptions, hidden: int = 0) -> nn.Module:
    """(B, inputs) -> (B, D): a linear layer, or two with `hidden` units between, and the norm that is asked for."""
    norm = config.projection_norm == "batch"
    return mlp(inputs, hidden, config.dim, norm="none", layers=2 if hidden else 1, output_bias=True, output_norm=norm)


def nce(p: Tensor, samples: int) -> Tensor:
    """(B, 1 + K) probabilities, the right one first -> (): the mean over B of - log h(right) - sum over K of log(1 - h), noise 1 / N."""
    noise = (p.shape[1] - 1) / samples
    right = p[:, 0] / (p[:, 0] + noise + EPSILON)
    wrong = noise / (p[:, 1:] + noise + EPSILON)
    return -(right.log() + wrong.log().sum(1)).mean()


def _last(index: Tensor) -> Tensor:
    """(B,) -> (B,) where each value stands last."""
    places = torch.arange(len(index), device=index.device)
    return torch.where(index[:, None] == index, places, -1).amax(1)
