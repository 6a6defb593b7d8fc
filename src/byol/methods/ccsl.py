"""CCSL: BYOL that draws similar images together, by cosine (Garg & Jain 2022, arXiv 2204.04545); a reconstruction.

The paper labels its own batch: images whose projections are similar are taken for the same, and are drawn together as the two views of
one image are. Its loss was published neither in what could be had of the paper nor with its code. This is a RECONSTRUCTION from the
abstract and from two thresholds (0.8, 0.2) of a script, unverified, with what is not known as options: `negatives`, `labels_from`
and `warmup`. With C_ij = cos(q(z_i), z'_j) over the batch of all processes, T_ij = 1 if i = j or C_ij > theta_positive, and 0 if
C_ij < theta_negative: the loss of a direction is the mean of 2 - 2 C_ij over T = 1, plus with `negatives` that of max(0, C_ij) over T = 0.

Expect no published number. Theirs, 76.87 % on STL-10 (ResNet-18, 96 px) beside 71.04 of their BYOL, is with an encoder that their
script does not seem to freeze: not comparable with linear probes, and not with this reconstruction.

Use it to try self-labels. Every wrong label makes the next one likelier: with the script's 0.8 most of a batch soon counts as one thing
here, and the features are worse than random ones; recipe `auto` takes 0.95, with which they are BYOL's (docs/results.md).
"""

from __future__ import annotations

from torch import Tensor

from byol import dist
from byol.losses import normalise
from byol.methods import Curve
from byol.methods._self_labels import Labels, SelfLabelled, labels, mean_where

RECIPES = {
    "ccsl-stl10-r18": {
        "about": "ResNet-18, batch 16, 100 epochs of STL-10 with SGD: 76.87 % (theirs, encoder perhaps fine-tuned; a reconstruction here)",
        "expected": "none: 76.87 % on STL-10 is theirs, with losses that were not published and an encoder that may have been fine-tuned",
        "source": "script of Garg & Jain 2022 (rate 0.03 at a batch of 16; its step schedule is left out); the loss is a reconstruction",
        "batch": 16,
        "values": {
            "encoder": "resnet18", "image_size": 96, "epochs": 100, "optimizer": "sgd", "lr": 0.48, "momentum": 0.9, "weight_decay": 4e-4,
            "warmup_epochs": 0.0, "views": "small", "min_area": 1.0, "saturation": 0.4, "solarize": 0.0, "hidden": 512, "dim": 512,
            "tau_base": 0.996, "tau_schedule": "constant",
        },
    },
}  # fmt: skip
AUTO = {"theta_positive": 0.95}  # with the 0.8 of the script two directions are left, digits or CIFAR-10


class CCSL(SelfLabelled):
    """Two views in, the loss over the labelled pairs of the batch out."""

    CURVES = (
        Curve(("loss",), "Loss", "0 to 8", "Both directions of 2 − 2 cos over all pairs that count as one thing; plain BYOL at first."),
        Curve(("pseudo_positives", "pseudo_negatives"), "Self-labels", "an image", "Others that count as the same, or as different.", True),
    )  # fmt: skip

    def _direction(self, p: Tensor, t: Tensor, other: Tensor) -> tuple[Tensor, Labels]:
        """Predictions of a view, and targets of it and of the other view, (b, dim) each -> loss, labels."""
        c = self.config
        others = dist.gathered(other)
        similar = normalise(p) @ normalise(others).T
        judged = similar if c.labels_from == "online" else normalise(t) @ normalise(others).T
        here = labels(judged, above=c.theta_positive, below=c.theta_negative, trusted=self.progress >= c.warmup)
        loss = mean_where(2 - 2 * similar, here.same)
        if c.negatives:
            loss = loss + mean_where(similar.clamp_min(0), here.different)
        return loss, here


METHOD = CCSL
