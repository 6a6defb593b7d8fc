"""k nearest neighbours by cosine similarity, weighted as by Wu et al. 2018 (arXiv 1805.01978, eq. 9) or one vote each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from byol.evaluation.probe import Prediction, Settings, Task

_CHUNK = 1 << 25  # similarities held at a time: 128 MB of float32


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


def votes(train_x: Tensor, train_y: Tensor, test_x: Tensor, *, classes: int, k: int, temperature: float | None) -> Tensor:
    """(n, D), (n,) in 0 .. classes-1, (m, D) -> (m, classes) float64 on the CPU: the weight that each class gets.

    Weights are exp((cos - best cos) / T): the same shares as exp(cos / T), without overflow at small T.
    Equally similar samples come in the order of the training set. ValueError if k exceeds n.
    """
    if k > len(train_x):
        raise ValueError(f"k={k} neighbours are asked for and there are {len(train_x)} training samples; give a smaller k")
    train, test = normalize(train_x, dim=1), normalize(test_x, dim=1)
    rows = max(1, _CHUNK // len(train))
    return torch.cat([_vote(chunk @ train.T, train_y, classes, k, temperature) for chunk in torch.split(test, rows)])


def _vote(similarity: Tensor, train_y: Tensor, classes: int, k: int, temperature: float | None) -> Tensor:
    near, index = _nearest(similarity, k)
    # On the CPU in float64: a few numbers per sample, added up in the same order every time.
    near, label = near.double().cpu(), train_y[index].cpu()
    weight = torch.ones_like(near) if temperature is None else ((near - near[:, :1]) / temperature).exp()
    return near.new_zeros(len(near), classes).scatter_add_(1, label, weight)


def _nearest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(m, n) -> the k highest of each row, (m, k) values and indices; of equal ones the lower index."""
    near, index = similarity.topk(k, dim=1)
    # topk takes any of those that tie for the last place; only such rows pay for a stable sort.
    tied = (similarity >= near[:, -1:]).sum(1) > k
    if bool(tied.any()):
        values, order = similarity[tied].sort(dim=1, descending=True, stable=True)
        near[tied], index[tied] = values[:, :k], order[:, :k]
    return near, index
