"""Object detection by Faster R-CNN, the transfer of BYOL's appendix on VOC2007.

The paper trains asynchronously on 9 workers for 1.5 M updates, which is not reproduced here: updates, batch and rate are those that
MoCo is remembered to use for the same detector (unverified). Longest edges of 480 to 1024 px are the paper's, as is the detector, C4;
the feature pyramid is for comparing with others. AP50, AP75 and AP are COCO's; AP50 (VOC07) has the devkit's 11 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from byol.data import Source
from byol.dense.average_precision import Found, Truth, average_precision
from byol.dense.boxes import Images, Labelled, open_images
from byol.dense.pictures import Array, read_picture, scaled
from byol.dense.source import source_of
from byol.dense.task import Settings, check
from byol.dense.training import Tell, batches, cast, fit, in_order
from byol.dense.voc_precision import voc_average_precision
from byol.encoders import Encoder, Input

NECKS = ("c4", "fpn")
_WARM = 100  # updates over which the rate rises; at once it is too high for a new head


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The protocol."""

    iterations: int = 24_000  # updates
    batch_size: int = 16  # images
    lr: float = 0.02  # times 0.1 at 70 % and at 90 %
    weight_decay: float = 1e-4
    edge_min: int = 480  # pixels, the longest edge of a training image
    edge_max: int = 1024  # pixels, the same at most, and of a test image
    neck: str = "c4"  # c4: conv5 on each proposal from conv4; fpn: a feature pyramid on all stages
    seeds: int = 1  # trainings of each kind
    mode: str = "both"  # frozen, finetuned, both

    def __post_init__(self) -> None:
        if self.neck not in NECKS:
            raise ValueError(f"neck={self.neck} is not known; give one of {', '.join(NECKS)}")
        check(asdict(self), above=("iterations", "batch_size", "lr", "edge_min", "seeds"), least={"weight_decay": 0})
        if self.edge_max < self.edge_min:
            raise ValueError(f"edge_max={self.edge_max} is below edge_min={self.edge_min}; give edge_max >= edge_min")

    @property
    def name(self) -> str:
        return "detection"

    def describe(self) -> str:
        """`detection (Faster R-CNN, ...)`"""
        detector = "Faster R-CNN with FPN" if self.neck == "fpn" else "Faster R-CNN"
        return f"detection ({detector}, {self.iterations:,} updates, batch {self.batch_size}, lr {self.lr:g})"

    def open(self, data: str, test: str | None, limit: int | None) -> DetectionTask:
        """VOC's or COCO's folders."""
        images = open_images(data, test)
        if limit is not None:
            train, test_images = (part[:: -(-len(part) // limit)] for part in (images.train, images.test))
            images = Images(train, test_images, images.how)
        # Images without a box to learn from have no place in a batch of proposals that are right.
        images = Images([i for i in images.train if not i.ignored.all()], images.test, images.how)
        names = sorted({c for part in (images.train, images.test) for i in part for c in i.classes})
        if not names or not images.train or not images.test:
            raise ValueError(f"{data} has {len(images.train)} training images with boxes and {len(images.test)} test images; give more")
        return DetectionTask(self, images, tuple(names))


@dataclass(frozen=True)
class DetectionTask:
    """Images and boxes, ready to learn from."""

    settings: Detection
    images: Images
    names: tuple[str, ...]  # of the classes 1, 2, ...; 0 is the ground

    @property
    def train(self) -> int:
        return len(self.images.train)

    @property
    def test(self) -> int:
        return len(self.images.test)

    @property
    def how(self) -> str:
        return self.images.how

    @property
    def facts(self) -> Settings:
        return {"classes": len(self.names)}

    def source(self) -> Source:
        return source_of(_Plain(self.images.train))

    def learn(self, encoder: Encoder, *, frozen: bool, seed: int, device: str, precision: str, tell: Tell) -> dict[str, float]:
        """AP50, AP75 and AP of COCO and AP50 of VOC2007, on the test images."""
        from byol.dense.faster_rcnn import faster_rcnn  # torchvision's detectors, which nothing else needs, take long to import

        s = self.settings
        network = faster_rcnn(encoder, len(self.names), frozen=frozen, size=s.edge_max, neck=s.neck).to(device)

        def loss(pairs: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> Tensor:
            images = [x.to(device) for x, _ in pairs]
            targets = [{k: v.to(device) for k, v in t.items()} for _, t in pairs]
            with cast(device, precision):
                parts: dict[str, Tensor] = network(images, targets)
            return torch.stack(list(parts.values())).sum()

        def sample(index: int, u: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return self._training_view(self.images.train[index], u, encoder.images)

        batch = min(s.batch_size, self.train)
        steps = batches(sample, n=self.train, batch=batch, steps=s.iterations, seed=seed, draws=2)
        fit(network, steps, loss, count=s.iterations, lr=s.lr, weight_decay=s.weight_decay, tell=tell, warm=min(_WARM, s.iterations // 4))
        return self._scores(network, encoder.images, device, precision)

    def _training_view(self, item: Labelled, u: Tensor, input: Input) -> tuple[Tensor, dict[str, Tensor]]:
        """u (2,): the longest edge and the mirror -> the image and the boxes to learn from."""
        s = self.settings
        x, factor = _resized(item, input, s.edge_min + int(float(u[0]) * (s.edge_max - s.edge_min + 1)))
        kept = ~item.ignored
        boxes = torch.from_numpy(item.boxes[kept]) * torch.tensor(factor * 2)
        if float(u[1]) < 0.5:
            x = x.flip(-1)
            boxes = torch.stack([x.shape[-1] - boxes[:, 2], boxes[:, 1], x.shape[-1] - boxes[:, 0], boxes[:, 3]], 1)
        return x, {"boxes": boxes, "labels": torch.from_numpy(self._numbers(item)[kept])}

    def _numbers(self, item: Labelled) -> np.typing.NDArray[np.int64]:
        return np.array([self.names.index(c) + 1 for c in item.classes], np.int64)

    @torch.no_grad()
    def _scores(self, network: torch.nn.Module, input: Input, device: str, precision: str) -> dict[str, float]:
        found = []
        for views in in_order(lambda i: _resized(self.images.test[i], input, self.settings.edge_max), self.test, 1):
            for x, factor in views:
                with cast(device, precision):
                    (said,) = network([x.to(device)])
                boxes, labels, scores = (said[k].float().cpu().numpy() for k in ("boxes", "labels", "scores"))
                found.append(Found(boxes / np.array(factor * 2), labels.astype(np.int64), scores))
        truth = [Truth(i.boxes, self._numbers(i), i.ignored) for i in self.images.test]
        classes = range(1, len(self.names) + 1)
        return average_precision(found, truth, classes) | {"AP50 (VOC07)": voc_average_precision(found, truth, classes)}


def _resized(item: Labelled, input: Input, edge: int) -> tuple[Tensor, tuple[float, float]]:
    """The image in [0, 1] with that longest edge, and how much wider and higher it became."""
    x = scaled(read_picture(item.image), input)
    h, w = x.shape[-2:]
    size = (max(1, round(h * edge / max(h, w))), max(1, round(w * edge / max(h, w))))
    out = interpolate(x[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    return out, (size[1] / w, size[0] / h)


@dataclass(frozen=True)
class _Plain:
    """The images alone."""

    items: list[Labelled]

    def __len__(self) -> int:
        return len(self.items)

    def image(self, index: int) -> Array:
        return read_picture(self.items[index].image)

    def target(self, index: int) -> Array:
        return self.items[index].boxes

    def take(self, rows: list[int]) -> _Plain:
        return _Plain([self.items[i] for i in rows])
