"""Methods, one file each, found by file name: a new file here is a new method everywhere.

The contract (`Method`): an `nn.Module` made of an encoder and its `Config`; `forward(views)` gives a `StepOutput`;
`after_step(progress)` runs once after every optimiser step. It knows no device, optimiser, logger, path or data.
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


class Method(Protocol):
    """What training needs of a method, and all that it knows of one."""

    Config: ClassVar[type]  # a frozen dataclass: the options of the method
    encoder: nn.Module

    def __call__(self, views: tuple[Tensor, ...]) -> StepOutput: ...
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
