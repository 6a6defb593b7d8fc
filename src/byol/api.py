"""The words of the command line as Python functions: train, resume, evaluate, embed, export, report, doctor, load, demo."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from byol import (
    checkpoint,
    contact_sheet,
    demonstration,
    dist,
    embeddings,
    evaluation,
    exporting,
    families,
    foreign,
    hub,
    over_time,
    reporting,
    stopping,
    trackers,
)
from byol import data as datas
from byol import run as runs
from byol.config import Request
from byol.encoders import Encoder
from byol.evaluation.features import frozen
from byol.files import check_ending
from byol.run import Progress, Session
from byol.subjects import encoder_for, with_baselines
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


@dataclass(frozen=True)
class Embedded:
    """What `embed` wrote."""

    images: int  # or other samples
    skipped: list[datas.Skipped]  # files that could not be read
    vectors: int  # one for each image, or of sounds one for every moment
    words: datas.Words = datas.WORDS["image"]


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


def load(encoder: str | Path, *, net: nn.Module | None = None) -> Encoder:
    """The encoder of a run or of a file, ours or of others, in evaluation mode; `.dim`, `.input`, `.preprocess` say how to use it.

    An encoder of one's own needs its module, `net`, to put the weights into.
    """
    return exporting.load_encoder(Path(encoder), net=net)


def doctor(
    data: str | Path, *, limit: int | None = None, progress: Progress = Quiet
) -> datas.DoctorReport | datas.SoundReport | datas.RgbdReport:
    """Is this data usable? Decodes every image, sound or frame, and counts; nothing is written."""
    return datas.doctor(str(data), limit=limit, progress=lambda done, total: progress("Reading", done, total))


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


def embed(
    encoder: str | Path | Encoder,
    data: str | Path,
    out: str | Path,
    *,
    hop: int | None = None,
    limit: int | None = None,
    device: str = "auto",
    precision: evaluation.Precision = "fp32",
    batch_size: int = evaluation.BATCH,
    progress: Progress = Quiet,
) -> Embedded:
    """Write the features of every image, with its name and its class if it has one, to .parquet, .npz or .npy.

    With `hop`, of every sound those at 0, hop, 2 hop ... ms, to .parquet: a row for each, its time in the column time_ms.
    Several processes write one part each into a folder OUT, which reads as one table: .parquet only.
    """
    if hop is not None:
        over_time.check_hop(hop)
        embeddings.check_timed_path(Path(out))
        if batch_size != evaluation.BATCH:
            raise ValueError(f"batch_size is {batch_size}, and with a hop sounds go through the network one by one; leave it out")
    place = runs.find_device(device)
    with dist.joined(place):
        path = embeddings.part_of(Path(out))
        source = datas.open_source(str(data), limit=limit)
        if hop is not None and source.modality != "sound":
            raise ValueError(f"{data} has {source.words.many}, and only sounds have a hop; leave it out")
        _, network = encoder_for(encoder, source)
        if network is None:
            raise ValueError(f"{encoder} is a baseline of `evaluate` and has no encoder to embed with; give a run or a file")
        mine = source.subset(np.arange(len(source))[dist.share(len(source))])
        if hop is not None:
            return _embed_over_time(network, source, mine, path, hop, place, precision, progress)
        return _embed(network, source, mine, path, place, precision, batch_size, progress)


def _embed(
    network: Encoder,
    source: datas.Source,
    mine: datas.Source,
    out: Path,
    device: str,
    precision: evaluation.Precision,
    batch_size: int,
    progress: Progress,
) -> Embedded:
    """One row for each sample of `mine`, the share of this process."""
    samples = evaluation.mean_length(source.headers.width) if source.modality == "sound" else None
    found = evaluation.features(network, mine, batch=batch_size, device=device, precision=precision, samples=samples, progress=progress)
    embedded = _together(source, len(found.kept), len(found.kept), found.skipped)
    labels = None if mine.labels is None else [_label(mine, int(i)) for i in found.kept]
    embeddings.write_embeddings(out, [mine.names[i] for i in found.kept], found.x, labels)
    dist.wait()
    return embedded


def _embed_over_time(
    network: Encoder,
    source: datas.Source,
    mine: datas.Source,
    out: Path,
    hop: int,
    device: str,
    precision: evaluation.Precision,
    progress: Progress,
) -> Embedded:
    """One row for each moment of each sound of `mine`, written as they come."""
    over_time.Ear.of(network)  # before there is a file
    seconds = [math.ceil(width / source.rate) for width in mine.headers.width.tolist()]
    whole, vectors, done, total, skipped = 0, 0, 0, sum(seconds), list[datas.Skipped]()
    with (
        embeddings.timed_rows(out, network.dim, labelled=mine.labels is not None) as rows,
        frozen(network, torch.device(device)),
    ):
        for i, name in enumerate(mine.names):
            until = 0
            try:
                for times, features in over_time.along(network, mine, i, hop, device=torch.device(device), precision=precision):
                    rows.add(name, None if mine.labels is None else _label(mine, i), times, features)
                    until = int(times[-1]) + hop
                    vectors += len(times)
                    progress("Seconds of sound", done + min(until // 1000, seconds[i]), total)
                whole += 1
            except datas.Unreadable as error:
                skipped.append(datas.Skipped(name, f"{error}" + (f"; only what is before {until:,} ms is in {out.name}" if until else "")))
            done += seconds[i]
        embedded = _together(source, whole, vectors, skipped)
    dist.wait()
    return embedded


def _label(source: datas.Source, index: int) -> str:
    """The class of a sample, or nothing."""
    assert source.labels is not None
    return source.classes[source.labels[index]] if source.labels[index] >= 0 else ""


def _together(source: datas.Source, samples: int, vectors: int, skipped: list[datas.Skipped]) -> Embedded:
    """What all processes embedded; ValueError if that is nothing."""
    every = dist.from_all({"samples": samples, "vectors": vectors, "skipped": [asdict(s) for s in skipped]})
    left_out = [datas.Skipped(**s) for part in every for s in part["skipped"]]
    count = sum(part["samples"] for part in every)
    if not count:
        many = source.words.many
        raise ValueError(f"{source.spec}: none of its {len(left_out)} {many} can be read; run `byol doctor` on it to see why")
    return Embedded(count, [*source.skipped, *left_out], sum(part["vectors"] for part in every), source.words)


def export(
    encoder: str | Path | Encoder,
    out: str | Path,
    *,
    network: str = "online",
    takes: Literal["waveform", "log-mel"] | None = None,
    format: Literal["timm", "torchvision", "hub"] | None = None,
    data_licence: str | None = None,
) -> Path:
    """Write an encoder as .safetensors (with .json beside), .onnx or .pt2; `network="target"` takes the target of a run.

    What the graph of an encoder of sound `takes` is a waveform, or a normalised log-mel spectrogram. With `format` "timm" or
    "torchvision" the .safetensors is written only if that library's plain network loads it strictly and gives the same features;
    "hub" writes a folder as the Hugging Face Hub has it, whose model card says the `data_licence`.
    """
    out = Path(out)
    if format != "hub" and data_licence is not None:
        raise ValueError("the licence of the data is for a model card, and only the format hub has one; leave it out")
    if format == "hub" and takes is not None:
        raise ValueError("waveform or log-mel is what a graph of sound takes, and the format hub holds weights; leave --takes out")
    if format in ("timm", "torchvision"):
        check_ending(out, (".safetensors",))
    chosen = _network(encoder, network)
    if format == "hub":
        run = None if isinstance(encoder, Encoder) else Path(encoder)
        hub.write_folder(chosen, out, extra={"network": network}, run=run, data_licence=data_licence)
        return out
    if format is not None:
        foreign.plain(chosen, format)
    exporting.save_encoder(chosen, out, extra={"network": network}, takes=takes)
    return out


def _network(encoder: str | Path | Encoder, network: str) -> Encoder:
    if network not in ("online", "target"):
        raise ValueError(f"no network {network!r}; give online or target")
    return target_of(encoder) if network == "target" else encoder if isinstance(encoder, Encoder) else load(encoder)


def push(run: str | Path, repo: str, *, network: str = "online", private: bool = False, data_licence: str | None = None) -> str:
    """Send the encoder of a run, with its model card, to OWNER/NAME on the Hugging Face Hub; the address of the commit.

    A folder that `export` wrote for the Hub is sent as it is, its card as you may have changed it.
    """
    hub.check_repo(repo)
    path = Path(run)
    if (path / "model.safetensors").exists() and not (path / "plan.json").exists():
        if data_licence is not None or network != "online":
            raise ValueError(f"{path} is sent as it is; change its README.md by hand, or give the run itself")
        return hub.push(path, repo, private=private)
    with tempfile.TemporaryDirectory(prefix="byol-") as made:
        folder = Path(made) / "model"
        hub.write_folder(_network(path, network), folder, extra={"network": network}, run=path, data_licence=data_licence, repo=repo)
        return hub.push(folder, repo, private=private)


def pull(repo: str, out: str | Path | None = None, *, revision: str | None = None) -> Path:
    """Fetch what `push` sent into a new folder, by default NAME of OWNER/NAME, for `load`; nothing in it can run."""
    folder = Path(out) if out is not None else Path(repo.rpartition("/")[2])
    hub.pull(repo, folder, revision=revision)
    return folder


def target_of(run: str | Path | Encoder) -> Encoder:
    """The target encoder of a run's last checkpoint."""
    if isinstance(run, Encoder) or not checkpoint.exists(Path(run)):
        raise ValueError(f"{run}: only a run with its checkpoint has a target network; export the online one instead")
    target = getattr(runs.restored(Path(run)), "target_encoder", None)
    if not isinstance(target, Encoder):
        raise ValueError(f"{run}: its method has no target network; export the online one instead")
    return target.eval()


def report(run: str | Path, *others: str | Path, out: str | Path | None = None, progress: Progress = Quiet) -> Path:
    """One self-contained HTML page about one run or several side by side; by default RUN/report.html."""
    out = Path(out) if out is not None else Path(run) / "report.html"
    reporting.write([Path(run), *map(Path, others)], out, progress=progress)
    return out


demo = demonstration.demo
