"""Ablations: one thing varied over several seeds, every run an ordinary run folder, so that what was interrupted goes on.

All runs share what is measured rather than asked for (precision, memory layout, epochs that fit into a time); the first look
decides it. So a difference between two rows is that of the setting.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from byol import api, published
from byol import run as runs
from byol.ablation import cost
from byol.ablation.asked import Asked, Shared, check, default_out, folder, meaning, request_of, settings_of, shared
from byol.ablation.job import PROTOCOLS, Job, Onlooker, Silent, ended, score, work
from byol.ablation.pool import Ended, Ready, at_once, gpus, places
from byol.ablation.studies import STUDIES, Study, load
from byol.ablation.table import Ablation, Finding
from byol.config import Plan, Request
from byol.data import cores
from byol.encoders import SoundInput, input_from_json
from byol.files import write_text
from byol.reporting.run import read as read_run
from byol.run import Look, Progress, Session

__all__ = [
    "STUDIES", "Ablation", "Asked", "Finding", "Interrupted", "Onlooker", "Study", "ablate", "compare", "default_out", "folder", "load",
]  # fmt: skip


class Interrupted(Exception):
    """A signal stopped the runs, which are saved; the same ablation goes on there."""

    def __init__(self, saved: dict[str, int], signal: int | None) -> None:
        super().__init__(", ".join(f"{run} at update {step}" for run, step in saved.items()) or "before any run had begun")
        self.saved, self.signal = saved, signal


def ablate(
    name: str,
    data: str | Path,
    out: str | Path | None = None,
    *,
    test: str | Path | None = None,
    values: Sequence[str] = (),
    seeds: int = 3,
    jobs: int | None = None,
    onlooker: Onlooker | None = None,
    progress: Progress = api.Quiet,
    **asked: object,
) -> Ablation:
    """Vary one setting over several seeds, as in the paper, and compare the runs on labelled data.

    `name` is a study of `byol.ablation.STUDIES`, `values` are settings in place of its own, and the other arguments are the fields of
    `byol.config.Request` for all runs. `jobs` runs train at a time, each in a process of its own (None: one on each GPU, at least one).
    The folder `out` holds all runs; what is there already is not done again. What runs died of is in `.failed`.

    Raises ValueError in one sentence for what cannot be used, and `byol.ablation.Interrupted` when a signal stopped it.
    """
    request = Request(data=str(data), **asked)  # type: ignore[arg-type]
    wanted = Asked(name=name, request=request, test=None if test is None else str(test), values=tuple(values), seeds=seeds)
    return compare(wanted, out, jobs=jobs, onlooker=onlooker, progress=progress)


def compare(
    asked: Asked,
    out: str | Path | None = None,
    *,
    jobs: int | None = None,
    onlooker: Onlooker | None = None,
    progress: Progress = api.Quiet,
) -> Ablation:
    """`ablate` for what is `asked`; `results.json` and `results.svg` in the folder hold what came out."""
    out = Path(out) if out is not None else default_out(asked)
    onlooker = onlooker or Silent()
    study = load(asked.name)
    for value in asked.values:
        check(study, asked.request, study.setting(value))
    devices = len(gpus(asked.request.device)) or 1
    jobs = devices if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: give 1 or more")
    common = shared(asked, out, progress, crowd=-(-jobs // devices))
    settings = settings_of(asked, study, common)
    plans, twins, unfit, ready = _planned(asked, study, settings, common, out, jobs, progress)
    settings = [s for s in settings if s not in unfit]
    left = [r for r in ready if not r.job.done()]
    onlooker.planned(len(ready), len(left), min(jobs, max(1, len(left))), sum(r.plan.steps for r in left if not r.job.ended()))
    over = _one_by_one(left, onlooker, progress) if jobs == 1 else at_once(left, places(jobs, asked.request.device), onlooker)
    if over.signal is not None or (over.saved and jobs == 1):
        raise Interrupted(over.saved, over.signal)
    findings = [_finding(study, s, out, asked.seeds, twins.get(s, "")) for s in settings]
    result = Ablation(
        name=asked.name,
        what=study.what,
        setup=_setup(plans[settings[0]], asked, common),
        seeds=asked.seeds,
        findings=sorted(findings, key=Finding.rank) if study.of_methods else findings,
        baselines=next((b for s in settings for seed in range(asked.seeds) if (b := _baselines(out / folder(s) / f"seed-{seed}"))), {}),
        out=str(out),
        untrained=published.value(study.table, "untrained", method="Random init"),
        note=study.note,
        failed=over.failed,
        unfit=unfit,
        tested_apart=asked.test is not None,
        of_methods=study.of_methods,
    )
    runs.write_json(out / "results.json", result.to_json())
    write_text(out / "results.svg", result.svg() + "\n")
    return result


def _planned(
    asked: Asked, study: Study, settings: Sequence[str], common: Shared, out: Path, jobs: int, progress: Progress
) -> tuple[dict[str, Plan], dict[str, str], dict[str, str], list[Ready]]:
    """(plan of each setting, those that come to the same as another, why others cannot be, every run to be); nothing is trained yet."""

    @cache
    def seen() -> Look:  # once for all runs, and not at all where every run has begun
        found = runs.look(common.request, progress)
        return replace(found, facts=replace(found.facts, cores=max(1, cores() // jobs)))

    def session_of(setting: str, seed: int) -> Session | None:
        begun = (out / folder(setting) / f"seed-{seed}" / "plan.json").exists()
        return None if begun else runs.decide(request_of(study, setting, seed, common), seen())

    plans: dict[str, Plan] = {}
    twins: dict[str, str] = {}
    unfit: dict[str, str] = {}
    first: dict[str, str] = {}  # what a setting comes to here -> the first one that does
    for setting in settings:
        run = out / folder(setting) / "seed-0"
        try:
            session = session_of(setting, 0)
        except ValueError as error:  # such as grey images, for a method that compares colours
            if not study.of_methods or setting in asked.values:
                raise
            unfit[setting] = str(error)
            continue
        plans[setting] = session.plan if session else runs.read_plan(run)
        same = first.setdefault(meaning(run, session), setting)
        if same != setting:
            twins[setting] = same
    if not plans:
        raise ValueError(f"none of the methods fits {asked.request.data}: {next(iter(unfit.values()))}")
    ready = []
    begin_with = next(iter(plans))
    for seed in range(asked.seeds):  # all settings with one seed first: a whole table is there early
        for setting in (s for s in plans if s not in twins):
            job = Job(
                name=f"{setting}, seed {seed}",
                run=str(out / folder(setting) / f"seed-{seed}"),
                data=common.request.data,
                test=asked.test,
                limit=common.request.limit,
                device=common.request.device,
                baselines=setting == begin_with and seed == 0,
            )
            ready.append(Ready(job, plans[setting], lambda setting=setting, seed=seed: session_of(setting, seed)))  # type: ignore[misc]
    return plans, twins, unfit, ready


def _one_by_one(ready: Sequence[Ready], onlooker: Onlooker, progress: Progress) -> Ended:
    """Do the jobs in this process, until a signal stops one."""
    over = Ended()
    for one in ready:
        try:
            trained = work(one.job, one.session(), None if one.job.ended() else onlooker.begins(one.job.name, one.plan), progress)
        except (ValueError, OSError) as error:
            over.failed[one.job.name] = str(error)
            onlooker.failed(one.job.name, str(error))
        except Exception:
            over.failed[one.job.name] = why = " | ".join(traceback.format_exc().strip().splitlines()[-4:])
            onlooker.failed(one.job.name, why)
        else:
            if trained is not None and trained.outcome.ended == "interrupted":
                return replace(over, saved={one.job.run: trained.outcome.step}, signal=trained.signal)
    return over


def _finding(study: Study, setting: str, out: Path, seeds: int, same_as: str) -> Finding:
    """One setting over its seeds."""
    row, cosines = study.published(setting), study.published_cosines(setting)
    if same_as:
        return Finding(setting=setting, same_as=same_as, published=row, published_cosines=cosines)
    ran = [out / folder(setting) / f"seed-{seed}" for seed in range(seeds)]
    scores = {p: [e for run in ran if (e := score(run, p))] for p in PROTOCOLS}
    own = {p: [s.top1 for e in found for s in e.scores if not s.baseline] for p, found in scores.items()}
    read = [read_run(run) for run in ran if (run / "plan.json").exists()]
    last = [r.records[-1] for r in read if r.records]
    plans = [runs.read_plan(run) for run in ran if (run / "plan.json").exists()]
    times = [t for plan, r in zip(plans, read, strict=True) for t in cost.milliseconds(plan, r.records)]
    return Finding(
        setting=setting,
        knn=own["knn"],
        linear=own["linear"],
        ended=[ended(r) for r in ran],
        health=[r.verdict for r in last],
        positive_cosine=[v for r in last if (v := r.values.get("positive_cosine")) is not None],
        negative_cosine=[v for r in last if (v := r.values.get("negative_cosine")) is not None],
        rank_of_projections=[v for r in last if (v := r.values.get("rank")) is not None],
        milliseconds=cost.median(times),
        passes=_passes(plans[0]) if study.of_methods and plans else None,
        supervised=runs.sees_labels(plans[0]) if plans else False,
        published=row,
        published_cosines=cosines,
    )


def _passes(plan: Plan) -> dict[str, float] | None:
    """None where the options do not fit the small network and the few samples that they are counted on."""
    try:
        return cost.passes(plan.settings.method, **plan.method)
    except ValueError:
        return None


def _baselines(run: Path) -> dict[str, tuple[float, float]]:
    """Pixels and the untrained network, beside the first run; none where that one has no scores."""
    knn, linear = (score(run, p) for p in PROTOCOLS)
    if knn is None or linear is None:
        return {}
    other = {s.name: s.top1 for s in linear.scores}
    return {s.name: (s.top1, other[s.name]) for s in knn.scores if s.baseline and s.name in other}


def _setup(plan: Plan, asked: Asked, common: Shared) -> str:
    """'digits, small-w32-n3, 8 px, 20 epochs, 128 images an update'."""
    s, seen = plan.settings, input_from_json(plan.input)
    test = f", tested on {asked.test}" if asked.test else ""
    size, many = f"{s.image_size} px", "images"
    if isinstance(seen, SoundInput):
        size, many = f"{seen.bands} bands x {seen.frames} frames", "sounds"
    return f"{common.request.data}{test}, {s.encoder}, {size}, {s.epochs} epochs, {common.an_update} {many} an update"
