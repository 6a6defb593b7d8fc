"""Points with error bars over named settings, as one SVG file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from byol.reporting.html import Markup, join, tag
from byol.reporting.scales import Scale, spread_of, tick_label

STEP, LEFT, RIGHT = 56, 48, 24  # pixels a setting, margins
TALL, GAP, TOP = 150, 34, 34  # of a panel, between panels, above the first
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.title{font-weight:600}.grid{stroke:#e4e4e4}.axis{stroke:#888}"
    ".guide{stroke:#888;stroke-dasharray:4 3}.bar{stroke:#1f6feb;stroke-width:1.5}.dot{fill:#1f6feb}"
    ".other .bar{stroke:#8a6d3b}.other .dot{fill:#fff;stroke:#8a6d3b;stroke-width:1.5}"
)


@dataclass(frozen=True)
class Point:
    """A mean and its deviation; 0 draws no bar."""

    mean: float
    deviation: float = 0.0


@dataclass(frozen=True)
class Panel:
    """One row of points, one for each setting; None where nothing was measured. The panels have scales of their own."""

    title: str
    points: Sequence[Point | None]
    measured: bool = True  # False: drawn in another colour
    unit: str = "top-1 %"
    digits: int = 1  # after the point, where a value is written out
    guides: Sequence[tuple[str, float]] = ()  # lines across, with their names


def picture(title: str, settings: Sequence[str], panels: Sequence[Panel]) -> Markup:
    """The panels one below the other, the settings below all of them."""
    deepest = TOP + len(panels) * (TALL + GAP)
    room = 16 + 5 * max((len(s) for s in settings), default=0)  # for the names, which lie askew
    beside = max((6 + 7 * len(name) for p in panels for name, _ in p.guides), default=0)
    width = max(LEFT + RIGHT + STEP * len(settings) + max(room * 4 // 5, beside), 16 + 7 * len(title), 360)
    parts = [tag("style", Markup(_STYLE)), tag("rect", width=width, height=deepest + room, fill="#fff")]
    parts.append(tag("text", title, x=8, y=18, class_="title"))
    parts += [_panel(p, TOP + i * (TALL + GAP), LEFT + STEP * len(settings)) for i, p in enumerate(panels)]
    parts += [_name(s, _x(i), deepest - GAP + 16) for i, s in enumerate(settings)]
    return tag("svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {deepest + room}", width=width, role="img")


def _x(i: int) -> float:
    return LEFT + STEP * (i + 0.5)


def _name(text: str, x: float, y: float) -> Markup:
    return tag("text", text, x=x, y=y, transform=f"rotate(35 {x:g} {y:g})")


def _panel(panel: Panel, top: float, right: float) -> Markup:
    known = [p for p in panel.points if p is not None]
    ends = [v for p in known for v in (p.mean - p.deviation, p.mean + p.deviation)] + [v for _, v in panel.guides] or [0.0, 1.0]
    domain, _ = spread_of(ends, zero=False)
    domain = domain if domain[0] >= 0 or min(ends) < 0 else (0.0, domain[1])
    low, high = top + TALL, top + 20
    if domain[0] > 0 and domain[1] / domain[0] > 100:
        domain = (0.0, domain[1])
    y = Scale(domain, (low, high))
    parts = [tag("text", f"{panel.title}, {panel.unit}", x=8, y=top + 10)]
    for tick in y.ticks():
        parts.append(tag("line", x1=LEFT, x2=right, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(tag("text", tick_label(tick), x=LEFT - 6, y=y(tick) + 4, text_anchor="end"))
    parts.append(tag("line", x1=LEFT, x2=right, y1=low, y2=low, class_="axis"))
    for name, value in panel.guides:
        parts.append(tag("line", x1=LEFT, x2=right, y1=y(value), y2=y(value), class_="guide"))
        parts.append(tag("text", name, x=right + 6, y=y(value) + 4))
    parts += [_drawn(p, _x(i), y, panel.digits) for i, p in enumerate(panel.points) if p is not None]
    return tag("g", join(parts), class_=None if panel.measured else "other")


def _drawn(p: Point, x: float, y: Scale, digits: int) -> Markup:
    dot = tag("circle", tag("title", f"{p.mean:.{digits}f}"), cx=x, cy=y(p.mean), r=3.5, class_="dot")
    if not p.deviation:
        return dot
    ends = [y(p.mean - p.deviation), y(p.mean + p.deviation)]
    caps = [tag("line", x1=x - 4, x2=x + 4, y1=e, y2=e, class_="bar") for e in ends]
    return join([tag("line", x1=x, x2=x, y1=ends[0], y2=ends[1], class_="bar"), *caps, dot])
