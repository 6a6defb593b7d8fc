"""What an ablation found: mean and deviation over seeds, beside what was published, as a table, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from byol.evaluation.intervals import deviation
from byol.published import Row
from byol.reporting.errorbars import Panel, Point, picture

WIDTH = 80
_LONGEST = 36  # of a setting; a longer one has a line of its own


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One setting: what its runs reached, seed by seed."""

    setting: str
    knn: list[float] = field(default_factory=list)  # top-1 in [0, 1], of the runs that came to their end
    linear: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # of every seed: "finished", or "not finite"
    health: list[str] = field(default_factory=list)  # of every seed: the last verdict
    rank_of_projections: list[float] = field(default_factory=list)  # effective, of every run, at the end of its log
    milliseconds: float | None = None  # of an update: the median over the logs of its runs
    passes: dict[str, float] | None = None  # of methods: batches through an encoder in an update, as `byol.ablation.cost` counts them
    supervised: bool = False  # it saw the labels
    same_as: str = ""  # another setting that comes to the same here
    positive_cosine: list[float] = field(default_factory=list)  # of projections, as each run logged them last: two views of one image
    negative_cosine: list[float] = field(default_factory=list)  # and views of different images
    published: Row | None = None
    published_cosines: tuple[float, float] | None = None

    def rank(self) -> float:
        """What a table of methods is ordered by: the best linear score first, what has none last."""
        return -sum(self.linear) / len(self.linear) if self.linear else 1.0


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """All settings, and what they had in common."""

    name: str
    what: str
    setup: str  # data, encoder, epochs, in words
    seeds: int
    findings: list[Finding]
    baselines: dict[str, tuple[float, float]]  # pixels and the untrained network: kNN and linear
    out: str  # the folder of the runs
    untrained: Row | None = None  # what was published for the untrained network
    note: str = ""  # what is otherwise than in the paper
    failed: dict[str, str] = field(default_factory=dict)  # runs that died, by their name -> why
    unfit: dict[str, str] = field(default_factory=dict)  # methods that these data or this encoder cannot have -> why
    tested_apart: bool = True  # on data of its own, not on a part of what was trained on
    of_methods: bool = False  # the settings are methods, best first, and differ in cost

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The table for people, at most 80 columns."""
        found = [f.setting for f in self.findings]
        width = min(_LONGEST, max(map(len, [*found, *self.baselines]))) + 2
        out = wrap(f"{self.name} ({self.what}): {self.setup}; top-1 %", WIDTH, subsequent_indent="    ")
        out.append(f"  {'':<{width}}{'kNN':<13}{'linear':<13}published{'    ms   passes' * self.of_methods}")
        for f in self.findings:
            out += _row(f.setting, width, *_cells(f), cost=_cost(f) if self.of_methods else "")
        for name, (knn, linear) in self.baselines.items():
            beside = f"{self.untrained.value:g}" if self.untrained and name.startswith("random ") else ""
            out += _row(name, width, f"{100 * knn:.1f}", f"{100 * linear:.1f}", beside)
        out += self._cosines(width)
        for note in self.notes():
            out += wrap(note, WIDTH, initial_indent="  ", subsequent_indent="    ")
        return out

    def _cosines(self, width: int) -> list[str]:
        """How alike the projections are at the end, where that was published, too: 1 for positives and negatives is collapse."""
        if not self._tells_cosines:
            return []
        out = ["cosine of projections at the end of training, mean over seeds; published: both"]
        out.append(f"  {'':<{width}}{'positives':<13}{'negatives':<13}published")
        for f in (f for f in self.findings if not f.same_as):
            here = (f"{sum(v) / len(v):.4f}" if v else "-" for v in (f.positive_cosine, f.negative_cosine))
            out += _row(f.setting, width, *here, "  ".join(f"{v:g}" for v in f.published_cosines or ()))
        return out

    @property
    def _tells_cosines(self) -> bool:
        return any(f.published_cosines for f in self.findings)

    def notes(self) -> list[str]:
        """What the numbers are, and what is not to be compared."""
        notes = [f"+- deviation over {self.seeds} seeds"] if self.seeds > 1 else ["one seed: no deviation is known"]
        notes += [f"{f.setting}: collapsed in {n} of {len(f.health)} runs" for f in self.findings if (n := f.health.count("COLLAPSED"))]
        notes += [f"{name} is left out: {why}" for name, why in self.unfit.items()]
        notes += [f"{name} failed: {why}" for name, why in self.failed.items()]
        if self.of_methods:
            notes += self._of_methods()
        rows = [f.published for f in self.findings if f.published is not None]
        unsure = [f.setting for f in self.findings if f.published and not f.published.verified]
        notes += [f"published, but unverified, not read in its own source: {', '.join(unsure)}"] if unsure else []
        notes += [self.note] if self.note else []
        if self.of_methods:
            beside = "published: linear on ImageNet with a ResNet-50, epochs and protocol of each as in results.json; not measured here"
            return [*notes, f"{beside}; compare the order of the rows, not the values"]
        sources = dict.fromkeys(f"{r.source}: {r.network}, {r.epochs} epochs of {r.trained_on}, {r.protocol}" for r in rows)
        return notes + [f"published, not measured here: {s}; compare the order of the rows, not the values" for s in sources]

    def _of_methods(self) -> list[str]:
        """What has to be known to read a table of methods."""
        notes = [
            f"{f.setting}: health {w} in {n} of {len(f.health)} runs" for f in self.findings for w in ("WARN",) if (n := f.health.count(w))
        ]
        among = "" if self.tested_apart else "; those of the test images were among them: give --test"
        notes += [f"{f.setting} learns from the labels, which the others do not see{among}" for f in self.findings if f.supervised]
        notes.append(
            "ms: an update here, the median of the runs' logs; passes: batches through an encoder, online + target + "
            "backward; patches and small views count whole"
        )
        return notes + self._order()

    def _order(self) -> list[str]:
        """How far the order of the methods is from the published one."""
        from scipy.stats import rankdata, spearmanr  # half a second, which other commands need not wait

        both = [f for f in self.findings if f.linear and f.published and not f.supervised]
        if len(both) < 4:
            return []
        here, there = ([int(r) for r in rankdata(v, method="min")] for v in ([f.rank() for f in both], [-f.published.value for f in both]))  # type: ignore[union-attr]
        rho = spearmanr(here, there).statistic
        moved = sorted(zip(both, here, there, strict=True), key=lambda m: -abs(m[1] - m[2]))[:3]
        far = "; ".join(f"{f.setting} is {h} here and {t} there" for f, h, t in moved if h != t)
        return [f"order of the {len(both)} methods with a published number: rank correlation {rho:.2f} with theirs{far and '; ' + far}"]

    def svg(self) -> str:
        """The table as a picture with error bars; what was published has a panel of its own."""
        measured = [
            Panel("kNN, measured here", [_point(f.knn) for f in self.findings], guides=_guides(self.baselines, 0)),
            Panel("linear, measured here", [_point(f.linear) for f in self.findings], guides=_guides(self.baselines, 1)),
        ]
        if self._tells_cosines:
            for which, values in (
                ("positives", [f.positive_cosine for f in self.findings]),
                ("negatives", [f.negative_cosine for f in self.findings]),
            ):
                measured.append(Panel(f"{which}, measured here", [_point(v, 1) for v in values], unit="cosine", digits=4))
        if self.of_methods:
            times = [None if f.milliseconds is None else Point(f.milliseconds) for f in self.findings]
            measured.append(Panel("an update, measured here", times, unit="ms"))
        rows = [f.published for f in self.findings]
        points = [None if r is None else Point(r.value, r.deviation or 0.0) for r in rows]
        other = [Panel("published, linear, another network and data", points, measured=False)] if any(rows) else []
        if self._tells_cosines:
            for i, which in enumerate(("positives", "negatives")):
                cosines = [f.published_cosines and Point(f.published_cosines[i]) for f in self.findings]
                other.append(Panel(f"{which}, published", cosines, measured=False, unit="cosine", digits=4))
        return picture(f"{self.name}: {self.setup}", [f.setting for f in self.findings], measured + other)


def _guides(baselines: dict[str, tuple[float, float]], which: int) -> list[tuple[str, float]]:
    return [(name, 100 * scores[which]) for name, scores in baselines.items()]


def _point(values: Sequence[float], times: float = 100) -> Point | None:
    return Point(times * sum(values) / len(values), times * deviation(values)) if values else None


def _cells(f: Finding) -> tuple[str, str, str]:
    row = f.published
    beside = "" if row is None else f"{row.value:g}" + (f" +- {row.deviation:g}" if row.deviation is not None else "")
    if f.same_as:
        return f"as {f.same_as}", "", beside
    lost = sum(e != "finished" for e in f.ended)
    mark = f" ({lost} lost)" if lost else ""
    return _spread(f.knn) + mark, _spread(f.linear), beside


def _cost(f: Finding) -> str:
    """'31.4  2+2+2': milliseconds of an update, and passes: online, target and backward."""
    time = f"{f.milliseconds:.3g}" if f.milliseconds else "-"
    counted = "+".join(f"{n:g}" for n in f.passes.values()) if f.passes else "-"
    return f"{time:>6}   {counted}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean + (f" +- {100 * deviation(values):.1f}" if len(values) > 1 else "")


def _row(name: str, width: int, *cells: str, cost: str = "") -> list[str]:
    """One line, or two where the name is too long for its column."""
    text = "".join(f"{cell:<13}" if len(cell) < 13 else f"{cell} " for cell in cells)
    if cost:
        text = f"{text[:-4]}{cost}"  # what was published of methods has no deviation
    if len(name) < width:
        return [f"  {name:<{width}}{text}".rstrip()]
    return [f"  {name}", f"  {'':<{width}}{text}".rstrip()]
