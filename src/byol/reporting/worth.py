"""Evaluations on the page: bars with intervals, a table, and the protocol beside every number."""

from __future__ import annotations

from collections.abc import Sequence

from byol.evaluation.intervals import deviation
from byol.reporting import tasks
from byol.reporting.html import Markup, join, missing, percent, share, short, table, tag
from byol.reporting.run import Run
from byol.reporting.scales import linear_ticks
from byol.reporting.scores import Result, Score, own, results

WIDTH, ROW, TOP, BOTTOM = 344, 36, 4, 30
_SPAN = (2.0, WIDTH - 62.0)  # bars; the rest is for the number at their end


def worth(run: Run) -> Markup:
    """All evaluations of one run, or how to make one."""
    found, others = results(run), tasks.worth(run)
    if not found and not others:
        return _not_yet(run)
    return join([*(_protocol(r, run) for r in found), others])


def _not_yet(run: Run) -> Markup:
    why = "This run is not evaluated yet, so nothing here says whether its features are worth anything; labels make that measurable:"
    return missing(why, run.says("evaluate", run.spec))


def _protocol(result: Result, run: Run) -> Markup:
    top = max(s.interval[1] if s.interval else s.top1 for s in result.scores)
    panels = [_panel(result, labels, max(0.1, top)) for labels in result.shares]
    title = tag("h3", result.settings)
    parts = [title, _note(result), tag("div", *panels, class_="bars"), _table(result, run), _published(result)]
    return tag("div", *parts, class_="protocol")


def _published(result: Result) -> Markup:
    """Published numbers on data of this name, one line a table, apart from all that was measured; nothing for other data."""
    lines = []
    for group in result.published:
        numbers = ", ".join(f"{r.method} {r.network} {r.value:.1f}" for r in group.rows)
        text = f"Published, for scale, not measured here: {numbers} ({group.differences}). {group.source}."
        lines.append(tag("p", text, class_="note published"))
    return join(lines)


def _note(result: Result) -> Markup:
    said = [f"{result.called}, {result.setting}. Whiskers and small numbers: 95 % interval.", *result.notes]
    return join(tag("p", text, class_="note") for text in said)


def _named(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(s.name for s in scores))


def _panel(result: Result, labels: float, top: float) -> Markup:
    """One bar for every encoder and baseline, at one share of the labels."""
    scores = [s for s in result.scores if s.labels == labels]
    bottom = TOP + ROW * len(scores)
    parts = [_axis(top, bottom, _chance(result)), *(_bar(s, TOP + ROW * i, top) for i, s in enumerate(scores))]
    spoken = "; ".join(f"{s.name} {percent(s.top1)}" for s in scores)
    n = next((s.n_labels for s in scores if s.n_labels), None)
    title = tag("b", f"{'All' if labels == 1 else share(labels)} of the labels") + tag("small", f" {n:,} {result.samples}" if n else "")
    svg = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {bottom + BOTTOM}", role="img", aria_label=spoken)
    return tag("figure", tag("div", Markup(title), class_="head"), svg, class_="chart")


def _x(value: float, top: float) -> float:
    return _SPAN[0] + value / top * (_SPAN[1] - _SPAN[0])


def _chance(result: Result) -> float | None:
    """What guessing reaches; None where it depends on how often each class is there."""
    return None if result.classes < 2 or result.metric not in ("top-1", "mean per class") else 1 / result.classes


def _axis(top: float, bottom: int, chance: float | None) -> Markup:
    marks = []
    for tick in linear_ticks(0.0, top, 4):
        at = _x(tick, top)
        marks.append(tag("line", x1=at, x2=at, y1=TOP, y2=bottom, class_="grid"))
        marks.append(tag("text", f"{100 * tick:g} %", x=at, y=bottom + 14, text_anchor="middle" if tick else "start"))
    if chance is not None and chance <= top:
        at = _x(chance, top)
        marks.append(tag("line", x1=at, x2=at, y1=TOP, y2=bottom + 2, class_="guide"))
        marks.append(tag("text", f"chance {percent(chance, 0)}", x=at + 2, y=bottom + 27, text_anchor="start", class_="guide-label"))
    return join(marks)


def _bar(score: Score, y: float, top: float) -> Markup:
    end = _x(score.top1, top)
    far = _x(score.interval[1], top) if score.interval else end
    parts = [
        tag("text", score.name, x=_SPAN[0], y=y + 12, class_="name" if score.baseline else "name strong"),
        tag("rect", x=_SPAN[0], y=y + 17, width=max(1.0, end - _SPAN[0]), height=12, class_="bar base" if score.baseline else "bar own"),
        tag("text", percent(score.top1), x=max(end, far) + 5, y=y + 27, class_="name" if score.baseline else "name strong"),
    ]
    if score.interval:
        low = _x(score.interval[0], top)
        path = f"M{short(low)} {short(y + 20)}v6m0-3H{short(far)}m0-3v6"
        parts.append(tag("path", d=path, class_="whisker"))
    return join(parts)


def _cell(score: Score | None, more: str = "") -> Markup:
    """One number with its interval; the exact values as data, for whoever reads the page by program."""
    if score is None:
        return tag("td", "–")
    small = [] if score.interval is None else [f"{100 * score.interval[0]:.1f}–{100 * score.interval[1]:.1f}"]
    small += [] if len(score.folds) < 2 else [f"deviation {100 * deviation(score.folds):.1f} over {len(score.folds)} folds"]
    small += [] if score.top5 is None else [f"top-5 {100 * score.top5:.1f}"]
    return tag("td", percent(score.top1), *(tag("small", text) for text in [*small, more] if text), data_top1=repr(score.top1))


def _table(result: Result, run: Run) -> Markup:
    by = {(s.name, s.labels): s for s in result.scores}
    rows: list[list[str]] = [[name, *(_cell(by.get((name, share_))) for share_ in result.shares)] for name in _named(result.scores)]
    gains = [_gain(result, run, labels) for labels in result.shares]
    if any(gains):
        rows.append(["against the best baseline", *(tag("td", g or "–", class_="gain") for g in gains)])
    heads = ["", *(_column_head(result, s) for s in result.shares)]
    return table(heads, rows, "numbers")


def _column_head(result: Result, labels: float) -> str:
    draws = max((s.draws for s in result.scores if s.labels == labels), default=0)
    metric = "" if result.metric == "top-1" else f"{result.metric}, "
    return f"{metric}{'all' if labels == 1 else share(labels)} of the labels" + (f", mean of {draws} draws" if draws > 1 else "")


def _gain(result: Result, run: Run, labels: float) -> str:
    best, subjects = result.best_baseline(labels), result.subjects(labels)
    if best is None or not subjects:
        return ""
    return f"{100 * (own(run, subjects).top1 - best.top1):+.1f} points".replace("-", "−")


def side_by_side(runs: Sequence[Run]) -> Markup:
    """A table for every protocol on every split, a column for each run: what stands in one row was measured in one way."""
    found = {r.path: {x.conditions: x for x in results(r)} for r in runs}
    conditions = list(dict.fromkeys(c for r in runs for c in found[r.path]))
    absent = [_not_yet_named(r) for r in runs if not found[r.path] and not tasks.there(r)]
    same = (_same_way(runs, [found[r.path].get(c) for r in runs]) for c in conditions)
    return join([*same, tasks.side_by_side(runs), *absent])


def _same_way(runs: Sequence[Run], measured: Sequence[Result | None]) -> Markup:
    """One table: label shares down, runs across; None where a run was not measured in this way."""
    some = next(x for x in measured if x)
    rows: list[list[str]] = []
    for labels in sorted({s for x in measured if x for s in x.shares}):
        rows.append([_column_head(some, labels), *(_column(r, x, labels) for r, x in zip(runs, measured, strict=True))])
    small = "Small: 95 % interval, and the difference to the best baseline of that run"
    said = f"{some.called}, {some.setting}. {small}. Settings: {some.details}."
    return tag("div", tag("h3", some.settings), tag("p", said, class_="note"), table(["", *(r.name for r in runs)], rows, "numbers wide"))


def _column(run: Run, result: Result | None, labels: float) -> Markup:
    subjects = result.subjects(labels) if result else []
    if result is None or not subjects:
        return tag("td", "–")
    gain = _gain(result, run, labels)
    return _cell(own(run, subjects), f"{gain} to the best baseline" if gain else "")


def _not_yet_named(run: Run) -> Markup:
    return missing(f"{run.name} is not evaluated yet.", run.says("evaluate", run.spec))
