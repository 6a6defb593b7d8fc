"""The named view plans, each with its source, and how to change them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

from byol.views.changes import Change, Take, arranged, near
from byol.views.palette import Color, Dialect
from byol.views.pipeline import Pipeline
from byol.views.plan import ViewPlan

# A view that is changed little: MYOW's mined ones (Azabou et al. 2021, released code for CIFAR).
_MILD = {"min_area": 0.8, "max_area": 1.0, "jitter": 0.0, "gray": 0.0, "blur": 0.0, "solarize": 0.0, "operations": 0}
# T and T' of the paper: blur always and never solarized; blur rarely and solarized sometimes.
_BYOL = (Pipeline(blur=1.0, solarize=0.0), Pipeline(blur=0.1, solarize=0.2))
_SMALL = (Pipeline(blur=0.0, solarize=0.0), Pipeline(blur=0.0, solarize=0.2))
_CROP = Pipeline(jitter=0.0, gray=0.0, blur=0.0, solarize=0.0)
_LOCAL_AREA = 0.05  # of the image's area, smallest local crop: SwAV's and DINO's
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
    takes: Sequence[Take] | None = None,
    **changes: Change,
) -> ViewPlan:
    """The named plan for images of `size` px and so many channels; `changes` set fields of its pipelines.

    A change is one of all views, `blur=0.5`, or goes over that for one of them, `**{"view2.blur": 0.0}`.

    paper        T and T' of Grill et al. 2020, appendix B, with the ops of the released JAX code
    torchvision  the same numbers with torchvision's ColorJitter and reflected blur, the usual substitute
    small        for images up to 64 px: `torchvision` without blur; solo-learn's CIFAR recipe (scripts/pretrain/cifar/byol.yaml)
    crop         random resized crop and flip alone; the ablation "crop only" (Grill et al. 2020, section 5)

    `color`: "rgb" for red, green and blue (the default with 3 channels), "channels" for any other (see `describe`).
    `takes`: which views, as (pipeline, whether mild), where the plan's own are not the ones that are wanted; a plan of fewer
    pipelines begins again. A mild view is a crop of 80 % of the area or more, flipped as ever. A local one is a crop of 5 % of the area
    up to where the others begin, 3/7 as wide and high in pixels, blurred at most half of the time and never solarized.
    `compiled`: whether views on a CPU are made by numba, the same to 1e-5 and faster; by default where it is installed.
    A probability may be True or False. Unknown names and values out of range are a ValueError.
    """
    if name not in _PLANS:
        raise ValueError(f"there is no view plan {name!r}{near(name, names())}; there are {', '.join(names())}")
    if color not in (None, "rgb", "channels"):
        raise ValueError(f"color {color!r} is not known; give 'rgb' or 'channels'")
    if compiled and not has_numba():
        raise ValueError("views can be compiled only by numba, which is missing or broken here; run `pip install 'byol[numba]'`")
    dialect, pipelines = _PLANS[name]
    return ViewPlan(
        name=name,
        dialect=dialect,
        size=size,
        channels=channels,
        color=color or ("rgb" if channels == 3 else "channels"),
        pipelines=arranged(name, pipelines, takes, _MILD, changes, lambda p: _local(p, size)),
        compiled=has_numba() if compiled is None else compiled,
    )


def _local(p: Pipeline, size: int) -> dict[str, Change]:
    """What is different in a view of a small part: as DINO has it (Caron et al. 2021), 96 px beside 224; with SwAV's blur also SwAV's."""
    pixels = max(1, 2 * round(size * 3 / 14))
    return {"pixels": pixels, "min_area": min(_LOCAL_AREA, p.min_area), "max_area": p.min_area, "blur": min(0.5, p.blur), "solarize": 0.0}
