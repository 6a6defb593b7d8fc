"""Views of sound in words: what a person reads before a run."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from byol.views.words import who

if TYPE_CHECKING:
    from byol.views.sounds import Pipeline, SoundViews

_COLUMNS = 72  # so that a caller can indent by 8


def describe(plan: SoundViews) -> list[str]:
    """What is seen of a sound, how it is normalised, what is done to each view."""
    count = len(plan.pipelines)
    said = ["; ".join(_ops(p)) for p in plan.pipelines]
    texts = [_header(plan), _before(plan.pipeline)]
    texts += [f"{who(count)}: {said[0]}"] if len(set(said)) == 1 else [f"view {n}: {text}" for n, text in enumerate(said, 1)]
    if plan.pipeline.post:
        texts.append("then normalised over the batch" + (f", {who(count)} together" if count > 1 else ""))
    # A percent sign stays with its number.
    lines = [line for text in texts for line in wrap(text.replace(" %", "\xa0%"), _COLUMNS, subsequent_indent="  ")]
    return [line.replace("\xa0", " ") for line in lines]


def _header(plan: SoundViews) -> str:
    front, p = plan.front, plan.pipeline
    bands, frames = plan.shape
    padded = {"both": "on both sides", "end": "at the end"}[p.pad]
    return (
        f"{plan.name}: {len(plan.pipelines)} view{'s' * (len(plan.pipelines) != 1)} of one window of {p.seconds:g} s at {front.rate:,} Hz, "
        f"shorter sounds with silence {padded}; {bands} mel bands from {front.f_min:g} to {front.f_max:g} Hz, "
        f"{frames} frame{'s' * (frames != 1)}, one every {1000 * front.hop / front.rate:g} ms"
    )


def _before(p: Pipeline) -> str:
    return {
        "running": f"log-mels normalised by statistics that run over the first {p.pre_epochs} epochs",
        "given": "log-mels normalised by statistics of the data",
        "none": "log-mels not normalised before",
    }[p.pre]


def _ops(p: Pipeline) -> Iterator[str]:
    if not (p.gain or p.mixup or p.noise or p.crop or p.fader):
        yield "the window itself"
        return
    if p.gain:
        yield f"its level changed by up to {p.gain:g} dB"
    if p.mixup:
        once = "" if p.push_each_view else ", which each enters once"
        yield f"one of the last {p.memory:,} sounds{once} mixed in, up to {_percent(p.mixup)}, where energies add"
    else:
        yield "nothing mixed in"
    if p.noise:
        yield f"Gaussian noise of {p.noise:g} deviations"
    if p.crop:
        yield (
            f"crop {_percent(p.heights[0])} to {_percent(min(1.0, p.heights[1]))} of the bands and "
            f"{_percent(p.widths[0])} to {_percent(min(p.canvas, p.widths[1]))} of the time, from a canvas of {_percent(p.canvas)}, resized"
        )
    else:
        yield "no crop"
    yield f"linear fader +-{p.fader:g}" if p.fader else "no fader"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"
