"""LSSL: one direction of the features along which all subjects change (Zhao et al. 2021, arXiv 2006.06930).

An earlier and a later picture of one subject go through an autoencoder, and the change of the features between them is to point along
tau, a unit vector learnt for all subjects: the loss is the error of both reconstructions, plus 1 - cos(z_later - z_earlier, tau). How
far a picture lies along tau, <z, tau>, then follows what changes with time, such as age, though no age is told: the order of the two
pictures is enough, and it gives tau its sign.

Both pictures pass the network in one batch: a batch norm over the later ones alone would take away what these have in common.
The released code lacks the file that says whether squared errors are summed over voxels or averaged (unverified): `reduction` is the
mean, as in a later repository of the same group (longitudinal-neighbourhood-embedding), beside which `weight=1` has a meaning at any
size. The decoder is this project's, that of `autoencoder`; the paper's tanh is the encoder's (`lssl`; without it `lssl-linear`, since
a follow-up found training with it less stable).

Expect no published number that can be compared: the paper's are on ADNI, which only its members may read.

Use it on subjects that were seen several times, images or volumes, for what changes steadily (docs/longitudinal.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol.methods import Base, Curve, Exhibit, StepOutput
from byol.methods._decoder import decoder_for, same_shape
from byol.methods._heads import at_least_float32, frozen, width
from byol.methods._self_labels import mean_where

AUTO = {
    "encoder": "lssl",
    "views": "visits",
    "hidden": 128,
    "optimizer": "adamw",
    "lr": 0.004,
    "weight_decay": 1e-5,
}
AUTO_VOLUME = {
    "encoder": "lssl-3d",
    "views": "visits",
    "hidden": 64,
    "optimizer": "adamw",
    "lr": 0.004,
    "weight_decay": 1e-5,
}
RECIPES = {
    "lssl-adni": {
        "about": "LSSL's encoder and batch for ADNI's brains, 64^3 voxels, visits a year apart or more (rate, decay unverified)",
        "expected": "none that can be compared: ADNI is for its members, and the paper's text was not had",
        "source": "released code (ZucksLiu/LSSL): 1,000 updates of 64 pairs, about 20 epochs of its 3,208; rate and decay are those "
        "of a later repository of the group (unverified), and it starts from an autoencoder (--init)",
        "values": {
            "encoder": "lssl-3d", "image_size": 64, "views": "visits", "apart": (365, 0), "hidden": 64, "epochs": 20, "batch_size": 64,
            "optimizer": "adamw", "lr": 4e-4, "weight_decay": 1e-5, "lr_schedule": "constant", "warmup_epochs": 0.0,
        },
        "modality": "volume",
    },
}  # fmt: skip
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of a walk, in spreads of the projection
SHOWN = 6  # walks


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of LSSL."""

    weight: float = 1.0  # lambda, of the direction
    recon_weight: float = 1.0  # of the reconstructions; 2 in a later repository of the group
    reduction: Literal["mean", "sum"] = "mean"  # of squared errors over the values of a picture; what the paper does is not known
    latent: int = 0  # z is a linear layer of so many units on the features; 0: z is the features
    freeze: bool = False  # the encoder learns nothing: only the linear layer, the decoder and tau do
    least_change: float = 1e-6  # of |z_later - z_earlier|; pairs that change less have no direction and do not count
    hidden: int = 256  # channels of the decoder's first map; halved with every doubling of its size, 16 at least
    channels: int = 0  # of the images; 0: as the encoder says
    size: int = 0  # pixels of the images; 0: as the encoder says

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.latent < 0:
            raise ValueError(
                f"hidden={self.hidden} and latent={self.latent} are not possible; give 1 or more, or latent=0 for the features"
            )
        if self.channels < 0 or self.size < 0:
            raise ValueError(f"channels={self.channels} and size={self.size} are not possible; give 1 or more, or 0 for the encoder's")
        if min(self.weight, self.recon_weight) < 0 or not self.weight + self.recon_weight > 0:
            raise ValueError(f"weight={self.weight:g} and recon_weight={self.recon_weight:g} ask for nothing; give 0 or more, one above 0")
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={self.reduction} is not known; give mean or sum")
        if not self.least_change > 0:
            raise ValueError(f"least_change={self.least_change:g} would divide by nothing; give a number above 0")


class Lssl(Base):
    """Two pictures of a subject in, how badly they are reconstructed and how far their change is from tau out."""

    Config = Options
    FEW_DIRECTIONS = True  # one is what it looks for
    CURVES = (
        Curve(("loss",), "Loss", "", "weight × (1 − cos) + recon_weight × the errors of both reconstructions."),
        Curve(("cosine",), "Cosine of the change with tau", "", "1: all subjects change along one direction."),
        Curve(("change",), "Length of the change", "|Δz|", "Between two pictures; where it shrinks to nothing, tau means nothing.", True),
        Curve(("reconstruction",), "Reconstruction", "", "Squared error of both pictures, as the option `reduction` takes it.", True),
        Curve(("counted",), "Pairs that count", "share", "The others are one picture twice, or hardly change.", True),
    )

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = frozen(encoder) if c.freeze else encoder
        features = width(encoder)
        self.latent: nn.Module = nn.Linear(features, c.latent, bias=False) if c.latent else nn.Identity()
        dim = c.latent or features
        self.tau = nn.Parameter(F.normalize(torch.randn(dim), dim=0))  # its length means nothing, and does not decay
        self.decoder = decoder_for(encoder, dim, hidden=c.hidden, channels=c.channels, size=c.size)
        self.train()

    def train(self, mode: bool = True) -> Lssl:
        """A frozen encoder stays in evaluation mode: its statistics are as they were learnt."""
        super().train(mode)
        if self.config.freeze:
            self.encoder.eval()
        return self

    def direction(self) -> Tensor:
        """(D,): tau, of length 1."""
        return F.normalize(self.tau, dim=0)

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """(earlier, later), (B, C, S, S) each -> recon_weight (|x_s - x_s'|^2 + |x_t - x_t'|^2) + weight (1 - cos(z_t - z_s, tau))."""
        c = self.config
        x = torch.stack(views, 1).flatten(0, 1)  # a pair after the other, so that processes share them as they share a batch
        z = self.latent(self.encoder(x))
        again = at_least_float32(self.decoder(z))
        same_shape(again, x)
        error = (again - x).square().flatten(1)
        recon = 2 * (error.sum(1) if c.reduction == "sum" else error.mean(1)).mean()  # of both pictures together
        earlier, later = at_least_float32(z).view(-1, 2, z.shape[1]).unbind(1)
        change = later - earlier
        # One picture twice has no change to point anywhere, even where dropout makes one.
        square, pair = change.square().sum(1), (views[0] != views[1]).flatten(1).any(1)
        counts = pair & (square.detach() > c.least_change**2)
        # By products and sums: under bf16 a matrix product would be rounded.
        cosine = (change * self.direction()).sum(1) / square.where(counts, 1.0).sqrt()
        loss = c.recon_weight * recon + c.weight * mean_where(1 - cosine, counts)
        metrics = {"cosine": mean_where(cosine, counts), "change": mean_where(square.where(counts, 1.0).sqrt(), counts)}
        metrics |= {"reconstruction": recon, "counted": counts.to(recon.dtype).mean()}
        return StepOutput(loss, (earlier.detach(), later.detach()), {k: v.detach() for k, v in metrics.items()})

    def risks(self) -> dict[str, str]:
        """Features are free to lie on one line where no picture has to be made of them."""
        return {} if self.config.recon_weight or self.config.freeze else {"nothing is reconstructed": "recon_weight=1.0"}

    @torch.no_grad()
    def keeps(self) -> dict[str, list[float]]:
        """{"direction": (dim,)}: tau as a unit vector among the features, along which <features, direction> grows with time."""
        tau = self.direction()
        found = F.normalize(self.latent.weight.T @ tau, dim=0) if isinstance(self.latent, nn.Linear) else tau
        return {"direction": found.double().cpu().tolist()}

    @torch.no_grad()
    def exhibits(self, views: tuple[Tensor, ...]) -> list[Exhibit]:
        """Walks: from the earlier picture of some pairs along tau, decoded, beside both pictures as they are."""
        was = self.training
        self.eval()
        z = [self.latent(self.encoder(v)) for v in views]
        tau = self.direction()
        spread = (torch.cat(z) @ tau).std()
        chosen = [v[:SHOWN] for v in views]
        walks = [self.decoder(z[0][:SHOWN] + a * spread * tau) for a in STEPS]
        self.train(was)
        columns = ("earlier", "later", *(f"{a:+g}" if a else "0" for a in STEPS))
        said = "Left two pictures of a subject as they are. Then what the decoder makes of the earlier one's features, moved along the "
        said += "direction that all subjects share, by so many standard deviations of the projection; at 0 it is the reconstruction."
        return [Exhibit("Walks along the direction", said, columns, torch.stack([*chosen, *walks], 1))]


METHOD = Lssl
