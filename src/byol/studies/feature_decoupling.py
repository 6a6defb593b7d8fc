"""Do masks make a network learn what is sparse in its input, and without them what is dense noise?

Every sample is `x = M z + xi`: the columns of M are orthonormal, z is sparse with values -1, 0 and 1, xi is dense Gaussian noise, which is
ten times as long as the rest. The network is one layer, `f(x) = relu(W x - b) - relu(-W x - b)`, from small random weights; the thresholds
b of its neurons grow in training, in proportion to the norms of their weights. Views: a random half of the coordinates, and the other
half (times 2), so that both keep the sparse part, which is spread over all coordinates, but not one number of the noise; without masks
both views are x. A mask rate r takes the share r of the coordinates from each view, as different ones as possible: at 1/2 these are the
two halves, at 0 there are no masks.

InfoNCE has inner products and a target without gradient, as in the theory; BYOL is the library's, with a linear predictor and no projector;
SimSiam is the same with the online network behind a stop-gradient as target. Every step has fresh samples.

Measured on 4,096 new samples, averaged over neurons where it is of neurons: `noise`, the share of |w|^2 outside the span of M (untrained:
1 - d/d1); `top`, that of its best column (median); `cols`, the effective number of columns inside the span (median; (sum a)^2 / sum a^2 of
the squares a, 1 to d); `cover`, columns with |cos| >= 1/2 to some neuron; `cos s` and `cos n`, the cosine of f of the sparse and of the
noise part alone, between two masked views; `hit` and `false`, how often a neuron is on when its best column is in x and when it is not;
`probe`, accuracy of a linear probe of sign(u^T z) on f(x), which is 0.5 by chance. The row `M itself` is a network whose weights are the
columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol import methods
from byol.studies import Finding, Line, Outcome, Plot, Progress

TITLE = "Masked views make a network learn the sparse part of its input, and no masks the dense noise."
SOURCE = "Wen & Li 2021, arXiv 2105.15134 (feature decoupling; read in abstract, constants are ours)"
CLAIMS = (
    "With masks InfoNCE leaves less than half of a neuron's weight in the noise; without masks more than 3/4 stays there.",
    "With masks a neuron ends with less than 2 columns, of 24, in effect; without masks with more than 6.",
    "With masks nine columns in ten have a neuron along them (|cos| >= 1/2); without masks none has.",
    "After training with masks positives agree in the sparse part (cosine above 0.9) and not in the noise (below 0.05).",
    "A linear probe of sign(u^T z) gains 10 points or more by masks, over no masks and over the untrained network.",
    "With masks a neuron is on when its column is in x (over 80 %) and off when it is not (on in less than 10 %).",
    "BYOL decouples as InfoNCE does: the first three claims hold of it.",
    "SimSiam decouples as InfoNCE does: the first three claims hold of it.",
    "With InfoNCE the weights keep the more noise, the more coordinates the views share: rate 0 more than 1/4, 1/4 more than 1/2.",
    "At half, once and 1.5 times the noise InfoNCE with masks leaves less of it in the weights than without.",
)
Loss = Literal["InfoNCE", "BYOL", "SimSiam"]
LOSSES: tuple[Loss, ...] = ("InfoNCE", "BYOL", "SimSiam")


@dataclass(frozen=True)
class Size:
    """How large the study is. In the theory E z_j^2 is of order log log d / d and the noise's variance of order sqrt(log d) / d."""

    d: int = 24  # columns of M
    d1: int = 576  # coordinates of x: d^2
    neurons: int = 48
    batch: int = 256
    steps: int = 1000
    often: float = 1.5  # P(z_j != 0) in units of log log d / d
    noise: float = 1.0  # its variance in units of sqrt(log d) / d
    threshold: float = 0.6  # of a neuron at the end, in units of |w|; it grows from 10 % to 60 % of the steps
    lr: float = 0.02  # of AdamW; falls to 0 over the last 40 % of the steps
    weight_decay: float = 0.1
    tau: float = 0.9  # of BYOL's target at the start
    rates: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    levels: tuple[float, ...] = (0.5, 1.0, 1.5)  # of noise, in standard deviations
    tested: int = 4096


class Network(nn.Module):
    """x (B, d1) -> (B, neurons), the symmetrised ReLU of one layer; `threshold` is set from outside."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.dim = len(weight)
        self.threshold = 0.0

    def forward(self, x: Tensor) -> Tensor:
        u = x @ self.weight.T
        b = self.threshold * self.weight.detach().norm(dim=1)
        return F.relu(u - b) - F.relu(-u - b)


@dataclass(frozen=True)
class World:
    """Where samples come from."""

    columns: Tensor  # (d1, d), orthonormal
    often: float  # P(z_j != 0)
    sigma: float  # of the noise
    rng: torch.Generator

    @classmethod
    def of(cls, size: Size, seed: int, level: float = 1.0) -> World:
        """The one of a seed; `level` multiplies the noise."""
        rng = torch.Generator().manual_seed(seed)
        columns = torch.linalg.qr(torch.randn(size.d1, size.d, generator=rng))[0]
        log = math.log(size.d)
        return cls(columns, size.often * math.log(log) / size.d, level * math.sqrt(size.noise * math.sqrt(log) / size.d), rng)

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """z (n, d), M z (n, d1) and the noise (n, d1)."""
        d1, d = self.columns.shape
        u = torch.rand(n, d, generator=self.rng)
        z = (u < self.often).float() - (u < self.often / 2).float() * 2
        return z, z @ self.columns.T, self.sigma * torch.randn(n, d1, generator=self.rng)

    def masks(self, n: int, rate: float) -> tuple[Tensor, Tensor]:
        """Two (n, d1): what each view is multiplied with; both lack the share `rate`, different coordinates as far as there are."""
        u = torch.rand(n, len(self.columns), generator=self.rng)
        return (u >= rate) / (1 - rate), (u < 1 - rate) / (1 - rate)


def info_nce(f: Tensor, g: Tensor) -> Tensor:
    """(B, m), (B, m) -> (): cross-entropy of finding one's own among all others by inner products, temperature 1; no gradient to g."""
    return F.cross_entropy(f @ g.detach().T, torch.arange(len(f)))


@dataclass(frozen=True)
class Measures:
    """What the page says above, of one network."""

    noise: float
    top: float
    cols: float
    cover: float
    sparse: float
    dense: float
    hit: float
    false: float
    probe: float


@dataclass(frozen=True)
class Trained:
    """One run: the measures at its end, and two of them on the way."""

    end: Measures
    steps: list[int]
    noise: list[float]
    top: list[float]


def shares(weight: Tensor, columns: Tensor) -> Tensor:
    """(m, d1), (d1, d) -> (m, d): the share of |w_i|^2 along each column."""
    return (F.normalize(weight.detach(), dim=1) @ columns).square()


@torch.no_grad()
def measure(network: Network, world: World, tested: int) -> Measures:
    """All measures; `world` is drawn from."""
    a = shares(network.weight, world.columns)
    z, sparse, noise = world.draw(tested)
    full = z.abs().sum(1) > 0  # the rest has no sparse part
    z, sparse, noise = z[full], sparse[full], noise[full]
    first, second = world.masks(len(z), 0.5)
    f = network(sparse + noise)
    there, on = z[:, a.argmax(1)] != 0, f != 0
    return Measures(
        noise=float((1 - a.sum(1)).mean()),
        top=float(a.amax(1).median()),
        cols=float((a.sum(1).square() / a.square().sum(1)).median()),
        cover=float((a.amax(0) >= 0.25).float().mean()),
        sparse=float(F.cosine_similarity(network(sparse * first), network(sparse * second)).mean()),
        dense=float(F.cosine_similarity(network(noise * first), network(noise * second)).mean()),
        hit=float(on[there].float().mean()),
        false=float(on[~there].float().mean()),
        probe=probe(f, z, world.rng),
    )


def probe(f: Tensor, z: Tensor, rng: torch.Generator, directions: int = 8) -> float:
    """f (n, m), z (n, d) -> accuracy on the second half of ridge regression of sign(z u) on the first, the mean over random u."""
    half = len(f) // 2
    x = (f - f[:half].mean(0)) / f[:half].std(0).clamp_min(1e-6)
    y = torch.sign(z @ torch.randn(z.shape[1], directions, generator=rng))
    gram = x[:half].T @ x[:half] + torch.eye(x.shape[1])
    fitted = x[half:] @ torch.linalg.solve(gram, x[:half].T @ y[:half])
    return float((torch.sign(fitted) == y[half:]).float().mean())


def _method(loss: Loss, network: Network, size: Size) -> nn.Module | None:
    """The library's BYOL around the network, with a linear predictor that begins as the identity; None for InfoNCE."""
    if loss == "InfoNCE":
        return None
    predictor = nn.Linear(network.dim, network.dim, bias=False)
    nn.init.eye_(predictor.weight)
    kind = methods.load("byol")
    config = kind.Config(tau_base=size.tau, target="ema" if loss == "BYOL" else "stop-gradient", target_init="copy")  # type: ignore[attr-defined]
    method: nn.Module = kind(network, config, projector=nn.Identity(), predictor=predictor)
    return method


def train(loss: Loss, rate: float, size: Size, seed: int, level: float = 1.0, *, told: int = 10) -> Trained:
    """One run from small random weights, its weights measured `told` times on the way."""
    world = World.of(size, seed, level)
    network = Network(0.3 * torch.randn(size.neurons, size.d1, generator=world.rng) / math.sqrt(size.d1))
    method = _method(loss, network, size)
    whole = method or network
    optimizer = torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=size.lr, weight_decay=size.weight_decay)
    steps: list[int] = []
    noise: list[float] = []
    top: list[float] = []

    def note(step: int) -> None:
        a = shares(network.weight, world.columns)
        steps.append(step)
        noise.append(float((1 - a.sum(1)).mean()))
        top.append(float(a.amax(1).median()))

    for step in range(size.steps):
        at = step / size.steps
        for part in whole.modules():  # of BYOL also the target
            if isinstance(part, Network):
                part.threshold = size.threshold * min(1.0, max(0.0, (at - 0.1) / 0.5))
        if step % max(1, size.steps // told) == 0:
            note(step)
        optimizer.param_groups[0]["lr"] = size.lr * min(1.0, (1 - at) / 0.4)
        _, sparse, dense = world.draw(size.batch)
        views = tuple((sparse + dense) * mask for mask in world.masks(size.batch, rate))
        value = info_nce(network(views[0]), network(views[1])) if method is None else method(views).loss
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if method is not None:
            method.after_step(at)  # type: ignore[operator]
    note(size.steps)
    return Trained(measure(network, world, size.tested), steps, noise, top)


def untrained(size: Size, seed: int, columns: bool) -> Measures:
    """A network of random weights, without thresholds, or one whose weights are the columns of M, with those of the end."""
    world = World.of(size, seed)
    weight = torch.randn(size.neurons, size.d1, generator=world.rng)
    network = Network(world.columns.T[torch.arange(size.neurons) % size.d] if columns else weight)
    network.threshold = size.threshold if columns else 0.0
    return measure(network, world, size.tested)


Key = tuple[Loss, float, float]  # loss, mask rate, level of noise


def _plan(size: Size) -> list[Key]:
    """All runs of a seed, each once."""
    both = [(loss, rate, 1.0) for loss in LOSSES for rate in (0.5, 0.0)]
    rates = [(loss, rate, 1.0) for loss in LOSSES[:2] for rate in size.rates]
    levels = [(LOSSES[0], rate, level) for rate in (0.5, 0.0) for level in size.levels]
    return list(dict.fromkeys(both + rates + levels))


def run(seeds: Sequence[int], progress: Progress, size: Size | None = None) -> Outcome:
    """Every loss with and without masks, then other rates and levels of noise."""
    size = size or Size()
    plan = _plan(size)
    runs: dict[Key, list[Trained]] = {key: [] for key in plan}
    still: dict[str, list[Measures]] = {"untrained": [], "M itself": []}
    for i, seed in enumerate(seeds):
        still["untrained"].append(untrained(size, seed, columns=False))
        still["M itself"].append(untrained(size, seed, columns=True))
        for j, (loss, rate, level) in enumerate(plan):
            progress("feature decoupling: runs", i * len(plan) + j, len(seeds) * len(plan))
            runs[loss, rate, level].append(train(loss, rate, size, seed, level))
    ends = {key: [r.end for r in found] for key, found in runs.items()}
    rows = [_row(name, found) for name, found in still.items()] + [_row(_named(*key), found) for key, found in ends.items()]
    settings: dict[str, str | int | float] = {k: v for k, v in asdict(size).items() if not isinstance(v, tuple)}
    world = World.of(size, 0)
    settings |= {"P(z_j != 0)": world.often, "sigma": world.sigma, "temperature": 1}
    heads = ("", "noise", "top", "cols", "cover", "cos s", "cos n", "hit", "false", "probe")
    plots = (_over_training(runs), _over_rates(ends, size), _over_levels(ends, size))
    return Outcome(heads, rows, _judge(ends, still["untrained"], size), plots, settings)


def _named(loss: Loss, rate: float, level: float) -> str:
    masks = {0.0: "no masks", 0.5: "masks"}.get(rate, f"rate {rate:g}")
    return f"{loss}, {masks}" + (f", {level:g}x" if level != 1 else "")


def _row(name: str, found: list[Measures]) -> tuple[str | float, ...]:
    return (name, *(round(float(np.mean(_all(found, f.name))), 2) for f in fields(Measures)))


def _judge(ends: dict[Key, list[Measures]], start: list[Measures], size: Size) -> tuple[Finding, ...]:
    """Every claim has to hold of every seed."""
    masked, plain = ends["InfoNCE", 0.5, 1.0], ends["InfoNCE", 0.0, 1.0]
    quarter = ends["InfoNCE", 0.25, 1.0]
    beside = [*plain, *start]
    levels = {v: (ends["InfoNCE", 0.5, v], ends["InfoNCE", 0.0, v]) for v in size.levels}
    held = (
        *_decoupled(masked, plain),
        _low(masked, "sparse") > 0.9 and _high(masked, "dense") < 0.05 and _low(masked, "dense") > -0.05,
        _low(masked, "probe") >= _high(beside, "probe") + 0.1,
        _low(masked, "hit") > 0.8 and _high(masked, "false") < 0.1,
        *(all(_decoupled(ends[loss, 0.5, 1.0], ends[loss, 0.0, 1.0])) for loss in LOSSES[1:]),
        _low(plain, "noise") > _high(quarter, "noise") and _low(quarter, "noise") > _high(masked, "noise"),
        all(_high(a, "noise") < _low(b, "noise") for a, b in levels.values()),
    )
    evidence = (
        _beside(masked, plain, "noise"),
        _beside(masked, plain, "cols"),
        _beside(masked, plain, "cover"),
        f"Sparse part: {_beside(masked, plain, 'sparse')} Noise: {_beside(masked, plain, 'dense')}",
        f"{_beside(masked, plain, 'probe')} Untrained {_range(start, 'probe')}.",
        f"On when it is: {_beside(masked, plain, 'hit')} When it is not: {_beside(masked, plain, 'false')}",
        *(
            " ".join(
                f"{name.capitalize()}: {_beside(ends[loss, 0.5, 1.0], ends[loss, 0.0, 1.0], name)}" for name in ("noise", "cols", "cover")
            )
            for loss in LOSSES[1:]
        ),
        f"Rate 0: {_range(plain, 'noise')}, 1/4: {_range(quarter, 'noise')}, 1/2: {_range(masked, 'noise')}.",
        " ".join(f"{v:g}x: {_beside(a, b, 'noise')}" for v, (a, b) in levels.items()),
    )
    return tuple(Finding(c, bool(h), e) for c, h, e in zip(CLAIMS, held, evidence, strict=True))


def _decoupled(masked: list[Measures], plain: list[Measures]) -> tuple[bool, bool, bool]:
    """Whether the first three claims hold of these runs."""
    noise = _high(masked, "noise") < 0.5 and _low(plain, "noise") > 0.75
    few = _high(masked, "cols") < 2 and _low(plain, "cols") > 6
    return noise, few, _low(masked, "cover") >= 0.9 and _high(plain, "cover") == 0


def _all(found: list[Measures], name: str) -> list[float]:
    return [getattr(m, name) for m in found]


def _low(found: list[Measures], name: str) -> float:
    return min(_all(found, name))


def _high(found: list[Measures], name: str) -> float:
    return max(_all(found, name))


def _range(found: list[Measures], name: str) -> str:
    """Over the seeds."""
    low, high = (f"{v:.2f}".replace("-0.00", "0.00") for v in (_low(found, name), _high(found, name)))
    return low if low == high else f"{low} to {high}"


def _beside(masked: list[Measures], plain: list[Measures], name: str) -> str:
    return f"{_range(masked, name)} with masks, {_range(plain, name)} without."


def _line(name: str, x: Sequence[float], found: Sequence[Sequence[float]]) -> Line:
    """`found` (seeds, points): the mean, and the band from the lowest to the highest."""
    table = np.array(found)
    return Line(name, x, table.mean(0).tolist(), table.min(0).tolist(), table.max(0).tolist())


def _over_training(runs: dict[Key, list[Trained]]) -> Plot:
    lines = []
    for loss in LOSSES:
        for rate in (0.5, 0.0):
            found = runs[loss, rate, 1.0]
            lines.append(_line(_named(loss, rate, 1.0), found[0].steps, [r.top for r in found]))
    return Plot("Share of a neuron's weight along its best column", "step", "share of |w|^2 (median)", tuple(lines))


def _over_rates(ends: dict[Key, list[Measures]], size: Size) -> Plot:
    lines = [
        _line(f"{loss}: {what}", size.rates, list(zip(*[_all(ends[loss, rate, 1.0], key) for rate in size.rates], strict=True)))
        for loss in LOSSES[:2]
        for key, what in (("noise", "weight in the noise"), ("probe", "probe"))
    ]
    return Plot("By the share of coordinates that each view lacks", "mask rate", "share", tuple(lines))


def _over_levels(ends: dict[Key, list[Measures]], size: Size) -> Plot:
    sigmas = [World.of(size, 0, level).sigma for level in size.levels]
    lines = [
        _line(
            f"{'masks' if rate else 'no masks'}: {what}", sigmas,
            list(zip(*[_all(ends["InfoNCE", rate, level], key) for level in size.levels], strict=True)),
        )
        for rate in (0.5, 0.0)
        for key, what in (("noise", "weight in the noise"), ("probe", "probe"))
    ]  # fmt: skip
    return Plot("InfoNCE by the noise of a coordinate", "sigma of the noise", "share", tuple(lines))
