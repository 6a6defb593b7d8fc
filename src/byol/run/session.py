"""What a run needs, decided and built: samples, views, encoder, method, optimiser."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from byol import dist, encoders, methods, optim, start, stored, views
from byol.config import Plan, Request
from byol.data import Skipped, Source, Waited, shown
from byol.encoders import AnyInput, Encoder, Input, SoundInput
from byol.feeds import HostFeed, MemoryFeed
from byol.sync_norm import synchronise
from byol.training import Feed
from byol.views import SoundState

OWN = "own"  # the name of an encoder that the user gave as a module
Progress = Callable[[str, int, int], None]  # what is being done, done, total


@dataclass
class Session:
    """Everything that a run needs, decided and built."""

    request: Request
    plan: Plan
    source: Source
    views: views.Plan
    input: AnyInput
    memory: np.ndarray | None  # (N, C, H, W) when all samples are held in memory
    skipped: list[Skipped] = field(default_factory=list)
    waited: list[Waited] = field(default_factory=list)  # what could not be read at once, and came
    tell: Callable[[str], None] = lambda text: None  # who hears of images that are lost, or waited for, on the way
    network: nn.Module | None = None  # an encoder of the user's own; its weights as given are where training starts

    def encoder(self) -> Encoder:
        """A new encoder: the user's own, copied, or the one that the plan names."""
        s = self.plan.settings
        if s.init:
            return start.encoder(s.init, self.input, self.network, s.encoder)
        if self.network is not None:
            return encoders.wrap(copy.deepcopy(self.network), input=self.input, name=s.encoder)
        if s.encoder == OWN:
            raise ValueError("this run trains an encoder of your own; go on from Python: byol.resume(run, encoder=your_module)")
        return encoders.load(s.encoder, input=self.input, pretrained=s.pretrained, seed=s.seed)

    def method(self) -> nn.Module:
        """The method on its device, weights drawn from the seed; the global generators stay as they are."""
        return build(self.plan, self.encoder)

    def optimizer(self, method: nn.Module) -> torch.optim.Optimizer:
        """The plan's optimiser over the method's own groups."""
        s = self.plan.settings
        return optim.make(
            s.optimizer,
            method.param_groups(),  # type: ignore[operator]
            lr=self.plan.peak_lr,
            weight_decay=s.weight_decay,
            momentum=s.momentum,
            trust_coefficient=s.trust_coefficient,
            eps=s.eps,
        )

    def state(self) -> SoundState | None:
        """What views of sound remember from step to step, at the start of a run; None of other data, which remember nothing."""
        if not isinstance(self.views, views.SoundViews):
            return None
        assert isinstance(self.input, SoundInput)
        return self.views.state((self.input.mean, self.input.std)).to(self.plan.settings.device)

    def feed(self, state: SoundState | None = None, *, alone: bool = False) -> Feed:
        """The source of views; `state` is changed by every pass, and is a throw-away one where none is given.

        `alone`: the other processes, if there are any, do not come here.
        """
        s = self.plan.settings
        if self.memory is not None:
            assert isinstance(self.views, views.MemoryPlan)
            assert isinstance(self.input, Input)
            return MemoryFeed(self.memory, self.views, self.input, batch=s.batch_size, seed=s.seed, device=s.device, rows=self.rows())
        assert isinstance(self.views, views.HostPlan | views.SoundViews)  # recordings are in memory
        return HostFeed(
            self.source,
            self.views,
            self.input,
            batch=s.batch_size,
            seed=s.seed,
            device=s.device,
            workers=s.workers,
            rows=self.rows(),
            on_bad=self._bad,
            on_wait=self._late,
            state=self.state() if state is None else state,
            alone=alone,
        )

    def rows(self) -> dict[str, np.ndarray]:
        """What the method has to know of every sample beside its views; ValueError where the data do not say it."""
        method, source = methods.load(self.plan.settings.method), self.source
        known = {"index": np.arange(len(source)), "labels": source.labels, "groups": source.groups, "times": source.times}
        for name in methods.rows_of(method):
            if known.get(name) is None:
                raise ValueError(self._lacks(name, list(known)))
        # What is only of use where it is known. Groups and times are of neighbouring bins, which are nearly copies; visits are none.
        useful = methods.rows_if_known(method, options_of(self.plan))
        hidden = () if source.dated is None else ("groups", "times")
        wanted = (*methods.rows_of(method), *(name for name in useful if name not in hidden))
        return {name: value for name in wanted if (value := known.get(name)) is not None}

    def _lacks(self, name: str, known: list[str]) -> str:
        method = self.plan.settings.method
        if name == "labels":
            what = f"{method} learns from labels, and {self.source.spec} has none"
            return f"{what}; give labelled data, e.g. folders by class, or another --method"
        if name not in known:
            return f"{method} asks for {name}, which data do not have; there are {', '.join(known)}"
        return f"{method} asks for {name}, and {self.source.spec} has none; give an .npz with an array {name}, or another --method"

    def _bad(self, found: list[Skipped]) -> None:
        new = [s for s in found if s not in self.skipped]
        self.skipped += new
        for one in new[:3]:
            self.tell(f"{shown(one.name)}: {one.reason}; another {self.source.words.one} takes its place")
        if len(new) > 3:
            self.tell(f"and {len(new) - 3:,} more, listed in data.json")

    def _late(self, found: list[Waited]) -> None:
        self.waited += found
        last = max(found, key=lambda w: w.seconds)
        self.tell(f"waited {last.seconds:.0f} s for {shown(last.name)} ({last.reason}), {len(found):,} reads in all; going on")

    def data_json(self) -> dict[str, object]:
        """What the run was trained on: fingerprint, counts, and every file that was left out."""
        return {
            "spec": self.source.spec,
            "kind": self.source.kind,
            "modality": self.source.modality,
            "images": len(self.source),
            "fingerprint": self.source.fingerprint(),
            "skipped": [dataclasses.asdict(s) for s in self.skipped],
            "waited": {"reads": len(self.waited), "longest_seconds": max((w.seconds for w in self.waited), default=0.0)},
        }


def options_of(plan: Plan) -> object:
    """The `Config` of the plan's method."""
    options: object = stored.typed(methods.load(plan.settings.method).Config, plan.method)  # type: ignore[attr-defined]
    return options


def sees_labels(plan: Plan) -> bool:
    """Whether the encoder of this plan is one that learns from labels."""
    return methods.sees_labels(methods.load(plan.settings.method), options_of(plan))


def build(plan: Plan, encoder: Callable[[], Encoder]) -> nn.Module:
    """The plan's method around a new encoder, on its device, weights drawn from the seed."""
    s = plan.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(s.seed)
        cls = methods.load(s.method)
        method: nn.Module = cls(encoder(), options_of(plan))
    flat = all(p.dim() < 5 for p in method.parameters())  # convolutions over three axes have no such layout
    layout = torch.channels_last if s.channels_last and flat else torch.contiguous_format
    method.to(torch.device(s.device), memory_format=layout)  # type: ignore[call-overload]
    if s.compile:
        # Each network for itself and in place: what the method does with them stays readable, and so do the keys of its weights.
        for network in (part for child in method.children() for part in called(child)):
            network.compile()
    return method


def called(network: nn.Module) -> Sequence[nn.Module]:
    """The networks that a method calls: those inside, where it gives an encoder its patches or channels itself."""
    net = network.net if isinstance(network, Encoder) else network
    if isinstance(net, encoders.Halves):
        return net.networks()
    return [net.net] if isinstance(net, encoders.Patches) else [network]


def set_by_first_batch(session: Session, method: nn.Module) -> None:
    """Scales that wait for data are set by the first batch of the run; a method without any is left alone, and so are all buffers.

    Of several processes all come here, each with its share of the batch.
    """
    if not encoders.waits_for_data(method):
        return
    views, rows = next(iter(session.feed()(0, 1)))
    synchronise(method)
    dist.from_first_tensors(method.parameters())
    before = [b.clone() for b in method.buffers()]
    s = session.plan.settings
    # Networks that are to be compiled would be so for this one pass, in which parameters change.
    eager = torch.compiler.set_stance("force_eager") if s.compile else nullcontext()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), eager, encoders.set_by_data(method):
        torch.manual_seed(s.seed)
        method.train()(views, **rows)
        for now, then in zip(method.buffers(), before, strict=True):
            now.copy_(then)


def views_by(session: Session) -> str:
    """What makes the views: results are the same to 1e-5, and not bit for bit."""
    return "numba" if session.views.compiled else "torch"


def encoder_of(method: nn.Module) -> Encoder:
    """The online encoder of a method, in evaluation mode: what is kept."""
    encoder = method.encoder
    assert isinstance(encoder, Encoder)
    return encoder.eval()
