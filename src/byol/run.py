"""A run: the folder, and the objects that train in it, built from what was asked or from what the folder says."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from byol import __version__, checkpoint, dist, encoders, methods, modalities, optim, recipes, start, stored, trackers, views
from byol.config import Plan, Request
from byol.data import MAX_BYTES, Skipped, Source, Statistics, Waited, cores, ids_at, load_memory, open_source, present, shown
from byol.encoders import AnyInput, Encoder, Input, SoundInput, input_from_json
from byol.feeds import HostFeed, MemoryFeed
from byol.files import locked, write_text
from byol.sync_norm import synchronise
from byol.training import Feed, Watcher, autocast, rate
from byol.views import SoundState
from byol.views.changes import Take

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


def prepare(request: Request, progress: Progress = lambda what, done, total: None, *, encoder: nn.Module | None = None) -> Session:
    """Read the data, ask the recipe, and decide; nothing is written. `encoder` is a module of the user's own.

    Of several processes the first one decides and the others follow.
    """
    mine: list[Session] = []

    def first() -> dict[str, object]:
        mine.append(decide(request, look(request, progress), encoder=encoder))
        dist.divides(mine[0].plan.settings.batch_size)
        return to_note(mine[0])

    told = dist.from_first(first)
    return mine[0] if mine else from_note(told, progress, encoder)


@dataclass(frozen=True)
class Look:
    """What is measured before anything is decided: the same for all requests of these data on this device."""

    source: Source
    memory: np.ndarray | None
    stats: Statistics
    facts: recipes.Facts


def look(request: Request, progress: Progress = lambda what, done, total: None) -> Look:
    """Read the data and measure what the recipe wants to know of it and of the device."""
    request = request.folded()
    trackers.check(request.track)
    recipes.method_for(request)  # a recipe of another method is refused before the data is read
    source = open_source(request.data, limit=request.limit, download=request.download, progress=_looking(progress))
    memory, source = _in_memory(source, progress)
    stats = modalities.of(source.modality).measured(source)
    if memory is not None and memory.dtype != np.uint8 and source.modality != "rgbd":
        stats = stats.with_range(float(memory.min()), float(memory.max()))
    device = find_device(request.device)
    # A layer on vectors is too small for either to pay.
    bf16_gain, channels_last_gain = gains(device, request.precision) if source.modality != "recording" else (None, None)
    facts = recipes.Facts(
        images=len(source),
        short_side=int(min(stats.height, stats.width)),
        device=device,
        cores=max(1, cores() // dist.local_size()),
        bf16_gain=bf16_gain,
        channels_last_gain=channels_last_gain,
        classes=len(source.classes) if source.labels is not None else 0,
        modality=source.modality,
        grouped=source.groups is not None,
    )
    return Look(source, memory, stats, facts)


def decide(request: Request, seen: Look, *, encoder: nn.Module | None = None) -> Session:
    """What is asked of data that were looked at, decided; `encoder` is a module of the user's own."""
    request = request.folded()
    request = dataclasses.replace(request, method=recipes.method_for(request))
    if encoder is not None:
        request = dataclasses.replace(request, encoder=OWN)
    session = _decide(request, seen.facts, seen.stats, seen.source, seen.memory, encoder)
    session.rows()  # before anything is written
    return session if request.minutes is None else _fit_in(session, request.minutes, seen.facts, seen.stats)


def _decide(
    request: Request, facts: recipes.Facts, stats: Statistics, source: Source, memory: np.ndarray | None, network: nn.Module | None
) -> Session:
    cls = methods.load(request.method)
    modality = modalities.of(source.modality)
    found = start.given(request.init, network) if request.init else None
    asked = dataclasses.replace(request, encoder=start.named(request.init, request.encoder, found)) if request.init and found else request
    plan = recipes.resolve(asked, facts, cls.Config, modality.Pipeline, modality.names())  # type: ignore[attr-defined]
    s = plan.settings
    if not s.init and network is None:  # these are what they are
        s = dataclasses.replace(s, encoder=encoders.of_kind(s.encoder, methods.encoder_kind(cls)))
        plan = dataclasses.replace(plan, settings=s)
    mean, std = (_given(text, measured) for text, measured in ((s.mean, stats.mean), (s.std, stats.std)))
    compiled = None if facts.device == "cpu" else False
    view_plan = _views(plan, source, compiled)
    encoder_input = modality.input_of(view_plan, source, s.image_size, dataclasses.replace(stats, mean=mean, std=std))
    notes: tuple[str, ...] = ()
    if found and s.init:
        encoder_input = start.input_of(s.init, found, encoder_input, mean=s.mean == "data", std=s.std == "data")
        notes = (start.note(s.init, found),)
    if s.pretrained:
        notes = (f"weights: {encoders.pretrained_note(s.encoder)}",)
        s = dataclasses.replace(s, encoder=encoders.pretrained_name(s.encoder, input=encoder_input))
        plan = dataclasses.replace(plan, settings=s)
    if network is None:
        encoders.describe(s.encoder, input=encoder_input)  # refuses a name that there is not, before anything is built
    plan = dataclasses.replace(plan, input=encoder_input.to_json(), notes=notes)
    return Session(request, plan, source, view_plan, encoder_input, memory, list(source.skipped), network=network)


def _views(plan: Plan, source: Source, compiled: bool | None) -> views.Plan:
    """The named plan with what was asked of it, arranged as the method takes its views."""
    cls = methods.load(plan.settings.method)
    takes = [Take(view.of, view.mild, view.local) for view in methods.views_of(cls, options_of(plan))]
    s, modality = plan.settings, modalities.of(source.modality)
    return modality.plan(s.views, source, s.image_size, takes=takes, compiled=compiled, changes=plan.views)


def speed_of(session: Session) -> float:
    """Samples per second of a training step of this session on this machine, by a few steps of a throw-away copy."""
    method = session.method()
    return rate(session.plan, method, session.optimizer(method), session.feed(alone=True))


def _fit_in(session: Session, minutes: float, facts: recipes.Facts, stats: Statistics) -> Session:
    """The session decided anew for as many epochs as fit into the time, by a few steps measured here."""
    if minutes <= 0:
        raise ValueError(f"--minutes {minutes}: give a time above 0")
    speed = speed_of(session)
    per_epoch = session.plan.images // session.plan.settings.batch_size * session.plan.settings.batch_size
    epochs = max(1, int(minutes * 60 * speed / per_epoch))
    decided = _decide(dataclasses.replace(session.request, epochs=epochs), facts, stats, session.source, session.memory, session.network)
    reasons = decided.plan.reasons | {"epochs": f"{minutes:g} minutes at {speed:,.0f} {session.source.words.rate}, measured here"}
    return dataclasses.replace(decided, request=session.request, plan=dataclasses.replace(decided.plan, reasons=reasons))


def _in_memory(source: Source, progress: Progress) -> tuple[np.ndarray | None, Source]:
    if source.modality == "sound":  # a window is read at a time; what is small stays in the memory of its reader
        return None, source
    memory, source = load_memory(source, progress=lambda done, total: progress("Reading", done, total))
    if len(source) == 0:
        raise ValueError(f"{source.spec}: none of its {len(source.skipped)} images can be read; run `byol doctor` on it to see why")
    if memory is None and source.modality == "recording":  # a view may be of any sample nearby
        raise ValueError(f"{source.spec} does not fit into the {MAX_BYTES >> 30} GB that a {source.modality} may take; divide it")
    return memory, source


def _looking(progress: Progress) -> Callable[[int, int], None]:
    """Progress while the data is opened: files are counted first, and then their headers are read."""
    return lambda done, total: progress("Headers" if total else "Files", done, total)


def _given(text: str, measured: tuple[float, ...]) -> tuple[float, ...]:
    if text == "data":
        return tuple(round(float(v), 6) for v in measured)
    try:
        return tuple(float(v) for v in text.split(","))
    except ValueError:
        raise ValueError(f"mean and std are `data` or numbers with commas between, not {text!r}") from None


def find_device(asked: str) -> str:
    """The device asked for, or the best there is; ValueError if it is not here."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if asked == "auto":
        return found
    if asked not in ("cpu", found):
        raise ValueError(f"--device {asked}: there is none here; pass --device {found}, or leave it out")
    return asked


def gains(device: str, precision: str = "auto") -> tuple[float, float]:
    """How many times faster a small convolutional step is here in bf16 than in fp32, and then with the channels last than first.

    1.0 where bf16 is not to be had or not asked for. Each is the best of six, in turns.
    """
    has_bf16 = device == "cpu" or (device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False))
    kinds = {"fp32": {False}, "bf16": {True}}.get(precision, {False, has_bf16})
    times = {(b, last): math.inf for b in sorted(kinds) for last in (True, False)}
    for _ in range(6):
        for b, last in times:
            times[b, last] = min(times[b, last], _small_step(device, bf16=b, channels_last=last))
    gain = times[False, True] / times[True, True] if len(kinds) == 2 else 1.0
    best = precision == "bf16" or gain >= recipes.PAYS
    return gain, times[best, False] / times[best, True]


def _small_step(device: str, *, bf16: bool, channels_last: bool) -> float:
    """Seconds of a forward and backward pass of two convolutions."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    batch, size = (32, 16) if device == "cpu" else (256, 32)
    net = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
    net = net.to(device, memory_format=layout)  # type: ignore[call-overload]
    x = torch.ones(batch, 32, size, size, device=device)
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(torch.device(device).type, lambda: None)
    # On a CPU not the clock: other programs on the cores would decide.
    clock = time.thread_time if device == "cpu" else time.perf_counter
    wait()
    began = clock()
    with autocast(device, "bf16" if bf16 else "fp32"):
        loss = net(x).float().sum()
    loss.backward()
    wait()
    return clock() - began


def refuse_existing(out: Path) -> None:
    """ValueError if the folder holds a run, or a part of one: nothing in it is touched."""
    if any((out / name).exists() for name in ("plan.json", checkpoint.LAST, checkpoint.PREVIOUS, "metrics.jsonl", "evaluations")):
        raise ValueError(f"{out} holds a run already; go on with `byol resume {out}`, or choose another folder with --out")


@contextmanager
def alone(out: Path, watcher: Watcher | None = None) -> Iterator[None]:
    """No other process trains in this folder meanwhile; ValueError if one does."""
    with locked(out) as held:
        if not held and watcher:
            watcher.note(f"{out} is on a file system without locks: see to it yourself that no other process trains there")
        yield


def write_left_out(session: Session, out: Path, updates: range) -> list[str]:
    """Write the samples of updates that were left out to `not-finite.json`; returns the names of the last one's."""
    s = session.plan.settings
    order = session.source.order if session.memory is None else None
    found: list[dict[str, object]] = []
    names: list[str] = []
    for update in updates:
        passes = range(update * s.accumulate, (update + 1) * s.accumulate)
        ids = [i for k in passes for i in ids_at(k, n=len(session.source), batch=s.batch_size, seed=s.seed, order=order).tolist()]
        names = [session.source.names[i] for i in ids]
        found.append({"step": update + 1, "ids": ids, "names": names})
    write_json(out / "not-finite.json", {"updates": found})
    return names


def create(session: Session, out: Path) -> None:
    """Make the run folder: what was asked, what was decided and why, what it is trained on."""
    refuse_existing(out)
    out.mkdir(parents=True, exist_ok=True)
    versions: dict[str, object] = {
        "byol": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": machine(),
    }
    versions["threads"] = torch.get_num_threads()
    versions["processes"] = dist.size()
    versions["views"] = views_by(session)
    versions["folder"] = os.getcwd()  # a relative path of the data begins there
    write_json(out / "config.json", {"request": dataclasses.asdict(session.request), **versions})
    write_json(out / "data.json", session.data_json())
    write_json(out / "plan.json", session.plan.to_json() | {"describe": session.views.describe()})


@contextmanager
def threads_of(out: Path) -> Iterator[None]:
    """The number of threads that the run began with: sums over another number end in other bits.

    Another number of processes shares the cores anew, and its sums differ anyway.
    """
    began = dist.from_first(lambda: {k: v for k, v in read_json(out / "config.json").items() if k in ("threads", "processes")})
    began_with, now = began.get("threads"), torch.get_num_threads()
    if isinstance(began_with, int) and 0 < began_with <= 4096 and began.get("processes", 1) == dist.size():
        torch.set_num_threads(began_with)
    try:
        yield
    finally:
        torch.set_num_threads(now)


def machine() -> str:
    """The machine in a few words: system, processor, number of cores, accelerator."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.system()} {platform.machine()}, {cores()} cores{gpu}"


def reopen(
    out: Path, progress: Progress = lambda what, done, total: None, *, encoder: nn.Module | None = None, device: str | None = None
) -> Session:
    """The session of a run folder, as it was decided then; ValueError if the folder is no run or its data has changed.

    On another `device` than it was decided for, where one is given.
    """

    def read() -> dict[str, object]:
        plan, asked = read_plan(out), read_json(out / "config.json")
        plan = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, device=device or plan.settings.device))
        dist.divides(plan.settings.batch_size)
        kept = {key: asked.get(key) for key in ("request", "folder", "views")}
        return {"plan": plan.to_json(), "data": read_json(out / "data.json"), "run": str(out), **kept}

    return from_note(dist.from_first(read), progress, encoder)


def to_note(session: Session) -> dict[str, object]:
    """What another process needs to build the same session, as in a run's files."""
    kept = {"request": dataclasses.asdict(session.request), "folder": os.getcwd(), "views": views_by(session)}
    return {"plan": session.plan.to_json(), "data": session.data_json(), "run": "the run", **kept}


def views_by(session: Session) -> str:
    """What makes the views: results are the same to 1e-5, and not bit for bit."""
    return "numba" if session.views.compiled else "torch"


def from_note(note: dict[str, Any], progress: Progress = lambda what, done, total: None, encoder: nn.Module | None = None) -> Session:
    """The session as it was decided then, or in the first process; ValueError if the data is not what it was there."""
    plan, then, out = Plan.from_json(note["plan"]), note["data"], note["run"]
    request = Request.from_json(note["request"])
    source = open_source(_found(request.data, note["folder"]), limit=request.limit, progress=_looking(progress))
    memory, source = _in_memory(source, progress)
    if source.fingerprint() != then.get("fingerprint"):
        raise ValueError(
            f"{request.data} has changed since {out} began ({then.get('images')} {source.words.many} then, {len(source)} now); "
            "put it back as it was, or start a new run"
        )
    if plan.settings.init:
        there = _found(plan.settings.init, note["folder"])
        plan = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, init=there))
    s = plan.settings
    compiled = note["views"] == "numba"  # as it began
    if compiled and not views.has_numba():
        raise ValueError(
            f"{out} began with views made by numba, which is missing or broken here; run `pip install 'byol[numba]'`, then resume"
        )
    try:
        view_plan = _views(plan, source, compiled)
        # Also what training came upon.
        found_then = stored.convert(then.get("skipped", []), list[Skipped], "skipped")
        encoder_input = input_from_json(plan.input)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{out}: its plan.json or data.json cannot be understood ({error}); copy the run again, or start it anew"
        ) from None
    skipped = list(dict.fromkeys([*source.skipped, *found_then]))  # type: ignore[misc]  # a list of Skipped
    session = Session(request, plan, source, view_plan, encoder_input, memory, skipped, network=encoder)
    find_device(s.device)
    return session


def read_plan(out: Path) -> Plan:
    """The plan of a run folder; ValueError if it is none."""
    if not (out / "plan.json").exists():
        raise ValueError(f"{out} is not a run: it has no plan.json; start one with `byol train DATA --out {out}`")
    fields = read_json(out / "plan.json")
    fields.pop("describe", None)
    try:
        return Plan.from_json(fields)
    except ValueError as error:
        raise ValueError(f"{out / 'plan.json'} cannot be understood ({error}); copy the run again, or start it anew") from None


def restored(out: Path) -> nn.Module:
    """The method of a run as its last checkpoint has it, on the CPU; the data is not needed."""
    plan = read_plan(out)
    s = dataclasses.replace(plan.settings, device="cpu", compile=False)
    if s.encoder == OWN:
        raise ValueError(f"{out} trained an encoder of your own, which this command cannot build; take the file that the run wrote")
    plan = dataclasses.replace(plan, settings=s)
    method = build(plan, lambda: encoders.load(s.encoder, input=input_from_json(plan.input), seed=s.seed))
    optimizer = optim.make(s.optimizer, method.param_groups(), lr=0.0, weight_decay=0.0, momentum=s.momentum, trust_coefficient=1e-3)  # type: ignore[operator]
    checkpoint.load(out, method=method, optimizer=optimizer)
    return method


def _found(data: str, folder: object) -> str:
    """The data as it was named, or from the folder where the run began when it is not here."""
    there = Path(str(folder or ".")) / data
    return str(there) if not present(data) and present(str(there)) else data


def write_json(path: Path, content: dict[str, object]) -> None:
    """The content as indented JSON, atomically."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # Names of files may hold bytes that are no text, which UTF-8 cannot hold but as an escape of JSON.
    write_text(path, re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """The content of a JSON file of a run; ValueError if it is damaged."""
    try:
        return stored.read_object(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); the run needs it") from None


def encoder_of(method: nn.Module) -> Encoder:
    """The online encoder of a method, in evaluation mode: what is kept."""
    encoder = method.encoder
    assert isinstance(encoder, Encoder)
    return encoder.eval()
