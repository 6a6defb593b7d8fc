"""k nearest neighbours by cosine similarity, weighted as by Wu et al. 2018 (arXiv 1805.01978, eq. 9) or one vote each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from byol.evaluation.probe import Prediction, Settings, Task

_CHUNK = 1 << 25  # similarities held at a time: 128 MB of float32
_NEIGHBOURS = 1 << 20  # that are held at a time, some 60 bytes each
_BLOCK = 16  # similarities that are first compared by their maximum


@dataclass(frozen=True, kw_only=True)
class Knn:
    """The protocol: nothing is trained."""

    k: int = 20  # neighbours; as many as there are labels where there are fewer
    temperature: float | None = 0.1  # weights exp(cos / T); None: one vote each
    centred: bool = False  # the training mean is subtracted first; from pixels always, which are all alike before

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}; give 1 or more neighbours")
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"the temperature is {self.temperature:g}; give a number above 0, or none for plain votes")

    @property
    def name(self) -> str:
        """`knn`; with other settings than the defaults they are part of it, so that results do not replace each other."""
        votes = "plain" if self.temperature is None else f"T{self.temperature:g}"
        return "knn" if self == Knn() else f"knn-k{self.k}-{votes}{'-centred' * self.centred}"

    def describe(self) -> str:
        """`knn k=20 T=0.1, cosine (pixels centred)`"""
        votes = "plain votes" if self.temperature is None else f"T={self.temperature:g}"
        return f"knn k={self.k} {votes}, {'centred cosine' if self.centred else 'cosine (pixels centred)'}"

    def settings(self) -> Settings:
        """k, the temperature and the similarity."""
        temperature = "plain votes" if self.temperature is None else self.temperature
        return {"k": self.k, "temperature": temperature, "similarity": "centred cosine" if self.centred else "cosine"}

    def predict(self, task: Task) -> Prediction:
        """The votes of the neighbours."""
        train, test = task.train_x, task.test_x
        centred = self.centred or task.centred
        if centred:
            mean = train.mean(0)
            train, test = train - mean, test - mean
        k = min(self.k, len(train))
        chosen: Settings = {"k": k}
        if centred:
            chosen["centred"] = "train mean subtracted"
        return Prediction(votes(train, task.train_y, test, classes=task.classes, k=k, temperature=self.temperature), chosen)


def knn(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, k: int = 20, temperature: float | None = 0.1) -> float:
    """(n, D), (n,), (m, D), (m,) -> the share of test samples whose class the k nearest training samples name."""
    classes = int(torch.maximum(train_y.max(), test_y.max())) + 1
    found = votes(train_x, train_y, test_x, classes=classes, k=k, temperature=temperature)
    return float((found.argmax(1) == test_y.cpu()).double().mean())


@torch.no_grad()
def votes(train_x: Tensor, train_y: Tensor, test_x: Tensor, *, classes: int, k: int, temperature: float | None) -> Tensor:
    """(n, D), (n,) in 0 .. classes-1, (m, D) -> (m, classes) float64 on the CPU: the weight that each class gets.

    Weights are exp((cos - best cos) / T): the same shares as exp(cos / T), without overflow at small T.
    Equally similar samples come in the order of the training set. ValueError if k exceeds n.
    """
    if k > len(train_x):
        raise ValueError(f"k={k} neighbours are asked for and there are {len(train_x)} training samples; give a smaller k")
    train, test = normalize(train_x, dim=1), normalize(test_x, dim=1)
    groups = torch.split(test, max(1, _NEIGHBOURS // k))
    # For all chunks: fresh memory costs a tenth of the product.
    held = train.new_empty(min(len(groups[0]), max(1, _CHUNK // len(train))), len(train))
    return torch.cat([_vote(*_neighbours(train, group, k, held), train_y, classes, temperature) for group in groups])


def _vote(near: Tensor, index: Tensor, train_y: Tensor, classes: int, temperature: float | None) -> Tensor:
    """(m, k) similarities, highest first, and indices -> (m, classes) float64."""
    # On the CPU in float64: a few numbers per sample, added up in the same order every time.
    near, label = near.double().cpu(), train_y[index].cpu()
    weight = torch.ones_like(near) if temperature is None else ((near - near[:, :1]) / temperature).exp()
    return near.new_zeros(len(near), classes).scatter_add_(1, label, weight)


def _neighbours(train: Tensor, test: Tensor, k: int, held: Tensor) -> tuple[Tensor, Tensor]:
    """(n, D), (m, D), room for some rows of similarities -> the k highest of each test sample, (m, k); of equal ones the lower index."""
    found = [_nearest(torch.mm(part, train.T, out=held[: len(part)]), k) for part in torch.split(test, len(held))]
    near, index, tied = (torch.cat(f) for f in zip(*found, strict=True))
    rows = tied.nonzero()[:, 0]  # here a device is waited for, and not with every chunk
    for some in torch.split(rows, max(1, len(held) // 4)):
        near[some], index[some] = _first(test[some] @ train.T, k)
    return near, index


def _nearest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """(m, n) -> the k highest of each row, (m, k) values and indices, and (m,) bool: others equal the last one, any of them is here."""
    n = similarity.shape[1]
    more = min(k + 1, n)
    near, index = _highest(similarity, more)
    tied = near[:, k - 1] == near[:, -1] if more > k else near.new_zeros(len(near), dtype=torch.bool)
    return near[:, :k], index[:, :k], tied


def _highest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `topk` along the rows of (m, n), in a fraction of its time: the k highest are in the k blocks with the highest maxima."""
    m, n = x.shape
    blocks = n // _BLOCK
    if blocks < 2 * k:
        return x.topk(k, dim=1)
    # Block b is columns b, b + blocks, ...: the maxima of all blocks are then taken of neighbours in memory, many at a time.
    highest = x[:, : blocks * _BLOCK].view(m, _BLOCK, blocks).amax(1).topk(k, dim=1, sorted=False)[1]
    ids = (highest[:, None] + blocks * torch.arange(_BLOCK, device=x.device)[:, None]).flatten(1)
    ids = torch.cat([ids, torch.arange(blocks * _BLOCK, n, device=x.device).expand(m, -1)], 1)
    near, place = x.gather(1, ids).topk(k, dim=1)
    return near, ids.gather(1, place)


def _first(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(m, n) -> the k highest of each row as in `_nearest`; of those that equal the last one the lower indices."""
    last = _highest(similarity, k)[0][:, -1:]
    above, level = ~(similarity <= last), similarity == last
    room = k - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1, dtype=torch.int32) <= room))
    index = chosen.nonzero()[:, 1].view(-1, k)
    near, order = similarity.gather(1, index).sort(dim=1, descending=True, stable=True)
    return near, index.gather(1, order)
