"""What the size of a data set costs: indexing, the next start, memory, fingerprint, the ids of a step.

    python benchmarks/scale.py                                        # 1e3 to 1e6 files, some minutes
    python benchmarks/scale.py --sizes 1e3 1e4 1e5 --out scale.png    # needs matplotlib, from the dependency group `bench`
    python benchmarks/scale.py --tiny                                 # 100 and 1,000 files, some seconds

The files are hard links to small JPEGs, in class folders of 1,000, in a temporary folder (--work says where). Every measurement of
a folder is a process of its own. The last line of the output is JSON. Beside ours, in the same run: listing and reading 4 KiB of each
file in one thread (the floor), a plain list of names, and torch.randperm of all ids, as other loaders draw an epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

BATCH = 256
PER_FOLDER = 1_000
LINKS = 30_000  # of one file; ext4 allows 65,000
LARGEST_RANDPERM = 10**7  # 80 MB; more would measure the machine's memory


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(Path(options.measure), options.many, traced=options.traced)))
        return
    sizes = [100, 1000] if options.tiny else sorted(int(float(s)) for s in options.sizes)
    many = 50 if options.tiny else None
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        rows = [folder_costs(Path(work), n, many) for n in sizes]
    ids = [ids_costs(n) for n in (10**4, 10**6, 10**8, 10**10)]
    slopes = exponents(rows, ids)
    print_table(rows, ids, slopes)
    if options.out:
        plot(rows, ids, slopes, options.out)
    machine = f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    print(json.dumps({"machine": machine, "folders": rows, "ids": ids, "exponents": slopes}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the size of a data set costs.")
    parser.add_argument("--sizes", nargs="+", default=["1e3", "1e4", "1e5", "1e6"], help="numbers of files")
    parser.add_argument("--out", help="a picture to write: cost against size")
    parser.add_argument("--work", help="an existing folder for the temporary files")
    parser.add_argument("--tiny", action="store_true", help="100 and 1,000 files")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # what the processes of their own are started with
    parser.add_argument("--many", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(root: Path, n: int) -> None:
    """n hard links to small JPEGs, in class folders of 1,000."""
    for k in range(math.ceil(n / PER_FOLDER)):
        folder = root / f"class_{k:04d}"
        folder.mkdir(parents=True)
        for i in range(k * PER_FOLDER, min(n, (k + 1) * PER_FOLDER)):
            os.link(_original(root.parent / "originals", i % 8, i // LINKS), folder / f"photo_{i:08d}.jpg")
        # As if made a minute ago: of a folder that changed in the last two seconds, no index is kept.
        os.utime(folder, times=(time.time() - 60,) * 2)
    os.utime(root, times=(time.time() - 60,) * 2)


def _original(where: Path, picture: int, copy: int) -> Path:
    """One of eight small JPEGs: grey and colour, baseline and progressive, of several sizes."""
    path = where / f"{picture}_{copy}.jpg"
    if not path.exists():
        where.mkdir(exist_ok=True)
        noise = np.random.default_rng(picture).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((64 + 8 * picture, 48 + 4 * picture), Image.Resampling.BICUBIC)
        image.convert("L" if picture == 7 else "RGB").save(path, quality=85, progressive=picture % 2 == 1)
    return path


def folder_costs(work: Path, n: int, many: int | None) -> dict[str, float | bool]:
    """Seconds and bytes for a folder of n files: the floor, the first start, the next one."""
    root = work / f"{n}" / "data"
    print(f"making {n:,} files", file=sys.stderr)
    make(root, n)
    floor = _seconds(lambda: _floor(root))
    cache = {**os.environ, "XDG_CACHE_HOME": str(work / f"{n}" / "cache")}
    first, after, traced = (_apart(root, many, cache, *flags) for flags in ((), (), ("--traced",)))
    return {
        "n": n,
        "floor_s": floor,
        "first_s": first["seconds"],
        "first_peak_bytes_per_file": first["peak"] / n,
        "next_s": after["seconds"],
        "index_kept": bool(after["kept"]),
        "index_bytes_per_file": sum(f.stat().st_size for f in (work / f"{n}" / "cache").rglob("*.npz")) / n,
        "held_bytes_per_file": traced["held"] / n,
        "rss_bytes_per_file": after["rss"] / n,
        "list_bytes_per_file": traced["list"] / n,
        "fingerprint_s": after["fingerprint_s"],
        "same_fingerprint": first["fingerprint"] == after["fingerprint"] == traced["fingerprint"],
    }


def _apart(root: Path, many: int | None, environment: dict[str, str], *flags: str) -> dict[str, float | str]:
    command = [sys.executable, __file__, "--measure", str(root), *flags, *(["--many", str(many)] if many else [])]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found: dict[str, float | str] = json.loads(out.splitlines()[-1])
    return found


def _floor(root: Path) -> None:
    for folder in os.scandir(root):
        for entry in os.scandir(folder.path):
            file = os.open(entry.path, os.O_RDONLY)
            os.read(file, 4096)
            os.close(file)


def measure(root: Path, many: int | None, *, traced: bool) -> dict[str, float | str]:
    """Opens the folder in this process; `traced` counts the bytes that are held, which makes the times useless."""
    from byol.data import index, open_source

    if many:
        index.MANY = many
    kept = index.path_of(root).exists()
    if traced:
        tracemalloc.start()
    before, peak = _rss(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    source = open_source(root)
    seconds = time.perf_counter() - start
    held = tracemalloc.get_traced_memory()[0] if traced else 0
    found = {"seconds": seconds, "rss": _rss() - before, "held": held, "kept": kept}
    found["peak"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    found["list"] = sum(sys.getsizeof(name) + 8 for name in source.names)
    found["fingerprint_s"] = _seconds(source.fingerprint)
    return {**found, "fingerprint": source.fingerprint()}


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ids_costs(n: int) -> dict[str, float]:
    """Microseconds for the ids of a step out of n, and for torch.randperm(n) once an epoch."""
    import torch

    from byol.data import ids_at

    last = n // BATCH
    steps = iter(range(3, 10**9, 7))
    ours = [_seconds(lambda: ids_at(next(steps) % last, n=n, batch=BATCH, seed=1)) for _ in range(300)]
    found = {"n": n, "step_us": 1e6 * statistics.median(ours)}
    if n <= LARGEST_RANDPERM:
        found["randperm_epoch_us"] = 1e6 * statistics.median(_seconds(lambda: torch.randperm(n)) for _ in range(5))
    return found


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


COSTS = ("floor_s", "first_s", "next_s", "fingerprint_s")


def exponents(rows: list[dict[str, float | bool]], ids: list[dict[str, float]]) -> dict[str, float]:
    """The slope of log cost against log size for each cost: 1 is linear, 0 is the same for every size.

    The next start counts where an index was kept; below 10,000 files it is a first start again.
    """
    slopes = {cost: _slope([(r["n"], r[cost]) for r in rows if cost != "next_s" or r["index_kept"]]) for cost in COSTS}
    slopes["held_bytes"] = _slope([(r["n"], r["n"] * r["held_bytes_per_file"]) for r in rows])
    slopes["step_us"] = _slope([(r["n"], r["step_us"]) for r in ids])
    slopes["randperm_epoch_us"] = _slope([(r["n"], r["randperm_epoch_us"]) for r in ids if "randperm_epoch_us" in r])
    return {name: slope for name, slope in slopes.items() if not math.isnan(slope)}


def _slope(points: list[tuple[float, float]]) -> float:
    if len(points) < 2:
        return math.nan
    x, y = np.log(np.array(points, np.float64)).T
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def print_table(rows: list[dict[str, float | bool]], ids: list[dict[str, float]], slopes: dict[str, float]) -> None:
    print(
        f"{'files':>9} {'floor':>8} {'first':>8} {'files/s':>8} {'peak':>6} {'next':>8} {'held':>6} {'RSS':>6} {'list':>6} {'fingerpr.':>9}"
    )
    print(f"{'':>9} {'s':>8} {'s':>8} {'':>8} {'B/file':>6} {'s':>8} {'B/file':>6} {'B/file':>6} {'B/file':>6} {'s':>9}")
    for r in rows:
        memory = f"{r['held_bytes_per_file']:6.0f} {r['rss_bytes_per_file']:6.0f} {r['list_bytes_per_file']:6.0f}"
        first = f"{r['floor_s']:8.3f} {r['first_s']:8.3f} {r['n'] / r['first_s']:8.0f} {r['first_peak_bytes_per_file']:6.0f}"
        print(f"{r['n']:9,} {first} {r['next_s']:8.3f} {memory} {r['fingerprint_s']:9.4f}")
    print(f"\n{'samples':>16} {'ids of a step':>14} {'randperm of an epoch':>21}")
    for r in ids:
        other = f"{r['randperm_epoch_us']:18,.0f} us" if "randperm_epoch_us" in r else f"{'-':>21}"
        print(f"{r['n']:16,} {r['step_us']:11.0f} us {other}")
    print("\ncost ~ size^x: " + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()) + "\n")


def plot(rows: list[dict[str, float | bool]], ids: list[dict[str, float]], slopes: dict[str, float], out: str) -> None:
    """Cost against size, both logarithmic; says so when there is nothing to draw with."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed (uv sync --group bench)", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    names = {"floor_s": "list + read 4 KiB (floor)", "first_s": "first start", "next_s": "next start", "fingerprint_s": "fingerprint"}
    for cost, name in names.items():
        left.loglog([r["n"] for r in rows], [r[cost] for r in rows], "o-", label=f"{name}, exponent {slopes.get(cost, math.nan):.2f}")
    left.set(xlabel="files", ylabel="seconds", title="A folder")
    for cost, name in (("held_bytes", "a source (ours)"), ("list_bytes", "a list of the names alone")):
        middle.loglog([r["n"] for r in rows], [r["n"] * r[f"{cost}_per_file"] for r in rows], "o-", label=name)
    middle.set(xlabel="files", ylabel="bytes", title="Memory afterwards")
    for cost, name in (("step_us", "ids of a step of 256 (ours)"), ("randperm_epoch_us", "torch.randperm of an epoch")):
        drawn = [r for r in ids if cost in r]
        right.loglog([r["n"] for r in drawn], [r[cost] for r in drawn], "o-", label=f"{name}, exponent {slopes.get(cost, math.nan):.2f}")
    right.set(xlabel="samples", ylabel="microseconds", title="The order of training")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(out, dpi=120)
    print(f"drawn in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
