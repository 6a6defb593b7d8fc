"""One plot as an SVG file that needs nothing beside it: lines with bands over numbers, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from byol.reporting.html import Markup, join, number, tag
from byol.reporting.scales import Scale, tick_label

WIDTH, TALL = 720, 280  # of the whole, and of the field between the axes
LEFT, RIGHT, BELOW = 60, 16, 44
ROW, LETTER, KEY = 18, 6.6, 34  # a line of the legend, about as wide as a letter, the sample of a line with its gap
DOTTED = 40  # lines of at most so many points show them
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0578f", "#8a6d00", "#3aa0d8", "#222222", "#8c8c8c")  # as the report's
_DASHES = ("", "5 3", "1.5 3", "8 3 2 3", "", "5 3", "1.5 3", "8 3 2 3")
_STYLE = (
    "text{font:11.5px system-ui,sans-serif;fill:#444}.title{font-size:14px;font-weight:600;fill:#222}.grid{stroke:#e6e6e6}"
    ".axis{stroke:#888}.guide{stroke:#777;stroke-dasharray:2 3}.over{paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".curve{fill:none;stroke-width:1.8;stroke-linejoin:round}.band{opacity:.15;stroke:none}"
)


@dataclass(frozen=True)
class Line:
    """One curve, and the band from `low` to `high` around it where they are given; points that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """What is drawn."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    guides: tuple[tuple[float, str], ...] = ()  # horizontal lines: where, and what they mean
    marks: tuple[tuple[float, str], ...] = ()  # vertical ones


def svg(plot: Plot) -> Markup:
    """The plot as SVG, 720 wide."""
    rows, legend = _legend([line.name for line in plot.lines])
    top = 32 + ROW * rows
    bottom = top + TALL
    xs = [v for line in plot.lines for v in line.x] + [at for at, _ in plot.marks]
    ys = [v for line in plot.lines for v in (*line.y, *line.low, *line.high)] + [at for at, _ in plot.guides]
    x = Scale(_domain(xs, plot.log_x, air=0.01), (LEFT, WIDTH - RIGHT), plot.log_x)
    y = Scale(_domain(ys, plot.log_y, air=0.05), (bottom, top), plot.log_y)
    labels = [
        tag("text", plot.title, x=8, y=20, class_="title"),
        tag("text", plot.x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=bottom + 36, text_anchor="middle"),
        tag("text", plot.y_label, transform=f"translate(14 {(top + bottom) / 2:g}) rotate(-90)", text_anchor="middle"),
    ]
    lines = [_line(line, i, x, y) for i, line in enumerate(plot.lines)]
    parts = [*labels, legend, _axes(x, y), *(_mark(at, text, x, y) for at, text in plot.marks), *lines]
    parts += [_guide(at, text, y) for at, text in plot.guides]
    tall = bottom + BELOW
    back = [tag("style", Markup(_STYLE)), tag("rect", width=WIDTH, height=tall, fill="#fff")]
    return tag(
        "svg", *back, *parts,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {tall}", width=WIDTH, role="img", aria_label=plot.title,
    )  # fmt: skip


def _shown(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _domain(values: Iterable[float], log: bool, air: float) -> tuple[float, float]:
    """From the lowest to the highest value that can be shown, with a little air."""
    known = [v for v in values if _shown(v, log)] or [1.0]
    low, high = min(known), max(known)
    if log:
        room = (high / low) ** air if high > low else 2.0
        return low / room, high * room
    room = air * (high - low) if high > low else max(0.5, abs(high) / 2)
    return low - room, high + room


def _legend(names: Sequence[str]) -> tuple[int, Markup]:
    """(rows, drawing) of the lines' names, as many in a row as fit."""
    parts, row, at = [], 0, float(LEFT)
    for i, name in enumerate(names):
        wide = KEY + LETTER * len(name) + 14
        if at + wide > WIDTH and at > LEFT:
            row, at = row + 1, float(LEFT)
        y = 39 + ROW * row
        parts += [_path([(at, y), (at + KEY - 8, y)], i), tag("text", name, x=at + KEY, y=y + 4)]
        at += wide
    return row + 1, join(parts)


def _axes(x: Scale, y: Scale) -> Markup:
    """The grid with its numbers."""
    bottom, top = y.span
    left, right = x.span
    parts = []
    for value in y.ticks(5):
        parts.append(tag("line", x1=left, x2=right, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", tick_label(value), x=left - 6, y=y(value) + 4, text_anchor="end"))
    for value in x.ticks(8):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(tag("text", tick_label(value), x=x(value), y=bottom + 18, text_anchor="middle"))
    parts += [tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")]
    return join([*parts, tag("line", x1=left, x2=left, y1=top, y2=bottom, class_="axis")])


def _guide(at: float, text: str, y: Scale) -> Markup:
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(at), y2=y(at), class_="guide")
    return join([line, tag("text", text, x=WIDTH - RIGHT - 4, y=y(at) - 4, text_anchor="end", class_="over")])


def _mark(at: float, text: str, x: Scale, y: Scale) -> Markup:
    bottom, top = y.span
    line = tag("line", x1=x(at), x2=x(at), y1=top, y2=bottom, class_="guide")
    return join([line, tag("text", text, x=x(at) + 4, y=top + 10, class_="over")])


def _line(line: Line, i: int, x: Scale, y: Scale) -> Markup:
    """The band, the curve over it, and its points with their values where they are few."""
    colour = _COLOURS[i % len(_COLOURS)]
    parts = []
    bands = [(u, v, w) for u, v, w in zip(line.x, line.low, line.high, strict=False) if _shown(u, x.log) and _shown(v, y.log)]
    if bands:
        around = [(x(u), y(w)) for u, _, w in bands] + [(x(u), y(v)) for u, v, _ in reversed(bands)]
        parts.append(tag("path", d=_way(around) + "Z", fill=colour, class_="band"))
    for run in _runs(line, x, y):
        parts.append(_path([(x(u), y(v)) for u, v in run], i))
        if len(line.x) <= DOTTED or len(run) == 1:
            said = [tag("title", f"{line.name}: {number(v)} at {number(u)}") for u, v in run]
            parts += [tag("circle", t, cx=x(u), cy=y(v), r=2.6, fill=colour) for t, (u, v) in zip(said, run, strict=True)]
    return tag("g", tag("title", line.name), *parts)


def _runs(line: Line, x: Scale, y: Scale) -> Iterator[list[tuple[float, float]]]:
    """Stretches of the line without a gap."""
    run: list[tuple[float, float]] = []
    for u, v in zip(line.x, line.y, strict=True):
        if _shown(u, x.log) and _shown(v, y.log):
            run.append((u, v))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _path(points: Sequence[tuple[float, float]], i: int) -> Markup:
    dashes = _DASHES[i % len(_DASHES)] or None
    return tag("path", d=_way(points), stroke=_COLOURS[i % len(_COLOURS)], stroke_dasharray=dashes, class_="curve")


def _way(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{u:.1f},{v:.1f}" for u, v in points)
