"""Change over time in subjects that were not learnt from: LSSL beside an autoencoder, BYOL, random weights and raw pixels.

    python benchmarks/longitudinal.py FOLDER --seeds 0 --out runs/plants   # SUBJECT/DATE...: each subject held out in turn
    python benchmarks/longitudinal.py --synthetic                          # aging-shapes: three seeds, some minutes each
    python benchmarks/longitudinal.py FOLDER --tiny                        # or --synthetic --tiny: a few updates, one seed

Every training is an ordinary run folder in OUT, so that what was interrupted goes on with the same command and what is there is not done
again. The encoder is the same for all methods, and so is the number of updates. Each is tried along every direction that there is: tau
(of LSSL alone), the first principal component of training samples (PCA), the mean change over training pairs (change). With real data
a subject's encoder and directions come from the other subjects; the projections of all are then pooled (`byol evaluate --protocol
progression` says how). With the synthetic ones, other subjects are drawn to test, and correlations are with what the shapes were drawn
from, without any centring. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
from measure import finish, table

import byol
from byol import encoders, longitudinal
from byol.data import Source, aging_shapes, open_source
from byol.evaluation.baselines import raw
from byol.evaluation.features import extract
from byol.longitudinal.measures import correlation
from byol.longitudinal.protocols import subjects_of

METHODS = ("lssl", "autoencoder", "byol")
WANTED = {"age": 0.95, "nuisance": 0.2}  # of the synthetic claim: more, and less
STEPS = ("optimizer=adamw", "lr=0.016", "weight_decay=1e-5")  # 0.002 for a batch of 32
WHOLE = ("min_area=1", "aspect=1,1", "flip=0")  # an autoencoder that sees what LSSL sees
Projections = dict[tuple[str, str], np.ndarray]  # (encoder, direction) -> (M,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", help="dated images or volumes of several subjects")
    parser.add_argument("--synthetic", action="store_true", help="the shapes of `aging-shapes`, drawn anew for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--encoder", default="lssl", help="of all methods (default: lssl)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dates", type=int, default=3, help="a subject with fewer is not scored")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of LSSL, over `auto`")
    parser.add_argument("--out", type=Path, default=Path("runs/longitudinal"))
    parser.add_argument("--tiny", action="store_true", help="one seed, one epoch, few subjects")
    asked = parser.parse_args()
    if asked.synthetic == bool(asked.folder):
        parser.error("give a FOLDER or --synthetic")
    if asked.tiny:
        asked.seeds, asked.epochs = asked.seeds[:1], 1
    (synthetic if asked.synthetic else held_out)(asked)


def trained(asked: argparse.Namespace, data: Path, run: Path, method: str, seed: int) -> encoders.Encoder:
    """The encoder of a run, which is done first where it is not there."""
    if (run / "plan.json").exists():
        byol.resume(run)
    else:
        print(run, file=sys.stderr, flush=True)
        own = {"lssl": (*STEPS, *asked.set), "autoencoder": (*STEPS, *WHOLE), "byol": ()}[method]
        few = ("hidden=16",) if asked.tiny else () if method == "byol" else ("hidden=32",)
        byol.train(
            data, run, method=method, encoder=asked.encoder, epochs=asked.epochs, batch_size=asked.batch_size, seed=seed,
            image_size=asked.image_size, device=asked.device, precision="fp32", set=(*few, *own),
        )  # fmt: skip
    return byol.load(run)


def along_all(asked: argparse.Namespace, trained_on: dict[str, encoders.Encoder], train: Source, test: Source, seed: int) -> Projections:
    """Every encoder along every direction, on the test samples."""
    some = next(iter(trained_on.values()))
    twin = encoders.random_twin(some, seed=seed)
    every = {"pixels": raw(some.input), **({f"random {some.name}": twin} if twin else {}), **trained_on}
    of_train, of_test = (extract(list(every.values()), of) for of in (train, test))
    if len(of_train[0].kept) < len(train) or len(of_test[0].kept) < len(test):
        sys.exit("some pictures cannot be read; run `byol doctor` on them")
    found: Projections = {}
    for (name, encoder), a, b in zip(every.items(), of_train, of_test, strict=True):
        for direction, along in longitudinal.projections(encoder, a.x, b.x, train.times.astype(float), train.groups).items():
            found[name, direction] = along
    return found


def held_out(asked: argparse.Namespace) -> None:
    """Each subject in turn is left out of all training, and what it gives is pooled."""
    whole = open_source(asked.folder)
    if whole.groups is None or whole.times is None:
        sys.exit(f"{asked.folder} does not say whose its images are and when they were made; see docs/longitudinal.md")
    whole = whole.subset(np.flatnonzero(whole.groups >= 0))
    subjects = subjects_of(whole)
    names = {int(s): whole.names[int(np.flatnonzero(subjects == s)[0])].split("/")[0] for s in np.unique(subjects)}
    dates = {s: len(np.unique(whole.times[subjects == s])) for s in names}
    scored = [s for s in names if dates[s] >= asked.dates]
    short = [names[s] for s in names if s not in scored]
    scored = scored[:2] if asked.tiny else scored
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in asked.seeds:
        pooled: dict[tuple[str, str], list[np.ndarray]] = {}
        for s in scored:
            train, test = (whole.subset(np.flatnonzero(of)) for of in (subjects != s, subjects == s))
            data = without(asked.folder, names[s], asked.out)
            runs = {m: trained(asked, data, asked.out / f"{m}-without-{names[s]}-{seed}", m, seed) for m in asked.methods}
            for key, along in along_all(asked, runs, train, test, seed).items():
                pooled.setdefault(key, []).append(along)
        order = np.concatenate([np.flatnonzero(subjects == s) for s in scored])
        for key, parts in pooled.items():
            m = longitudinal.measured(np.concatenate(parts), whole.times[order].astype(float), whole.groups[order], subjects[order])
            rows.setdefault(key, []).append({**m.values, "low": m.intervals["r"][0], "high": m.intervals["r"][1]})
    measures = ("r", "rho", "mean r", "ordered")
    title = f"{len(scored)} subjects, each held out in turn, {len(asked.seeds)} seed(s), {asked.epochs} epochs"
    title += f"; of too few dates: {', '.join(short)}" if short else ""
    cells = [[*key, *(spelled([row[m] for row in of]) for m in measures), between(of)] for key, of in rows.items()]
    table(title, ("encoder", "direction", *measures, "95 % of r"), cells)
    result = {"folder": asked.folder, "seeds": asked.seeds, "epochs": asked.epochs, "subjects": [names[s] for s in scored]}
    finish("longitudinal", result | {"not scored": short, "rows": listed(rows)})


def without(folder: str, subject: str, out: Path) -> Path:
    """The folder less one subject, as links to its files."""
    target = out / "data" / f"without-{subject}"
    for part in sorted(Path(folder).iterdir()):
        if part.is_dir() and part.name != subject and not (target / part.name).exists():
            shutil.copytree(part, target / part.name, copy_function=linked)
    return target


def linked(source: str, target: str) -> None:
    """A hard link, or a copy where the file is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def synthetic(asked: argparse.Namespace) -> None:
    """Correlations with what the shapes were drawn from, on subjects that were not learnt from."""
    truths = ("age", *aging_shapes.NUISANCES)
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in asked.seeds:
        many = 12 if asked.tiny else aging_shapes.SUBJECTS
        train, test = aging_shapes.draw(many, seed=100 + seed), aging_shapes.draw(many, seed=1000 + seed)
        data = asked.out / "data" / f"shapes-{seed}.npz"
        data.parent.mkdir(parents=True, exist_ok=True)
        if not data.exists():
            np.savez(data, x=train.images, groups=train.subjects, times=train.days)
        runs = {m: trained(asked, data, asked.out / f"{m}-shapes-{seed}", m, seed) for m in asked.methods}
        found = along_all(asked, runs, train.source(), test.source(), seed)
        for key, along in found.items():
            of = {"age": test.attribute, **test.nuisances}
            rows.setdefault(key, []).append({name: correlation(along, of[name]) for name in truths})
    held = [holds(row) for row in rows["lssl", "tau"]]
    title = "Synthetic, ours: correlation with what shapes of other subjects were drawn from, "
    title += f"{len(asked.seeds)} seed(s), {asked.epochs} epochs"
    table(title, ("encoder", "direction", *truths), [[*key, *(spelled([r[t] for r in of]) for t in truths)] for key, of in rows.items()])
    print(f"LSSL along tau above {WANTED['age']} with age and below {WANTED['nuisance']} with all else: {sum(held)} of {len(held)} seeds")
    finish("longitudinal-synthetic", {"seeds": asked.seeds, "epochs": asked.epochs, "held": held, "rows": listed(rows)})


def holds(row: dict[str, float]) -> bool:
    """The claim of one seed."""
    return row["age"] > WANTED["age"] and all(abs(row[name]) < WANTED["nuisance"] for name in aging_shapes.NUISANCES)


def listed(rows: dict[tuple[str, str], list[dict[str, float]]]) -> list[dict[str, object]]:
    """Rows as JSON values."""
    return [{"encoder": encoder, "direction": direction, "seeds": of} for (encoder, direction), of in rows.items()]


def spelled(values: list[float]) -> str:
    """'0.93 ± 0.01', of one seed '0.93'"""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def between(rows: list[dict[str, float]]) -> str:
    """The interval over subjects; of several seeds the mean of its ends."""
    return f"{statistics.mean(r['low'] for r in rows):.2f} to {statistics.mean(r['high'] for r in rows):.2f}"


if __name__ == "__main__":
    main()
