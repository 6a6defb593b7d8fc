"""Families of evaluations that need something else than class labels, by the names of their protocols.

A family is a package with the functions of `Family`; it stands in `_OF` by its protocols, so that finding one imports no other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from byol.data import Source
from byol.encoders import Encoder
from byol.published.beside import Beside

Progress = Callable[[str, int, int], None]  # (what, done, total)
# Protocol -> the package that has it; `byol.cli.options` says the names again, without importing anything.
_OF: Final = {
    **dict.fromkeys(("segmentation", "depth", "detection"), "dense"),
    "registration": "registration",
    "progression": "longitudinal",
}


class Task(Protocol):
    """Data that are open, for one protocol."""

    def source(self) -> Source:
        """The samples that say what input an encoder has to take."""
        ...


class Asked(Protocol):
    """A protocol with its settings: a frozen dataclass."""

    def open(self, data: str, test: str | None, limit: int | None) -> Task:
        """The task in these data; ValueError with one sentence when it is none."""
        ...


class Result(Protocol):
    """What was measured: a frozen dataclass, whose `asked` and `notes` the caller completes."""

    @property
    def protocol(self) -> str: ...
    @property
    def asked(self) -> dict[str, object]: ...
    @property
    def notes(self) -> list[str]: ...

    def lines(self) -> list[str]:
        """For people, at most 80 columns."""
        ...

    def published(self) -> Beside | None:
        """Published rows beside it, if there are any."""
        ...

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; no NaN."""
        ...


class Family(Protocol):
    """The functions of a package."""

    RAW: str  # why raw data is no subject of its own here, in a sentence; empty where it is

    def names(self) -> list[str]: ...
    def describe(self, name: str) -> str: ...
    def load(self, text: str) -> Asked:
        """`NAME:KEY=VALUE,...` -> the protocol."""
        ...

    def evaluate(
        self,
        name: str,
        encoder: Encoder | None,
        protocol: Any,  # its own, as is the task
        task: Any,
        *,
        baselines: bool,
        seed: int,
        device: str,
        precision: str,
        progress: Progress,
    ) -> Result: ...


def names() -> list[str]:
    """The protocols of all families."""
    return list(_OF)


def of(protocol: str) -> Family:
    """The family of a protocol, which may have settings after a colon; ValueError where there is none."""
    name = protocol.partition(":")[0]
    if name not in _OF:
        raise ValueError(f"there is no protocol {name!r} on other things than class labels; there are {', '.join(_OF)}")
    family: Any = importlib.import_module(f"byol.{_OF[name]}")
    return family  # type: ignore[no-any-return]
