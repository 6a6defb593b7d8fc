"""Train and resume: a session in its run folder, from its start or from its last checkpoint."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import nn

from byol import checkpoint, contact_sheet, dist, exporting, stopping, trackers
from byol import data as datas
from byol import run as runs
from byol.config import Request
from byol.run import Progress, Session
from byol.training import Outcome, Watcher, fit

Quiet: Progress = lambda what, done, total: None  # noqa: E731


@dataclass(frozen=True)
class Trained:
    """How training ended."""

    run: Path
    outcome: Outcome
    skipped: int  # files left out
    signal: int | None = None  # the signal that stopped it
    suspects: list[str] = field(default_factory=list)  # names of the last batch whose numbers were not finite, where that ended it


def plan(data: str | Path, *, progress: Progress = Quiet, **asked: object) -> Session:
    """What `train` would do, decided and explained, without training; the fields of `byol.config.Request`."""
    return runs.prepare(Request(data=str(data), **asked), progress)  # type: ignore[arg-type]


def train(
    data: str | Path,
    out: str | Path | None = None,
    *,
    encoder: str | nn.Module | None = None,
    watcher: Watcher | None = None,
    progress: Progress = Quiet,
    **asked: object,
) -> Trained:
    """Train an encoder on images, or a recording, without labels; the other arguments are the fields of `byol.config.Request`.

    `encoder` is a name, or a module from (B, C, S, S) to (B, dim) of your own, which is copied: the given one stays as it is.

    Raises ValueError in one sentence when the data or a setting cannot be used.
    """
    own = encoder if isinstance(encoder, nn.Module) else None
    request = Request(data=str(data), encoder=None if own is not None else encoder, **asked)  # type: ignore[arg-type]
    with dist.joined(runs.find_device(request.device)):
        out = new_out(out, request.data)
        return begin(runs.prepare(request, progress, encoder=own), out, watcher=watcher)


def new_out(out: str | Path | None, data: str) -> Path:
    """The folder of a new run, the same in every process; ValueError if there is a run in it."""

    def free() -> str:
        path = Path(out) if out is not None else default_out(data)
        runs.refuse_existing(path)
        return str(path)

    return Path(str(dist.from_first(free)))


def default_out(data: str) -> Path:
    """`runs/NAME` with the name of the data; `runs/NAME-2` and so on when that one is taken."""
    stem = re.split(r"[.{*?\[#]", Path(data).name)[0].rstrip("-_") or "run"  # of shards, what comes before their numbers
    numbered = (Path("runs") / (stem if n == 1 else f"{stem}-{n}") for n in range(1, 10_000))
    return next(p for p in numbered if not (p / "plan.json").exists())


def begin(session: Session, out: Path, *, watcher: Watcher | None = None) -> Trained:
    """Train a prepared session in a new run folder."""
    method = session.method()  # first, so that nothing is written when the network cannot be had
    if dist.rank():
        return _train(session, method, out, watcher)
    runs.refuse_existing(out)
    out.mkdir(parents=True, exist_ok=True)
    with runs.alone(out, watcher):
        runs.create(session, out)
        contact_sheet.write(session, out / "views.png")
        return _train(session, method, out, watcher)


def resume(
    run: str | Path,
    *,
    encoder: nn.Module | None = None,
    watcher: Watcher | None = None,
    progress: Progress = Quiet,
    session: Session | None = None,
) -> Trained:
    """Go on with a run where its last checkpoint stands, bit for bit; a finished run is left as it is.

    A run of an encoder of one's own needs that module again, as `encoder`.
    """
    run = Path(run)
    with dist.joined(runs.find_device("auto")):
        session = session or runs.reopen(run, progress, encoder=encoder)
        if dist.from_first(lambda: checkpoint.exists(run)):  # it holds all weights: those at the start are not fetched again
            session = replace(session, plan=replace(session.plan, settings=replace(session.plan.settings, pretrained=False, init=None)))
        with runs.alone(run, watcher) if dist.rank() == 0 else nullcontext():
            return _train(session, session.method(), run, watcher)


def _train(session: Session, method: nn.Module, out: Path, watcher: Watcher | None) -> Trained:
    optimizer, views = session.optimizer(method), session.state()
    with stopping.noted() as received, runs.threads_of(out):
        # The first of several processes reads the checkpoint; training hands it on.
        found = dist.from_first(lambda: vars(checkpoint.resume(out, method=method, optimizer=optimizer, views=views)))
        if views is not None:
            dist.from_first_tensors(views.buffers())
        if found["step"] == 0:  # a checkpoint holds what was set
            runs.set_by_first_batch(session, method)
        names = session.request.track if dist.rank() == 0 else ()
        with trackers.tracking(names, out, session.plan, found["step"], watcher) as told:
            if found["note"] and told:
                told.note(found["note"])
            outcome = fit(
                out,
                session.plan,
                method,
                optimizer,
                session.feed(views),
                views=views,
                start=found["step"],
                watcher=told,
                interrupted=lambda: bool(received),
            )
        every = dist.from_all({"skipped": [asdict(s) for s in session.skipped], "waited": [asdict(w) for w in session.waited]})
        session.skipped[:] = dict.fromkeys(datas.Skipped(**s) for of_one in every for s in of_one["skipped"])
        session.waited[:] = [datas.Waited(**w) for of_one in every for w in of_one["waited"]]
        if dist.rank() == 0:
            _write_end(session, method, out, outcome)
    suspects = runs.write_left_out(session, out, outcome.left_out) if outcome.left_out and dist.rank() == 0 else []
    return Trained(out, outcome, len(session.skipped), received[0] if received else None, suspects)


def _write_end(session: Session, method: nn.Module, out: Path, outcome: Outcome) -> None:
    runs.write_json(out / "data.json", session.data_json())
    if outcome.ended == "finished":
        s = session.plan.settings
        provenance = {"method": s.method, "network": "online", "steps": outcome.step, "images": session.plan.images, "run": out.name}
        # All numbers of the first view, so that `views=run` makes it again whatever else the method takes.
        provenance["views"] = {"name": s.views, "changes": asdict(session.views.pipelines[0])}
        provenance |= {"data": session.source.fingerprint(), "kept": keeps() if callable(keeps := getattr(method, "keeps", None)) else {}}
        provenance |= {"began": list(session.plan.notes)} if s.init else {}  # their licence goes with them
        exporting.save_encoder(runs.encoder_of(method), out / "encoder.safetensors", extra=provenance)
