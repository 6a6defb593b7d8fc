"""A view plan in words: what a person reads before a run and finds again in its plan.json."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byol.views.pipeline import Pipeline
    from byol.views.plan import ViewPlan

COLUMNS = 72  # so that a caller can indent by 8


def describe(plan: ViewPlan) -> list[str]:
    """One header, what each view does, and what stands for the colour ops where the channels are not red, green and blue."""
    texts = [_header(plan)]
    first = 1
    for pipeline, alike in ((p, len(list(group))) for p, group in groupby(plan.pipelines)):
        last = first + alike - 1
        whom = who(alike) if alike == len(plan.pipelines) else f"view {first}" if alike == 1 else f"views {first} to {last}"
        texts.append(f"{whom}: " + "; ".join(_ops(plan, pipeline)))
        first = last + 1
    if plan.color == "channels" and any(p.jitter or p.gray for p in plan.pipelines):
        texts.append(_replaced(plan))
    # A percent sign stays with its number.
    lines = [line for text in texts for line in wrap(text.replace(" %", "\xa0%"), COLUMNS, subsequent_indent="  ")]
    return [line.replace("\xa0", " ") for line in lines]


def changes_of(plan: ViewPlan) -> str:
    """What is done to the first view, in words."""
    return "; ".join(_ops(plan, plan.pipelines[0]))


def who(views: int) -> str:
    """All of so many views."""
    return {1: "the view", 2: "both views"}.get(views, f"all {views} views")


def _header(plan: ViewPlan) -> str:
    source = {
        "paper": "as in the released code (brightness added, saturation in HSV)",
        "torchvision": "as in torchvision (brightness multiplied, saturation blended)",
    }[plan.dialect]
    coloured = plan.color == "rgb" and any(p.jitter or p.gray for p in plan.pipelines)
    count = len(plan.pipelines)
    head = f"{plan.name}: {count} view{'s' * (count != 1)} of {plan.size}x{plan.size} px"
    return f"{head}, {plan.channels} channel{'s' * (plan.channels != 1)}" + (f", colours {source}" if coloured else "")


def _ops(plan: ViewPlan, p: Pipeline) -> Iterator[str]:
    low, high = p.aspect
    if p.pixels:
        yield f"{p.pixels}x{p.pixels} px"
    yield f"crop {_percent(p.min_area)} to {_percent(p.max_area)} of the area, aspect {low:.3g} to {high:.3g}"
    if p.flip:
        yield f"flip {_percent(p.flip)}"
    strengths = {"brightness": p.brightness, "contrast": p.contrast, "saturation": p.saturation, "hue": p.hue}
    jitters = [f"{name} +-{value:g}" for name, value in strengths.items() if value]
    if p.jitter and jitters:
        yield f"colour jitter {_percent(p.jitter)} ({', '.join(jitters)}{', in random order' * (len(jitters) > 1)})"
    if p.gray:
        yield f"gray {_percent(p.gray)}"
    yield _blur(plan.taps(p), p)
    if p.operations:
        yield f"{p.operations} of RandAugment's operations, magnitude {p.magnitude:g} +- {p.magnitude_spread:g}, before the graying"
    yield f"solarize {_percent(p.solarize)}" if p.solarize else "no solarize"


def _blur(taps: int, p: Pipeline) -> str:
    if not p.blur:
        return "no blur"
    if taps == 1:
        return "no blur (its kernel is one pixel at this size)"
    return f"blur {_percent(p.blur)} ({taps}x{taps}, sigma {p.sigma[0]:g} to {p.sigma[1]:g})"


def _replaced(plan: ViewPlan) -> str:
    text = "the channels are not red, green and blue, so "
    if plan.channels == 1:
        return text + "saturation is a gamma, hue a gain, and gray a stretch of the contrast to the full range"
    return text + (
        "brightness, contrast and (for hue) a gain are drawn for each channel, saturation blends each channel with "
        "the mean over channels, and gray puts that mean in every channel"
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"
