"""The data and the plan as a person reads them before training: what was decided, and why."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from byol import data, encoders, methods
from byol.cli.screen import Screen, counted, number, wrapped
from byol.config import Plan, of_one_view

if TYPE_CHECKING:
    from byol.run import Session

LABEL, NAME = 8, 29  # columns before the names, and before the reasons
_LISTED = 12  # channels whose values are written one by one


def show_data(session: Session, out: Path | None, screen: Screen) -> None:
    """What was found; `out` is the run folder, None where none is made."""
    source, skipped = session.source, len(session.skipped)
    listed = f"listed in {out}/data.json" if out else "`byol doctor` says which"
    left_out = f" ({skipped:,} skipped, {listed})" if skipped else ""
    labels = "; labels not used" if source.labels is not None else ""
    held = "held in memory" if session.memory is not None else "read as they are needed"
    screen.tell(f"{len(source):,} {source.words.many}, {data.channels_of(source)}, {source.dtype}, {held}{left_out}{labels}", LABEL, "Data")
    for note in source.notes:
        screen.tell(note, LABEL)


def size_of(session: Session) -> str:
    """What the encoder sees of a sample: "224 px" of an image, "187 neurons" of a bin, "64 bands x 96 frames" of a sound."""
    if isinstance(session.input, encoders.SoundInput):
        return f"{session.input.bands} bands x {session.input.frames} frames"
    of_image = session.source.modality in ("image", "rgbd")
    return f"{session.plan.settings.image_size} px" if of_image else data.channels_of(session.source)


def show_plan(session: Session, screen: Screen) -> None:
    """The decisions that matter most, each with its reason."""
    plan, s = session.plan, session.plan.settings
    how_long = f"{counted(s.epochs, 'epoch')} = {counted(plan.steps, 'step')}"
    what = f"{s.method}, {s.encoder}, {size_of(session)}, batch {_batch(plan)}, {how_long}, {s.precision}, {s.device}"
    screen.tell(what, LABEL, "Plan")
    _row(screen, "encoder", encoders.describe(s.encoder, input=session.input) + ("; pre-trained" if s.pretrained or s.init else ""))
    _row(screen, f"batch {_batch(plan)}", plan.reasons.get("batch_size", ""))
    _row(screen, counted(s.epochs, "epoch"), plan.reasons.get("epochs", ""))
    scaled = f"{number(s.lr)} x {s.batch_size * s.accumulate}/256 after {plan.warmup_steps:,} warm-up steps; "
    _row(screen, f"lr {number(plan.peak_lr)}, {s.optimizer.upper()}", scaled + plan.reasons.get("lr", ""))
    if "tau_base" in plan.method:
        constant = plan.method.get("tau_schedule") == "constant"
        _row(screen, f"tau {plan.method['tau_base']}{', constant' if constant else ' -> 1'}", plan.reasons.get("tau_base", ""))
    _row(screen, f"views {s.views}", plan.reasons.get("views", ""))
    _row(screen, s.precision, plan.reasons.get("precision", ""))
    for note in plan.notes:
        screen.tell(note, LABEL, "Note")


def show_whole(session: Session, screen: Screen) -> None:
    """Every setting with its reason, what follows from them, and what each view does: the dry run."""
    plan = session.plan
    screen.say("Settings (each can be changed with --set KEY=VALUE)")
    for name, value in (dataclasses.asdict(plan.settings) | _options(session)).items():
        _row(screen, f"{name} = {_short(value)}", _reason(plan, name))
    screen.say("Follows")
    _row(screen, f"{plan.steps:,} steps", f"{number(plan.steps_per_epoch)} an epoch, of {_batch(plan)} {session.source.words.many}")
    falls = "a cosine to 0" if plan.settings.lr_schedule == "cosine" else "constant"
    _row(screen, f"peak lr {number(plan.peak_lr)}", f"after {plan.warmup_steps:,} warm-up steps, then {falls}")
    _row(screen, "encoder", encoders.describe(plan.settings.encoder, input=session.input))
    _input(session, screen)
    _row(screen, "expected", plan.expected)
    screen.say("Views")
    for line in session.views.describe():
        screen.say(" " * LABEL + line)


def _input(session: Session, screen: Screen) -> None:
    """What the encoder sees, and how it is normalised."""
    i = session.input
    if isinstance(i, encoders.SoundInput):
        _row(screen, "input", f"log-mel of {size_of(session)}, {i.f_min:g} to {i.f_max:g} Hz of {i.rate:,} Hz")
        _row(screen, "mean, std", f"{i.mean:.3f}, {i.std:.3f}")
        return
    _row(screen, "input", f"{i.channels} x {i.size} x {i.size}, values {number(i.low)} to {number(i.high)} become 0 to 1")
    for name, values in (("mean", i.mean), ("std", i.std)):
        many = f"{min(values):.3f} to {max(values):.3f} over {len(values)} {session.source.words.channels}"
        _row(screen, name, ", ".join(f"{v:.3f}" for v in values) if len(values) <= _LISTED else many)


def _reason(plan: Plan, name: str) -> str:
    """Why a setting is what it is; what was said of one view alone comes after what was said of all."""
    whole = plan.reasons.get(name, "the default")
    alone = [f"view {view}: {why}" for key, why in plan.reasons.items() for view, field in [of_one_view(key)] if view and field == name]
    return "; ".join([whole, *alone])


def _options(session: Session) -> dict[str, object]:
    """Every option of the method, and every number of the view pipelines: one value, or one for each view."""
    plan = session.plan
    method = methods.load(plan.settings.method).Config(**plan.method)  # type: ignore[attr-defined]
    of_views = [dataclasses.asdict(p) for p in session.views.pipelines]
    views = {k: of_views[0][k] if len({p[k] for p in of_views}) == 1 else " / ".join(_short(p[k]) for p in of_views) for k in of_views[0]}
    return dataclasses.asdict(method) | views


def how_long(session: Session, screen: Screen) -> float:
    """Seconds of the whole run here, by a few steps of a throw-away copy."""
    from byol import run as runs

    screen.progress("measuring the speed", 0, 0)
    speed, s = runs.speed_of(session), session.plan.settings
    screen.clear()
    return session.plan.steps * s.batch_size * s.accumulate / speed


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(_short(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _batch(plan: Plan) -> str:
    s = plan.settings
    return f"{s.batch_size}" if s.accumulate == 1 else f"{s.batch_size} x {s.accumulate}"


def _row(screen: Screen, name: str, reason: str) -> None:
    """A name and a reason in two columns; a name that is too long has the reason below it."""
    first = " " * LABEL + name
    if not reason:
        screen.say(first)
    elif len(first) < NAME:
        screen.tell(reason, NAME, first)
    else:
        screen.say(first)
        for line in wrapped(reason, NAME):
            screen.say(line)
