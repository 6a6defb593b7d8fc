"""Views of two visits of one subject: the earlier and the later of a sample and another of its series, so many days apart.

Nothing else is changed by default, as in LSSL (Zhao et al. 2021). What a person asks for, such as a crop or a flip, is drawn once for
both: where a view alone was changed, that would look like a change of the subject. The paper's pairs are more than a year apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import rng
from byol.encoders import Input
from byol.views.changes import Change, Take, arranged
from byol.views.named import has_numba
from byol.views.palette import Color
from byol.views.partners import Partners
from byol.views.pipeline import Pipeline
from byol.views.plan import ViewPlan
from byol.views.words import COLUMNS, changes_of

Column = NDArray[np.int64]

NAME: Final = "visits"
_VISIT: Final = Pipeline(
    min_area=1.0, aspect=(1.0, 1.0), flip=0.0, jitter=0.0, gray=0.0, blur=0.0, solarize=0.0, apart=(1, 0)
)  # fmt: skip
_ROLES: Final = ("the earlier", "the later")
# Both views share the numbers of the first one, so that those of the second are free to choose the partner.
_STREAM: Final = rng.STREAM_VIEWS + 1


def load(
    groups: Column,
    times: Column,
    *,
    size: int,
    channels: int,
    takes: Sequence[Take] | None = None,
    compiled: bool | None = None,
    **changes: Change,
) -> VisitViews:
    """The plan for samples of these (N,) groups and times, in days; `takes`, `compiled` and `changes` as in `byol.views.load`.

    ValueError where no two samples of a group are so far apart.
    """
    pipelines = arranged(NAME, (_VISIT, _VISIT), takes, {}, changes)
    low, high = pipelines[0].apart
    if any(p.apart != (low, high) for p in pipelines):
        raise ValueError("apart is of both views of a pair; give it once, --set apart=LOW,HIGH")
    partners = Partners.of(groups, times, low, high)
    if not partners.has.any():
        most = max((int(np.ptp(times[groups == g])) for g in np.unique(groups[groups >= 0])), default=0)
        raise ValueError(
            f"no two visits of a series are {_days(low, high)} apart (at most {most:,} here); give another --set apart=LOW,HIGH"
        )
    compiled = has_numba() if compiled is None else compiled
    color: Color = "rgb" if channels == 3 else "channels"
    plans = tuple(
        # As torchvision where a square does not fit: the centre of the image, and not a distortion of it.
        ViewPlan(
            name=NAME,
            dialect="torchvision",
            size=size,
            channels=channels,
            color=color,
            pipelines=(replace(p, apart=(0, 0)),),
            compiled=compiled,
        )
        for p in pipelines
    )
    roles = tuple(take[0] % 2 for take in takes) if takes is not None else (0, 1)
    return VisitViews(NAME, pipelines, plans, roles, partners, torch.from_numpy(times))


@dataclass(frozen=True, eq=False)
class VisitViews:
    """Two views of a sample of the data and its partner; a plan as `byol.views.Plan` says."""

    name: str
    pipelines: tuple[Pipeline, ...]
    plans: tuple[ViewPlan, ...]  # of each view, how one image becomes it
    roles: tuple[int, ...]  # of each view: 0 the earlier, 1 the later
    pairs: Partners
    times: Tensor  # (N,) days, on the CPU

    @property
    def compiled(self) -> bool:
        """Whether numba makes the views."""
        return self.plans[0].compiled

    def partners(self, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B,) samples -> (V, B) the samples that the views are of; of one without a partner all are the sample itself."""
        partner = self.pairs.draw(ids, rng.uniforms(seed, epoch, _STREAM, ids, 1)[:, 0])
        swapped = self.times[partner] < self.times[ids]
        pair = torch.where(swapped, partner, ids), torch.where(swapped, ids, partner)
        return torch.stack([pair[role] for role in self.roles])

    def from_memory(self, samples: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(N, C, H, W) raw values of all samples, (B,) ids on the CPU -> V views (B, C, S, S), float32, normalised."""
        seen = self.partners(ids, seed, epoch).to(samples.device)
        # The draws are those of the sample's own id, in every view.
        return tuple(plan.memory(samples[of], ids, seed, epoch, input)[0] for plan, of in zip(self.plans, seen, strict=True))

    def boxes(self, sizes: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B, 2) heights and widths, (B,) ids -> (B, V, 4) top, left, height, width of every crop."""
        return torch.cat([plan.boxes(sizes, ids, seed, epoch) for plan in self.plans], 1)

    def shrinks(self, boxes: Tensor) -> list[int]:
        """(B, V, 4) -> how much smaller each sample may be decoded: 1, 2, 4 or 8."""
        return self.plans[0].shrinks(boxes)

    def cut(self, image: NDArray[np.generic], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(H, W, C), (V, 4) boxes, the height and width that they are meant for -> (V, C, S, S)."""
        return self.plans[0].cut(image, boxes, size)

    def device(self, crops: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(V, B, C, S, S) raw crops on any device, (B,) ids on the CPU -> V views (B, C, S, S), float32, normalised."""
        return tuple(plan.device(raw[None], ids, seed, epoch, input)[0] for plan, raw in zip(self.plans, crops, strict=True))

    def images(self, raws: Sequence[Sequence[NDArray[np.generic]]], ids: Tensor, seed: int, epoch: int, input: Input) -> Tensor:
        """For each view the (H, W, C) images of its `partners` -> (V, B, C, S, S) in [0, 1]: as a person would look at them."""
        made = (plan.images(plan.host(of, ids, seed, epoch), ids, seed, epoch, input) for plan, of in zip(self.plans, raws, strict=True))
        return torch.cat(list(made))

    def describe(self) -> list[str]:
        """One header, who is beside whom, and what is changed."""
        plan, has = self.plans[0], self.pairs.has
        texts = [
            f"{self.name}: {len(self.plans)} view{'s' * (len(self.plans) != 1)} of {plan.size}x{plan.size} px, {plan.channels} channels"
        ]
        texts.append(f"a sample and another of its series, {_days(*self.pipelines[0].apart)} apart; {has.sum():,} of {len(has):,} have one")
        texts += [f"view {n}: {_ROLES[role]}" for n, role in enumerate(self.roles, 1)]
        texts.append(f"changes, drawn once for all views: {changes_of(plan)}")
        return [line for text in texts for line in wrap(text, COLUMNS, subsequent_indent="  ")]


def _days(low: int, high: int) -> str:
    return f"{low:,} day{'s' * (low != 1)} or more" if not high else f"{low:,} to {high:,} days"
