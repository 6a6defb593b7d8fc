"""Self-labels: which images of a batch are taken for the same thing, by how similar their projections are.

For Garg & Jain 2022 (arXiv 2204.04545), whose loss functions were published neither in the paper as far as it could be had nor with its
code. This is a reconstruction from the abstract and from two numbers of a script (0.8 and 0.2), and is unverified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from byol import dist

Similarity = Callable[[Tensor, Tensor], Tensor]  # (b, D), (B, D) -> (b, B)


@dataclass(frozen=True)
class Labels:
    """What is known of the pairs of b images here with the B of all processes, (b, B) each; neither: unknown."""

    same: Tensor  # bool
    different: Tensor  # bool


@torch.no_grad()
def labels(similarity: Tensor, *, above: float, below: float, trusted: Tensor | bool) -> Labels:
    """(b, B) similarities -> an image is the same as itself, as those more similar than `above`; different below `below`.

    Where they are not `trusted`, an image is the same as itself alone, and nothing is different.
    """
    b, total = similarity.shape
    own = dist.rank() * b + torch.arange(b, device=similarity.device)
    itself = own[:, None] == torch.arange(total, device=similarity.device)
    return Labels(itself | ((similarity > above) & trusted), (similarity < below) & ~itself & trusted)


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """(b, B), (b, B) bool -> (): the mean over the pairs of all processes, as far as the pairs here make it; 0 where there are none.

    Each process divides by the mean count of a process, so that the mean over processes is that over all pairs.
    """
    count = dist.mean(where.sum().to(values.dtype))
    return (values * where).sum() / count.clamp_min(1 / dist.size())


def found(here: Labels) -> dict[str, Tensor]:
    """Pairs an image beside itself that count as the same, and as different, () each."""
    b = here.same.shape[0]
    return {"pseudo_positives": here.same.sum() / b - 1, "pseudo_negatives": here.different.sum() / b}
