"""Where does the test error of least squares rise and fall while features are added one by one?

`n` samples, features that are independent of one another, each with a distribution of its own; the labels are noise of variance 1 and
nothing else (beta = 0), and the fit of least norm on the first d features is `b = pinv(X) y`. The excess loss is
`L_d = E (x^T b)^2 = E sum_j var_j |row j of pinv(X)|^2`: noise and test point are integrated exactly, and what remains is drawn, at least
10,000 times, with the median of the means of 20 blocks because the tails are heavy near d = n. All draws of a curve share their features,
so that a step of the curve is a paired difference.

A designer is told where the curve has to rise and chooses every feature in turn, on draws of its own: where it has to rise a mixture,
which is small as a rule and large at times (what is large in the test and was small in training carries fitted noise), elsewhere the
Gaussian, of eight variances, after which the loss is least. The curves are then measured on fresh draws. The weights of the mixture's
large values are ours, 1/n in all: with the third that is quoted for each, what raises the loss happens in 3^-n of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from byol.studies import Finding, Line, Outcome, Plot, Progress

TITLE = "The test error can rise and fall as often, and where, one likes while features are added."
SOURCE = "Chen, Min, Belkin & Karbasi 2020, arXiv 2008.01036 (Multiple Descent: Design Your Own Generalization Curve)"
CLAIMS = (
    "With isotropic Gaussian features the loss is d/(n-d-1) below the threshold and n/(d-n-1) above it, within 3 %.",
    "Below the threshold (d < n) no feature of any distribution lowers the loss, in any draw.",
    "Below the threshold a feature can be chosen that raises the loss by more than 1, 10 and 100.",
    "Above it (d >= n + 8) there is a Gaussian feature that lowers the loss.",
    "Above it there is a mixture that raises the loss by more than 1, 10 and 100.",
    "Above it a Gaussian feature lowers the loss if only its variance is large enough.",
    "Curves with one, two and five peaks can be had with the peaks at the prescribed places.",
    "Any sequence of rises and falls from d = n + 8 on can be had; here one drawn at random for each seed.",
)

Array = NDArray[np.float64]
BLOCKS = 20
WIDER = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)  # widths of a Gaussian that are tried, times that of the one before
NARROW = 0.3  # width of a mixture's components, times that of the last Gaussian
STEEPER = 2**0.5  # the centre of a mixture grows by this factor until the loss has risen enough


@dataclass(frozen=True)
class Size:
    """How large the study is."""

    n: int = 10  # samples
    draws: int = 12_000  # of training sets, for what is judged
    design_draws: int = 4_000
    last: int = 62  # features
    curves: tuple[tuple[int, ...], ...] = ((10,), (10, 34), (10, 22, 34, 41, 55))  # places of the peaks; the first is at d = n
    letters: int = 24  # of the random sequence
    closed: tuple[int, ...] = (5, 10, 40, 80)  # features, of 20 samples, where the closed form is checked
    isotropic: tuple[int, ...] = (18, 26, 42)  # features before the one that is added


@dataclass(frozen=True)
class Feature:
    """`width` * normal + `centre` * sign, where the sign is +1 or -1 with probability `share` in all, else 0."""

    width: float
    centre: float = 0.0
    share: float = 0.0

    @property
    def variance(self) -> float:
        """The mean is 0."""
        return self.width**2 + self.share * self.centre**2

    def of(self, basis: tuple[Array, Array]) -> Array:
        """Values from a standard normal and a uniform number each."""
        normal, uniform = basis
        return self.width * normal + self.centre * np.where(uniform < self.share, np.where(uniform < self.share / 2, -1.0, 1.0), 0.0)


def losses(x: Array, variances: Array) -> Array:
    """x (R, n, d) -> (R,): the loss of every draw, sum_j var_j |row j of pinv(x)|^2."""
    n, d = x.shape[1:]
    turned = x.transpose(0, 2, 1)
    if d < n:
        found: Array = np.diagonal(np.linalg.inv(turned @ x), axis1=1, axis2=2) @ variances
        return found
    return _from_moments(x @ turned, (x * variances) @ turned)


def _from_moments(gram: Array, weighted: Array) -> Array:
    """d >= n: gram (R, n, n) is sum_j a_j a_j^T over columns a_j, `weighted` the same times var_j -> (R,) tr(gram^-2 weighted)."""
    inverse = np.linalg.inv(gram)
    found: Array = ((inverse @ inverse) * weighted).sum((1, 2))
    return found


def median_of_means(values: Array) -> float:
    """(R,) -> the median of the means of 20 blocks, which heavy tails move less than the mean."""
    return float(np.median([block.mean() for block in np.array_split(values, BLOCKS)]))


def curve(features: Sequence[Feature], n: int, rng: np.random.Generator, draws: int) -> Array:
    """(D, draws): the losses with the first 1, 2, ... D features; a column is one training set."""
    variances = np.array([f.variance for f in features])
    parts = []
    for size in (len(part) for part in np.array_split(np.arange(draws), max(1, draws // 2000))):  # that fit the cache
        x = np.stack([f.of(_basis(rng, size, n)) for f in features], 2)
        parts.append(np.stack([losses(x[:, :, :d], variances[:d]) for d in range(1, len(features) + 1)]))
    return np.concatenate(parts, 1)


def _basis(rng: np.random.Generator, draws: int, n: int) -> tuple[Array, Array]:
    return rng.standard_normal((draws, n)), rng.random((draws, n))


class Designer:
    """Chooses one feature after the other, above the threshold; it begins with n + 7 of them that are N(0, 1)."""

    def __init__(self, n: int, rng: np.random.Generator, draws: int) -> None:
        self.n, self.rng, self.draws = n, rng, draws
        self.features = [Feature(1.0)] * (n + 7)
        x = rng.standard_normal((draws, n, n + 7))
        self.gram = x @ x.transpose(0, 2, 1)
        self.weighted = self.gram.copy()
        self.loss = median_of_means(_from_moments(self.gram, self.weighted))
        self.scale = 1.0  # width of the last Gaussian

    def rise(self, by: float) -> None:
        """Add the mixture with the first of ever larger centres that makes the loss `by` times what it was."""
        basis = _basis(self.rng, self.draws, self.n)
        for step in range(60):
            feature = Feature(NARROW * self.scale, self.scale * STEEPER**step, 1 / self.n)
            if self._after(feature, basis) > by * self.loss:
                break
        self._add(feature, basis)

    def fall(self) -> None:
        """Add the Gaussian after which the loss is least."""
        basis = _basis(self.rng, self.draws, self.n)
        best = min((Feature(self.scale * wider) for wider in WIDER), key=lambda f: self._after(f, basis))
        self.scale = best.width
        self._add(best, basis)

    def _after(self, feature: Feature, basis: tuple[Array, Array]) -> float:
        return median_of_means(_from_moments(*self._with(feature, basis)))

    def _with(self, feature: Feature, basis: tuple[Array, Array]) -> tuple[Array, Array]:
        column = feature.of(basis)
        square = column[:, :, None] * column[:, None, :]
        return self.gram + square, self.weighted + feature.variance * square

    def _add(self, feature: Feature, basis: tuple[Array, Array]) -> None:
        self.gram, self.weighted = self._with(feature, basis)
        self.loss = median_of_means(_from_moments(self.gram, self.weighted))
        self.features.append(feature)


def design(word: Sequence[Literal["up", "down"]], by: float, n: int, rng: np.random.Generator, draws: int) -> list[Feature]:
    """Features after which the curve goes as the word says from d = n + 7 on."""
    designer = Designer(n, rng, draws)
    for letter in word:
        if letter == "up":
            designer.rise(by)
        else:
            designer.fall()
    return designer.features


def peaks(values: Sequence[float]) -> list[int]:
    """Numbers of features, from 1 on, with a larger loss than with one less and with one more."""
    return [d for d in range(2, len(values)) if values[d - 2] < values[d - 1] > values[d]]


def closed_form(n: int, d: int) -> float:
    """The loss with isotropic Gaussian features; infinite from n - 1 to n + 1."""
    if abs(n - d) < 2:
        return float("inf")
    return d / (n - d - 1) if d < n else n / (d - n - 1)


def limit(n: int, d: int) -> float:
    """The loss with d features N(0, 1) and one N(0, s^2) for s -> infinity (derived here).

    The large one takes a dimension of the samples, (n-1)/(d-n), and is itself fitted with an error of (1 + (n-1)/(d-n))/(n-2).
    """
    return (n - 1) / (d - n) + (1 + (n - 1) / (d - n)) / (n - 2)


def run(seeds: Sequence[int], progress: Progress, size: Size | None = None) -> Outcome:
    """All claims, in turn."""
    size = size or Size()
    total = len(seeds) * (len(size.curves) + 3)
    rows: list[tuple[str | float, ...]] = []
    closed, below, above, wide, words = [], [], [], [], []
    curves: dict[tuple[int, ...], list[list[float]]] = {places: [] for places in size.curves}
    done = 0

    def tell() -> None:
        nonlocal done
        progress("multiple descent: parts", done, total)
        done += 1

    for seed in seeds:
        tell()
        closed.append(_closed(np.random.default_rng([seed, 0]), size))
        below.append(_below(np.random.default_rng([seed, 1]), size))
        tell()
        above.append(_above(np.random.default_rng([seed, 2]), size))
        wide.append(_widths(np.random.default_rng([seed, 3]), size))
        for i, places in enumerate(size.curves):
            tell()
            word: list[Literal["up", "down"]] = ["up" if d in places else "down" for d in range(size.n + 8, size.last + 1)]
            curves[places].append(_measured(word, 3.0, np.random.default_rng([seed, 4, i]), size))
        tell()
        words.append(_random_word(np.random.default_rng([seed, 5]), size))
    for i, d in enumerate(size.closed):
        rows.append((f"loss, n = 20, d = {d}", closed_form(20, d), *_spread([c[i] for c in closed])))
    for d, found in zip(size.isotropic, zip(*[w[1] for w in wide], strict=True), strict=True):
        rows.append((f"loss, n = {size.n}, d = {d} + a wide one", limit(size.n, d), *_spread(found)))
    for places, measured in curves.items():
        rows.append(
            (
                f"{len(places)} peak{'s' * (len(places) > 1)}",
                _listed(places),
                " or ".join(dict.fromkeys(_listed(peaks(c)) for c in measured)),
                "",
            )
        )
    findings = (
        _judge_closed(closed, size),
        _judge_falls([b[0] for b in below]),
        _judge_rises(CLAIMS[2], [b[1] for b in below], f"n = {size.n}, from 4 to 5 features"),
        _judge_lower([a[0] for a in above], size),
        _judge_rises(CLAIMS[4], [a[1] for a in above], f"n = {size.n}, from {size.isotropic[0]} features on"),
        _judge_wide([w[1] for w in wide], size),
        _judge_peaks(curves),
        _judge_words(words),
    )
    settings: dict[str, str | int | float] = {
        "n": size.n, "draws": size.draws, "draws for the design": size.design_draws, "blocks of the median of means": BLOCKS,
        "factor of a rise (curves)": 3, "factor of a rise (random sequence)": 1.5, "share of large values": f"1/{size.n}",
    }  # fmt: skip
    return Outcome(("", "theory", "found", "+-"), rows, findings, (_curves_plot(curves), _widths_plot(wide, size)), settings)


def _closed(rng: np.random.Generator, size: Size) -> list[float]:
    """The loss of 20 samples with isotropic features, for every number of them."""
    return [median_of_means(losses(rng.standard_normal((size.draws, 20, d)), np.ones(d))) for d in size.closed]


def _below(rng: np.random.Generator, size: Size) -> tuple[float, list[float]]:
    """(the largest relative fall of the loss in any draw of any random curve up to d = n - 1, rises by ever larger centres)."""
    worst = -np.inf
    for _ in range(10):
        drawn = zip(*(rng.choice(of, size.n - 1) for of in ((0.01, 0.3, 1.0, 10.0), (0.01, 0.3, 1.0, 10.0), (0.0, 0.1, 0.5))), strict=True)
        features = [Feature(width, centre, share) for width, centre, share in drawn]
        steps = [(a - b) / b for a, b in pairwise(curve(features, size.n, rng, size.draws // 10))]
        worst = max(worst, *(float(s.max()) for s in steps))
    rises = []
    for centre in (10.0, 30.0, 100.0):
        grown = curve([Feature(1.0)] * 4 + [Feature(NARROW, centre, 1 / size.n)], size.n, rng, size.draws)
        rises.append(median_of_means(grown[4] - grown[3]))
    return worst, rises


def _above(rng: np.random.Generator, size: Size) -> tuple[list[float], list[float]]:
    """(changes of the loss by one more N(0, 1) for each number of features before, rises by a mixture of ever larger centres)."""
    falls, rises = [], []
    for d in size.isotropic:
        x = rng.standard_normal((size.draws, size.n, d + 1))
        falls.append(median_of_means(losses(x, np.ones(d + 1)) - losses(x[:, :, :d], np.ones(d))))
    d = size.isotropic[0]
    x, basis = rng.standard_normal((size.draws, size.n, d)), _basis(rng, size.draws, size.n)
    before = losses(x, np.ones(d))
    for centre in (50.0, 150.0, 500.0):
        feature = Feature(NARROW, centre, 1 / size.n)
        after = losses(np.concatenate([x, feature.of(basis)[:, :, None]], 2), np.append(np.ones(d), feature.variance))
        rises.append(median_of_means(after - before))
    return falls, rises


WIDTHS = (0.1, 0.3, 0.6, 1.0, 2.0, 4.0, 10.0, 30.0, 100.0, 1000.0)


def _widths(rng: np.random.Generator, size: Size) -> tuple[list[list[float]], list[float]]:
    """(changes of the loss by one Gaussian of each width after d that are N(0, 1), the loss with the widest), for each d."""
    changes, widest = [], []
    for d in size.isotropic:
        x = rng.standard_normal((size.draws, size.n, d + 1))
        before = losses(x[:, :, :d], np.ones(d))
        after = [losses(x * np.append(np.ones(d), w), np.append(np.ones(d), w * w)) for w in WIDTHS]
        changes.append([median_of_means(a - before) for a in after])
        widest.append(median_of_means(after[-1]))
    return changes, widest


def _measured(word: Sequence[Literal["up", "down"]], by: float, rng: np.random.Generator, size: Size) -> list[float]:
    """The curve of the features that were designed for the word, on fresh draws."""
    features = design(word, by, size.n, rng, size.design_draws)
    return [median_of_means(values) for values in curve(features, size.n, rng, size.draws)]


def _random_word(rng: np.random.Generator, size: Size) -> tuple[str, str]:
    """A random sequence of rises (+) and falls (-), and what was found."""
    word: list[Literal["up", "down"]] = ["up" if up else "down" for up in rng.random(size.letters) < 1 / 3]
    found = _measured(word, 1.5, rng, size)[size.n + 6 :]
    return "".join("+" if w == "up" else "-" for w in word), "".join("+" if b > a else "-" for a, b in pairwise(found))


def _judge_closed(closed: list[list[float]], size: Size) -> Finding:
    off = max(abs(v / closed_form(20, d) - 1) for found in closed for v, d in zip(found, size.closed, strict=True))
    return Finding(CLAIMS[0], off < 0.03, f"Largest difference over d = {_listed(size.closed)} and all seeds: {100 * off:.1f} %, n = 20.")


def _judge_falls(worst: list[float]) -> Finding:
    """`worst` holds relative falls; rounding is not one."""
    most = max(worst)
    return Finding(CLAIMS[1], most < 1e-6, f"Largest fall in any draw, relative: {max(most, 0.0):.1g}, over ten random curves a seed.")


def _judge_rises(claim: str, rises: list[list[float]], where: str) -> Finding:
    least = [min(found) for found in zip(*rises, strict=True)]
    held = all(v > wanted for v, wanted in zip(least, (1, 10, 100), strict=True))
    return Finding(claim, held, f"Rises by {', '.join(f'{v:,.3g}' for v in least)} with ever larger centres (least of the seeds; {where}).")


def _judge_lower(falls: list[list[float]], size: Size) -> Finding:
    most = [max(found) for found in zip(*falls, strict=True)]
    said = ", ".join(f"{v:+.3f} at d = {d}" for v, d in zip(most, size.isotropic, strict=True))
    return Finding(CLAIMS[3], max(most) < 0, f"One more N(0, 1) changes the loss by {said} (the least favourable seed).")


def _judge_wide(widest: list[list[float]], size: Size) -> Finding:
    change = [[v - closed_form(size.n, d) for v, d in zip(found, size.isotropic, strict=True)] for found in widest]
    worst = [max(found) for found in zip(*change, strict=True)]
    said = ", ".join(
        f"{v:+.3f} at d = {d} (limit: {limit(size.n, d) - closed_form(size.n, d):+.3f})" for v, d in zip(worst, size.isotropic, strict=True)
    )
    return Finding(CLAIMS[5], max(worst) < 0, f"A width of 1000 changes the loss by {said}; a moderate width lowers it everywhere.")


def _judge_peaks(curves: dict[tuple[int, ...], list[list[float]]]) -> Finding:
    right = [peaks(c) == list(places) for places, found in curves.items() for c in found]
    said = "; ".join(f"{len(places)}: {_listed(places)}" for places in curves)
    return Finding(CLAIMS[6], all(right), f"Peaks exactly where prescribed in {sum(right)} of {len(right)} curves ({said}).")


def _judge_words(words: list[tuple[str, str]]) -> Finding:
    right = sum(a == b for word, found in words for a, b in zip(word, found, strict=True))
    total = sum(len(word) for word, _ in words)
    return Finding(CLAIMS[7], right == total, f"{right} of {total} steps as prescribed; the first sequence: {words[0][0]}.")


def _curves_plot(curves: dict[tuple[int, ...], list[list[float]]]) -> Plot:
    lines = []
    for places, found in curves.items():
        table = np.array(found)
        x = list(range(1, table.shape[1] + 1))
        middle, low, high = np.median(table, 0), table.min(0), table.max(0)
        name = f"{len(places)} peak{'s' * (len(places) > 1)}: {_listed(places)}"
        lines.append(Line(name, x, middle.tolist(), low.tolist(), high.tolist()))
    marks = tuple((float(d), f"{d}") for d in sorted({d for places in curves for d in places}))
    return Plot("Excess loss of least squares, peaks where they were prescribed", "features", "loss", tuple(lines), log_y=True, marks=marks)


def _widths_plot(wide: list[tuple[list[list[float]], list[float]]], size: Size) -> Plot:
    lines = []
    for i, d in enumerate(size.isotropic):
        table = np.array([changes[i] for changes, _ in wide])
        lines.append(Line(f"after {d} of N(0, 1)", WIDTHS, table.mean(0).tolist(), table.min(0).tolist(), table.max(0).tolist()))
    limits = [limit(size.n, d) - closed_form(size.n, d) for d in size.isotropic]
    lines += [Line(f"limit after {d}", [100.0, 1000.0], [v, v]) for d, v in zip(size.isotropic, limits, strict=True)]
    title = "What one Gaussian feature does to the loss, by its width"
    return Plot(title, "standard deviation of the feature", "change of the loss", tuple(lines), log_x=True, guides=((0.0, ""),))


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation over the seeds; no deviation of one."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
