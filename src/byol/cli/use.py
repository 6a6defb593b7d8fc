"""The commands that use an encoder: evaluate, embed, export and report."""

from __future__ import annotations

import warnings
from dataclasses import asdict, fields
from pathlib import Path

from byol import api, evaluation, foreign
from byol.cli.notices import told
from byol.cli.options import TASKS, Embed, Evaluate, Export, Report
from byol.cli.screen import Screen, counted, quoted
from byol.evaluation.table import dense_published_lines, published_lines


def _say_weights(encoder: str, screen: Screen) -> None:
    """Before anything is fetched or read: what, from where, and under which licence."""
    if encoder.startswith("timm:"):
        from byol import encoders

        screen.tell(encoders.pretrained_note(encoder), 9, "Weights  ")
    elif encoder.startswith("byol-a:"):
        from byol import encoders

        screen.tell(encoders.LICENCE, 9, "Weights  ")
        warnings.filterwarnings("ignore", message=".*NTT released")  # it is said


@told
def evaluate(options: Evaluate, screen: Screen) -> int:
    """What features are worth, beside the baselines."""
    _say_weights(options.encoder, screen)
    if any(p.partition(":")[0] in TASKS for p in options.protocol):
        return _task(options, screen)
    results = api.evaluate(
        options.encoder,
        options.data,
        test=options.test,
        protocols=options.protocol,
        labels=options.labels,
        draws=options.draws,
        seed=options.seed,
        baselines=options.baselines,
        limit=options.limit,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=options.workers,
        progress=screen.progress,
    )
    screen.clear()
    for result in results:
        for line in [*result.lines(), *published_lines(result)]:
            screen.say(line)
    run = Path(options.encoder)
    if not results:  # one of several processes has them and speaks
        return 0
    saved = [str(api.stored(run, r)) for r in results] if (run / "plan.json").exists() else []
    if saved:
        screen.tell(", ".join(saved), 7, "Saved:")
        screen.say(f"Next: byol report {quoted(run)}")
    elif options.encoder in evaluation.RAW.values() or options.encoder.startswith("random:"):
        screen.say(f"Next: byol train {quoted(options.data)}")
    else:
        screen.say(f"Next: byol embed {quoted(options.encoder)} {quoted(options.data)} --out features.parquet")
    published = [row.to_json() for r in results for group in r.published() for row in group.rows]
    screen.result({"evaluations": [r.to_json() for r in results], "saved": saved, "published": published})
    return 0


def _task(options: Evaluate, screen: Screen) -> int:
    """What an encoder is worth for something else than class labels, beside the baselines of that task."""
    _check_task(options)
    results, saved, published = [], [], []
    for protocol in options.protocol:
        result = api.evaluate_task(
            options.encoder,
            options.data,
            protocol=protocol,
            test=options.test,
            seed=options.seed,
            baselines=options.baselines,
            limit=options.limit,
            device=options.device,
            precision=options.precision,
            progress=screen.progress,
        )
        screen.clear()
        near = result.published()
        for line in [*result.lines(), *dense_published_lines(near)]:
            screen.say(line)
        published += [row.to_json() for row in near.rows] if near else []
        results.append(result.to_json())
        if (Path(options.encoder) / "plan.json").exists():
            saved.append(str(api.stored(Path(options.encoder), result)))
    if saved:
        screen.tell(", ".join(saved), 7, "Saved:")
        screen.say(f"Next: byol report {quoted(options.encoder)}")
    else:
        screen.say(f"Next: byol train {quoted(options.data)}")
    screen.result({"evaluations": results, "saved": saved, "published": published})
    return 0


def _check_task(options: Evaluate) -> None:
    """ValueError for an option of the evaluations by class labels, which would be ignored."""
    others = [p for p in options.protocol if p.partition(":")[0] not in TASKS]
    if others:
        mine = next(p for p in options.protocol if p not in others)
        raise ValueError(f"--protocol {others[0]} needs class labels and {mine} something else; evaluate them one by one")
    for f in fields(options):
        if f.name in ("labels", "draws", "devices", "batch_size", "workers") and getattr(options, f.name) != f.default:
            name = f"--{f.name.replace('_', '-')}"
            mend = f"write --protocol {options.protocol[0]}:batch_size=N" if f.name == "batch_size" else "leave it out"
            raise ValueError(f"{name} is for class labels, not for {options.protocol[0]}; {mend}")


@told
def embed(options: Embed, screen: Screen) -> int:
    """Features in a file, with their names."""
    out = options.out
    _say_weights(options.encoder, screen)
    written = api.embed(
        options.encoder,
        options.data,
        out,
        hop=options.hop,
        limit=options.limit,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        progress=screen.progress,
    )
    screen.clear()
    if options.hop is None:
        screen.say(f"{out}: {written.images:,} vectors, each with the name of its {written.words.one}")
    else:
        screen.say(f"{out}: {written.vectors:,} vectors of {written.images:,} sounds, one every {options.hop} ms")
    if written.skipped:
        first = written.skipped[0]
        screen.tell(f"{counted(len(written.skipped), 'file')} left out (first: {first.name}: {first.reason})", 2, "  ")
    screen.say(f"Next: {READ[out.suffix.lower()].format(out)}")
    screen.result({"out": str(out), "images": written.images, "vectors": written.vectors, "skipped": [asdict(s) for s in written.skipped]})
    return 0


# How each file is read back, in Python.
READ = {
    ".parquet": 'pyarrow.parquet.read_table("{}").to_pydict()',
    ".npz": 'numpy.load("{}")["features"], with ["names"] beside',
    ".npy": 'numpy.load("{0}"), with the names in {0}.json',
}


@told
def export(options: Export, screen: Screen) -> int:
    """An encoder for other programs."""
    out = options.out
    api.export(options.run, out, network=options.network, takes=options.takes, format=options.format, data_licence=options.data_licence)
    screen.clear()
    screen.say(f"{out}: the {options.network} encoder of {options.run}, checked against it")
    if options.format == "hub":
        screen.say(f"Next: look at {out}/README.md, then byol push {quoted(out)} OWNER/NAME")
    elif options.format is not None:
        lines = foreign.plain(api.load(out), options.format).lines
        screen.say(f"Next, in Python with {options.format} alone:")
        for line in ["import safetensors.torch", *lines, f'net.load_state_dict(safetensors.torch.load_file("{out}"))', "net.eval()"]:
            screen.say(f"  {line}")
    elif out.suffix.lower() == ".safetensors":
        screen.say(f'Next: byol.load("{out}") in Python')
    else:
        screen.say("Next: the description inside, under byol, says what it takes")
    screen.result({"out": str(out), "network": options.network})
    return 0


def report(options: Report, screen: Screen) -> int:
    """One page about one run or several."""
    path = api.report(*options.run, out=options.out, progress=screen.progress)
    screen.clear()
    screen.say(f"{path}: open it in a browser; it needs nothing beside it")
    screen.say(f"Next: byol export {quoted(options.run[0])} --out encoder.safetensors")
    screen.result({"out": str(path), "runs": list(options.run)})
    return 0
