"""Evaluate: an encoder on labelled data or on another task, with its baselines; what is found stands in the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from byol import data as datas
from byol import dist, evaluation, families, trackers
from byol import run as runs
from byol.api.training import Quiet
from byol.config import Request
from byol.encoders import Encoder
from byol.run import Progress
from byol.subjects import encoder_for, with_baselines


def evaluate(
    encoder: str | Path | Encoder,
    data: str | Path,
    *,
    test: str | Path | None = None,
    protocols: Sequence[str] = ("knn", "linear"),
    labels: Sequence[float] = (1.0,),
    draws: int = 5,
    seed: int = 0,
    baselines: bool = True,
    limit: int | None = None,
    device: str = "auto",
    precision: evaluation.Precision = "fp32",
    batch_size: int = evaluation.BATCH,
    workers: int | None = None,
    progress: Progress = Quiet,
) -> list[evaluation.Evaluation]:
    """What frozen features are worth on labelled data, beside the raw data and a random network of the same architecture.

    An evaluation of a run is also stored in its `evaluations/`. `workers` processes decode for protocols that train on crops.
    Of several processes each computes its share of the features, and the first one returns what they are worth, the others nothing.
    Raises ValueError when there are no labels.
    """
    asked: dict[str, object] = {"encoder": encoder.name if isinstance(encoder, Encoder) else str(encoder), "data": str(data)}
    asked |= {"test": None if test is None else str(test), "labels": list(labels), "draws": draws, "seed": seed, "limit": limit}
    asked |= {"baselines": baselines, "precision": precision, "batch_size": batch_size}
    source = datas.open_source(str(data), limit=limit)
    held_out = datas.open_source(str(test), limit=limit) if test is not None else _official_test(str(data), source, limit)
    subject = encoder_for(encoder, source, seed=seed)
    subjects, notes = with_baselines(subject, source, seed=seed) if baselines else ([subject], [])
    place = runs.find_device(device)
    with dist.joined(place):
        results = evaluation.evaluate(
            subjects,
            source,
            held_out,
            protocols=protocols,
            labels=labels,
            draws=draws,
            seed=seed,
            device=place,
            precision=precision,
            batch=batch_size,
            workers=workers,
            progress=progress,
        )
    if not results:  # the first of several processes has them
        return []
    notes += _seen_before(encoder, source) if held_out is None else []
    results = [replace(r, asked=asked | {"protocol": p}, notes=r.notes + notes) for r, p in zip(results, protocols, strict=True)]
    kept = [_keep(encoder, result) for result in results]
    return [*results[:-1], replace(results[-1], notes=results[-1].notes + _told(encoder))] if any(kept) else results


def _seen_before(encoder: str | Path | Encoder, source: datas.Source) -> list[str]:
    """A note where a run was trained on the very data that test it."""
    if isinstance(encoder, Encoder) or _trained_on(Path(encoder)) != source.fingerprint():
        return []
    how, many = "with their labels" if _saw_labels(Path(encoder)) else "without labels", source.words.many
    return [f"the encoder was trained on these {many}, test {many} too, {how}; --test takes others"]


def _keep(encoder: str | Path | Encoder, result: evaluation.Evaluation | families.Result) -> bool:
    """Into the run, where the encoder is one."""
    if isinstance(encoder, Encoder) or not (Path(encoder) / "plan.json").exists():
        return False
    store(Path(encoder), result)
    return True


def _told(encoder: str | Path | Encoder) -> list[str]:
    """The trackers of a run hear what its evaluations found; a note for each that failed."""
    assert not isinstance(encoder, Encoder)
    run = Path(encoder)
    try:
        names = Request.from_json(runs.read_json(run / "config.json").get("request")).track
        return trackers.evaluated(names, run, runs.read_plan(run)) if names else []
    except ValueError:  # a damaged run has been evaluated all the same, and who resumes it is told
        return []


def _official_test(data: str, source: datas.Source, limit: int | None) -> datas.Source | None:
    """The test part of a set that has its own."""
    if source.official is None or source.official.folds is not None:
        return None
    if source.modality == "sound":
        name, _, folder = data.partition(":")
        return datas.open_sound_set(name, Path(folder).expanduser(), "test", rate=source.rate, limit=limit)
    return datas.open_transfer(data, "test", limit=limit)


def evaluate_task(
    encoder: str | Path | Encoder,
    data: str | Path,
    *,
    protocol: str,
    test: str | Path | None = None,
    seed: int = 0,
    baselines: bool = True,
    limit: int | None = None,
    device: str = "auto",
    precision: evaluation.Precision = "fp32",
    progress: Progress = Quiet,
) -> families.Result:
    """What an encoder is worth for something else than class labels, beside the baselines of that task.

    `protocol` is a name of `byol list protocols` that `byol.families` knows, such as `segmentation`, with settings after a colon.
    The result of a run is also stored in its `evaluations/`.
    Raises ValueError when the data are of another kind, the encoder does not fit, or there are several processes.
    """
    if dist.asked() > 1:
        # Each would train the same heads on the same batches and write the same file.
        raise ValueError(
            f"{protocol.partition(':')[0]} runs in one process and there are {dist.asked()}; start it without --devices or torchrun"
        )
    asked: dict[str, object] = {"encoder": encoder.name if isinstance(encoder, Encoder) else str(encoder), "data": str(data)}
    asked |= {"test": None if test is None else str(test), "protocol": protocol, "seed": seed, "limit": limit}
    asked |= {"baselines": baselines, "precision": precision}
    family = families.of(protocol)
    if str(encoder) == "pixels" and family.RAW:
        raise ValueError(f"pixels {family.RAW}")
    chosen = family.load(protocol)
    place = runs.find_device(device)
    task = chosen.open(str(data), None if test is None else str(test), limit)
    name, subject = encoder_for(encoder, task.source(), seed=seed)
    result = family.evaluate(
        name, subject, chosen, task, baselines=baselines, seed=seed, device=place, precision=precision, progress=progress
    )
    tested = getattr(task, "tested", None)  # where the test samples are others of the same data
    notes = _met(Path(encoder), tested()) if callable(tested) and not isinstance(encoder, Encoder) else []
    result = replace(result, asked=asked, notes=[*result.notes, *notes])  # type: ignore[type-var]  # every result is a dataclass
    if _keep(encoder, result) and (failed := _told(encoder)):
        result = replace(result, notes=[*result.notes, *failed])  # type: ignore[type-var]
    return result


def _met(run: Path, tested: datas.Source) -> list[str]:
    """A note where a run was trained on some of the samples that test it, as far as its data are still there."""
    if not (run / "data.json").exists():
        return []
    try:
        trained = datas.open_source(str(runs.read_json(run / "data.json").get("spec")))
    except (ValueError, OSError):
        return []
    places = [{f"{Path(s.spec.partition('#')[0]).resolve()}/{name}" for name in s.names} for s in (trained, tested)]
    many = len(places[0] & places[1])
    return [f"the encoder was trained on {many:,} of the {len(tested):,} {tested.words.many} that test it; --test takes others"] * (
        many > 0
    )


def store(run: Path, result: evaluation.Evaluation | families.Result) -> Path:
    """Write an evaluation into a run, named by its protocol; one of the same request is replaced, any other is kept beside it."""
    path = stored(run, result)
    path.parent.mkdir(exist_ok=True)
    runs.write_json(path, result.to_json())
    return path


def stored(run: Path, result: evaluation.Evaluation | families.Result) -> Path:
    """Where the evaluation is in the run, or would be: PROTOCOL.json, or PROTOCOL-2.json and so on beside others."""
    numbered = (run / "evaluations" / f"{result.protocol}{'' if n == 1 else f'-{n}'}.json" for n in count(1))
    return next(p for p in numbered if not p.exists() or _asked(p) == json.loads(json.dumps(result.asked)))


def _asked(path: Path) -> object:
    try:
        return runs.read_json(path).get("asked", {})
    except ValueError:  # damaged: it may be written over
        return {}


def _saw_labels(run: Path) -> bool:
    """Whether the method of the run learns from labels."""
    return runs.sees_labels(runs.read_plan(run))


def _trained_on(run: Path) -> object:
    """The fingerprint of a run's data; None where the path is no run."""
    return runs.read_json(run / "data.json").get("fingerprint") if (run / "data.json").exists() else None
