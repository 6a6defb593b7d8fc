"""Line charts as inline SVG: thin lines, a light grid, epochs and steps below, the exact values kept for the pointer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from byol.reporting.html import Markup, join, number, printable, tag
from byol.reporting.scales import Scale, linear_ticks, spread_of, thinned, tick_label

WIDTH, HEIGHT = 344, 196
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 8, 36  # margins


@dataclass(frozen=True)
class Line:
    """One curve: steps and what was measured at them."""

    name: str
    colour: int  # of the palette
    steps: list[int]
    epochs: list[float]
    values: list[float]
    label: str = ""  # written beside its values, where no legend says what it is


@dataclass(frozen=True)
class Chart:
    """One small chart."""

    title: str
    unit: str
    explanation: str
    lines: list[Line]
    zero: bool = False  # the axis starts at 0
    guides: list[tuple[float, str]] = field(default_factory=list)  # horizontal lines that are always shown, with their label


@dataclass(frozen=True)
class Axis:
    """The x axis that all charts of a section share."""

    epochs: float  # the last one
    steps_per_epoch: float | None  # None: runs differ, so steps cannot be written


def chart(c: Chart, axis: Axis) -> Markup:
    """The chart as a figure, or a sentence when nothing finite was measured."""
    lines = [line for line in c.lines if line.values]
    if not lines:
        return Markup("")
    domain, log = spread_of([v for line in lines for v in line.values], zero=c.zero, include=[v for v, _ in c.guides])
    y = Scale(domain, (HEIGHT - BOTTOM, TOP), log)
    x = Scale((0.0, axis.epochs), (LEFT, WIDTH - RIGHT))
    thin = [_thin(line) for line in lines]
    drawing = join([_grid(y), _epochs(x, axis), *(_guide(v, label, y) for v, label in c.guides), *(_curve(li, x, y) for li in thin)])
    hair = tag("line", y1=TOP, y2=HEIGHT - BOTTOM, class_="hair")
    foot = [tag("text", y=HEIGHT - BOTTOM + 15, text_anchor="middle", class_="foot")]
    if axis.steps_per_epoch is not None:
        foot.insert(0, tag("text", y=HEIGHT - BOTTOM + 28, text_anchor="middle", class_="foot second"))
    pointer = tag("g", hair, *foot, class_="pointer", visibility="hidden")
    svg = tag(
        "svg", drawing, pointer,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", tabindex=0, aria_label=_spoken(c, lines),
    )  # fmt: skip
    head = tag("div", tag("b", c.title), " ", tag("small", c.unit), tag("output", _now(lines)), class_="head")
    return tag("figure", head, svg, tag("figcaption", c.explanation), class_="chart", data_chart=_data(thin, x, y, axis))


def _thin(line: Line) -> Line:
    keep = thinned(line.values)
    return replace(line, steps=[line.steps[i] for i in keep], epochs=[line.epochs[i] for i in keep], values=[line.values[i] for i in keep])


def _now(lines: list[Line]) -> Markup:
    """The last value of each line, in its colour; the pointer replaces it."""
    return join((tag("span", _labelled(li) + number(li.values[-1]), class_=f"c{li.colour}") for li in lines), " ")


def _labelled(line: Line) -> str:
    return f"{line.label} " if line.label else ""


def _spoken(c: Chart, lines: list[Line]) -> str:
    parts = [f"{li.name} from {number(li.values[0])} to {number(li.values[-1])}" for li in lines]
    return f"{c.title}, {c.unit}: {'; '.join(parts)}"


def _grid(y: Scale) -> Markup:
    rows = []
    for value in y.ticks():
        at = y(value)
        rows.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        rows.append(tag("text", tick_label(value), x=LEFT - 6, y=at + 3.5, text_anchor="end"))
    return join(rows)


def _epochs(x: Scale, axis: Axis) -> Markup:
    """Ticks with the epoch, and under it the step."""
    base = HEIGHT - BOTTOM
    marks = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis")]
    ticks = linear_ticks(0.0, axis.epochs, 4)
    for i, value in enumerate(ticks):
        at = x(value)
        anchor = "middle" if at < WIDTH - RIGHT - 14 else "end"
        marks.append(tag("line", x1=at, x2=at, y1=base, y2=base + 3, class_="axis"))
        marks.append(
            tag(
                "text",
                ("epoch " if i == 0 else "") + tick_label(value),
                x=at if i else 2,
                y=base + 15,
                text_anchor=anchor if i else "start",
            )
        )
        if axis.steps_per_epoch is not None:
            step = tick_label(round(value * axis.steps_per_epoch))
            text = ("step " if i == 0 else "") + step
            marks.append(tag("text", text, x=at if i else 2, y=base + 28, text_anchor=anchor if i else "start", class_="second"))
    return join(marks)


def _guide(value: float, label: str, y: Scale) -> Markup:
    at = y(value)
    above = at - 4 if at > TOP + 14 else at + 11
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="guide")
    return join([line, tag("text", label, x=WIDTH - RIGHT - 2, y=above, text_anchor="end", class_="guide-label")])


def _curve(line: Line, x: Scale, y: Scale) -> Markup:
    points = [f"{x(e):.1f},{y(v):.1f}" for e, v in zip(line.epochs, line.values, strict=True)]
    if len(points) == 1:
        return tag("circle", cx=x(line.epochs[0]), cy=y(line.values[0]), r=3, class_=f"dot k{line.colour}")
    return tag("path", d="M" + "L".join(points), class_=f"curve k{line.colour} d{line.colour}")


def _data(lines: Sequence[Line], x: Scale, y: Scale, axis: Axis) -> str:
    """Everything that the pointer needs, as JSON: the exact values, and the scales."""
    return json.dumps(
        {
            "x": [*x.domain, *x.span],
            "y": [*y.domain, *y.span],
            "log": y.log,
            "lines": [_points(li) for li in lines],
        },
        separators=(",", ":"),
    )


def _points(line: Line) -> dict[str, object]:
    epochs = [round(e, 3) for e in line.epochs]
    return {
        "name": printable(line.name),
        "label": _labelled(line),
        "colour": line.colour,
        "step": line.steps,
        "epoch": epochs,
        "value": line.values,
    }
