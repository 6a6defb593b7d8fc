"""Fine-tuning: all weights and a linear classifier on top trained on labelled images, and settings chosen on held-out ones.

SGD with Nesterov momentum 0.9, batch norm in training mode, random crops and flips; tested on the short side scaled to
256 / 224 of the encoder's size and its centre crop (Grill et al. 2020, appendices C.1 and D.3). Ours, since the paper does
not say: the rate falls to 0 along half a cosine, and the classifier starts at 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byol.data import Source
from byol.encoders import Encoder, Input
from byol.evaluation import splits
from byol.evaluation.accuracy import hits
from byol.evaluation.crops import Crops, crops
from byol.evaluation.features import Precision, features
from byol.evaluation.probe import Settings, Task
from byol.optim import learning_rate
from byol.views import ViewPlan

_MOMENTUM = 0.9
_TEST_RESIZE = 256 / 224  # of the encoder's size, the short side at test
_SAID = 20  # steps between two words of progress


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The settings of one fine-tuning."""

    lr: float  # at the start
    weight_decay: float = 0.0  # an update takes this share off every weight while the rate is at its start: what SGD is given is this / lr
    epochs: int = 0  # passes over the images ...
    steps: int = 0  # ... or updates, where there are no epochs

    def updates(self, n: int, batch: int) -> int:
        """How many for n images."""
        return self.epochs * (n // batch) or self.steps


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned copy of an encoder and its classifier."""

    encoder: Encoder
    head: nn.Linear

    @torch.no_grad()
    def logits(self, source: Source, precision: Precision) -> Tensor:
        """(m, classes) float32 on the CPU, by the test view."""
        found = features(self.encoder, source, device=self.head.weight.device, precision=precision)
        if found.skipped:
            first = found.skipped[0]
            raise ValueError(f"{first.name} could be read once and then no more ({first.reason}); try again")
        logits: Tensor = self.head(torch.from_numpy(found.x).to(self.head.weight))
        return logits.float().cpu()


def tune(
    encoder: Encoder,
    batches: Iterator[tuple[Tensor, Tensor]],
    y: Tensor,
    *,
    classes: int,
    trial: Trial,
    updates: int,
    norm_decay: float | None = None,
    precision: str = "fp32",
    seed: int = 0,
    on_step: Callable[[int], None] = lambda step: None,
) -> Tuned:
    """`updates` batches of ((B,) ids, (B, C, S, S) in [0, 1]), (n,) labels -> a trained copy on their device; the encoder stays as it is.

    `norm_decay` replaces the decay of all running statistics of batch norm. `seed` is of dropout and the like, where the encoder has any.
    """
    with _seeded(seed, y.device):
        net, head = _start(encoder, classes, y.device, norm_decay)
        parameters = [*net.parameters(), *head.parameters()]
        decay = trial.weight_decay / trial.lr
        fused = y.device.type in ("cpu", "cuda")
        optimizer = torch.optim.SGD(parameters, lr=trial.lr, momentum=_MOMENTUM, nesterov=True, weight_decay=decay, fused=fused)
        for step, (ids, x) in enumerate(batches):
            on_step(step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, peak=trial.lr, warmup=0, total=updates)
            x = net.input.normalise(x).contiguous(memory_format=torch.channels_last)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
                z = net(x)
            loss = cross_entropy(head(z.to(head.weight.dtype)), y[ids])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    net.input = replace(net.images, resize=short_side_at_test(net.images))
    return Tuned(net.eval(), head)


def _start(encoder: Encoder, classes: int, device: torch.device, norm_decay: float | None) -> tuple[Encoder, nn.Linear]:
    """A copy of the encoder that learns, and a classifier of zeros."""
    net = copy.deepcopy(encoder).requires_grad_(True).train().to(device)
    net = net.to(memory_format=torch.channels_last)
    if norm_decay is not None:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1 - norm_decay
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    head = nn.Linear(net.dim, classes, device=device, dtype=dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return net, head


def norm_decay(steps_per_epoch: int) -> float:
    """The decay of batch norm's running statistics: max(1 - 10 / s, 0.9) (appendix D.3)."""
    return max(1 - 10 / steps_per_epoch, 0.9)


def short_side_at_test(input: Input) -> int:
    """The short side before the centre crop at test, in pixels: 256 for 224, and as much for other sizes."""
    return max(input.resize, round(input.size * _TEST_RESIZE))


def sweep(
    task: Task, plan: ViewPlan, trials: Sequence[Trial], usual: Trial, *, batch: int, held_out: float, paper_norm: bool
) -> tuple[Tensor, Trial, Settings]:
    """(m, classes) test scores of the trial that is best on held-out training images, trained again on all; the trial; how it was chosen.

    Of trials with as many right the one with the lowest cross-entropy; `usual` where there are too few labels to choose by.
    """
    assert task.test is not None
    everything = torch.arange(len(task.train_y))
    if len(trials) == 1:
        chosen, how = trials[0], "given"
    elif not splits.enough_to_choose(task.train_y.cpu().numpy()):
        chosen, how = usual, f"fixed: fewer than {splits.FEWEST} labels per class"
    else:
        y, ties = task.train_y.cpu().numpy(), splits.ties_of(task.train)
        kept, out = map(torch.from_numpy, splits.held_out(y, held_out, seed=task.seed, ties=ties))
        fit = _fitting(task, plan, kept, batch, paper_norm)
        held = replace(task.train.subset(out.numpy()), labels=None)
        labels = task.train_y.cpu()[out]
        judged = [_judge(fit(t, f"{i + 1} of {len(trials)}").logits(held, task.precision), labels) for i, t in enumerate(trials)]
        chosen, how = trials[max(range(len(trials)), key=lambda i: judged[i])], f"{len(out)} held out, then trained on all"
    tuned = _fitting(task, plan, everything, batch, paper_norm)(chosen, "on all labels")
    n = len(everything)
    settings: Settings = {"chosen": how, "batch": min(batch, n), "steps": chosen.updates(n, min(batch, n))}
    return tuned.logits(task.test, task.precision), chosen, settings


def _judge(logits: Tensor, y: Tensor) -> tuple[int, float]:
    """How many are right, and minus the cross-entropy; a network that diverged is the worst of all."""
    entropy = float(cross_entropy(logits.double(), y))
    return int(hits(logits, y).sum()), -entropy if entropy == entropy else -torch.inf


def _fitting(task: Task, plan: ViewPlan, rows: Tensor, batch: int, paper_norm: bool) -> Callable[[Trial, str], Tuned]:
    """What fine-tunes on these rows of the training images."""
    device, n = task.train_y.device, len(rows)
    batch = min(batch, n)
    source = task.train if n == len(task.train) else task.train.subset(rows.numpy())
    batches: Crops = crops(source, plan, task.encoder.images, batch=batch, seed=task.seed, device=device, workers=task.workers)
    y = task.train_y[rows.to(device)]

    def fit(trial: Trial, which: str) -> Tuned:
        updates = trial.updates(n, batch)

        def say(step: int) -> None:
            if step % _SAID == 0:
                task.progress(f"Fine-tuning {which}", step, updates)

        return tune(
            task.encoder,
            batches(updates),
            y,
            classes=task.classes,
            trial=trial,
            updates=updates,
            norm_decay=norm_decay(n // batch) if paper_norm else None,
            precision=task.precision,
            seed=task.seed,
            on_step=say,
        )

    return fit


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators at a seed, and as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
