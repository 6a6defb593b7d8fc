"""Transfer by fine-tuning: all weights are trained on another data set (Grill et al. 2020, appendix D.3).

20,000 updates with batches of 256, a grid of learning rates and weight decays chosen on held-out training images, then
trained again on all of them; the statistics of batch norm decay by max(1 - 10 / steps per epoch, 0.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from byol.evaluation.crops import spatial
from byol.evaluation.probe import Prediction, Settings, Task, changed, titled, written
from byol.evaluation.tuning import Trial, sweep


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """The protocol; the paper's grid is 56 trainings and one more, for each row of the table."""

    steps: int = 20_000
    batch_size: int = 256  # images; all of them where there are fewer
    lrs: tuple[float, ...] = tuple(10 ** (-4 + k / 2) for k in range(7))  # 1e-4 .. 0.1
    weight_decays: tuple[float, ...] = (*(10 ** (-6 + k / 2) for k in range(7)), 0.0)  # 1e-6 .. 1e-3 and none, divided by the rate
    held_out: float = 0.2  # share of the training images to choose by
    flip: float = 0.5  # probability of mirroring a training image
    min_area: float = 0.08  # of the image's area, smallest crop

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"{self.steps} steps in batches of {self.batch_size} are not possible; give 1 or more of each")
        if not self.lrs or min(self.lrs) <= 0:
            raise ValueError(f"the learning rates are {written(self.lrs) or 'none'}; give one or more numbers above 0, e.g. lrs=0.001/0.1")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError(f"the weight decays are {written(self.weight_decays) or 'none'}; give one or more numbers from 0 up")
        if not 0 < self.held_out < 1:
            raise ValueError(f"the held-out share is {self.held_out:g}; give a number between 0 and 1")

    @property
    def name(self) -> str:
        """`finetune`, and what is not the default."""
        return titled("finetune", self)

    def describe(self) -> str:
        """`fine-tuned (...)`"""
        how = f"chosen on {self.held_out:.0%} of train, then all".replace("%", " %")
        grid = f"{len(self.lrs)} lr x {len(self.weight_decays)} weight decays {how}"
        other = f"; not the paper's: {found}" if (found := changed(self)) else ""
        recipe = f"all weights, SGD, Nesterov 0.9, {self.steps:,} steps, batch {self.batch_size}, {grid}, crops and flips{other}"
        return f"fine-tuned ({recipe}; random: the same from scratch)"

    def settings(self) -> Settings:
        """The grid and how one of it is chosen."""
        return {
            "solver": "SGD, Nesterov 0.9, cosine",
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lrs": written(self.lrs),
            "weight_decays": f"{written(self.weight_decays)}, divided by the lr",
            "norm_decay": "max(1 - 10 / steps per epoch, 0.9)",
            "held_out": self.held_out,
            "training_views": f"crops from {self.min_area:g} of the area, flip {self.flip:g}",
            "changed": changed(self) or "nothing",
        }

    def predict(self, task: Task) -> Prediction:
        """Sweep, choose, train on all labels, score the test images."""
        trials = [Trial(lr=lr, weight_decay=decay, steps=self.steps) for lr, decay in product(self.lrs, self.weight_decays)]
        middle_lr, middle_decay = (sorted(values)[len(values) // 2] for values in (self.lrs, self.weight_decays))
        usual = Trial(lr=middle_lr, weight_decay=middle_decay, steps=self.steps)
        plan = spatial(task.train, task.encoder.images, flip=self.flip, min_area=self.min_area)
        scores, chosen, how = sweep(task, plan, trials, usual, batch=self.batch_size, held_out=self.held_out, paper_norm=True)
        return Prediction(scores, {"lr": chosen.lr, "weight_decay": chosen.weight_decay, **how})
