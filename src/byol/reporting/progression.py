"""Change over time on the page: every encoder along every direction, and where the visits of some subjects lie along one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from byol.evaluation.baselines import is_baseline
from byol.longitudinal.measures import ABOUT, MEASURES
from byol.longitudinal.result import DIRECTIONS
from byol.reporting.html import Markup, join, table, tag
from byol.reporting.run import Run, listing, mapping, real
from byol.reporting.scales import Scale, spread_of, tick_label

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 8, 36  # margins
_UNITS = {"r": "r", "rho": "ρ", "mean r": "mean r", "ordered": "in order"}


@dataclass(frozen=True)
class Score:
    """One direction of one encoder's features."""

    name: str
    direction: str
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Track:
    """A series, and how far its samples lie along the direction."""

    name: str
    subject: int
    days: list[float]
    projection: list[float]


@dataclass(frozen=True)
class Result:
    """One evaluation."""

    settings: str
    setting: str  # what was scored, in words
    scores: list[Score]
    tracks: list[Track]
    shown: str
    notes: list[str]


def results(run: Run) -> list[Result]:
    """Those of a run; what cannot be understood is left out."""
    return [r for e in run.evaluations if e.get("protocol") == "progression" and (r := _result(e)).scores]


def worth(run: Run) -> Markup:
    """All of them; nothing where there are none."""
    return join(_protocol(r) for r in results(run))


def sentence(run: Run) -> str:
    """E.g. 'Against time in other subjects: r 0.93 along tau, 0.80 at best by a baseline'; nothing where there are none."""
    for r in results(run):
        own = [s for s in r.scores if not is_baseline(s.name)]
        others = [s.values["r"] for s in r.scores if is_baseline(s.name)]
        if own:
            best = next((s for s in own if s.direction == "tau"), max(own, key=lambda s: s.values["r"]))
            beside = f", {max(others):.2f} at best by a baseline".replace("-", "−") if others else ""
            return f"Against time within subjects: r {best.values['r']:.2f} along {best.direction}".replace("-", "−") + beside
    return ""


def side_by_side(runs: Sequence[Run]) -> Markup:
    """A table for every way of measuring, a column for each run."""
    found = {r.path: {(x.settings, x.setting): x for x in results(r)} for r in runs}
    ways = list(dict.fromkeys(way for r in runs for way in found[r.path]))
    return join(_same_way(way, runs, [found[r.path].get(way) for r in runs]) for way in ways)


def _same_way(way: tuple[str, str], runs: Sequence[Run], measured: Sequence[Result | None]) -> Markup:
    own = [{s.direction: s for s in x.scores if not is_baseline(s.name)} if x else {} for x in measured]
    directions = list(dict.fromkeys(d for of in own for d in of))
    rows: list[list[str]] = [
        [f"{_UNITS[m]}, {d}", *(_cell(of[d], m) if d in of else tag("td", "–") for of in own)] for d in directions for m in MEASURES
    ]
    said = f"{way[1]}. Small: 95 % interval over subjects."
    return tag("div", tag("h3", way[0]), tag("p", said, class_="note"), table(["", *(r.name for r in runs)], rows, "numbers wide"))


def _result(fields: dict[str, object]) -> Result:
    count = {k: int(real(fields.get(k)) or 0) for k in ("test", "subjects", "series", "train")}
    series = f" in {count['series']:,} series" if count["series"] != count["subjects"] else ""
    setting = f"{count['test']:,} {fields.get('samples') or 'images'} of {count['subjects']:,} subjects{series} ({fields.get('split')})"
    scores = [s for raw in listing(fields.get("scores")) if (s := _score(mapping(raw))) is not None]
    tracks = [t for raw in listing(fields.get("tracks")) if (t := _track(mapping(raw))) is not None]
    notes = [str(n) for n in listing(fields.get("notes"))]
    return Result(str(fields.get("description", "progression")), setting, scores, tracks, str(fields.get("shown", "")), notes)


def _score(fields: dict[str, object]) -> Score | None:
    values = {m: v for m in MEASURES if (v := real(mapping(fields.get("values")).get(m))) is not None}
    if len(values) < len(MEASURES):
        return None
    ends: dict[str, tuple[float, float]] = {}
    for measure, raw in mapping(fields.get("intervals")).items():
        pair = [v for x in listing(raw) if (v := real(x)) is not None]
        if len(pair) == 2:
            ends[measure] = (pair[0], pair[1])
    return Score(str(fields.get("name", "encoder")), str(fields.get("direction", "")), values, ends)


def _track(fields: dict[str, object]) -> Track | None:
    days, projection = ([v for x in listing(fields.get(k)) if (v := real(x)) is not None] for k in ("days", "projection"))
    if len(days) != len(projection) or len(days) < 2:
        return None
    return Track(str(fields.get("name", "")), int(real(fields.get("subject")) or 0), days, projection)


def _protocol(r: Result) -> Markup:
    used = dict.fromkeys(s.direction for s in r.scores)
    words = [f"{_UNITS[m]}: {ABOUT[m]}" for m in MEASURES] + [f"{d}: {DIRECTIONS[d]}" for d in used if d in DIRECTIONS]
    notes = [f"{r.setting}. Small: 95 % interval over subjects.", f"{'; '.join(words)}.", *r.notes]
    paragraphs = join(tag("p", text, class_="note") for text in notes)
    return tag("div", tag("h3", r.settings), paragraphs, _table(r.scores), _figure(r), class_="protocol")


def _table(scores: Sequence[Score]) -> Markup:
    rows: list[list[str]] = [[s.name, tag("td", s.direction, class_="mode"), *(_cell(s, m) for m in MEASURES)] for s in scores]
    return table(["", "direction", *(_UNITS[m] for m in MEASURES)], rows, "numbers")


def _cell(score: Score, measure: str) -> Markup:
    value, ends = score.values[measure], score.intervals.get(measure)
    small = [] if ends is None else [tag("small", f"{ends[0]:.2f} to {ends[1]:.2f}".replace("-", "−"))]
    return tag("td", f"{value:.2f}".replace("-", "−"), *small, data_mean=repr(value))


def _figure(r: Result) -> Markup:
    """Projection against time, a line for each series, a colour for each subject; nothing without tracks."""
    if not r.tracks:
        return join([])
    values, days = [v for t in r.tracks for v in t.projection], [d for t in r.tracks for d in t.days]
    high, _ = spread_of(values, zero=False)
    first, last = min(days), max(days)
    y = Scale(high, (HEIGHT - BOTTOM, TOP))
    x = Scale((first, last if last > first else first + 1), (LEFT, WIDTH - RIGHT))
    drawing = [*_across(y), *_along(x), *(_line(t, x, y) for t in r.tracks)]
    spoken = f"Projection against time of {len(r.tracks)} series"
    svg = tag("svg", *drawing, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=spoken)
    head = tag("div", tag("b", "Projection against time"), " ", tag("small", "standard deviations within series, by day"), class_="head")
    said = f"{r.shown}: {len(r.tracks)} series of test subjects, each less its mean; a colour for each subject. Where all rise alike, "
    said += "one direction serves everyone."
    return tag("figure", head, svg, tag("figcaption", said), class_="chart")


def _across(y: Scale) -> list[Markup]:
    parts = []
    for value in y.ticks():
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", tick_label(value), x=LEFT - 6, y=y(value) + 3.5, text_anchor="end"))
    return parts


def _along(x: Scale) -> list[Markup]:
    base = HEIGHT - BOTTOM
    parts = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis")]
    for i, value in enumerate(x.ticks(5)):
        anchor = "middle" if x(value) < WIDTH - RIGHT - 14 else "end"
        parts.append(tag("line", x1=x(value), x2=x(value), y1=base, y2=base + 3, class_="axis"))
        parts.append(tag("text", ("day " if i == 0 else "") + tick_label(value), x=x(value), y=base + 15, text_anchor=anchor))
    return parts


def _line(track: Track, x: Scale, y: Scale) -> Markup:
    points = "L".join(f"{x(d):.1f},{y(v):.1f}" for d, v in zip(track.days, track.projection, strict=True))
    return tag("path", tag("title", track.name), d=f"M{points}", class_=f"curve k{track.subject % 8}")
