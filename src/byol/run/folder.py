"""The folder of a run: what is written there when it begins, and read again."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from byol import __version__, checkpoint, dist, stored
from byol.config import Plan
from byol.data import cores, ids_at
from byol.files import locked, write_text
from byol.run.session import Session, views_by
from byol.training import Watcher


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
