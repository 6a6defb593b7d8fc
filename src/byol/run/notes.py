"""The same session again: in other processes, from a run folder, or from its last checkpoint alone."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from torch import nn

from byol import checkpoint, dist, encoders, optim, stored, views
from byol.config import Plan, Request
from byol.data import Skipped, open_source, present
from byol.encoders import input_from_json
from byol.run.deciding import build_views, decide, in_memory, look, looking
from byol.run.device import find_device
from byol.run.folder import read_json, read_plan
from byol.run.session import OWN, Progress, Session, build, views_by


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


def from_note(note: dict[str, Any], progress: Progress = lambda what, done, total: None, encoder: nn.Module | None = None) -> Session:
    """The session as it was decided then, or in the first process; ValueError if the data is not what it was there."""
    plan, then, out = Plan.from_json(note["plan"]), note["data"], note["run"]
    request = Request.from_json(note["request"])
    source = open_source(_found(request.data, note["folder"]), limit=request.limit, progress=looking(progress))
    memory, source = in_memory(source, progress)
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
        view_plan = build_views(plan, source, compiled)
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
