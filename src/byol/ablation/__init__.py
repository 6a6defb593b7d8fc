"""Ablations: one thing varied over several seeds, every run an ordinary run folder, so that what was interrupted goes on.

All runs share what is measured rather than asked for (precision, memory layout, epochs that fit into a time); the first look
decides it. So a difference between two rows is that of the setting.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from byol import api, methods, stored
from byol import run as runs
from byol.ablation.studies import STUDIES, Study, load
from byol.ablation.table import Ablation, Finding
from byol.config import Plan, Request, Settings, parse_assignments
from byol.evaluation import Evaluation
from byol.files import write_text
from byol.reporting.run import read as read_run
from byol.run import Progress, Session
from byol.training import Watcher
from byol.views import Pipeline

__all__ = ["STUDIES", "Ablation", "Asked", "Finding", "Interrupted", "Study", "ablate", "default_out", "load"]

PROTOCOLS = ("knn", "linear")
_FEWEST, _MOST = 8, 5  # images a pass, and settings, of the study of batch sizes when none are given
Watching = Callable[[str, Plan], Watcher | None]  # the name of a run, and its plan -> who is told how it goes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be compared."""

    name: str
    request: Request  # of every run, but for what is varied and the seed
    test: str | None = None  # labelled test images; None: a fifth of the data
    values: tuple[str, ...] = ()  # settings; none: the study's own
    seeds: int = 3

    def __post_init__(self) -> None:
        load(self.name)
        if self.seeds < 1:
            raise ValueError(f"--seeds {self.seeds}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all runs have in common, decided by the first look at the data and kept in `ablation.json`."""

    request: Request
    an_update: int  # images


class Interrupted(Exception):
    """A signal stopped one of the runs, which is saved; the same ablation goes on there."""

    def __init__(self, trained: api.Trained) -> None:
        super().__init__(str(trained.run))
        self.trained = trained


def default_out(asked: Asked) -> Path:
    """`runs/ablate-NAME-DATA`: not numbered, so that the same words go on."""
    stem = re.split(r"[.{*?\[#]", Path(asked.request.data).name)[0].rstrip("-_") or "data"
    return Path("runs") / f"ablate-{asked.name}-{stem}"


def ablate(
    asked: Asked,
    out: str | Path | None = None,
    *,
    watching: Watching = lambda name, plan: None,
    progress: Progress = api.Quiet,
) -> Ablation:
    """Train and evaluate every setting with every seed; `results.json` and `results.svg` in the folder hold what came out.

    What is in the folder already is not done again. Raises ValueError in one sentence for what cannot be used, and Interrupted
    when a signal stopped a run.
    """
    out = Path(out) if out is not None else default_out(asked)
    study = load(asked.name)
    for value in asked.values:
        _check(asked.request, study.pairs(study.setting(value)))
    shared = _shared(asked, out, progress)
    settings = _settings(asked, study, shared)
    twins: dict[str, str] = {}
    first: dict[str, str] = {}  # what a setting comes to here -> the first one that does
    for seed in range(asked.seeds):  # all settings with one seed first: a whole table is there early
        for setting in (s for s in settings if s not in twins):
            run = out / folder(setting) / f"seed-{seed}"
            request = _request(study, setting, seed, shared)
            session = None if (run / "plan.json").exists() else runs.prepare(request, progress)
            same = first.setdefault(_meaning(run, session), setting) if seed == 0 else setting
            if same != setting:
                twins[setting] = same
                continue
            _train(run, session, f"{setting}, seed {seed}", watching, progress)
            _evaluate(run, asked, shared, baselines=setting == settings[0] and seed == 0, progress=progress)
    found = [_finding(study, s, out, asked.seeds, twins.get(s, "")) for s in settings]
    origin = out / folder(settings[0]) / "seed-0"
    result = Ablation(
        name=asked.name,
        what=study.what,
        setup=_setup(origin, asked, shared),
        seeds=asked.seeds,
        findings=found,
        baselines=_baselines(origin),
        out=str(out),
    )
    runs.write_json(out / "results.json", result.to_json())
    write_text(out / "results.svg", result.svg() + "\n")
    return result


def folder(setting: str) -> str:
    """The setting as the name of a folder: 'no flip' -> 'no-flip', 'alpha=1 beta=0' -> 'alpha=1-beta=0'."""
    return re.sub(r"[^\w=.]+", "-", setting).strip("-.") or "setting"


def _check(request: Request, pairs: tuple[str, ...]) -> None:
    """ValueError for a setting that no run can have, before the first one trains."""
    config = methods.load(request.method).Config  # type: ignore[attr-defined]
    sets = parse_assignments(pairs, {"settings": Settings, "method": config, "views": Pipeline})
    config(**sets["method"])


def _shared(asked: Asked, out: Path, progress: Progress) -> Shared:
    """What is in the folder, or else a first look; ValueError if the folder holds another ablation, or the data no labels."""
    path = out / "ablation.json"
    before = runs.read_json(path) if path.exists() else None
    # More seeds or settings may come later; all else has to stay.
    kept = {k: v for k, v in dataclasses.asdict(asked).items() if k not in ("seeds", "values")}
    kept = json.loads(json.dumps(kept))
    if before is not None:
        if before.get("asked") != kept:
            raise ValueError(f"{out} holds an ablation with other settings; give the same ones to go on, or another folder with --out")
        return stored.typed(Shared, before.get("shared"))
    session = runs.prepare(asked.request, progress)
    if session.source.labels is None:
        raise ValueError(f"{asked.request.data} has no labels, and runs are compared by them; give labelled data, e.g. folders by class")
    s = session.plan.settings
    layout = f"channels_last={str(s.channels_last).lower()}"
    fixed = (layout, *session.request.set)
    request = replace(session.request, epochs=s.epochs, minutes=None, precision=s.precision, set=fixed)
    shared = Shared(request=request, an_update=s.batch_size * s.accumulate)
    out.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, {"asked": kept, "shared": dataclasses.asdict(shared)})
    return shared


def _settings(asked: Asked, study: Study, shared: Shared) -> list[str]:
    """The settings to compare, each once; batch sizes halve from that of an update unless they are given."""
    if asked.values:
        return list(dict.fromkeys(study.setting(v) for v in asked.values))
    if study.name == "batch_size":
        sizes = [shared.an_update >> k for k in range(_MOST) if not shared.an_update % (1 << k)]
        return [f"batch_size={size}" for size in sizes if size >= _FEWEST]
    return list(study.values)


def _request(study: Study, setting: str, seed: int, shared: Shared) -> Request:
    """What is asked of one run: the setting goes over everything else."""
    pairs = study.pairs(setting)
    size = next((int(p.partition("=")[2]) for p in pairs if p.startswith("batch_size=")), None) if study.name == "batch_size" else None
    if size is not None:  # as many images an update as in all other runs
        if size < 1 or shared.an_update % size:
            raise ValueError(
                f"--values {size}: the {shared.an_update} images of an update are no multiple of it; give one that divides them"
            )
        pairs += (f"accumulate={shared.an_update // size}",)
    return replace(shared.request, seed=shared.request.seed + seed, set=(*shared.request.set, *pairs))


def _meaning(run: Path, session: Session | None) -> str:
    """All that a run's outcome depends on but the seed: equal for two settings that come to the same here."""
    plan = session.plan if session else runs.read_plan(run)
    describe = session.views.describe() if session else runs.read_json(run / "plan.json").get("describe")
    config = stored.typed(methods.load(plan.settings.method).Config, plan.method)  # type: ignore[attr-defined]
    return json.dumps([dataclasses.asdict(replace(plan.settings, seed=0)), dataclasses.asdict(config), describe], sort_keys=True)


def _ended(run: Path) -> str:
    """How a run ended: "finished", "not finite", or "" while it can go on."""
    if all((run / name).exists() for name in ("encoder.safetensors", "encoder.json")):
        return "finished"
    return "not finite" if (run / "not-finite.json").exists() else ""


def _train(run: Path, session: Session | None, name: str, watching: Watching, progress: Progress) -> None:
    """To the end, from the beginning or from where it stands; Interrupted when a signal came first."""
    if _ended(run):
        return
    if session is not None:
        trained = api.begin(session, run, watcher=watching(name, session.plan))
    else:
        session = runs.reopen(run, progress)
        trained = api.resume(run, session=session, watcher=watching(name, session.plan))
    if trained.outcome.ended == "interrupted":
        raise Interrupted(trained)


def _evaluate(run: Path, asked: Asked, shared: Shared, *, baselines: bool, progress: Progress) -> None:
    """Scores in the run's own folder, unless they are there; nothing for a run whose numbers were not finite."""
    if _ended(run) != "finished" or all(_score(run, p) for p in PROTOCOLS):
        return
    r = shared.request
    api.evaluate(run, r.data, test=asked.test, protocols=PROTOCOLS, baselines=baselines, limit=r.limit, device=r.device, progress=progress)


def _score(run: Path, protocol: str) -> Evaluation | None:
    """What is stored; None where there is nothing, or nothing that can be read."""
    try:
        return Evaluation.from_json(stored.read_object(run / "evaluations" / f"{protocol}.json"))
    except (OSError, ValueError):
        return None


def _finding(study: Study, setting: str, out: Path, seeds: int, same_as: str) -> Finding:
    """One setting over its seeds."""
    row = study.published(setting)
    if same_as:
        return Finding(setting=setting, same_as=same_as, published=row)
    ran = [out / folder(setting) / f"seed-{seed}" for seed in range(seeds)]
    scores = {p: [e for run in ran if (e := _score(run, p))] for p in PROTOCOLS}
    own = {p: [s.top1 for e in found for s in e.scores if not s.baseline] for p, found in scores.items()}
    health = [records[-1].verdict for run in ran if (records := read_run(run).records)]
    return Finding(setting=setting, knn=own["knn"], linear=own["linear"], ended=[_ended(r) for r in ran], health=health, published=row)


def _baselines(run: Path) -> dict[str, tuple[float, float]]:
    """Pixels and the untrained network, beside the first run; none where that one has no scores."""
    knn, linear = (_score(run, p) for p in PROTOCOLS)
    if knn is None or linear is None:
        return {}
    other = {s.name: s.top1 for s in linear.scores}
    return {s.name: (s.top1, other[s.name]) for s in knn.scores if s.baseline and s.name in other}


def _setup(run: Path, asked: Asked, shared: Shared) -> str:
    """'digits, small-w32-n3, 8 px, 20 epochs, batch 128'."""
    s = runs.read_plan(run).settings
    test = f", tested on {asked.test}" if asked.test else ""
    return f"{shared.request.data}{test}, {s.encoder}, {s.image_size} px, {s.epochs} epochs, {shared.an_update} images an update"
