"""Spoken digits: what BYOL-A's way learns from a few thousand short sounds without labels, beside what needs no training.

    python benchmarks/spoken.py FOLDER                       # about 20 minutes on two cores; FOLDER holds DIGIT_SPEAKER_TAKE.wav
    python benchmarks/spoken.py FOLDER --epochs 100 --seeds 1 --set mixup=0
    python benchmarks/spoken.py --tiny                       # made sounds, to see that it works

FOLDER is the Free Spoken Digit Dataset, or named like it. Two questions: `takes`, the official test (takes 0 to 4 of every speaker, of whom
the other takes were heard in training), for the digit and the speaker; and `speakers`, the digits of two speakers of whom nothing was
heard, another two with each seed. Nothing is trained on a test sound. A seed draws weights, views, batches, the labels of 1 % and 10 %,
and the untrained network. Features of all are read in the same ways (`byol evaluate`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure import finish, table

import byol

PROTOCOLS = ("knn:k=5", "linear")  # of few labels 20 neighbours, the usual number, would be of all classes
SHARES = (0.01, 0.1, 1.0)
HELD_OUT = 2  # speakers
Row = dict[str, object]


@dataclass(frozen=True)
class Clip:
    """A sound, as its name says it."""

    path: Path
    digit: str
    speaker: str
    take: int


def main() -> None:
    """A table for each question, and a last line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3, help="of the labels, where there are few")
    parser.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE", help="as for `byol train`")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    if asked.folder is None and not asked.tiny:
        parser.error("give the folder of the spoken digits, or --tiny")
    if asked.tiny:
        asked.epochs, asked.seeds, asked.draws = 1, 1, 1
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as made_here:
        out = Path(made_here)
        clips = [clip_of(p) for p in sorted((asked.folder or made(out / "sounds")).resolve().glob("*.wav"))]
        rows = [row for seed in range(asked.seeds) for row in one(clips, seed, asked, out / f"seed-{seed}")]
    for question in dict.fromkeys(str(r["question"]) for r in rows):
        show([r for r in rows if r["question"] == question], question)
    took = time.monotonic() - begun
    print(f"{took / 60:.1f} minutes in all")
    finish("spoken", {"epochs": asked.epochs, "set": list(asked.set), "sounds": len(clips), "seconds": round(took), "rows": rows})


def clip_of(path: Path) -> Clip:
    """`3_theo_12.wav`"""
    digit, speaker, take = path.stem.split("_")
    return Clip(path, digit, speaker, int(take))


def one(clips: list[Clip], seed: int, asked: argparse.Namespace, out: Path) -> list[Row]:
    """Train once for each split, and ask what there is to ask."""
    speakers = sorted({c.speaker for c in clips})
    first = HELD_OUT * seed % len(speakers)
    new = speakers[first : first + HELD_OUT]
    rows = []
    rows += split(clips, lambda c: c.take < 5, "takes", ("digit", "speaker"), seed, asked, out)
    rows += split(clips, lambda c: c.speaker in new, "speakers", ("digit",), seed, asked, out)
    return rows


def split(
    clips: list[Clip], held: Callable[[Clip], bool], name: str, labels: tuple[str, ...], seed: int, asked: argparse.Namespace, out: Path
) -> list[Row]:
    """One row for each question, subject, protocol and share of the labels."""
    rows: list[Row] = []
    run = None
    for label in labels:
        train, test = out / f"{name}-{label}-train.csv", out / f"{name}-{label}-test.csv"
        write(train, [c for c in clips if not held(c)], label)
        write(test, [c for c in clips if held(c)], label)
        run = run or byol.train(train, out / name, epochs=asked.epochs, seed=seed, device="cpu", set=tuple(asked.set)).run
        results = byol.evaluate(run, train, test=test, protocols=PROTOCOLS, labels=SHARES, draws=asked.draws, seed=seed, device="cpu")
        for protocol, result in zip(PROTOCOLS, results, strict=True):
            about = {"question": f"{label}, {name} held out", "seed": seed, "protocol": protocol}
            for score in result.scores:
                found = {"subject": subject(score.name, str(run)), "labels": score.labels, "top1": score.top1}
                rows.append(about | found)
    return rows


def write(path: Path, clips: list[Clip], label: str) -> None:
    """A list of sounds with their labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{c.path},{getattr(c, label)}\n" for c in clips))


def subject(name: str, run: str) -> str:
    """What is compared, in a word."""
    return "BYOL-A" if name == run else "untrained" if name.startswith("random ") else name


def show(rows: list[Row], question: str) -> None:
    """Means over seeds, a line for each subject."""
    columns = [(p, n) for p in PROTOCOLS for n in SHARES]
    lines = []
    for who in dict.fromkeys(str(r["subject"]) for r in rows):
        of = {c: [float(str(r["top1"])) for r in rows if (r["protocol"], r["labels"]) == c and r["subject"] == who] for c in columns}
        lines.append([who, *(said(values) for values in of.values())])
    seeds = len({r["seed"] for r in rows})
    table(
        f"{question}: % right with 1, 10 and 100 % of the labels, mean of {seeds}",
        ["", *(f"{p.partition(':')[0]} {n:.0%}" for p, n in columns)],
        lines,
    )


def said(values: list[float]) -> str:
    """ "51.3 +- 2.0"; one value alone has no deviation."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} +- {100 * statistics.stdev(values):.1f}"


def made(folder: Path) -> Path:
    """Four speakers, of a pitch each, say three digits, a rising tone each, ten times."""
    import soundfile

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    t = np.arange(3200) / 8000
    for digit in range(3):
        for number, speaker in enumerate(("ann", "bob", "cid", "dan")):
            for take in range(10):
                wave = np.sin(2 * np.pi * (200 + 60 * number) * t * (1 + digit * t)) + 0.1 * noise.standard_normal(len(t))
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", 0.3 * wave, 8000)
    return folder


if __name__ == "__main__":
    main()
