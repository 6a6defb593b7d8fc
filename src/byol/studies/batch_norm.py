"""Is it batch norm that keeps BYOL from collapsing, by comparing each image with the others of its batch?

A blog post of 2020 took it out of projector and predictor: ResNet-18, 10 epochs of STL-10. The settings are those of `byol ablate norm`:
norm between the layers of the projector, of the predictor, and a contrastive method without either. There is no batch norm after the
projector, and the encoder keeps its own. Cosines are of the projections at the last update, positives two views of one image; linear
is top-1 on digits that no run has seen. The published numbers are of other data and another network: compare the order, not the values.
Ten epochs are 220 updates here and about 3,900 there: one run of 30 epochs with batch norm in both heads came to cosines of 0.85 and 0.29.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

from byol import ablation, published
from byol.studies import Finding, Outcome, Plot, Progress, _digits
from byol.studies._digits import Run

TITLE = "What batch norm in the heads does for BYOL."
SOURCE = "Untitled AI / Generally Intelligent 2020, blog post 'Understanding self-supervised and contrastive learning with BYOL'"
CLAIMS = (
    "Without norm in the heads every run ends with cosines of positives and of negatives above 0.99.",
    "With layer norm in the heads every run does, too.",
    "With batch norm in both heads every run keeps the cosine of negatives at least 0.3 below that of positives.",
    "Batch norm in one of the heads alone keeps them apart by 0.1 at least, in every run.",
    "The contrastive method needs none: its runs keep them apart by 0.3 at least.",
    "Settings that are published more than 2 points apart come in the same order here, by the mean of linear over the seeds.",
)
EPOCHS = 10  # as in the post
ALIKE, APART, SOMEWHAT, CLEAR = 0.99, 0.3, 0.1, 2.0  # of the claims
BOTH, PROJECTOR, PREDICTOR = "batch/batch", "batch/none", "none/batch"
NEITHER, LAYER, CONTRASTIVE, UNTRAINED = "none/none", "layer/layer", "contrastive", "untrained"


def run(seeds: Sequence[int], progress: Progress) -> Outcome:
    """The settings of the ablation with every seed."""
    study = ablation.load("norm")
    names = {_name(v): v for v in study.values}
    trained = _digits.train({n: study.pairs(v) for n, v in names.items()}, seeds, progress, epochs=EPOCHS, protocols=("linear",))
    linear = {name: [r.scores["linear"] for r in found] for name, found in trained.of.items()}
    linear[UNTRAINED] = [u["linear"] for u in trained.untrained]
    theirs = {name: row.value for name, v in names.items() if (row := study.published(v))}
    untrained = published.value(study.table, UNTRAINED, method="Random init")
    assert untrained is not None
    theirs[UNTRAINED] = untrained.value
    rows: list[tuple[str | float, ...]] = []
    for name, tops in linear.items():
        cosines = study.published_cosines(names[name]) if name in names else None
        ours = _cosines(trained.of[name]) if name in names else ("", "")
        rows.append((name, _digits.mean(tops, 1, 100), f"{theirs[name]:g}", *ours, ", ".join(f"{c:g}" for c in cosines or ())))
    columns = ("projector/predictor", "linear %", "published", "cos. positives", "negatives", "published both")
    return Outcome(columns, rows, judged(trained.of, linear, theirs), _plots(trained.of), trained.settings)


def judged(found: Mapping[str, Sequence[Run]], linear: Mapping[str, Sequence[float]], theirs: Mapping[str, float]) -> tuple[Finding, ...]:
    """What became of the claims: runs and top-1 of every setting, and the published top-1 in per cent."""
    clear = [(a, b) for a, b in combinations(theirs, 2) if abs(theirs[a] - theirs[b]) > CLEAR]
    ours = {name: 100 * statistics.fmean(tops) for name, tops in linear.items()}
    turned = [(a, b) for a, b in clear if (theirs[a] - theirs[b]) * (ours[a] - ours[b]) <= 0]
    order = f"{len(clear) - len(turned)} of {len(clear)} pairs do"
    if turned:
        order += ", but not " + ", ".join(f"{a} ({ours[a]:.1f}) and {b} ({ours[b]:.1f})" for a, b in turned)
    one = [*found[PROJECTOR], *found[PREDICTOR]]
    held = (
        (all(_alike(r) for r in found[NEITHER]), _said(found[NEITHER])),
        (all(_alike(r) for r in found[LAYER]), _said(found[LAYER])),
        (all(_gap(r) >= APART for r in found[BOTH]), _said(found[BOTH]) + " Published: 0.88 and 0.27."),
        (
            all(_gap(r) >= SOMEWHAT for r in one),
            f"In the projector alone: {_said(found[PROJECTOR])} In the predictor alone: {_said(found[PREDICTOR])}",
        ),
        (all(_gap(r) >= APART for r in found[CONTRASTIVE]), _said(found[CONTRASTIVE])),
        (not turned, order + "."),
    )
    return tuple(Finding(claim, *what) for claim, what in zip(CLAIMS, held, strict=True))


def _name(value: str) -> str:
    """'head_norm=batch predictor_norm=none' -> 'batch/none'; a word as it is."""
    return "/".join(pair.partition("=")[2] for pair in value.split()) if "=" in value else value


def _gap(run: Run) -> float:
    """How much more alike two views of one image are than two of different ones; 0 where nothing finite is left."""
    gap = run.last("positive_cosine") - run.last("negative_cosine")
    return gap if math.isfinite(gap) else 0.0


def _alike(run: Run) -> bool:
    return min(run.last("positive_cosine"), run.last("negative_cosine")) > ALIKE


def _cosines(found: Sequence[Run]) -> tuple[str, str]:
    """Of positives and of negatives at the end."""
    positives, negatives = ([r.last(key) for r in found] for key in ("positive_cosine", "negative_cosine"))
    return _digits.mean(positives, 3), _digits.mean(negatives, 3)


def _said(found: Sequence[Run]) -> str:
    """'Cosine of positives 0.850 ± 0.010, of negatives 0.290 ± 0.020; apart by 0.54 to 0.58.'"""
    gaps = [_gap(r) for r in found]
    positives, negatives = _cosines(found)
    return f"Cosine of positives {positives}, of negatives {negatives}; apart by {min(gaps):.4f} to {max(gaps):.4f}."


def _plots(found: Mapping[str, Sequence[Run]]) -> tuple[Plot, ...]:
    def plot(which: str) -> Plot:
        lines = tuple(_digits.line(name, runs, f"{which}_cosine") for name, runs in found.items())
        return Plot(f"Cosine of {which} pairs of projections, by norm of projector and predictor", "epoch", "1 all alike", lines)

    return plot("negative"), plot("positive")
