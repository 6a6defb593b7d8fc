"""Registration on the page: every metric by its name beside the baselines, and a few pairs before and after, with their matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from byol import exporting, registration
from byol.evaluation.baselines import is_baseline
from byol.registration.metrics import Alignment, Matches, inliers, project
from byol.registration.subjects import ByFeatures, of_features
from byol.registration.task import Frame, Frames, Pair, Task
from byol.reporting.clouds import VIEWS, drawn, together
from byol.reporting.html import Markup, join, missing, table, tag
from byol.reporting.pictures import RGB, encoded
from byol.reporting.run import Run, listing, mapping, real
from byol.reporting.scores import words
from byol.run import find_device

BASELINES: Final = ("identity", "colour", "icp", "fpfh")
SIDE: Final = 256  # pixels of a picture of clouds
_LINES: Final = 60  # matches that are drawn
_MEANS: Final = ("mean", "median")
_UNITS: Final = {"rotation": "°", "translation": " cm", "chamfer": " cm"}


@dataclass(frozen=True)
class Score:
    """One subject by one kind of features."""

    name: str
    features: str
    metrics: dict[str, float]
    errors: list[float]  # rotation, degrees, of each pair

    @property
    def baseline(self) -> bool:
        return self.name in BASELINES or is_baseline(self.name)


@dataclass(frozen=True)
class Result:
    """One protocol on one set of pairs."""

    settings: str
    setting: str  # how many pairs of what
    pairs: list[str]
    scores: list[Score]
    notes: list[str]
    asked: dict[str, object]

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(m for s in self.scores for m in s.metrics))

    @property
    def own(self) -> Score | None:
        """The encoder's, by the first kind of features."""
        return next((s for s in self.scores if not s.baseline), None)


def results(run: Run) -> list[Result]:
    """Those of a run; what cannot be understood is left out."""
    found = (_result(e) for e in run.evaluations if e.get("protocol") == "registration")
    return [r for r in found if r.scores]


def _result(fields: dict[str, object]) -> Result:
    scores = [s for raw in listing(fields.get("scores")) if (s := _score(mapping(raw))).metrics]
    pairs = [str(p) for p in listing(fields.get("pairs"))]
    setting = f"{len(pairs):,} pairs at {int(real(fields.get('size')) or 0)} px ({fields.get('split')})"
    notes = [str(n) for n in listing(fields.get("notes"))]
    settings = str(fields.get("description") or words(mapping(fields.get("settings"))))
    return Result(settings, setting, pairs, scores, notes, mapping(fields.get("asked")))


def _score(fields: dict[str, object]) -> Score:
    metrics = {m: v for m, raw in mapping(fields.get("metrics")).items() if (v := real(raw)) is not None}
    errors = [real(v) or 0.0 for v in listing(mapping(fields.get("pairs")).get("rotation"))]
    return Score(str(fields.get("name", "encoder")), str(fields.get("features", "")), metrics, errors)


def worth(run: Run) -> Markup:
    """All of them with their pictures; nothing where there are none."""
    return join(tag("div", tag("h3", r.settings), _notes(r), _tables(r), _pictures(run, r), class_="protocol") for r in results(run))


def sentence(run: Run) -> str:
    """E.g. 'Registration: 98 % of 9 pairs within 5 degrees (best baseline: icp, 89 %)'; nothing where there are none."""
    counts = "rotation <= 5"
    for r in results(run):
        if r.own is None or counts not in r.own.metrics:
            continue
        others = [(s.metrics[counts], s.name) for s in r.scores if s.baseline and counts in s.metrics]
        best = f" (best baseline: {max(others)[1]}, {_number(counts, max(others)[0])})" if others else ""
        return f"Registration: {_number(counts, r.own.metrics[counts])} of {len(r.pairs):,} pairs within 5 degrees{best}"
    return ""


def _notes(r: Result) -> Markup:
    data = str(r.asked.get("test") or r.asked.get("data") or "")
    said = f"{r.setting}{f' of {data}' if data else ''}. The poses of the camera score, and are used for nothing else."
    return join(tag("p", text, class_="note") for text in (said, *r.notes))


def _tables(r: Result) -> Markup:
    """How far off, in one table, and how good the matches are in another."""
    errors = [m for m in r.metrics if m.split()[0] in _UNITS]
    return join(_table(r, metrics) for metrics in (errors, [m for m in r.metrics if m not in errors]) if metrics)


def _table(r: Result, metrics: list[str]) -> Markup:
    rows: list[list[str]] = [
        [s.name, tag("td", s.features, class_="mode"), *(_cell(m, s) for m in metrics)]
        for s in r.scores
        if any(m in s.metrics for m in metrics)
    ]
    return table(["", "features", *(_title(m) for m in metrics)], rows, "numbers")


def _title(metric: str) -> str:
    name, _, rest = metric.partition(" ")
    if name not in _UNITS:
        return metric
    return f"{name} {rest}, {_UNITS[name].strip()}" if rest in _MEANS else f"{name} {rest.replace('<=', '≤')}{_UNITS[name]}"


def _cell(metric: str, score: Score) -> Markup:
    value = score.metrics.get(metric)
    return tag("td", "–") if value is None else tag("td", _number(metric, value), data_mean=repr(value))


def _number(metric: str, value: float) -> str:
    return f"{value:.1f}" if metric.split()[-1] in _MEANS else f"{100 * value:.0f}\u00a0%"


def _pictures(run: Run, r: Result) -> Markup:
    """The best, the middle and the worst pair; a sentence where they cannot be made again."""
    own = r.own
    if own is None or len(own.errors) != len(r.pairs):
        return join([])
    try:
        task, frames, subject = _again(run, r)
        order = sorted(range(len(own.errors)), key=own.errors.__getitem__)
        chosen = {order[0]: "the best pair", order[len(order) // 2]: "the middle pair", order[-1]: "the worst pair"}
        pairs = {p.name: p for p in task.pairs}
        parts = [_pair(frames, subject, pairs[r.pairs[n]], n, called) for n, called in chosen.items()]
    except (ValueError, OSError, KeyError, TypeError) as error:
        return missing(f"The registered clouds cannot be drawn: {str(error) or type(error).__name__}.", run.says("report"))
    return join([tag("p", _MEANING, class_="note"), *parts])


_MEANING = (
    "Both clouds of a pair, the first blue and the second vermilion, as they were taken and after the motion that was found: "
    "where it is right the two cover the same surfaces. "
    "Below, the frames with some of the matches that the motion was fitted to."
)


def _again(run: Run, r: Result) -> tuple[Task, Frames, ByFeatures]:
    """What was evaluated, opened once more; ValueError where it is gone."""
    protocol = registration.load(str(r.asked.get("protocol")))
    test, limit = r.asked.get("test"), real(r.asked.get("limit"))
    task = protocol.open(str(r.asked.get("data")), None if test is None else str(test), None if limit is None else int(limit))
    encoder = exporting.load_encoder(run.path)
    seed = int(real(r.asked.get("seed")) or 0)
    return task, Frames(task.frames, encoder, protocol.size), of_features(encoder, protocol, seed, find_device("auto"), "fp32")


def _pair(frames: Frames, subject: ByFeatures, pair: Pair, number: int, called: str) -> Markup:
    a, b = frames(pair.first), frames(pair.second)
    found = next(iter(subject(a, b, number).values()))
    whole = frames.whole(pair.first), frames.whole(pair.second)
    still = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    motions = {"as taken": still, "registered": (found.R, found.t)}
    clouds = [(f"{when}, {view}", drawn(together(*motion, *whole), view, SIDE)) for view in VIEWS for when, motion in motions.items()]
    figures = (tag("figure", tag("img", src=encoded(p), alt=text, loading="lazy"), tag("figcaption", text)) for text, p in clouds)
    return join([tag("h4", f"{pair.name}, {called}"), tag("div", *figures, class_="clouds"), _matches(found, pair, *whole)])


def _matches(found: Alignment, pair: Pair, a: Frame, b: Frame) -> Markup:
    """Both frames and lines between the matched points: whole ones where they are the same point, dashed ones where not."""
    if found.kept is None or not len(found.kept.p):
        return join([])
    rows = torch.from_numpy(np.unique(np.linspace(0, len(found.kept.p) - 1, _LINES).round().astype(np.int64)))
    some = Matches(found.kept.p[rows], found.kept.q[rows])
    right = inliers(some, pair).tolist()
    size, gap = a.size, max(1, a.size // 16)
    ends = torch.cat([project(some.p.double(), a), project(some.q.double(), b) + torch.tensor([size + gap, 0])], 1).add(0.5).tolist()
    lines = [
        tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="match right" if good else "match wrong")
        for (x1, y1, x2, y2), good in sorted(zip(ends, right, strict=True), key=lambda e: e[1])
    ]
    images = [
        tag("image", href=encoded(_colours(f)), x=x, y=0, width=size, height=size, preserveAspectRatio="none")
        for f, x in ((a, 0), (b, size + gap))
    ]
    total = int(inliers(found.kept, pair).sum())
    spoken = f"{total} of {len(found.kept.p)} matches are of points within 0.1 m"
    svg = tag("svg", *images, *lines, viewBox=f"0 0 {2 * size + gap} {size}", role="img", aria_label=spoken)
    keys = [_key("right", "within 0.1 m of each other"), _key("wrong", "further apart")]
    legend = tag("p", *keys, tag("span", f"{len(rows)} of the matches; of all {len(found.kept.p)}, {total} are right"), class_="legend")
    return tag("figure", svg, legend, class_="matches")


def _key(kind: str, text: str) -> Markup:
    line = tag("svg", tag("line", x1=0, y1=5, x2=26, y2=5, class_=f"match {kind}"), width=26, height=10, aria_hidden="true")
    return tag("span", line, text)


def _colours(frame: Frame) -> RGB:
    """(S, S, 3): the colours where there are points, and grey where depth is missing."""
    out = np.full((frame.size * frame.size, 3), 0.5)
    out[frame.pixels.numpy()] = frame.colours.numpy()
    picture: RGB = np.rint(255 * out).astype(np.uint8).reshape(frame.size, frame.size, 3)
    return picture


def side_by_side(runs: Sequence[Run]) -> Markup:
    """A table for every protocol on every set of pairs, a column for each run: what stands in one row was measured in one way."""
    found = {run.path: {(r.settings, r.setting, tuple(r.pairs)): r for r in results(run)} for run in runs}
    conditions = list(dict.fromkeys(c for run in runs for c in found[run.path]))
    return join(_same_way(runs, [found[run.path].get(c) for run in runs]) for c in conditions)


def _same_way(runs: Sequence[Run], measured: Sequence[Result | None]) -> Markup:
    some = next(r for r in measured if r)
    owns = [r.own if r else None for r in measured]
    rows: list[list[str]] = [[_title(m), *(_cell(m, s) if s else tag("td", "–") for s in owns)] for m in some.metrics]
    return tag(
        "div", tag("h3", some.settings), tag("p", some.setting, class_="note"), table(["", *(r.name for r in runs)], rows, "numbers wide")
    )
