"""BYOL's loss is least where every image gets the same projection, and yet training does not end there. What prevents it?

The predictor, the moving average of the target and the stop-gradient are removed one by one and together: the six settings without
negative pairs of `byol ablate target`. Collapsed is what byol's own health check says at the end (docs/health.md): a spread of the
projections below 0.1, or fallen to a third of its start, where 1 is isotropic and 0 one point. kNN is top-1 on digits that no run has
seen. The published column is ImageNet, another network trained far longer: compare who collapses, not the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from byol import ablation, health
from byol.studies import Finding, Outcome, Plot, Progress, _digits
from byol.studies._digits import Run

TITLE = "What keeps BYOL from collapsing: predictor, stop-gradient, moving average."
SOURCE = "Grill et al. 2020 (arXiv 2006.07733), ablations; Chen & He 2020 (SimSiam, arXiv 2011.10566)"
CLAIMS = (
    "With predictor, stop-gradient and moving average no run collapses.",
    "Without the predictor every run collapses, whatever the target is.",
    "Without the stop-gradient every run collapses, though there is a predictor.",
    "Without the moving average, but with predictor and stop-gradient, no run collapses.",
    "Without the moving average kNN is lower than with it, with every seed.",
    "Collapse costs features: every run that collapsed has a lower kNN than BYOL with the same seed.",
    "Collapse shows in the effective rank, too: every run that collapsed ends with a lower one than BYOL with the same seed.",
)

Setting = tuple[str, str]  # predictor, target
BYOL, SIMSIAM, NO_STOP = ("mlp", "ema"), ("mlp", "stop-gradient"), ("mlp", "online")
WORDS = {"mlp": "predictor", "none": "no predictor", "ema": "average", "stop-gradient": "no average", "online": "no stop-gradient"}


def run(seeds: Sequence[int], progress: Progress) -> Outcome:
    """The six settings with every seed."""
    study = ablation.load("target")
    values = {_parts(v): v for v in study.values if v.endswith("beta=0")}
    trained = _digits.train({v: study.pairs(v) for v in values.values()}, seeds, progress, protocols=("knn",))
    found = {parts: trained.of[v] for parts, v in values.items()}
    rows: list[tuple[str | float, ...]] = []
    for parts, value in values.items():
        row = study.published(value)
        rows.append((_said(parts), *_cells(found[parts]), f"{row.value:g}" if row else ""))
    rows.append(("untrained", "", "", "", "", _digits.mean([u["knn"] for u in trained.untrained], 1, 100), ""))
    columns = ("predictor, target", "collapsed", "spread", "rank", "cos. neg.", "kNN %", "published")
    return Outcome(columns, rows, judged(found), _plots(found), trained.settings)


def judged(found: Mapping[Setting, Sequence[Run]]) -> tuple[Finding, ...]:
    """What became of the claims; runs of one setting come in the order of the seeds."""
    bare = [r for (predictor, _), runs in found.items() if predictor == "none" for r in runs]
    knn = {parts: [r.scores["knn"] for r in runs] for parts, runs in found.items()}
    others = [runs for parts, runs in found.items() if parts != BYOL]
    pairs = [(r, byol) for runs in others for r, byol in zip(runs, found[BYOL], strict=True) if r.collapsed]
    lower = [r.scores["knn"] < byol.scores["knn"] for r, byol in pairs]
    narrower = [r.last("rank") < byol.last("rank") for r, byol in pairs]
    held = (
        (not any(r.collapsed for r in found[BYOL]), _collapsed(found[BYOL])),
        (all(r.collapsed for r in bare), _collapsed(bare) + " Grill et al. have 0.2, 0.1 and 0.1 %."),
        (all(r.collapsed for r in found[NO_STOP]), _collapsed(found[NO_STOP]) + " Grill et al. have 0.3 %."),
        (not any(r.collapsed for r in found[SIMSIAM]), _collapsed(found[SIMSIAM]) + " SimSiam is such a method; Grill et al. have 5.5 %."),
        (
            all(a < b for a, b in zip(knn[SIMSIAM], knn[BYOL], strict=True)),
            f"kNN is {_digits.mean(knn[SIMSIAM], 1, 100)} % without and {_digits.mean(knn[BYOL], 1, 100)} % with it. "
            "Grill et al. have 5.5 and 72.5 %.",
        ),
        (all(lower) if pairs else None, f"So it is in {sum(lower)} of {len(pairs)} runs that collapsed."),
        (
            all(narrower) if pairs else None,
            f"So it is in {sum(narrower)} of {len(pairs)}. Ranks of those that collapsed: {_ends([r for r, _ in pairs], 'rank')}, of BYOL: "
            f"{_ends(found[BYOL], 'rank')}. The rank is of projections less their mean, which says nothing of how little is left.",
        ),
    )
    return tuple(Finding(claim, *what) for claim, what in zip(CLAIMS, held, strict=True))


def _parts(value: str) -> Setting:
    """'predictor=mlp target=ema beta=0' -> ('mlp', 'ema')."""
    known = dict(pair.split("=") for pair in value.split())
    return known["predictor"], known["target"]


def _said(parts: Setting) -> str:
    return ", ".join(WORDS[p] for p in parts)


def _cells(found: Sequence[Run]) -> tuple[str, ...]:
    """Collapsed of all; the means over the seeds of spread, rank and negative cosine at the end; kNN."""
    ends = (_digits.mean([r.last(key) for r in found], digits) for key, digits in (("spread", 2), ("rank", 1), ("negative_cosine", 3)))
    return f"{sum(r.collapsed for r in found)} of {len(found)}", *ends, _digits.mean([r.scores["knn"] for r in found], 1, 100)


def _collapsed(found: Sequence[Run]) -> str:
    """'9 of 9 runs collapsed, spread at the end 0.01 to 0.03, first below 0.1 after 0.5 to 0.9 epochs.'"""
    first = [e for r in found if (e := _fell(r)) is not None]
    when = f"; it was first seen below {health.SPREAD_COLLAPSED} after {_digits.span(first)} epochs" if first else ""
    return f"{sum(r.collapsed for r in found)} of {len(found)} collapsed; spread at the end {_ends(found, 'spread')}{when}."


def _ends(found: Sequence[Run], key: str) -> str:
    """The lowest and the highest value at the last update."""
    return _digits.span([r.last(key) for r in found])


def _fell(run: Run) -> float | None:
    """The epoch of the first measurement of a spread that is collapse."""
    below = (epoch for epoch, spread in zip(run.curve("epoch"), run.curve("spread"), strict=True) if spread < health.SPREAD_COLLAPSED)
    return next(below, None)


def _plots(found: Mapping[Setting, Sequence[Run]]) -> tuple[Plot, ...]:
    def plot(title: str, key: str, unit: str, *guides: tuple[float, str]) -> Plot:
        lines = tuple(_digits.line(_said(parts), runs, key) for parts, runs in found.items())
        return Plot(title, "epoch", unit, lines, guides=guides)

    return (
        plot("Spread of the projections", "spread", "1 isotropic, 0 one point", (health.SPREAD_COLLAPSED, "below: collapsed")),
        plot("Effective rank of the projections, centred", "rank", "dimensions"),
        plot("Cosine of projections of different images", "negative_cosine", "1 all alike"),
    )
