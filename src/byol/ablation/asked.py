"""What is to be compared, and what follows from it for every run."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

from byol import methods, modalities, recipes, stored
from byol import run as runs
from byol.ablation.studies import STUDIES, Study, load
from byol.config import Plan, Request, Settings, Value, parse_assignments
from byol.data import WORDS, Modality, Source
from byol.run import Progress, Session

_FEWEST, _MOST = 8, 5  # images a pass, and settings, of the study of batch sizes when none are given


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be compared."""

    name: str
    request: Request  # of every run, but for what is varied and the seed
    test: str | None = None  # labelled test data; None: a fifth of the data
    values: tuple[str, ...] = ()  # settings; none: the study's own
    seeds: int = 3

    def __post_init__(self) -> None:
        load(self.name)
        if self.seeds < 1:
            raise ValueError(f"--seeds {self.seeds}: give 1 or more")
        if self.request.folded().on_collapse == "stop":
            raise ValueError("on_collapse=stop: rows of a table are runs of the same length; leave it out")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all runs have in common, decided by the first look at the data and kept in `ablation.json`."""

    request: Request
    an_update: int  # images
    encoder: str = ""  # its name, which a setting may add a suffix to
    modality: str = "image"  # of the data


def default_out(asked: Asked) -> Path:
    """`runs/ablate-NAME-DATA`: not numbered, so that the same words go on."""
    stem = re.split(r"[.{*?\[#]", Path(asked.request.data).name)[0].rstrip("-_") or "data"
    return Path("runs") / f"ablate-{asked.name}-{stem}"


def folder(setting: str) -> str:
    """The setting as the name of a folder: 'no flip' -> 'no-flip', 'alpha=1 beta=0' -> 'alpha=1-beta=0'."""
    return re.sub(r"[^\w=.]+", "-", setting).strip("-.") or "setting"


_OF_DATA: dict[str, Value] = {"classes": 2, "samples": 2**31}  # what some methods want to know, and the data will say


def check(study: Study, request: Request, setting: str) -> None:
    """ValueError for a setting that no run can have, before the data is read."""
    changed = study.changes(setting, replace(request, set=()))
    pairs, config = changed.set, methods.load(changed.method).Config  # type: ignore[attr-defined]
    known = {f.name for f in fields(config)}
    kinds: tuple[Modality, ...] = get_args(Modality) if study.modality is None else (study.modality,)
    wrong: list[ValueError] = []
    for kind in kinds:
        try:
            sets = parse_assignments(pairs, {"settings": Settings, "method": config, "views": modalities.of(kind).Pipeline})
            config(**{k: v for k, v in _OF_DATA.items() if k in known} | sets["method"])
        except ValueError as error:
            wrong.append(error)
    if len(wrong) == len(kinds):
        raise wrong[0]


def fits(study: Study, source: Source) -> None:
    """ValueError where the study is of another kind of data."""
    if study.modality in (None, source.modality):
        return
    others = ", ".join(s.name for s in STUDIES.values() if s.modality == source.modality)
    there = f"{others}, or a study of the method, such as tau_base" if others else "a study of the method, such as tau_base"
    raise ValueError(
        f"the ablation {study.name} is of {WORDS[study.modality].many}, and {source.spec} has {source.words.many}; give {there}"
    )


def shared(asked: Asked, out: Path, progress: Progress, *, crowd: int = 1) -> Shared:
    """What is in the folder, or else a first look; `crowd` runs will share a device, and the time of `minutes`.

    Raises ValueError if the folder holds another ablation, or the data no labels.
    """
    path = out / "ablation.json"
    before = runs.read_json(path) if path.exists() else None
    # More seeds or settings may come later; all else has to stay.
    kept = {k: v for k, v in dataclasses.asdict(asked).items() if k not in ("seeds", "values")}
    kept = json.loads(json.dumps(kept))
    if before is not None:
        if before.get("asked") != kept:
            raise ValueError(f"{out} holds an ablation with other settings; give the same ones to go on, or another folder with --out")
        return stored.typed(Shared, before.get("shared"))
    minutes = asked.request.minutes
    session = runs.prepare(replace(asked.request, minutes=minutes and minutes / crowd), progress)
    fits(load(asked.name), session.source)
    if session.source.labels is None:
        raise ValueError(f"{asked.request.data} has no labels, and runs are compared by them; give labelled data, e.g. folders by class")
    s = session.plan.settings
    layout = f"channels_last={str(s.channels_last).lower()}"
    fixed = (layout, *session.request.set)
    request = replace(session.request, epochs=s.epochs, minutes=None, precision=s.precision, set=fixed)
    if load(asked.name).of_methods:  # what BYOL's recipe chooses for the data holds for all
        size = s.image_size if session.source.modality == "image" else request.image_size
        request = replace(request, encoder=s.encoder, batch_size=s.batch_size, accumulate=s.accumulate, image_size=size)
    found = Shared(request=request, an_update=s.batch_size * s.accumulate, encoder=s.encoder, modality=session.source.modality)
    out.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, {"asked": kept, "shared": dataclasses.asdict(found)})
    return found


def settings_of(asked: Asked, study: Study, common: Shared) -> list[str]:
    """The settings to compare, each once; batch sizes halve from that of an update unless they are given."""
    if asked.values:
        return list(dict.fromkeys(study.setting(v) for v in asked.values))
    if study.name == "batch_size":
        sizes = [common.an_update >> k for k in range(_MOST) if not common.an_update % (1 << k)]
        return [f"batch_size={size}" for size in sizes if size >= _FEWEST]
    if study.of_methods:
        return [name for name in study.values if recipes.kind_of(name) in ("", common.modality)]
    return list(study.values)


def request_of(study: Study, setting: str, seed: int, common: Shared) -> Request:
    """What is asked of one run: the setting goes over everything else."""
    changed = study.changes(setting, replace(common.request, set=()))
    pairs = tuple(p.replace("encoder=+", f"encoder={common.encoder}+") for p in changed.set)
    size = next((int(p.partition("=")[2]) for p in pairs if p.startswith("batch_size=")), None) if study.name == "batch_size" else None
    if size is not None:  # as many images an update as in all other runs
        if size < 1 or common.an_update % size:
            raise ValueError(
                f"--values {size}: the {common.an_update} images of an update are no multiple of it; give one that divides them"
            )
        pairs += (f"accumulate={common.an_update // size}",)
    return replace(changed, seed=common.request.seed + seed, set=(*common.request.set, *pairs))


def meaning(run: Path, session: Session | None) -> str:
    """All that a run's outcome depends on but the seed: equal for two settings that come to the same here."""
    plan: Plan = session.plan if session else runs.read_plan(run)
    describe = session.views.describe() if session else runs.read_json(run / "plan.json").get("describe")
    config = stored.typed(methods.load(plan.settings.method).Config, plan.method)  # type: ignore[attr-defined]
    settings = dataclasses.asdict(replace(plan.settings, seed=0, workers=0))  # those who decode change nothing
    return json.dumps([settings, dataclasses.asdict(config), describe], sort_keys=True)
