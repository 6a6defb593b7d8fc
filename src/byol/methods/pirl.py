"""PIRL: an image and its jigsaw are one thing, with a bank (Misra & van der Maaten 2020, arXiv 1912.01991).

As InstDisc, and besides the nine patches of a jigsaw, in random order, have to find the row of the same image: what the network makes of
an image shall not depend on what was done to it. Patches are cut on the device, each at a random place of its cell, from a second, mild
view; they pass through the encoder on their own, since statistics of batch norm of images and patches differ. Rows are written with what
the images give, never with the patches'. Of the ten passes of a step nine are of patches, a twelfth of a view each (of 28 px and more). In
VISSL's code colours change from patch to patch, which is left out as in PyContrast's; `--set view2.jitter=0.8 view2.gray=0.2` changes those
of the view before it is cut.

The jigsaw's view is a crop of 80 % or more, as mild views are here, and of 60 % in the paper: `--set view2.min_area=0.6`.

Sizes follow from the view: cells of a third of it, of 11 px or more, and patches of 64/85 of a cell, as published for cells of 85 px.

The bank takes 4 x dim bytes a sample (5 MB for 10,000 samples, 656 MB for ImageNet), in each checkpoint as well.

Expect, with a ResNet-50 and 800 epochs of ImageNet, 63.6 % linear top-1 of the best layer; VISSL's later runs 64.3 %, and with a head of
two layers, InfoNCE and blur 69.9 %.

Use it to see what patches add to InstDisc (`patch_weight=0` is InstDisc); the encoder has to take images of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from byol.encoders import Encoder, wrap
from byol.losses import normalise
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._bank import Bank, BankOptions, head
from byol.methods._draws import uniforms
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "pirl-imagenet-r50-800": {
        "about": "ResNet-50, 800 epochs of ImageNet, batch 1024, SGD: 63.6 % linear top-1 (Misra & van der Maaten 2020)",
        "expected": "63.6 % linear top-1 of the best layer on ImageNet (Misra & van der Maaten 2020); 64.3 % in VISSL's zoo",
        "source": "Misra & van der Maaten 2020, appendix; colours of the patches as in PyContrast, which leaves them; VISSL's further "
        "operations (posterise, sharpness, solarise, autocontrast) are left out, and the jigsaw's crop is 80 % or more, not 60",
        "batch": 1024,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 800, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 32000, "temperature": 0.07, "bank_momentum": 0.5,
            "patch_weight": 0.5, "cell": 85, "patch": 64, "hidden": 0, "views": "torchvision", "min_area": 0.08, "jitter": 1.0,
            "saturation": 0.4, "hue": 0.2, "blur": 0.0, "solarize": 0.0, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "pirl-imagenet-r50-800-mlp": {
        "about": "ResNet-50, head of two layers, InfoNCE, blur, 800 epochs of ImageNet: 69.9 % linear top-1 (VISSL's zoo)",
        "expected": "69.9 % linear top-1 on ImageNet (VISSL's zoo)",
        "source": "VISSL's improved PIRL: 2048 hidden units, InfoNCE, temperature 0.1, stronger colours, blur; what is left out as above",
        "batch": 1024,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 800, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 32000, "loss": "softmax", "temperature": 0.1,
            "bank_momentum": 0.5, "patch_weight": 0.5, "cell": 85, "patch": 64, "hidden": 2048, "views": "torchvision", "min_area": 0.08,
            "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5, "solarize": 0.0,
            "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "pirl-cifar10-r18": {
        "about": "ResNet-18, 200 epochs of CIFAR-10, batch 128, SGD; no number of its own was looked up",
        "expected": "none looked up: InstDisc's recipe for CIFAR-10, with patches of 8 px",
        "source": "InstDisc's released code for CIFAR-10; patches in proportion to the image",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.06,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 0, "temperature": 0.1,
            "bank_momentum": 0.5, "patch_weight": 0.5, "cell": 11, "patch": 8, "hidden": 0, "views": "small", "min_area": 0.2,
            "jitter": 1.0, "saturation": 0.4, "hue": 0.4, "solarize": 0.0, "flip": 0.0,
        },
    },
}  # fmt: skip
MODALITY = "image"
PUBLISHED = "PIRL"
AUTO = {"dim": 128, "projection_norm": "batch", "negatives": 0, "temperature": 0.1, "hidden": 0, "lr": 0.1}
GRID = 3  # cells a side
SMALLEST_CELL = 11  # pixels, of views that are smaller: patches of 8 px, which networks for small images take


@dataclass(frozen=True, kw_only=True)
class Options(BankOptions):
    """The options of PIRL; the defaults are the paper's for ImageNet."""

    negatives: int = 32000  # rows drawn for every image, with replacement; 0: all rows, in a softmax
    patch_weight: float = 0.5  # lambda, of the patches' loss; the image's own has the rest
    hidden: int = 0  # units of a hidden layer of both heads; 0: none, as published
    cell: int = 0  # pixels, a side of the jigsaw's cells; 0: a third of the view
    patch: int = 0  # pixels, a side of what is cut from a cell; 0: 64/85 of it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.patch_weight <= 1:
            raise ValueError(f"patch_weight is {self.patch_weight}; give a number from 0 to 1")
        for name in ("hidden", "cell", "patch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more, or 0 for the default")

    def sides(self, size: int) -> tuple[int, int]:
        """Pixels of a cell and of a patch, of a view of so many."""
        return sides(size, self.cell, self.patch)


class PIRL(Base):
    """Two views and which sample they are of in, the loss of both the image's and the jigsaw's row out."""

    Config = Options
    VIEWS = (View(0), View(0, mild=True))
    ROWS = ("index",)
    CURVES = (
        Curve(("own_found", "patches_found"), "Own row found", "share", "Images and jigsaws most like their own row.", True),
        Curve(("own_similarity", "patches_similarity"), "Own row", "cosine", "Of images and jigsaws with their own rows.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options) -> None:
        super().__init__()
        c = self.config = config
        self.encoder = encoder
        if isinstance(encoder, Encoder):
            takes_patches(encoder, c.sides(encoder.images.size)[1], "pirl")
        self.projector = head(width(encoder), c, c.hidden)
        self.patch_projector = head(width(encoder), c, c.hidden)
        self.jigsaw = head(GRID**2 * c.dim, c)
        self.bank = Bank(c, unit=True)
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, index: Tensor) -> StepOutput:
        """An image and the view of its jigsaw, (B, C, S, S) each, and the samples, (B,) int64 -> the weighted sum of both losses."""
        columns = self.bank.columns(index)
        image, whole = views
        u = uniforms(len(whole), 3 * GRID**2, whole.device)
        f = normalise(at_least_float32(self.projector(self.encoder(image))))
        g = normalise(at_least_float32(self._of_patches(whole, u)))
        found, patches = (self.bank.contrast(v, index, columns) for v in (f, g))
        self.bank.keep(index, f, self.encoder)
        loss = (1 - self.config.patch_weight) * found.loss + self.config.patch_weight * patches.loss
        metrics = {"own_found": found.share, "own_similarity": found.similarity}
        metrics |= {"patches_found": patches.share, "patches_similarity": patches.similarity}
        return StepOutput(loss, (f.detach(), g.detach()), metrics)

    def _of_patches(self, x: Tensor, u: Tensor) -> Tensor:
        """(B, C, S, S), (B, 27) -> (B, dim): all patches through the encoder, put together in random order."""
        cell, patch = self.config.sides(x.shape[-1])
        places, order = u[:, : 2 * GRID**2].view(-1, GRID**2, 2), u[:, 2 * GRID**2 :].argsort(dim=1, stable=True)
        parts = cut(x, places, cell=cell, patch=patch)
        made = self.patch_projector(self.encoder(parts.flatten(0, 1))).view(len(x), GRID**2, -1)
        shuffled = made.gather(1, order[:, :, None].expand_as(made))
        y: Tensor = self.jigsaw(shuffled.flatten(1))
        return y

    def after_step(self, progress: float) -> None:
        """Write the rows of the samples that the update saw."""
        self.bank.write()

    def risks(self) -> dict[str, str]:
        """There are none: negatives keep images apart."""
        return {}


def cut(x: Tensor, u: Tensor, *, cell: int, patch: int) -> Tensor:
    """(B, C, S, S), (B, 9, 2) in [0, 1) -> (B, 9, C, patch, patch): of the image, enlarged to 3 x 3 cells, a patch somewhere in each."""
    x = interpolate(x, (GRID * cell, GRID * cell), mode="bilinear", align_corners=False)
    corners = (u * (cell - patch + 1)).long()  # rows and columns within the cell
    cells = torch.arange(GRID**2, device=x.device)
    along = torch.arange(patch, device=x.device)
    rows = (corners[:, :, 0] + cell * (cells // GRID))[:, :, None] + along  # (B, 9, patch)
    columns = (corners[:, :, 1] + cell * (cells % GRID))[:, :, None] + along
    images = torch.arange(len(x), device=x.device)[:, None, None, None]
    parts = x.permute(0, 2, 3, 1)[images, rows[:, :, :, None], columns[:, :, None, :]]  # (B, 9, patch, patch, C)
    return parts.permute(0, 1, 4, 2, 3)


def sides(size: int, cell: int = 0, patch: int = 0) -> tuple[int, int]:
    """Pixels of a cell and of a patch, of a view of so many, where they are not given; ValueError where the patch is the larger."""
    cell = cell or max(SMALLEST_CELL, -(-size // GRID))
    patch = patch or max(1, round(cell * 64 / 85))
    if patch > cell:
        raise ValueError(f"a patch of {patch} px does not fit into a cell of {cell} px; give patch={cell} or less")
    return cell, patch


def takes_patches(encoder: Encoder, patch: int, method: str) -> None:
    """ValueError for an encoder that cannot see patches of its images, of so many pixels."""
    images = encoder.images
    if images.size == 1:
        raise ValueError(f"{method} cuts images into patches, and a bin of a recording has one place; give another --method")
    wrap(encoder.net, input=replace(images, size=patch, resize=patch))


METHOD = PIRL
