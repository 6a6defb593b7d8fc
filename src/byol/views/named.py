"""The named view plans, each with its source, and how to change them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec

from byol.views.palette import Color, Dialect
from byol.views.pipeline import Pipeline, field_names
from byol.views.plan import ViewPlan

Change = float | tuple[float, float] | None
_ONE = re.compile(r"view(\d{1,4})\.(.*)")  # a setting of one view alone: view2.blur

# T and T' of the paper: blur always and never solarized; blur rarely and solarized sometimes.
_BYOL = (Pipeline(blur=1.0, solarize=0.0), Pipeline(blur=0.1, solarize=0.2))
_SMALL = (Pipeline(blur=0.0, solarize=0.0), Pipeline(blur=0.0, solarize=0.2))
_CROP = Pipeline(jitter=0.0, gray=0.0, blur=0.0, solarize=0.0)
_PLANS: dict[str, tuple[Dialect, tuple[Pipeline, ...]]] = {
    "paper": ("paper", _BYOL),
    "torchvision": ("torchvision", _BYOL),
    "small": ("torchvision", _SMALL),
    "crop": ("paper", (_CROP, _CROP)),
}


def names() -> list[str]:
    """The plans that `load` knows."""
    return list(_PLANS)


@cache
def has_numba() -> bool:
    """Whether numba is here and works: it refuses a NumPy that is newer than it knows."""
    if find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except Exception:  # also what its own libraries raise: views must not need what is optional
        return False
    return True


def load(
    name: str,
    *,
    size: int,
    channels: int = 3,
    color: Color | None = None,
    compiled: bool | None = None,
    takes: Sequence[tuple[int, Mapping[str, Change]]] | None = None,
    **changes: Change,
) -> ViewPlan:
    """The named plan for images of `size` px and so many channels; `changes` set fields of its pipelines.

    A change is one of all views, `blur=0.5`, or goes over that for one of them, `**{"view2.blur": 0.0}`.

    paper        T and T' of Grill et al. 2020, appendix B, with the ops of the released JAX code
    torchvision  the same numbers with torchvision's ColorJitter and reflected blur, the usual substitute
    small        for images up to 64 px: `torchvision` without blur; solo-learn's CIFAR recipe (scripts/pretrain/cifar/byol.yaml)
    crop         random resized crop and flip alone; the ablation "crop only" (Grill et al. 2020, section 5)

    `color`: "rgb" for red, green and blue (the default with 3 channels), "channels" for any other (see `describe`).
    `takes`: which views, as (pipeline, what is different from it), where the plan's own are not the ones that are wanted; a plan
    of fewer pipelines begins again.
    `compiled`: whether views on a CPU are made by numba, the same to 1e-5 and faster; by default where it is installed.
    A probability may be True or False. Unknown names and values out of range are a ValueError.
    """
    if name not in _PLANS:
        raise ValueError(f"there is no view plan {name!r}{_near(name, names())}; there are {', '.join(names())}")
    if color not in (None, "rgb", "channels"):
        raise ValueError(f"color {color!r} is not known; give 'rgb' or 'channels'")
    if compiled and not has_numba():
        raise ValueError("views can be compiled only by numba, which is missing or broken here; run `pip install 'byol[numba]'`")
    dialect, pipelines = _PLANS[name]
    alone = {key: change for key, change in changes.items() if _ONE.fullmatch(key)}
    everywhere = {key: change for key, change in changes.items() if key not in alone}
    return ViewPlan(
        name=name,
        dialect=dialect,
        size=size,
        channels=channels,
        color=color or ("rgb" if channels == 3 else "channels"),
        pipelines=_changed(name, _taken(pipelines, takes, everywhere), alone),
        compiled=has_numba() if compiled is None else compiled,
    )


def _taken(
    pipelines: tuple[Pipeline, ...], takes: Sequence[tuple[int, Mapping[str, Change]]] | None, changes: Mapping[str, Change]
) -> tuple[Pipeline, ...]:
    """The plan's pipelines with what is changed in all of them, or the views that are wanted of these."""
    found = tuple(_with(p, changes) for p in pipelines)
    return found if takes is None else tuple(_with(found[of % len(found)], own) for of, own in takes)


def _changed(plan: str, pipelines: tuple[Pipeline, ...], alone: Mapping[str, Change]) -> tuple[Pipeline, ...]:
    """The views with what is said of one of them alone, which goes over all else."""
    own: list[dict[str, Change]] = [{} for _ in pipelines]
    for key, change in alone.items():
        number, _, name = key.removeprefix("view").partition(".")
        if not 1 <= int(number) <= len(pipelines):
            raise ValueError(f"{key}: the views {plan} have no view {number}; give view1 to view{len(pipelines)}")
        own[int(number) - 1][name] = change
    return tuple(_with(p, changes) for p, changes in zip(pipelines, own, strict=True))


def _with(pipeline: Pipeline, changes: Mapping[str, Change]) -> Pipeline:
    """The pipeline with its fields replaced, each checked and of its own type."""
    for key in changes:
        if key not in field_names():
            raise ValueError(f"views have no setting {key!r}{_near(key, field_names())}; there are {', '.join(field_names())}")
    return replace(pipeline, **{key: _value(key, value) for key, value in changes.items()})  # type: ignore[arg-type]  # _value checks


def _value(key: str, value: Change) -> float | int | tuple[float, float] | None:
    """What the field holds: a pair, a whole number or none, or a number; True and False are 1 and 0."""
    if key in ("aspect", "sigma"):
        if isinstance(value, (tuple, list)) and len(value) == 2:
            return float(value[0]), float(value[1])
        raise ValueError(f"{key} {value!r} is no pair; give two numbers, the least and the greatest")
    if key == "kernel" and (value is None or (not isinstance(value, (bool, tuple)) and value == int(value))):
        return None if value is None else int(value)
    if key == "kernel" or not isinstance(value, (int, float)):
        raise ValueError(f"{key} {value!r} is not a {'whole ' if key == 'kernel' else ''}number; give one")
    return float(value)


def _near(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
