"""Methods, one file each, found by file name: a new file here is a new method everywhere.

The contract (`Method`, most of it in `Base`): an `nn.Module` made of an encoder and its `Config`; `forward(views)` gives a `StepOutput`;
`after_step(progress)` runs once after every optimiser step. It knows no device, optimiser, logger, path or data.

A class may say more of itself: `VIEWS`, the views it takes (else two), or the function of its options that gives them; `ROWS`, what
else it has to know of every sample; and `ROWS_IF_KNOWN`, what it makes use of where the data say it, or the function of its options that
gives that; `ENCODER`, the kind of encoder that it trains, as the catalogue has it before a name (`lab`: one of two halves);
`FEW_DIRECTIONS = True`, that few are what it looks for, so that health judges spread alone.
Options that its `Config` may have are filled in by the plan of a run: `classes` of the labels, `samples` of the data (`ROWS = ("index",)`
tells which of them a row of the batch is), `epochs` and `steps` of the run.
Two methods of a class are there only where they are needed: `keeps(self) -> dict[str, list[float]]`, what belongs to its encoder beside
the weights, which goes with it into files (`Encoder.kept`); and `exhibits(self, views, **rows) -> list[Exhibit]`, pictures for the report.
A file may hold `AUTO`, values that go over those of recipe `auto` (`AUTO_RECORDING`: for recordings, and so on), `RECIPES`, recipes
of its own (`Preset`), `MODALITY`, the kind of data that it is for, where not any, and `PUBLISHED`, its name in published tables; as plain
literals, which are read without importing the file.

How a report shows what a method logs is in `CURVES` of its class; what is not there has a chart under its own name.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from byol.optim import Group, param_groups


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass of a method gives."""

    loss: Tensor  # ()
    projections: tuple[Tensor, ...]  # one (B, D) per view, or (k B, D) of k parts of each sample, no gradient: what health looks at
    metrics: dict[str, Tensor] = field(default_factory=dict)  # () each, no gradient


@dataclass(frozen=True)
class View:
    """One of the views that a method takes: a pipeline of the view plan, as it is or mild."""

    of: int = 0  # 0 is T, 1 is T'; a plan of fewer pipelines begins again
    mild: bool = False  # changed little; what that means is up to the plan: of an image a large crop, of a recording the bin itself
    local: bool = False  # of a small part, and smaller: of an image a crop below the least of the others; of other data as the others


@dataclass(frozen=True)
class Curve:
    """How values of the log are shown: one chart."""

    keys: tuple[str, ...]  # names of the log, a line each
    title: str
    unit: str
    explanation: str
    zero: bool = False  # the axis starts at 0
    guides: tuple[tuple[float, str], ...] = ()  # horizontal lines, with their label


@dataclass(frozen=True)
class Exhibit:
    """What a method shows of its own in a report: rows of pictures."""

    title: str
    explanation: str
    columns: tuple[str, ...]  # C, what stands above each picture
    pictures: Tensor  # (R, C, channels, S, S), normalised as the views are


BOTH = (View(0), View(1))
Batch = tuple[tuple[Tensor, ...], dict[str, Tensor]]  # what a method is called with: views, (B, C, S, S) each, and rows, (B,) each


class Method(Protocol):
    """What training needs of a method, and all that it knows of one."""

    Config: ClassVar[type]  # a frozen dataclass: the options of the method
    encoder: nn.Module

    def __call__(self, views: tuple[Tensor, ...], **rows: Tensor) -> StepOutput:
        """`rows` holds what `ROWS` names, (B,) int64 each, and of `ROWS_IF_KNOWN` what there is.

        `index` is which sample it is, of those that are trained on, from 0.
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


class Base(nn.Module):
    """What most methods fulfil alike of the contract; a method has `__init__`, `forward` and `risks`, and of these what is its own."""

    def after_step(self, progress: float) -> None:
        """Nothing follows the optimiser."""

    def param_groups(self) -> list[Group]:
        """All parameters at the learning rate."""
        return param_groups(self)

    def schedule(self, progress: float) -> dict[str, float]:
        """Nothing changes over the run."""
        return {}

    def diagnostics(self) -> dict[str, Tensor]:
        """Nothing is measured beside health."""
        return {}


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


def views_of(method: type, options: object = None) -> tuple[View, ...]:
    """The views that the method takes with these options, those of its `Config` that are the defaults where none are given."""
    views: tuple[View, ...] | Callable[[object], tuple[View, ...]] = getattr(method, "VIEWS", BOTH)
    if not callable(views):
        return views
    return views(method.Config() if options is None else options)  # type: ignore[attr-defined]


def rows_of(method: type) -> tuple[str, ...]:
    """What else the method has to know of every sample."""
    rows: tuple[str, ...] = getattr(method, "ROWS", ())
    return rows


def rows_if_known(method: type, options: object = None) -> tuple[str, ...]:
    """What the method makes use of with these options (else its defaults), where the data say it of every sample."""
    rows: tuple[str, ...] | Callable[[object], tuple[str, ...]] = getattr(method, "ROWS_IF_KNOWN", ())
    if not callable(rows):
        return rows
    return rows(method.Config() if options is None else options)  # type: ignore[attr-defined]


def sees_labels(method: type, options: object = None) -> bool:
    """Whether the method learns from labels with these options, of data that have any."""
    return "labels" in (*rows_of(method), *rows_if_known(method, options))


def encoder_kind(method: type) -> str:
    """The kind of encoder that the method trains, as the catalogue has it before a name; empty: any."""
    kind: str = getattr(method, "ENCODER", "")
    return kind
