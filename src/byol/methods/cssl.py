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
from byol.losses import full_precision, regression_loss
from byol.methods import Base, Curve, StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.methods._self_labels import Labels, Options, found, labels, mean_where
from byol.methods._targets import distance, follow, twins
from byol.optim import Group, param_groups

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


class CSSL(Base):
    """Two views in, the loss over the labelled pairs of the batch out; `after_step` moves the target."""

    Config = Options
    progress: Tensor
    CURVES = (
        Curve(("loss",), "Loss", "", "Both directions of the cross-entropy over labelled pairs; plain BYOL, 2 − 2 cos, at first."),
        Curve(("pseudo_positives", "pseudo_negatives"), "Self-labels", "an image", "Others that count as the same, or as different.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        if c.theta_negative < 0:
            raise ValueError(f"theta_negative is {c.theta_negative}; give 0 or more: similarities are sigmoids here")
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, norm=c.head_norm, output_norm=c.projection_norm == "batch")
        self.predictor = mlp(c.dim, c.hidden, c.dim, norm=c.head_norm)
        self.target_encoder, self.target_projector = twins((encoder, self.projector), fresh=c.target_init == "fresh")
        self.register_buffer("progress", torch.zeros(()))  # of the run, as of the last update
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the loss summed over both directions."""
        v, w = views
        z_v, z_w = (self.projector(self.encoder(x)) for x in (v, w))
        p_v, p_w = (at_least_float32(self.predictor(z)) for z in (z_v, z_w))
        with torch.no_grad():
            t_v, t_w = (at_least_float32(self.target_projector(self.target_encoder(x))) for x in (v, w))
        with full_precision(z_v):
            first, here = self._direction(p_v, t_v, t_w)
            second, _ = self._direction(p_w, t_w, t_v)
        metrics = {"target_cosine": cosine(at_least_float32(z_v.detach()), t_w), **found(here)}
        return StepOutput(first + second, (z_v.detach(), z_w.detach()), metrics)

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

    def after_step(self, progress: float) -> None:
        """Move the target, xi <- tau xi + (1 - tau) theta; and know how far the run is."""
        follow(*self._pairs(), self.config.tau(progress))
        self.progress.fill_(progress)

    def param_groups(self) -> list[Group]:
        """The online parameters, the predictor's with its factor on the rate."""
        parts = ((self.encoder, 1.0), (self.projector, 1.0), (self.predictor, self.config.predictor_rate))
        return [Group(**{**group, "lr_scale": rate}) for part, rate in parts for group in param_groups(part)]

    def schedule(self, progress: float) -> dict[str, float]:
        """What `after_step` uses at this progress, for the log."""
        return {"tau": self.config.tau(progress)}

    def diagnostics(self) -> dict[str, Tensor]:
        """The distance of online and target parameters over the norm of the online ones, ()."""
        return {"online_target_distance": distance(*self._pairs())}

    def risks(self) -> dict[str, str]:
        """Labels that are believed at once: of a network that has learned nothing nearly all images are alike."""
        return self.config.risks()

    def _pairs(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """What follows, and what is followed."""
        return [self.target_encoder, self.target_projector], [self.encoder, self.projector]


METHOD = CSSL
