"""The protocol with settings of one's own after a colon: `registration:apart=10,features=geometric,ply=clouds`."""

from __future__ import annotations

from dataclasses import dataclass

from byol import asked
from byol.registration.task import Task, open_task

FEATURES = ("both", "visual", "geometric")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Pairs of frames of a sequence, registered by the matches of their points' features; the defaults are BYOC's."""

    apart: int = 20  # frames between the two of a pair
    stride: int = 0  # frames between the first of a pair and the first of the next; 0: as `apart`, as released
    keep: int = 200  # matches of greatest weight, from each of the two frames
    subsets: int = 100  # fits to a share of the matches, of which the one of least residual stays
    share: float = 0.05
    points: int = 5000  # whose nearest are counted by feature-match recall
    features: str = "both"  # what the network is asked for; the benchmark on 3DMatch switches the visual ones off
    size: int = 0  # pixels, height and width of a frame; 0: as the network was trained
    ply: str = ""  # a folder for the registered clouds; empty: none

    def __post_init__(self) -> None:
        least = {"apart": 1, "stride": 0, "keep": 2, "subsets": 1, "points": 1, "size": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} is not possible; give {low} or more")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share:g} is not possible; give more than 0, and 1 at most")
        if self.features not in FEATURES:
            raise ValueError(f"features={self.features} is not known; give one of {', '.join(FEATURES)}")

    @property
    def name(self) -> str:
        return "registration"

    def describe(self) -> str:
        """The protocol and its settings in a few words."""
        steps = f", every {self.stride}" if self.stride else ""
        fits = f"best of {self.subsets} fits to {100 * self.share:g} %" if self.share < 1 or self.subsets > 1 else "one fit to all"
        return f"registration of frames {self.apart} apart{steps}, {fits} of {self.keep} matches each way, {self.features} features"

    def open(self, data: str, test: str | None, limit: int | None) -> Task:
        """The pairs in the test frames, or in DATA; ValueError with one sentence where there are none, or no poses."""
        return open_task(data, test, limit, apart=self.apart, stride=self.stride or self.apart)


_KINDS = {"registration": Registration}


def names() -> list[str]:
    """What `load` knows."""
    return list(_KINDS)


def describe(name: str) -> str:
    """A protocol and its default settings, in a few words."""
    return load(name).describe()


def load(text: str) -> Registration:
    """`registration` or `registration:KEY=VALUE,...` -> the protocol; ValueError for what is not there."""
    return asked.read(text, _KINDS, "protocol of RGB-D frames")
