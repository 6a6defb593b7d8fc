"""What a protocol on pixels or boxes is: settings that open data and give a task, which an encoder learns from its feature map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from byol.data import Source
from byol.dense.training import Tell
from byol.encoders import Encoder

Settings = dict[str, float | int | str]
MODES = ("both", "frozen", "finetuned")


class Task(Protocol):
    """Training and test images of one data set, ready to learn from."""

    @property
    def train(self) -> int:
        """Training images."""
        ...

    @property
    def test(self) -> int:
        """Test images."""
        ...

    @property
    def how(self) -> str:
        """Where the test images come from."""
        ...

    @property
    def facts(self) -> Settings:
        """What was found in the data or decided by it: classes, the size of crops."""
        ...

    def source(self) -> Source:
        """The training images without their targets."""
        ...

    def learn(self, encoder: Encoder, *, frozen: bool, seed: int, device: str, precision: str, tell: Tell) -> dict[str, float]:
        """A copy of the encoder with a new head, trained and tested: metric -> value, the first is the one that counts."""
        ...


class Transfer(Protocol):
    """A protocol with its settings."""

    @property
    def mode(self) -> str:
        """ "frozen", "finetuned" or "both"."""
        ...

    @property
    def seeds(self) -> int:
        """Trainings of each kind."""
        ...

    @property
    def name(self) -> str:
        """One word: "segmentation", "depth", "detection"."""
        ...

    def describe(self) -> str:
        """The protocol and its settings in a few words."""
        ...

    def open(self, data: str, test: str | None, limit: int | None) -> Task:
        """The task in a folder; ValueError with one sentence when it is none."""
        ...


def check(settings: Mapping[str, object], *, above: tuple[str, ...], least: Mapping[str, float] | None = None) -> None:
    """ValueError for a setting out of range: those of `above` are larger than 0, those of `least` at least so much."""
    for name in above:
        value = settings[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"{name}={value} is not possible; give a number above 0")
    for name, low in (least or {}).items():
        value = settings[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value < float("inf"):
            raise ValueError(f"{name}={value} is not possible; give {low:g} or more")
    if settings["mode"] not in MODES:
        raise ValueError(f"mode={settings['mode']} is not known; give one of {', '.join(MODES)}")
