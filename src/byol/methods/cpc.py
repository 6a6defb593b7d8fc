"""CPC v2: patches foretell the patches further down (Hénaff et al. 2020, arXiv 1905.09272).

An image is cut into overlapping patches, each passes through the network by itself, and a masked context network sums up a row and all
rows above it. From there the patch some rows below has to be found among all patches of all images of the batch: one linear prediction
for each distance. Rows nearer than a patch is high would share pixels with the context, which solves the task without learning, so
they are refused. The grid is turned by quarters and the same is asked from all four sides, by the same context network, with
predictions of their own. The loss is the mean over distances and sides, there the sum; without knowledge it is log(patches of the batch).

Every patch is changed by itself, or colours would tell which patches are of one image: mirrored, colours as Inception changes them,
grey, and all colour channels but one taken away (the mean of the data in their place). The paper's list also has elastic changes, shears,
colour histograms and two of AutoAugment's operations a patch, which are left out, as are Adam's quoted betas and clipping. Views are to be
crops alone, `views=crop`.

The encoder that is trained and kept cuts images itself and gives the mean over patches: `patches:NAME` of the catalogue, with layer norm,
since statistics of a batch would tell patches of each other. `--encoder resnet18` is `patches:resnet18` here.

The paper's text was not had: context network, 64 units and the factor 0.1 are those of several re-implementations that quote it.

Expect, with a ResNet-50, 63.8 % linear top-1 on ImageNet (BYOL's comparison).

Use it where the layout of an image says what it is; a step passes three times the pixels of a view, and compares all patches of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol import dist
from byol.encoders import Encoder, Patches
from byol.losses import products
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._draws import uniforms
from byol.methods._heads import at_least_float32, width
from byol.views.alter import alter, columns

RECIPES = {
    "cpc-imagenet-r50": {
        "about": "CPC v2, ResNet-50 on patches of 80 px, ImageNet, Adam: 63.8 % linear top-1 (BYOL's comparison; epochs are ours)",
        "expected": "63.8 % linear top-1 on ImageNet (CPC v2 in BYOL's comparison; its epochs and batch were not looked up)",
        "source": "re-implementations that quote the paper: rate, patches; 200 epochs, batch 512 and AdamW's decay are ours (unverified)",
        "batch": 512,
        "values": {
            "encoder": "patches:80-36:resnet50", "image_size": 260, "epochs": 200, "optimizer": "adamw", "lr": 2e-4, "weight_decay": 1e-5,
            "warmup_epochs": 0.0, "dim": 64, "hidden": 256, "blocks": 5, "offset": 3, "offsets": 1, "sides": 4,
            "views": "crop", "min_area": 0.3, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "cpc-cifar10-r18": {
        "about": "CPC v2, ResNet-18 on 7 x 7 patches of 8 px, 200 epochs of CIFAR-10, batch 128; no number of its own was looked up",
        "expected": "none looked up: 84.5 % on CIFAR-10 is Bolts' re-run with a wider network and another loss",
        "source": "patches in proportion to the image; batch and epochs are ours",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "adamw", "lr": 4e-4,
            "weight_decay": 1e-5, "warmup_epochs": 0.0, "dim": 64, "hidden": 128, "blocks": 5, "offset": 2, "offsets": 3, "sides": 4,
            "views": "crop", "min_area": 0.3,
        },
    },
}  # fmt: skip
PUBLISHED = "CPC v2"
MODALITY = "image"
AUTO = {
    "dim": 64,
    "hidden": 64,
    "blocks": 3,
    "sides": 1,
    "offsets": 1,
    "views": "crop",
    "min_area": 0.3,
    "optimizer": "adamw",
    "lr": 0.002,
    "weight_decay": 1e-5,
}
SCALE = 0.1  # of the predictions


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of CPC v2; the defaults are those quoted of the paper, but for `patch_drop`, which is ours."""

    dim: int = 64  # units of targets and predictions
    hidden: int = 256  # channels within a block of the context network
    blocks: int = 5  # of the context network
    offset: int = 0  # rows down to the nearest patch that is foretold; 0: the first that shares no pixel with the context
    offsets: int = 1  # how many distances from there on, as far as the grid has rows
    sides: int = 4  # from which the context comes: 1 (above), 2 (and from the right), up to 4
    patch_flip: float = 0.5  # probability, of each patch by itself, of mirroring
    patch_jitter: float = 0.8  # of changed colours
    patch_gray: float = 0.25  # of losing the colours
    patch_drop: float = 0.25  # of losing all channels but one

    def __post_init__(self) -> None:
        for name in ("dim", "hidden", "blocks", "offsets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.offset < 0:
            raise ValueError(f"offset is {self.offset}; give rows from 1 up, or 0 for the first that shares no pixel")
        if self.sides not in (1, 2, 3, 4):
            raise ValueError(f"sides is {self.sides}; give 1 to 4")
        for name in ("patch_flip", "patch_jitter", "patch_gray", "patch_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a probability from 0 to 1")

    def distances(self, patches: Patches) -> range:
        """The rows down to what is foretold; ValueError where patches share pixels, or the grid has no such rows."""
        least = -(-patches.patch // patches.stride)
        first = self.offset or least
        rows = (patches.input.size - patches.patch) // patches.stride + 1
        if first < least:
            raise ValueError(
                f"offset={first}: patches of {patches.patch} px every {patches.stride} px share pixels with those {first} rows below; "
                f"give offset={least} or more"
            )
        if first >= rows:
            raise ValueError(f"a grid of {rows} rows has none {first} below another; give a larger image size, or smaller patches")
        return range(first, min(first + self.offsets, rows))


class CPC(Base):
    """One view in, the cross-entropy of finding the patches further on out."""

    Config = Options
    ENCODER = "patches"
    VIEWS = (View(0),)
    CURVES = (
        Curve(("patch_found",), "Patch found", "share", "Patches that are the likeliest of the batch for their prediction.", True),
        Curve(("information",), "Information", "nats", "log(patches of the batch) - loss: what context and patch share at least.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.distances = c.distances(_patches(encoder))
        features = width(encoder)
        self.projector = nn.Linear(features, c.dim)
        self.context = Context(features, c.hidden, c.blocks)
        self.predictors = nn.ModuleList(nn.Linear(features, c.dim) for _ in range(c.sides * len(self.distances)))
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """One view, (B, C, S, S) -> the mean cross-entropy over sides and distances."""
        patches = _patches(self.encoder)
        z = patches.latents(self._changed(patches, patches.cut(views[0])))
        t = at_least_float32(self.projector(z))
        losses, shares = [], []
        for side in range(self.config.sides):
            turned, targets = (torch.rot90(y, side, (1, 2)) for y in (z, t))
            c = torch.relu(self.context(turned))
            every = dist.gather(targets.flatten(0, 2))
            for number, k in enumerate(self.distances):
                predictor = self.predictors[side * len(self.distances) + number]
                p = SCALE * at_least_float32(predictor(c[:, :-k]))
                loss, share = found(p, every, k, targets.shape[1:3])
                losses.append(loss)
                shares.append(share)
        loss = torch.stack(losses).mean()
        chance = torch.tensor(float(len(every))).log().to(loss.device, loss.dtype)
        metrics = {"patch_found": torch.stack(shares).mean(), "information": chance - loss.detach()}
        return StepOutput(loss, (t.detach().mean((1, 2)),), metrics)

    def _changed(self, patches: Patches, parts: Tensor) -> Tensor:
        """(B, G, G, C, p, p) normalised -> the same, every patch changed by itself."""
        c, x = self.config, parts.flatten(0, 2)
        u = uniforms(len(x), columns(x.shape[1]), torch.device("cpu"))
        odds = {"flip": c.patch_flip, "jitter": c.patch_jitter, "gray": c.patch_gray, "drop": c.patch_drop}
        return alter(x, u, mean=patches.input.mean, std=patches.input.std, **odds).view(parts.shape)

    def risks(self) -> dict[str, str]:
        """There is no setting that mends: a net of one's own with batch norm would tell patches of each other, `patches:NAME` has none."""
        return {}


class Context(nn.Module):
    """(B, G, G', D) -> the same shape: what a row and all rows above it say, by blocks that are added to what comes in."""

    def __init__(self, features: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(features, hidden) for _ in range(blocks))

    def forward(self, z: Tensor) -> Tensor:
        c = z.permute(0, 3, 1, 2)
        for block in self.blocks:
            c = c + block(c)
        return c.permute(0, 2, 3, 1)


def _block(features: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(features, hidden, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
        nn.ZeroPad2d((0, 0, 1, 0)),  # a row on top alone, so that the next layer sees no row below
        nn.Conv2d(hidden, hidden, (2, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, features, 1),
    )


def found(p: Tensor, every: Tensor, k: int, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(b, G - k, G', D) predictions, (B G G', D) targets of all processes -> the cross-entropy of the patches k rows down, () each.

    The second is the share of patches that are the likeliest of all.
    """
    logits = products(p.flatten(0, 2), every)
    own = labels(len(p), k, grid, p.device)
    share = (logits.detach().argmax(1) == own).to(logits.dtype).mean()
    return nn.functional.cross_entropy(logits, own), share


def labels(images: int, k: int, grid: tuple[int, ...], device: torch.device) -> Tensor:
    """(b (G - k) G',): where the patch k rows below stands among all, image by image and row by row; after those of earlier processes."""
    rows, columns = grid
    places = torch.arange(images * rows * columns, device=device).view(images, rows, columns) + dist.rank() * images * rows * columns
    return places[:, k:].flatten()


def _patches(encoder: nn.Module) -> Patches:
    """What cuts and encodes; ValueError where an encoder sees its images whole."""
    net = encoder.net if isinstance(encoder, Encoder) else encoder
    if not isinstance(net, Patches):
        name = encoder.name if isinstance(encoder, Encoder) else type(encoder).__name__
        raise ValueError(
            f"cpc trains an encoder of patches, and {name} sees images whole; give --encoder patches:NAME, or wrap byol.encoders.Patches"
        )
    return net


METHOD = CPC
