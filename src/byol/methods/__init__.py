"""Methods, one file each, found by file name: a new file here is a new method everywhere.

The contract (`Method`): an `nn.Module` made of an encoder and its `Config`; `forward(views)` gives a `StepOutput`;
`after_step(progress)` runs once after every optimiser step. It knows no device, optimiser, logger, path or data.

A class may say more of itself: `VIEWS`, the views it takes (else two); `ROWS`, what else it has to know of every sample; and
`ROWS_IF_KNOWN`, what it makes use of where the data say it.
A file may hold `AUTO`, values that go over those of recipe `auto` (`AUTO_RECORDING`: for recordings), and `RECIPES`, recipes of its
own (`Preset`), as plain literals, which are read without importing the file.

How a report shows what a method logs is in `CURVES` of its class; what is not there has a chart under its own name.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from byol.optim import Group


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass of a method gives."""

    loss: Tensor  # ()
    projections: tuple[Tensor, ...]  # one (B, D) per view, no gradient: what health looks at
    metrics: dict[str, Tensor] = field(default_factory=dict)  # () each, no gradient


@dataclass(frozen=True)
class View:
    """One of the views that a method takes: a pipeline of the view plan, as it is or mild."""

    of: int = 0  # 0 is T, 1 is T'; a plan of fewer pipelines begins again
    mild: bool = False  # changed little; what that means is up to the plan: of an image a large crop, of a recording the bin itself


@dataclass(frozen=True)
class Curve:
    """How values of the log are shown: one chart."""

    keys: tuple[str, ...]  # names of the log, a line each
    title: str
    unit: str
    explanation: str
    zero: bool = False  # the axis starts at 0
    guides: tuple[tuple[float, str], ...] = ()  # horizontal lines, with their label


BOTH = (View(0), View(1))
Batch = tuple[tuple[Tensor, ...], dict[str, Tensor]]  # what a method is called with: views, (B, C, S, S) each, and rows, (B,) each


class Method(Protocol):
    """What training needs of a method, and all that it knows of one."""

    Config: ClassVar[type]  # a frozen dataclass: the options of the method
    encoder: nn.Module

    def __call__(self, views: tuple[Tensor, ...], **rows: Tensor) -> StepOutput:
        """`rows` holds what `ROWS` names, (B,) int64 each, and of `ROWS_IF_KNOWN` what there is.

        `labels` and `groups` (such as trials of a recording) are -1 where unknown, `times` are in steps of the recording.
        """
        ...

    def after_step(self, progress: float) -> None: ...
    def param_groups(self) -> list[Group]: ...
    def schedule(self, progress: float) -> dict[str, float]: ...
    def diagnostics(self) -> dict[str, Tensor]: ...
    def risks(self) -> dict[str, str]:
        """What in its options is known to end in collapse, and the setting that mends it: {"there is no predictor": "predictor=mlp"}."""
        ...


def names() -> list[str]:
    """The methods that there are: the files of this folder."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def load(name: str) -> type:
    """The class of a method by its file name, e.g. `load("byol")(encoder)`."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names())}"
        raise ValueError(f"no method {name!r}; {hint}")
    method: type = importlib.import_module(f"byol.methods.{name}").METHOD
    return method


def curves_of(method: type) -> tuple[Curve, ...]:
    """How the method wants to have shown what it logs; the rest is shown under its own name."""
    curves: tuple[Curve, ...] = getattr(method, "CURVES", ())
    return curves


def views_of(method: type) -> tuple[View, ...]:
    """The views that the method takes."""
    views: tuple[View, ...] = getattr(method, "VIEWS", BOTH)
    return views


def rows_of(method: type) -> tuple[str, ...]:
    """What else the method has to know of every sample."""
    rows: tuple[str, ...] = getattr(method, "ROWS", ())
    return rows


def rows_if_known(method: type) -> tuple[str, ...]:
    """What the method makes use of, where the data say it of every sample."""
    rows: tuple[str, ...] = getattr(method, "ROWS_IF_KNOWN", ())
    return rows
