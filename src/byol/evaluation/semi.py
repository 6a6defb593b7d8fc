"""Semi-supervised learning: the encoder is fine-tuned on the few labels that there are (Grill et al. 2020, section 4.2 and appendix C.1).

Ours: the settings are chosen on a part of the labelled images themselves, so that no other label is looked at, and the
network is then trained again on all of them. The row of the random network is the supervised one of the paper's tables:
the same architecture, sweep and labels, without pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import torch

from byol.data import Source
from byol.evaluation.crops import spatial
from byol.evaluation.probe import Prediction, Settings, Task, changed, titled, written
from byol.evaluation.tuning import Trial, sweep

_LONGEST = 1 << 28  # bytes of a list of names; all of ImageNet's are 40 MB


@dataclass(frozen=True, kw_only=True)
class Semi:
    """The protocol."""

    lrs: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.005)
    epochs: tuple[int, ...] = (30, 50)
    batch_size: int = 1024  # images; all of them where there are fewer
    held_out: float = 0.2  # share of the labelled images to choose by
    flip: float = 0.5  # probability of mirroring a training image
    min_area: float = 0.08  # of the image's area, smallest crop
    list: str | None = None  # a text file with the names of the labelled images, one a line; None: all of the draw

    def __post_init__(self) -> None:
        if not self.lrs or min(self.lrs) <= 0:
            raise ValueError(f"the learning rates are {written(self.lrs) or 'none'}; give one or more numbers above 0, e.g. lrs=0.01/0.1")
        if not self.epochs or min(self.epochs) < 1 or any(e != int(e) for e in self.epochs) or self.batch_size < 1:
            raise ValueError(f"{written(self.epochs) or 'no'} epochs in batches of {self.batch_size} are not possible; give whole numbers")
        if not 0 < self.held_out < 1:
            raise ValueError(f"the held-out share is {self.held_out:g}; give a number between 0 and 1")

    @property
    def name(self) -> str:
        """`semi`, and what is not the default."""
        return titled("semi", self, short={"list": f"-list-{PurePath(self.list or '').stem}"})

    def describe(self) -> str:
        """`semi-supervised (...)`"""
        how = f"chosen on {self.held_out:.0%} of the labels, then all".replace("%", " %")
        grid = f"lr {written(self.lrs)} x epochs {written(self.epochs)} {how}"
        other = f"; not the paper's: {found}" if (found := changed(self)) else ""
        recipe = f"all weights, SGD, Nesterov 0.9, batch {self.batch_size}, {grid}, crops and flips{other}"
        return f"semi-supervised (fine-tuned: {recipe}; random: the same from scratch, the supervised row)"

    def settings(self) -> Settings:
        """The sweep and how one of it is chosen."""
        return {
            "solver": "SGD, Nesterov 0.9, cosine, no weight decay",
            "lrs": written(self.lrs),
            "epochs": written(self.epochs),
            "batch_size": self.batch_size,
            "held_out": self.held_out,
            "training_views": f"crops from {self.min_area:g} of the area, flip {self.flip:g}",
            "changed": changed(self) or "nothing",
            "list": self.list or "",
        }

    def predict(self, task: Task) -> Prediction:
        """Sweep, choose, train on all labels, score the test images."""
        settings: Settings = {}
        used = None
        if self.list is not None:
            rows, named = on_list(task.train, Path(self.list))
            settings["on_the_list"] = f"{len(rows)} labelled training images of {named} names"
            task, used = _only(task, rows), len(rows)
        trials = [Trial(lr=lr, epochs=int(e)) for lr, e in product(self.lrs, self.epochs)]
        usual = Trial(lr=sorted(self.lrs)[len(self.lrs) // 2], epochs=int(max(self.epochs)))
        plan = spatial(task.train, task.encoder.images, flip=self.flip, min_area=self.min_area)
        scores, chosen, how = sweep(task, plan, trials, usual, batch=self.batch_size, held_out=self.held_out, paper_norm=False)
        return Prediction(scores, {"lr": chosen.lr, "epochs": chosen.epochs, **how, **settings}, used)


def on_list(source: Source, path: Path) -> tuple[np.ndarray, int]:
    """(ascending rows of the source whose name, or its last part, is on the list, how many names the list has).

    ValueError where there is no such file, it is no text, or none of the images is on it.
    """
    names = _names(path)
    last = {PurePosixPath(n).name for n in names}
    rows = np.array([i for i in range(len(source)) if source.names[i] in names or PurePosixPath(source.names[i]).name in last], np.int64)
    if not len(rows):
        raise ValueError(
            f"none of the {len(names):,} names in {path} is among the labelled training images, which are called "
            f"{source.names[0]} and so on; give names as they are in the data, or the last part of them"
        )
    return rows, len(names)


def _names(path: Path) -> set[str]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a text file with the name of a labelled image a line, as list=FILE")
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, too many for a list of names; give a text file with one name a line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a list of names ({error}); give a text file with one name a line") from None
    return {line.strip() for line in lines} - {""}


def _only(task: Task, rows: np.ndarray) -> Task:
    """The task with these training images alone."""
    ids = torch.from_numpy(rows).to(task.train_y.device)
    return replace(task, train_x=task.train_x[ids], train_y=task.train_y[ids], train=task.train.subset(rows))
