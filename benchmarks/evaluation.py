"""Evaluation on a CPU core: features beside a bare forward loop, kNN and the linear probe beside scikit-learn.

    uv run --group bench python benchmarks/evaluation.py    # about 10 minutes; --tiny: seconds, to see that it works
    uv run --group bench python benchmarks/evaluation.py --only grid    # the whole linear protocol, some minutes more
    uv run --group bench python benchmarks/evaluation.py --only transfer    # the transfer protocol beside one fit, 10,000 samples

Every contender works on the same data, in turns, on one core (`--cores`); figures are medians over the rounds. Features for kNN and
the probe are made: 10 classes in 32 directions of falling strength, with noise in all of them ("correlated", as networks give), or
equally strong noise in every direction ("round"), which is the easiest case for any solver.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from measure import Job, Time, cores, finish, side_by_side, table
from numpy.typing import NDArray
from views import photos

from byol import encoders
from byol.allocator import keep_freed_memory
from byol.data import Source, open_source
from byol.encoders import Encoder, Input
from byol.evaluation import Linear, Transfer, features
from byol.evaluation.features import _batches, see
from byol.evaluation.knn import _CHUNK, _NEIGHBOURS, votes
from byol.evaluation.logistic import axes, fit
from byol.evaluation.probe import Task

CLASSES = 10
Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
SUBJECTS = ("features", "jpeg", "knn", "linear")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    images: int
    photos: int
    train: int
    test: int
    dim: int
    rounds: int


FULL, TINY = Size(1024, 64, 50_000, 10_000, 512, 3), Size(8, 2, 2000, 300, 48, 1)


@dataclass(frozen=True)
class Made:
    """Features with labels."""

    x: Floats  # (n, D)
    y: Ids  # (n,)
    test_x: Floats
    test_y: Ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="little of everything, one round: to see that it works")
    parser.add_argument(
        "--only", nargs="+", choices=[*SUBJECTS, "grid", "transfer"], default=SUBJECTS, help="what to measure; grid takes minutes"
    )
    parser.add_argument("--cores", type=int, default=1, help="how many to use")
    parser.add_argument("--peak", type=int, nargs=4, metavar="N", help=argparse.SUPPRESS)  # the process that peak() starts
    asked = parser.parse_args()
    if asked.peak:
        print(grown(*asked.peak))
        return
    size = TINY if asked.tiny else FULL
    measured: dict[str, Callable[[Size], object]] = {
        "features": in_memory, "jpeg": from_files, "knn": neighbours, "linear": probes, "grid": protocol,
        "transfer": transferred,
    }  # fmt: skip
    keep_freed_memory()  # as features() does: no contender is to be faster by what another one has set
    with cores(asked.cores):
        result = {name: measured[name](size) for name in asked.only}
    finish("evaluation", {"size": vars(size), "used_cores": asked.cores, **result})


def show(title: str, times: dict[str, Time], base: str) -> dict[str, float]:
    """The table of one comparison; its medians in seconds."""
    rows = [(k, f"{t.median:.3f}", f"{t.best:.3f}", f"{t.worst:.3f}", f"{t.median / times[base].median:.2f}") for k, t in times.items()]
    table(title, ("", "s", "best", "worst", f"x {base.split(',')[0]}"), rows)
    return {name: t.median for name, t in times.items()}


def forward(encoder: Encoder, x: torch.Tensor, batch: int) -> Job:
    """The bare loop: the network on tensors that are ready, batches and memory format included."""
    ready = [part.contiguous(memory_format=torch.channels_last) for part in x.split(batch)]

    @torch.inference_mode()
    def run() -> None:
        for part in ready:
            encoder(part)

    return run


def in_memory(size: Size) -> dict[str, float]:
    """ResNet-18 on images of 32 px in memory."""
    images = np.random.default_rng(0).integers(0, 256, (size.images, 32, 32, 3), dtype=np.uint8)
    input = Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder, source = encoders.load("resnet18", input=input).eval(), open_source(images)
    x = encoder.preprocess(images)
    jobs: dict[str, Job] = {f"bare loop, batches of {b}": forward(encoder, x, b) for b in (64, 256)}
    jobs["features()"] = lambda: features(encoder, source)
    return show(
        f"Features of {size.images:,} images of 32 px in memory, ResNet-18", timed(jobs, size.rounds + 2), "bare loop, batches of 64"
    )


def from_files(size: Size) -> dict[str, float]:
    """ResNet-18 on JPEG files."""
    with tempfile.TemporaryDirectory() as folder:
        source = photos(Path(folder), size.photos)
        input = Input(channels=3, size=224, resize=256, mean=(0.5,) * 3, std=(0.25,) * 3)
        encoder = encoders.load("resnet18", input=input).eval()
        x = encoder.preprocess([Path(source.spec, name) for name in source.names])
        jobs: dict[str, Job] = {
            "bare loop, batches of 64": forward(encoder, x, 64),
            "decode and resize": lambda: looked(source, input),
            "features()": lambda: features(encoder, source, batch=16),
        }
        return show(
            f"Features of {size.photos:,} JPEG files of 500x375 at 224 px, ResNet-18", timed(jobs, size.rounds), "bare loop, batches of 64"
        )


def looked(source: Source, input: Input) -> None:
    """All that features() does before the network."""
    for _, images in _batches(source, 16, {}, source.read):
        see(images, input, torch.device("cpu"))


def timed(jobs: dict[str, Job], rounds: int) -> dict[str, Time]:
    return side_by_side(jobs, rounds=rounds, warm=min(1, rounds - 1))


def made(size: Size, kind: str) -> Made:
    """Features of 10 classes that overlap, "correlated" or "round"."""
    rng, n = np.random.default_rng(0), size.train + size.test
    y = rng.integers(0, CLASSES, n)
    if kind == "round":
        means = rng.normal(size=(CLASSES, size.dim)) * 2 / size.dim**0.5
        x = means.astype(np.float32)[y] + rng.standard_normal((n, size.dim), dtype=np.float32)
    else:
        inner = min(32, size.dim)
        mix = rng.normal(size=(inner, size.dim)) * np.geomspace(3, 0.3, inner)[:, None] / inner**0.5
        means = 0.5 * rng.normal(size=(CLASSES, inner)).astype(np.float32)
        x = (means[y] + rng.standard_normal((n, inner), dtype=np.float32)) @ mix.astype(np.float32)
        x += 0.1 * rng.standard_normal(x.shape, dtype=np.float32) + 1
    return Made(x[: size.train], y[: size.train], x[size.train :], y[size.train :])


def neighbours(size: Size) -> dict[str, object]:
    """kNN by cosine, weights exp(cos / 0.1)."""
    data = made(size, "correlated")
    return {f"k={k}": nearest(size, data, k) for k in (20, 200)}


def nearest(size: Size, data: Made, k: int) -> dict[str, object]:
    from sklearn.neighbors import KNeighborsClassifier

    x, y, test_x = (torch.from_numpy(a) for a in (data.x, data.y, data.test_x))
    unit, test_unit = (torch.nn.functional.normalize(a, dim=1) for a in (x, test_x))
    held = torch.empty(min(512, size.test), size.train)
    by_cosine = KNeighborsClassifier(k, algorithm="brute", metric="cosine", weights=lambda d: np.exp((1 - d) / 0.1))
    # On unit vectors |a - b|^2 = 2 - 2 cos: the same neighbours by the metric that scikit-learn has its own kernel for.
    by_length = KNeighborsClassifier(k, algorithm="brute", metric="euclidean", weights=lambda d: np.exp((1 - d * d / 2) / 0.1))
    by_cosine.fit(data.x, data.y)
    by_length.fit(unit.numpy(), data.y)
    said: dict[str, Ids] = {}
    jobs: dict[str, Job] = {
        "the matrix product alone": lambda: [torch.mm(p, unit.T, out=held[: len(p)]) for p in test_unit.split(512)],
        "byol": lambda: said.update(byol=votes(x, y, test_x, classes=CLASSES, k=k, temperature=0.1).argmax(1).numpy()),
        "scikit-learn, cosine": lambda: said.update(cosine=by_cosine.predict(data.test_x)),
        "scikit-learn, euclidean of unit vectors": lambda: said.update(euclidean=by_length.predict(test_unit.numpy())),
    }
    title = f"kNN, {size.train:,} x {size.test:,} x {size.dim}, k={k}"
    seconds = show(title, timed(jobs, size.rounds), "the matrix product alone")
    agreement = float(min((said["byol"] == said[other]).mean() for other in ("cosine", "euclidean")))
    accuracy = {name: float((p == data.test_y).mean()) for name, p in said.items()}
    added, bound = peak(size, k)
    print(f"  agreement {agreement:.4f}, accuracy {accuracy}")
    print(f"  peak memory beside the features {added / 2**20:,.0f} MiB, bound {bound / 2**20:,.0f} MiB")
    return {"seconds": seconds, "agreement": agreement, "accuracy": accuracy, "peak_bytes": added, "bound_bytes": bound}


def peak(size: Size, k: int) -> tuple[int, int]:
    """Bytes that kNN adds to a fresh process that holds the features (its largest resident size), and what they may be at most.

    At most: unit vectors of all samples, the similarities of a chunk and as much again to choose among them, 64 bytes for each
    of the neighbours held, and 32 MiB of code.
    """
    shape = (size.train, size.test, size.dim, k)
    told = subprocess.run([sys.executable, __file__, "--peak", *map(str, shape)], check=True, capture_output=True, text=True).stdout
    return int(told), int(4 * (size.train + size.test) * size.dim + 2 * 4 * _CHUNK + 64 * _NEIGHBOURS + 2**25)


def grown(train: int, test: int, dim: int, k: int) -> int:
    x, test_x, y = torch.randn(train, dim), torch.randn(test, dim), torch.arange(train) % CLASSES
    votes(x[:64], y[:64], test_x[:1], classes=CLASSES, k=5, temperature=0.1)  # what torch loads at the first call is not the method's
    before = most_held()
    votes(x, y, test_x, classes=CLASSES, k=k, temperature=0.1)
    return most_held() - before


def most_held() -> int:
    """The largest resident size of this process so far, in bytes; getrusage would count the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def probes(size: Size) -> dict[str, object]:
    """Logistic regression of given strength; scikit-learn gets standardised features, ours standardises them as part of its time.

    "scikit-learn" is solved until its objective is within 1e-7 of ours, and to its default tolerance beside that.
    """
    return {f"{kind}, l2={l2:g}": probe(size, made(size, kind), kind, l2) for kind in ("round", "correlated") for l2 in (1.0, 100.0)}


def probe(size: Size, data: Made, kind: str, l2: float) -> dict[str, object]:
    from sklearn.preprocessing import StandardScaler

    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    design = axes(x)
    z, test_z = design.z.numpy(), design.project(torch.from_numpy(data.test_x)).numpy()
    said: dict[str, tuple[Floats, Floats]] = {}

    def ours() -> None:
        found = fit(axes(x), y, classes=CLASSES, l2=torch.tensor([l2]))
        said["byol"] = found.weight[0].numpy(), found.bias[0].numpy()

    ours()
    goal = objective(*said["byol"], z, data.y, l2)
    tol = needed(z, data.y, l2, goal)

    def theirs(name: str, tol: float) -> None:
        said[name] = regression(z, data.y, l2, tol)

    jobs: dict[str, Job] = {
        "byol": ours,
        "scikit-learn": lambda: theirs("scikit-learn", tol),
        "scikit-learn, tol 1e-4": lambda: theirs("scikit-learn, tol 1e-4", 1e-4),
        "StandardScaler": lambda: StandardScaler().fit_transform(data.x),
    }
    title = f"Logistic regression, {size.train:,} x {size.dim}, {CLASSES} classes, {kind}, l2={l2:g}"
    found: dict[str, object] = {"seconds": show(title, side_by_side(jobs, rounds=size.rounds, warm=0), "byol"), "tol": tol}
    found["objective"] = {name: objective(w, b, z, data.y, l2) for name, (w, b) in said.items()}
    found["accuracy"] = {name: float(((test_z @ w.T + b).argmax(1) == data.test_y).mean()) for name, (w, b) in said.items()}
    print(f"  objective {found['objective']}, accuracy {found['accuracy']}, tol of scikit-learn {tol:g}")
    return found


def needed(z: Floats, y: Ids, l2: float, goal: float) -> float:
    """The largest tolerance of scikit-learn, of powers of 10 from 1e-3 to 1e-6, that brings its objective within 1e-7 of the goal."""
    for tol in (1e-3, 1e-4, 1e-5, 1e-6):
        if objective(*regression(z, y, l2, tol), z, y, l2) <= goal * (1 + 1e-7):
            break
    return tol


def regression(z: Floats, y: Ids, l2: float, tol: float) -> tuple[Floats, Floats]:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of float32 that does not reach a small tolerance: the objective says what it reached
        found = LogisticRegression(C=1 / l2, solver="lbfgs", tol=tol, max_iter=2000).fit(z, y)
    return found.coef_, found.intercept_


def objective(weight: Floats, bias: Floats, z: Floats, y: Ids, l2: float) -> float:
    """(C, D), (C,), (n, D), (n,) -> the summed cross-entropy + l2/2 |W|^2, in float64."""
    logits = z.astype(np.float64) @ weight.T.astype(np.float64) + bias
    top = logits.max(1)
    entropy = np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[np.arange(len(y)), y]
    return float(entropy.sum() + l2 / 2 * (weight.astype(np.float64) ** 2).sum())


def protocol(size: Size) -> dict[str, object]:
    """The strength chosen of 13 on a fifth of the training set, then a fit on all of it."""
    data, out = made(size, "correlated"), {}
    x, y, test_x = (torch.from_numpy(a) for a in (data.x, data.y, data.test_x))
    encoder = encoders.load("small", input=Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3))
    task = Task(
        train_x=x, train_y=y, test_x=test_x, classes=CLASSES, encoder=encoder, train=open_source(np.zeros((2, 8, 8, 3), np.uint8)),
        centred=False, seed=0, precision="fp32", workers=0,
    )  # fmt: skip
    jobs: dict[str, Job] = {
        "byol": lambda: out.update({"byol": Linear().predict(task).scores.argmax(1).numpy()}),
        "scikit-learn": lambda: out.update({"scikit-learn": chosen(data, Linear().grid)}),
    }
    times = side_by_side(jobs, rounds=1, warm=0)
    found: dict[str, object] = {"seconds": show("The linear protocol, 13 strengths", times, "byol")}
    found["accuracy"] = {name: float((p == data.test_y).mean()) for name, p in out.items()}
    print(f"  accuracy {found['accuracy']}")
    return found


def transferred(size: Size) -> dict[str, object]:
    """The whole transfer protocol, 45 strengths and the last fit, beside one fit of scikit-learn at its default strength."""
    few = replace(size, train=min(size.train, 10_000), test=min(size.test, 2000))
    data, said = made(few, "correlated"), {}
    x, y, test_x = (torch.from_numpy(a) for a in (data.x, data.y, data.test_x))
    encoder = encoders.load("small", input=Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3))
    task = Task(
        train_x=x, train_y=y, test_x=test_x, classes=CLASSES, encoder=encoder, train=open_source(np.zeros((2, 8, 8, 3), np.uint8)),
        centred=False, seed=0, precision="fp32", workers=0,
    )  # fmt: skip

    def one(name: str) -> None:
        w, b = regression(data.x, data.y, 1.0, 1e-4)
        said[name] = (data.test_x @ w.T + b).argmax(1)

    jobs: dict[str, Job] = {
        "scikit-learn, one fit": lambda: one("scikit-learn, one fit"),
        "byol, all 45 strengths": lambda: said.update({"byol, all 45 strengths": Transfer().predict(task).scores.argmax(1).numpy()}),
    }
    title = f"The transfer protocol, {few.train:,} x {few.dim}, {CLASSES} classes"
    # Time of the processor where others share it: a thread that waits for a core is not the method's.
    seconds = show(title, side_by_side(jobs, rounds=few.rounds, warm=0, clock=time.process_time), "scikit-learn, one fit")
    found: dict[str, object] = {"cpu_seconds": seconds}
    found["accuracy"] = {name: float((p == data.test_y).mean()) for name, p in said.items()}
    print(f"  accuracy {found['accuracy']}")
    return found


def chosen(data: Made, grid: Sequence[float]) -> Ids:
    """The same by scikit-learn, at its own tolerance of 1e-4."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(data.x)
    z, test_z = scaler.transform(data.x), scaler.transform(data.test_x)
    held = np.random.default_rng(0).random(len(z)) < 0.2
    fitted = [regression(z[~held], data.y[~held], l2, 1e-4) for l2 in grid]
    right = [((z[held] @ w.T + b).argmax(1) == data.y[held]).sum() for w, b in fitted]
    w, b = regression(z, data.y, grid[int(np.argmax(right))], 1e-4)
    said: Ids = (test_z @ w.T + b).argmax(1)
    return said


if __name__ == "__main__":
    main()
