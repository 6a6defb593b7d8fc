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
    same_as: str = ""  # another setting that comes to the same here
    positive_cosine: list[float] = field(default_factory=list)  # of projections, as each run logged them last: two views of one image
    negative_cosine: list[float] = field(default_factory=list)  # and views of different images
    published: Row | None = None
    published_cosines: tuple[float, float] | None = None


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

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The table for people, at most 80 columns."""
        found = [f.setting for f in self.findings]
        width = min(_LONGEST, max(map(len, [*found, *self.baselines]))) + 2
        out = wrap(f"{self.name} ({self.what}): {self.setup}; top-1 %", WIDTH, subsequent_indent="    ")
        out.append(f"  {'':<{width}}{'kNN':<13}{'linear':<13}published")
        for f in self.findings:
            out += _row(f.setting, width, *_cells(f))
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
        notes += [f"{name} failed: {why}" for name, why in self.failed.items()]
        rows = [f.published for f in self.findings if f.published is not None]
        sources = dict.fromkeys(f"{r.source}: {r.network}, {r.epochs} epochs of {r.trained_on}, {r.protocol}" for r in rows)
        notes += [self.note] if self.note else []
        return notes + [f"published, not measured here: {s}; compare the order of the rows, not the values" for s in sources]

    def svg(self) -> str:
        """The table as a picture with error bars; what was published has a panel of its own."""
        measured = [
            Panel("kNN, measured here", [_point(f.knn) for f in self.findings]),
            Panel("linear, measured here", [_point(f.linear) for f in self.findings]),
        ]
        if self._tells_cosines:
            for which, values in (
                ("positives", [f.positive_cosine for f in self.findings]),
                ("negatives", [f.negative_cosine for f in self.findings]),
            ):
                measured.append(Panel(f"{which}, measured here", [_point(v, 1) for v in values], unit="cosine", digits=4))
        rows = [f.published for f in self.findings]
        points = [None if r is None else Point(r.value, r.deviation or 0.0) for r in rows]
        other = [Panel("published, linear, another network and data", points, measured=False)] if any(rows) else []
        if self._tells_cosines:
            for i, which in enumerate(("positives", "negatives")):
                cosines = [f.published_cosines and Point(f.published_cosines[i]) for f in self.findings]
                other.append(Panel(f"{which}, published", cosines, measured=False, unit="cosine", digits=4))
        return picture(f"{self.name}: {self.setup}", [f.setting for f in self.findings], measured + other)


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


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean + (f" +- {100 * deviation(values):.1f}" if len(values) > 1 else "")


def _row(name: str, width: int, *cells: str) -> list[str]:
    """One line, or two where the name is too long for its column."""
    text = "".join(f"{cell:<13}" if len(cell) < 13 else f"{cell} " for cell in cells)
    if len(name) < width:
        return [f"  {name:<{width}}{text}".rstrip()]
    return [f"  {name}", f"  {'':<{width}}{text}".rstrip()]
