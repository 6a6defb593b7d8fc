"""The numbers of one view: how it is cropped and how often and how strongly each op changes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One view's distribution; the defaults are what T and T' of the paper share (appendix B)."""

    pixels: int | None = None  # height and width of the view; none: those of the plan
    min_area: float = 0.08  # of the image's area, smallest crop
    max_area: float = 1.0  # of the image's area, largest crop
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of a crop, log-uniform
    flip: float = 0.5  # probability of mirroring left to right
    jitter: float = 0.8  # probability of the four colour jitters, in random order
    brightness: float = 0.4  # largest change, of the value range
    contrast: float = 0.4  # largest change of the factor
    saturation: float = 0.2  # largest change of the factor
    hue: float = 0.1  # largest change, of a full turn
    gray: float = 0.2  # probability of losing the colours
    blur: float  # probability of a Gaussian blur
    sigma: tuple[float, float] = (0.1, 2.0)  # pixels, width of the blur, uniform
    kernel: int | None = None  # taps of the blur; none: the rule 2 int((size / 10) / 2) + 1
    solarize: float  # probability of turning values from 0.5 up into 1 - value
    operations: int = 0  # of RandAugment, drawn for each sample and done after the blur, and then the graying; 0: none
    magnitude: float = 10.0  # of these operations, 0 to 10
    magnitude_spread: float = 0.5  # standard deviation of the magnitude, from sample to sample
    apart: tuple[int, int] = (0, 0)  # days to the other sample of its series that is seen beside it; 0 as the second: no end

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "gray", "blur", "solarize"):
            self._within(name, 0, 1, "a probability")
        for name in ("brightness", "contrast", "saturation"):
            self._within(name, 0, 1, "a strength")
        self._within("hue", 0, 0.5, "a strength in turns")
        self._within("magnitude", 0, 10, "a magnitude")
        if not 0 <= self.operations <= 9 or not 0 <= self.magnitude_spread < float("inf"):
            raise ValueError(f"operations {self.operations} of spread {self.magnitude_spread} are not possible; give 0 to 9, and 0 or more")
        if not 0 < self.min_area <= self.max_area <= 1:
            raise ValueError(f"min_area {self.min_area} and max_area {self.max_area} are no range of areas; give 0 < min <= max <= 1")
        if self.apart != (0, 0) and (self.apart[0] < 1 or 0 < self.apart[1] < self.apart[0] or self.apart[1] < 0):
            raise ValueError(f"apart {self.apart} is no range of days; give 1 or more, and then as much or more (0: no end)")
        for name in ("aspect", "sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} {low}, {high} is no range; give two numbers with 0 < first <= second")
        if self.pixels is not None and self.pixels < 1:
            raise ValueError(f"pixels {self.pixels} is no size of a view; give 1 or more, or none for that of the plan")
        if self.kernel is not None and (self.kernel < 1 or self.kernel % 2 == 0):
            raise ValueError(f"kernel {self.kernel} has no middle tap; give an odd number, or none for the rule of the released code")

    def _within(self, name: str, low: float, high: float, what: str) -> None:
        value: float = getattr(self, name)
        if not low <= value <= high:
            raise ValueError(f"{name} {value} is not {what}; give a number from {low} to {high}")
