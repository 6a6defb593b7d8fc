"""What does a linear predictor P of BYOL tend to, and how near does it come to an orthogonal matrix? The paper, claim by claim.

What it proves is calculated in float64, on random projections Z (images x features) and targets Z': byol's optimal predictor
(`closed_form`, predictor `lrp`) against QR and singular value decompositions, and the weights of a linear network that byol's method and
optimiser train under weight decay λ, in steps that are halved twice. What it saw on ImageNet is looked for in short runs on the digits:
P trained, with three constant target momenta τ, and in four closed forms without ridge (docs/predictors.md). There is a batch norm after
the projector, as in recipe `auto` on a CPU; without it every linear predictor that was tried collapsed, which is no test of the claims.
Stable rank (the mean of s²), trace (over their number) and the distance to the polar factor are of P over its largest singular value, s
being its singular values then; an orthogonal P has stable rank 1 and distance 0. Between is the share of s from 0.1 to 0.9.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from byol.studies import Finding, Line, Outcome, Plot, Progress, _digits
from byol.studies._digits import Run
from byol.studies._linear import DECAY, FEATURES, IMAGES, NOISES, RATES, Exact

TITLE = "The Edge of Orthogonality: what a linear predictor of BYOL tends to."
SOURCE = "Richemond et al. 2023, The Edge of Orthogonality (arXiv 2302.04817)"
CLAIMS = (
    "The prediction of the optimal linear predictor is the projection of the targets on the columns of Z, and its loss what lies outside.",
    "As the noise σ between the views goes to 0 the optimal predictor goes to the identity, in proportion to σ.",
    "Among predictors of rank k the optimal one of Z from itself does k-PCA, for every k.",
    "With a linear encoder A before it, A Aᵀ − Pᵀ P decays like exp(−2λt): the error vanishes with the step.",
    "Stable rank and trace of the predictor are higher at the end of training than at its start, in every run.",
    "Once a tenth of training is over the stable rank rises nearly monotonically: its rank correlation with the update is above 0.8, "
    "in every run.",
    "The singular values of the rescaled predictor go to 0 or 1: fewer are between at the end than at the start, in every run.",
    "Training brings the predictor nearer to its polar factor, in every run.",
    "τ controls how far the trained predictor is from its polar factor: it changes the same way from each τ to the next, with every seed.",
)

TOLERANCE, SLOPE, HALF = 1e-9, 0.05, 0.1  # of what is exact; how far the slope may be from 1; the ratio of errors from 1/2
TAUS, CLOSED, TAU = (0.0, 0.9, 0.99), ("ne", "visser", "ns", "stiefel"), 0.99
LOW, HIGH = 0.1, 0.9  # singular values below and above are small and large
RISES, SETTLED = 0.8, 0.1  # the rank correlation that is a rise; the share of training before it counts
RANK, TRACE, POLAR = "predictor_stable_rank", "predictor_trace", "predictor_polar_distance"


def run(seeds: Sequence[int], progress: Progress) -> Outcome:
    """The calculations, then the runs."""
    exact = []
    for i, seed in enumerate(seeds):
        progress("Calculating in float64", i, len(seeds))
        exact.append(Exact.of(np.random.default_rng(seed)))
    trained = _digits.train(
        {f"{name}, {tau:g}": _pairs(name, tau) for name, tau in [*(("trained", tau) for tau in TAUS), *((name, TAU) for name in CLOSED)]},
        seeds,
        progress,
        method="closed_form",
        protocols=("knn",),
        measure=between,
    )
    rows: list[tuple[str | float, ...]] = [(name, *_cells(found)) for name, found in trained.of.items()]
    columns = ("predictor, τ", "stable rank", "trace", "between", "to polar factor", "kNN %")
    settings = trained.settings | {"images of Z": IMAGES, "features of Z": FEATURES, "λ": DECAY, "rates": ", ".join(map(str, RATES))}
    return Outcome(columns, rows, (*proved(exact), *seen(trained.of)), _plots(exact, trained.of), settings)


def proved(exact: Sequence[Exact]) -> tuple[Finding, ...]:
    """The claims of which the numbers are calculated."""
    projection, loss, pca = (max(v) for v in zip(*((e.projection, e.loss, max(e.pca)) for e in exact), strict=True))
    slopes = [float(np.polyfit(np.log(NOISES), np.log(e.identity), 1)[0]) for e in exact]
    ratios = [b / a for e in exact for a, b in pairwise(e.misses)]
    fine = _digits.span([e.misses[-1] for e in exact])
    held = (
        (
            projection < TOLERANCE and loss < TOLERANCE,
            f"The prediction differs by {projection:.1g} of itself at most, the loss by {loss:.1g}.",
        ),
        (
            all(abs(slope - 1) < SLOPE for slope in slopes),
            f"|P − I| over the root of D is {_digits.span([e.identity[0] for e in exact])} with σ = {NOISES[0]:g} and "
            f"{_digits.span([e.identity[-1] for e in exact])} with {NOISES[-1]:g}; its slope over σ, both logarithmic, is "
            f"{_digits.span(slopes)}.",
        ),
        (pca < TOLERANCE, f"Least squares in turns and k-PCA predict the same to {pca:.1g}, k = 1 to {FEATURES - 1} of {FEATURES}."),
        (
            all(abs(ratio - 0.5) < HALF for ratio in ratios),
            f"In steps of {RATES[-1]:g} the matrix is never further than {fine} of its start from its decay; "
            f"half the step has {_digits.span(ratios)} times the error.",
        ),
    )
    return tuple(Finding(claim, *what) for claim, what in zip(CLAIMS, held, strict=False))


def _pairs(name: str, tau: float) -> tuple[str, ...]:
    """A predictor by its name in the method, or `trained`, and a target momentum that stays."""
    chosen = "trainable" if name == "trained" else name
    return f"predictor={chosen}", "alpha=0", f"tau_base={tau:g}", "tau_schedule=constant", "projection_norm=batch"


@torch.no_grad()
def between(method: nn.Module) -> dict[str, float]:
    """The shares of singular values of the rescaled predictor that are neither small nor large, and that are large."""
    p = method.predictor.weight if isinstance(method.predictor, nn.Linear) else method.predictor_matrix
    assert isinstance(p, Tensor)
    values = torch.linalg.svdvals(p.double())
    s = values / values[0]
    return {"between": float(((s > LOW) & (s < HIGH)).double().mean()), "large": float((s >= HIGH).double().mean())}


def correlation(values: Sequence[float]) -> float:
    """Spearman's, of values with their order; of such as do not differ 0."""
    if max(values) == min(values):
        return 0.0
    ranks = np.argsort(np.argsort(values))
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])


def seen(found: Mapping[str, Sequence[Run]]) -> tuple[Finding, ...]:
    """The claims about training; of predictors in closed form, and of the trained one for every tau."""
    runs = [run for of_one in found.values() for run in of_one]
    higher = {key: [run.curve(key)[-1] > run.curve(key)[0] for run in runs] for key in (RANK, TRACE)}
    settled = [correlation(run.curve(RANK)[round(SETTLED * len(run.records)) :]) for run in runs]
    whole = [correlation(run.curve(RANK)) for run in runs]
    emptier = [run.curve("between")[-1] < run.curve("between")[0] for run in runs]
    nearer = [run.curve(POLAR)[-1] < run.curve(POLAR)[0] for run in runs]
    by_tau = [list(ends) for ends in zip(*([r.last(POLAR) for r in found[f"trained, {tau:g}"]] for tau in TAUS), strict=True)]
    ways = {(b > a) - (b < a) for ends in by_tau for a, b in pairwise(ends)}
    lowest, farthest = [min(run.curve(RANK)) for run in runs], [max(run.curve(POLAR)) for run in runs]
    held = (
        (
            all(higher[RANK]) and all(higher[TRACE]),
            f"Stable rank {_of(higher[RANK])}, trace {_of(higher[TRACE])}. Mean of all runs: stable rank {_moved(runs, RANK)}, at its "
            f"lowest {_digits.mean(lowest, 3)}; trace {_moved(runs, TRACE)}.",
        ),
        (min(settled) > RISES, f"It is {_digits.span(settled)} then, and {_digits.span(whole)} counted from the first update."),
        (
            all(emptier),
            f"So it is in {_of(emptier)}. Mean of all runs: {_moved(runs, 'between')} are between, {_moved(runs, 'large')} above {HIGH}.",
        ),
        (all(nearer), f"So it is in {_of(nearer)}. Mean of all runs: {_moved(runs, POLAR)}, at its farthest {_digits.mean(farthest, 3)}."),
        (
            ways in ({1}, {-1}),
            f"τ = {', '.join(f'{tau:g}' for tau in TAUS)}: " + "; ".join(", ".join(f"{v:.3f}" for v in ends) for ends in by_tau) + ".",
        ),
    )
    return tuple(Finding(claim, *what) for claim, what in zip(CLAIMS[4:], held, strict=True))


def _of(true: Sequence[bool]) -> str:
    return f"{sum(true)} of {len(true)} runs"


def _moved(runs: Sequence[Run], key: str) -> str:
    """'0.256 → 0.078', the means of the first and of the last measurement."""
    first, last = (statistics.fmean(run.curve(key)[i] for run in runs) for i in (0, -1))
    return f"{first:.3f} → {last:.3f}"


def _cells(found: Sequence[Run]) -> tuple[str, ...]:
    return (*(_moved(found, key) for key in (RANK, TRACE, "between", POLAR)), _digits.mean([run.scores["knn"] for run in found], 1, 100))


def _plots(exact: Sequence[Exact], found: Mapping[str, Sequence[Run]]) -> tuple[Plot, ...]:
    def plot(title: str, key: str, unit: str) -> Plot:
        return Plot(title, "epoch", unit, tuple(_digits.line(name, runs, key) for name, runs in found.items()))

    gaps = _digits.band("|P − I| over the root of D", NOISES, [e.identity for e in exact])
    fading = [_digits.band(one.name, one.x, [e.fading[i].y for e in exact]) for i, one in enumerate(exact[0].fading)]
    times = exact[0].fading[-1].x
    decay = Line("exp(−2λt)", times, [math.exp(-2 * DECAY * t) for t in times])
    ends = list(zip(*([r.last(POLAR) for r in found[f"trained, {tau:g}"]] for tau in TAUS), strict=True))
    noise, polar = "noise σ between the views", "0: orthogonal"
    return (
        Plot("The optimal predictor goes to the identity", noise, "distance", (gaps, Line("σ", NOISES, NOISES)), log_x=True, log_y=True),
        Plot("|A Aᵀ − Pᵀ P| decays", "time: updates times step", "over that at the start", (*fading, decay), log_y=True),
        plot("Stable rank of the predictor", RANK, "of its dimension"),
        plot("Trace of the rescaled predictor", TRACE, "of its dimension"),
        plot("Distance of the rescaled predictor to its polar factor", POLAR, polar),
        Plot(
            "Distance of the trained predictor to its polar factor at the end", "1 − τ", polar,
            (_digits.band("trained", [1 - tau for tau in TAUS], ends),), log_x=True,
        ),
    )  # fmt: skip
