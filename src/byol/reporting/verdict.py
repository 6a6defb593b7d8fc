"""The first sentence of the page: how the run went, and whether the features are worth anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from byol.reporting import tasks
from byol.reporting.curves import stretches
from byol.reporting.html import number, percent, share
from byol.reporting.run import Run
from byol.reporting.scores import differ, finding

Mood = Literal["good", "doubt", "bad"]


@dataclass(frozen=True)
class Verdict:
    """How a run went, in words."""

    mood: Mood
    health: str  # one or two words or a short sentence
    detail: str  # one sentence, or nothing
    cure: str | None = None  # the command that helps


def verdict(run: Run) -> Verdict:
    """Healthy, warned, interrupted or collapsed, from the log alone."""
    if not run.records:
        return Verdict("doubt", "Not trained yet", "Nothing was logged.", run.says("resume"))
    parts, last = stretches(run.records), run.records[-1]
    if last.verdict == "COLLAPSED":
        return Verdict("bad", f"Collapsed at step {number(parts[-1].start + 1)}", _sentence(parts[-1].reason))
    warned = [s for s in parts if s.verdict == "WARN"]
    fell = [s for s in parts if s.verdict == "COLLAPSED"]
    if not run.finished:
        health = "healthy so far" if last.verdict == "OK" else "with a warning"
        at = f"step {number(last.step)} of {number(run.steps)}, {share(round(last.step / max(1, run.steps), 3))}"
        return Verdict("doubt", f"Unfinished ({at}), {health}", _sentence(last.reason), run.says("resume"))
    if last.verdict != "OK":
        return Verdict("doubt", "Finished with a warning", _sentence(last.reason))
    if fell:
        return Verdict("doubt", "Healthy at the end", f"It had collapsed at step {number(fell[0].start + 1)} and came back.")
    if warned:
        many = f"{len(warned)} warnings" if len(warned) > 1 else "one warning"
        return Verdict("good", "Healthy", f"On the way: {many}, the last up to step {number(warned[-1].stop)}.")
    return Verdict("good", "Healthy", "")


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def mood(run: Run) -> Mood:
    """The colour of the headline: good only for a healthy run whose features are not shown to be no better than a baseline's."""
    found, said = finding(run), verdict(run)
    if said.mood == "good" and found is not None and found.points is not None and not (found.clear and found.points > 0):
        return "doubt"
    return said.mood


def headline(run: Run) -> str:
    """E.g. 'Healthy. 63.3 % with 10 % of the labels, 24.9 points over the best baseline.'"""
    found, said = finding(run), verdict(run)
    measured = found.sentence() if found else tasks.sentence(run)
    worth = f"{measured}." if measured else "Not evaluated yet." if run.finished and said.mood != "bad" else ""
    return f"{said.health}. {worth}".strip()


def comparison(runs: Sequence[Run]) -> str:
    """The first sentence about several runs: which is best, if they were measured in the same way."""
    many = f"{len(runs)} runs"
    found = [(f, r) for r in runs if (f := finding(r)) is not None]
    if not found:
        seen = any(tasks.there(r) for r in runs)
        return f"{many}, {_tally(runs)}. {'None is evaluated by class labels.' if seen else 'None is evaluated yet.'}"
    if len({(f.result.conditions, f.score.labels) for f, _ in found}) > 1:
        return f"{many}, {_tally(runs)}. They were not evaluated in the same way, so no run is called the best."
    best, run = max(found, key=lambda pair: pair[0].score.top1)
    labels = "all" if best.score.labels == 1 else share(best.score.labels)
    near = [r.name for f, r in found if r is not run and not differ(f.score, best.score)]
    doubt = f", not clearly ahead of {', '.join(near)}" if near else ""
    rest = "" if len(found) == len(runs) else f" ({len(runs) - len(found)} not evaluated)"
    named = "" if best.result.metric == "top-1" else f" {best.result.metric}"
    return f"{many}, {_tally(runs)}. Best: {run.name}, {percent(best.score.top1)}{named} with {labels} of the labels{doubt}{rest}."


def _tally(runs: Sequence[Run]) -> str:
    moods = [verdict(r).mood for r in runs]
    if len(set(moods)) == 1:
        return {"good": "all healthy", "doubt": "none without a doubt", "bad": "all collapsed"}[moods[0]]
    words = {"good": "healthy", "doubt": "in doubt", "bad": "collapsed"}
    return ", ".join(f"{moods.count(m)} {words[m]}" for m in ("good", "doubt", "bad") if m in moods)
