"""Request -> session: data are read, the recipe is asked, and values are decided; nothing is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from byol import dist, encoders, methods, modalities, recipes, start, trackers, views
from byol.config import Plan, Request
from byol.data import MAX_BYTES, Source, Statistics, cores, load_memory, open_source
from byol.run.device import find_device, gains
from byol.run.session import OWN, Progress, Session, options_of
from byol.training import rate
from byol.views.changes import Take


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
    source = open_source(request.data, limit=request.limit, download=request.download, progress=looking(progress))
    memory, source = in_memory(source, progress)
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
    view_plan = build_views(plan, source, compiled)
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


def build_views(plan: Plan, source: Source, compiled: bool | None) -> views.Plan:
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


def in_memory(source: Source, progress: Progress) -> tuple[np.ndarray | None, Source]:
    if source.modality == "sound":  # a window is read at a time; what is small stays in the memory of its reader
        return None, source
    memory, source = load_memory(source, progress=lambda done, total: progress("Reading", done, total))
    if len(source) == 0:
        raise ValueError(f"{source.spec}: none of its {len(source.skipped)} images can be read; run `byol doctor` on it to see why")
    if memory is None and source.modality == "recording":  # a view may be of any sample nearby
        raise ValueError(f"{source.spec} does not fit into the {MAX_BYTES >> 30} GB that a {source.modality} may take; divide it")
    return memory, source


def looking(progress: Progress) -> Callable[[int, int], None]:
    """Progress while the data is opened: files are counted first, and then their headers are read."""
    return lambda done, total: progress("Headers" if total else "Files", done, total)


def _given(text: str, measured: tuple[float, ...]) -> tuple[float, ...]:
    if text == "data":
        return tuple(round(float(v), 6) for v in measured)
    try:
        return tuple(float(v) for v in text.split(","))
    except ValueError:
        raise ValueError(f"mean and std are `data` or numbers with commas between, not {text!r}") from None
