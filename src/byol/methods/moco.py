"""MoCo v2: contrast with a queue of keys (Chen et al. 2020, arXiv 2003.04297; He et al. 2019, arXiv 1911.05722).

The query of one view has to find the key of the other, made by a slowly following network, among the keys of the last batches: many
negatives, whatever the batch. The queue holds random directions at first, as in the released code; it is in the checkpoint and the same
in all processes, whose keys enter in the order of the batch. The released code draws images anew over its processes before the keys are
made (shuffling BN), so that statistics of batch norm do not tell which images belong together. Here statistics are those of all
processes, so `shuffle` is off; it splits the keys' batch into so many random parts, which is the same trick on one machine. Unlike the
released code, biases and normalisation do not decay.

Expect, with the paper's recipe, ResNet-50, batch 256: 67.5 % linear top-1 on ImageNet after 200 epochs, 71.1 % after 800.

Use it where only small batches fit: its negatives do not come from the batch, and gradients pass through one view alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import normalise, products
from byol.methods import StepOutput
from byol.methods._heads import at_least_float32, mlp, width
from byol.methods._targets import Follower, twins

RECIPES = {
    "moco-imagenet-r50-200": {
        "about": "MoCo v2, ResNet-50, 200 epochs of ImageNet, batch 256, SGD: 67.5 % linear top-1 (released README)",
        "expected": "67.5 % linear top-1 on ImageNet, 71.1 % with 800 epochs (MoCo's released README)",
        "source": "MoCo's released code with --mlp --moco-t 0.2 --aug-plus --cos; there batch norm is split over 8 GPUs and keys shuffled",
        "batch": 256,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 200, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 2048, "dim": 128, "queue": 65536, "temperature": 0.2, "tau": 0.999,
            "shuffle": 8, "views": "torchvision", "min_area": 0.2, "saturation": 0.4, "blur": 0.5, "solarize": 0.0,
            "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "moco-cifar10-r18": {
        "about": "ResNet-18, symmetric, 200 epochs of CIFAR-10, batch 128, SGD: 83.8 % kNN (lightly's benchmark)",
        "expected": "83.8 % kNN (k=200, T=0.1) on CIFAR-10 (lightly's benchmark, which splits batch norm of both networks into 8)",
        "source": "lightly's CIFAR-10 benchmark",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.12,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 512, "dim": 128, "queue": 4096, "temperature": 0.1,
            "tau": 0.99, "symmetric": True, "shuffle": 8, "views": "small", "saturation": 0.4, "solarize": 0.0,
        },
    },
}  # fmt: skip
PUBLISHED = "MoCo v2"
AUTO = {"hidden": 1024, "dim": 128, "queue": 1024, "tau": 0.99, "symmetric": True, "lr": 0.2}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of MoCo v2; the defaults are the released ones for ImageNet."""

    hidden: int = 2048  # units of the hidden layer of the head
    dim: int = 128  # units of queries and keys
    queue: int = 65536  # keys of earlier batches
    temperature: float = 0.2  # of the similarities
    tau: float = 0.999  # how much of itself the network of the keys keeps at an update, from the first to the last
    symmetric: bool = False  # both views are queries once; twice the passes
    shuffle: int = 1  # random parts in which the keys' batch passes, each with its own statistics of batch norm; 1: it passes whole

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "queue", "shuffle"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0")
        if not 0 <= self.tau <= 1:
            raise ValueError(f"tau is {self.tau}; give a number from 0 (keys by the online network) to 1 (it never moves)")


class MoCo(Follower):
    """Two views in, InfoNCE over the other key and the queue out; every pass puts its keys into the queue."""

    Config = Options
    queue: Tensor  # (K, D), rows of length 1
    pointer: Tensor  # (), where the next key goes

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, norm="none", output_bias=True)
        self.target_encoder, self.target_projector = twins((encoder, self.projector), fresh=False)
        self.register_buffer("queue", normalise(torch.randn(c.queue, c.dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each: queries and keys -> the cross-entropy of finding the key, over both directions if symmetric."""
        v, w = views
        directions = ((v, w), (w, v)) if self.config.symmetric else ((v, w),)
        found = [(self._queries(a), self._keys(b)) for a, b in directions]
        known = self.queue.clone()  # the queue changes below, before the gradient is taken
        logits = torch.cat([self._logits(q, k, known) for q, k in found])
        for _, k in found:
            self._enqueue(dist.gathered(k))
        loss = nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
        right = (logits.detach()[:, 0] >= logits.detach().amax(1)).to(logits.dtype).mean()
        q, k = found[0]
        return StepOutput(loss, (q.detach(), k), {"key_found": right})

    def _queries(self, view: Tensor) -> Tensor:
        return normalise(at_least_float32(self.projector(self.encoder(view))))

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, D), by the network that follows; in random parts if the batch is shuffled."""
        parts = self.config.shuffle
        if parts == 1:
            return normalise(at_least_float32(self.target_projector(self.target_encoder(view))))
        if len(view) < 2 * parts:
            raise ValueError(f"shuffle is {parts}, and {len(view)} images a pass are too few for it; give {len(view) // 2} or less")
        order = torch.randperm(len(view), device=view.device)
        keys = torch.cat([self.target_projector(self.target_encoder(view[part])) for part in order.tensor_split(parts)])
        return normalise(at_least_float32(keys))[order.argsort()]

    def _logits(self, q: Tensor, k: Tensor, known: Tensor) -> Tensor:
        """(B, D) queries and their keys, (K, D) other keys -> (B, 1 + K), the right one first."""
        right = (q * k).sum(1, keepdim=True)
        return torch.cat([right, products(q, known)], dim=1) / self.config.temperature

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """(B, D) of all processes, in the order of the batch: over the oldest ones; of more keys than the queue holds, the last."""
        size = len(self.queue)
        last = keys[-size:]
        places = (self.pointer + len(keys) - len(last) + torch.arange(len(last), device=keys.device)) % size
        self.queue.index_copy_(0, places, last.to(self.queue.dtype))
        self.pointer.copy_((self.pointer + len(keys)) % size)

    def _tau(self, progress: float) -> float:
        """The same at every step."""
        return self.config.tau

    def risks(self) -> dict[str, str]:
        """There are none that collapse: negative pairs keep images apart."""
        return {}


METHOD = MoCo
