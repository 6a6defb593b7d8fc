"""The curves of one run or of several over each other, and the health verdict along the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from byol import methods
from byol.health import SPREAD_COLLAPSED
from byol.methods import Curve
from byol.reporting.charts import Axis, Chart, Line, chart
from byol.reporting.html import Markup, join, missing, number, short, tag
from byol.reporting.run import Record, Run

_BELOW = f"collapsed below {SPREAD_COLLAPSED:g}"
CURVES = (
    Curve(
        ("spread",),
        "Spread",
        "of 1",
        "Deviation of the normalised projections × √d: 1 in all directions, 0 in one point.",
        True,
        ((SPREAD_COLLAPSED, _BELOW),),
    ),
    Curve(("rank",), "Effective rank", "dimensions", "How many directions the projections of a batch use; 1 means collapse.", True),
    Curve(
        ("positive_cosine", "negative_cosine"),
        "Cosines",
        "",
        "Positive: two views of one sample; negative: two samples. The gap is what was learned.",
    ),
    Curve(
        ("online_target_distance",),
        "Online to target",
        "of the online norm",
        "Distance of the two networks' parameters; it closes as τ nears 1.",
    ),
    Curve(("target_cosine",), "Online and target projection", "cosine", "Of the two views of a sample, before the predictor."),
    Curve(("grad_norm",), "Gradient", "norm", "Of all online parameters, before the optimiser."),
    Curve(("lr",), "Learning rate", "per update", "Warm-up, then half a cosine.", True),
    Curve(("tau",), "Target momentum τ", "per update", "The target keeps this share of itself at every update; 1 at the end."),
    Curve(("images_per_second",), "Speed", "samples/s", "Between two lines of the log.", True),
)
_VERDICT = {"left_out", "suspects"}  # the book-keeping of the verdict
_WORDS = {"OK": "OK", "WARN": "warning", "COLLAPSED": "collapsed"}


def curves(runs: Sequence[Run]) -> Markup:
    """All charts in one grid, with a common x axis; a sentence when nothing was logged."""
    logged = [r for r in runs if r.records]
    if not logged:
        return missing("There is no training log yet, so there are no curves; go on with the run:", runs[0].says("resume"))
    rates = {r.steps_per_epoch for r in logged}
    axis = Axis(max(r.records[-1].epoch for r in logged) or 1.0, rates.pop() if len(rates) == 1 else None)
    shown = _shown(runs, logged)
    if len(runs) > 1:
        shown = [part for c in shown for part in _parted(c)]
    charts = join(chart(Chart(c.title, c.unit, c.explanation, _lines(c, logged, runs), c.zero, list(c.guides)), axis) for c in shown)
    absent = [missing(f"{r.name} has no training log yet.", r.says("resume")) for r in runs if not r.records]
    return join([tag("div", charts, class_="charts" if len(runs) == 1 else "charts many"), *absent])


def _shown(runs: Sequence[Run], logged: Sequence[Run]) -> list[Curve]:
    """The loss, what every method logs, what these methods say of their own values, and the rest under its own name."""
    kinds = list(dict.fromkeys(str(r.settings.get("method")) for r in runs))
    own = {c.keys: c for kind in kinds if kind in methods.names() for c in methods.curves_of(methods.load(kind))}
    # Of one method in its own words; several methods do not share a scale.
    said = own.pop(("loss",), None) if len(kinds) == 1 else Curve(("loss",), "Loss", "", "These methods have losses on different scales.")
    own.pop(("loss",), None)
    loss = said or Curve(("loss",), "Loss", "", "Of the method.")
    spoken_of = [loss, *CURVES, *own.values()]
    return [*spoken_of, *_others(logged, {key for c in spoken_of for key in c.keys})]


def _parted(curve: Curve) -> list[Curve]:
    """A chart for each of its values: several runs over each other need a colour each."""
    if len(curve.keys) == 1:
        return [curve]
    return [replace(curve, keys=(key,), title=key.replace("_", " ").capitalize()) for key in curve.keys]


def legend(runs: Sequence[Run]) -> Markup:
    """The colour and dash of every run."""
    keys = (tag("span", _swatch(i), r.name) for i, r in enumerate(runs))
    return tag("p", *keys, class_="legend")


def _swatch(colour: int) -> Markup:
    line = tag("line", x1=0, x2=26, y1=5, y2=5, class_=f"curve k{colour % 8} d{colour % 8}")
    return tag("svg", line, width=26, height=10, aria_hidden="true")


def _others(runs: Sequence[Run], known: set[str]) -> list[Curve]:
    """Whatever else a method logs, under its own name."""
    keys = sorted({k for r in runs for record in r.records for k in record.values} - known - _VERDICT)
    return [Curve((k,), k.replace("_", " ").capitalize(), "", "Logged by the method.") for k in keys]


def _lines(curve: Curve, logged: Sequence[Run], runs: Sequence[Run]) -> list[Line]:
    """One line a key for a single run; one line a run for several, in the run's colour."""
    found = []
    for r in logged:
        for n, key in enumerate(curve.keys):
            kept = [x for x in r.records if key in x.values]
            name = _apart(key, curve.keys) if len(runs) == 1 else r.name
            colour = n if len(runs) == 1 else runs.index(r) % 8
            label = name if len(runs) == 1 and len(curve.keys) > 1 else ""
            found.append(Line(name, colour, [x.step for x in kept], [x.epoch for x in kept], [x.values[key] for x in kept], label))
    return found


def _apart(key: str, keys: Sequence[str]) -> str:
    """The words of a name that not all of these have: positive of positive_cosine and negative_cosine."""
    words = [word for word in key.split("_") if not all(word in other.split("_") for other in keys)]
    return " ".join(words) or key.replace("_", " ")


@dataclass(frozen=True)
class Stretch:
    """Lines of the log in a row with one verdict and one kind of reason."""

    verdict: str
    start: int  # first step that it speaks of, exclusive
    stop: int  # last step, inclusive
    reason: str  # the first one given: what was so when it began


def stretches(records: Sequence[Record]) -> list[Stretch]:
    """The log as stretches of one verdict; each line speaks of the steps since the line before."""
    found, before = [], 0
    for verdict, group in groupby(records, key=lambda r: r.verdict):
        part = list(group)
        found.append(Stretch(verdict, before, part[-1].step, part[0].reason))
        before = part[-1].step
    return found


def timeline(run: Run) -> Markup:
    """The verdict along the steps as a strip, and in words."""
    if not run.records:
        return missing("There is no health verdict yet: nothing was logged.", run.says("resume"))
    parts, last = stretches(run.records), run.records[-1].step
    boxes = [
        tag("rect", tag("title", _sentence(s)), x=f"{short(100 * s.start / last)}%", width=f"{short(100 * (s.stop - s.start) / last)}%",
            height=14, class_=f"v{s.verdict}")
        for s in parts
    ]  # fmt: skip
    strip = tag("svg", *boxes, width="100%", height=14, role="img", aria_label="; ".join(_sentence(s) for s in parts[:20]), class_="strip")
    ends = tag("div", tag("span", "step 0"), tag("span", f"step {number(last)}"), class_="ends")
    notable = [s for s in parts if s.verdict != "OK"]
    words = [tag("li", tag("b", _WORDS.get(s.verdict, s.verdict), class_=f"t{s.verdict}"), f" {_span(s)}: {s.reason}") for s in notable[:8]]
    if len(notable) > 8:
        words.append(tag("li", f"and {len(notable) - 8} more, in metrics.jsonl"))
    said = tag("ul", *words, class_="verdicts") if words else tag("p", "OK at every line of the log.", class_="note")
    return join([strip, ends, said])


def _span(s: Stretch) -> str:
    return f"steps {number(s.start + 1)} to {number(s.stop)}" if s.stop > s.start + 1 else f"step {number(s.stop)}"


def _sentence(s: Stretch) -> str:
    return f"{_span(s)} {_WORDS.get(s.verdict, s.verdict)}" + (f": {s.reason}" if s.reason else "")
