"""CSSL: BYOL that labels pairs of its batch, by cross-entropy (Garg & Jain 2022, arXiv 2204.04545); a reconstruction.

As CCSL, with another loss: the similarity of a pair is S_ij = sigmoid(q(z_i) . z'_j), not normalised, and the loss of a direction the
binary cross-entropy of S and the label T over the pairs that have one: T_ij = 1 if i = j or S_ij > theta_positive, 0 if S_ij is
below theta_negative.
The loss was published neither in what could be had of the paper nor with its code. This is a RECONSTRUCTION from the abstract and from
two thresholds (0.8, 0.2) of a script, unverified, with what is not known as options: `negatives`, `labels_from` and `warmup`.

Expect no published number. Theirs, 72.92 % on STL-10 (ResNet-18, 96 px) beside 71.04 of their BYOL, is with an encoder that their
script does not seem to freeze: not comparable with linear probes, and not with this reconstruction.

Use it to try self-labels without a threshold that has to be found. Where nothing is labelled 0, all pairs may count as the same in the
end, and do: recipe `auto` takes `negatives` (docs/results.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import regression_loss
from byol.methods import Curve
from byol.methods._self_labels import Labels, Options, SelfLabelled, labels, mean_where

RECIPES = {
    "cssl-stl10-r18": {
        "about": "ResNet-18, batch 16, 100 epochs of STL-10 with SGD: 72.92 % (theirs, encoder perhaps fine-tuned; a reconstruction here)",
        "expected": "none: 72.92 % on STL-10 is theirs, with losses that were not published and an encoder that may have been fine-tuned",
        "source": "script of Garg & Jain 2022 (rate 0.03 at a batch of 16; its step schedule is left out); the loss is a reconstruction",
        "batch": 16,
        "values": {
            "encoder": "resnet18", "image_size": 96, "epochs": 100, "optimizer": "sgd", "lr": 0.48, "momentum": 0.9, "weight_decay": 4e-4,
            "warmup_epochs": 0.0, "views": "small", "min_area": 1.0, "saturation": 0.4, "solarize": 0.0, "hidden": 512, "dim": 512,
            "tau_base": 0.996, "tau_schedule": "constant",
        },
    },
}  # fmt: skip
AUTO = {"negatives": True}  # without them cross-entropy has a trivial solution, and short runs find it


class CSSL(SelfLabelled):
    """Two views in, the loss over the labelled pairs of the batch out."""

    CURVES = (
        Curve(("loss",), "Loss", "", "Both directions of the cross-entropy over labelled pairs; plain BYOL, 2 − 2 cos, at first."),
        Curve(("pseudo_positives", "pseudo_negatives"), "Self-labels", "an image", "Others that count as the same, or as different.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        if config and config.theta_negative < 0:
            raise ValueError(f"theta_negative is {config.theta_negative}; give 0 or more: similarities are sigmoids here")
        super().__init__(encoder, config)

    def _direction(self, p: Tensor, t: Tensor, other: Tensor) -> tuple[Tensor, Labels]:
        """Predictions of a view, and targets of it and of the other view, (b, dim) each -> loss, labels."""
        c = self.config
        others, trusted = dist.gathered(other), self.progress >= c.warmup
        logits = p @ others.T
        judged = logits.detach() if c.labels_from == "online" else t @ others.T
        here = labels(judged.sigmoid(), above=c.theta_positive, below=c.theta_negative, trusted=trusted)
        known = here.same | here.different if c.negatives else here.same
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, here.same.to(logits.dtype), reduction="none")
        return torch.where(trusted, mean_where(entropy, known), regression_loss(p, other)), here


METHOD = CSSL
