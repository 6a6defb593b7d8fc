"""What tar shards cost: indexing, reading here and from a server, resuming, bytes of several processes, memory, the quality of the shuffle.

    python benchmarks/shards.py                # 32 shards of 250 JPEGs of about 45 kB; some minutes
    python benchmarks/shards.py --tiny         # 8 shards of 24; some seconds
    python benchmarks/shards.py --latency 20   # the server waits so many milliseconds before each answer

The server is a process of its own on localhost that knows ranges and counts what it sends. Every reading is a process of its own
(except with --tiny) with an empty cache, unless it says otherwise. "bytes": the encoded images alone, as fast as they come; "crops":
decoded and cropped to two views of 224 px, by as many threads as there are cores. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from measure import finish, table
from PIL import Image

BATCH = 64
ORIGINALS = 64


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shards: int
    each: int  # samples of a shard
    steps: int  # of the readings with crops
    indexed: int  # samples of the index's own shards
    drawn: tuple[int, int]  # shards, and samples of each, of the orders


FULL = Size(shards=32, each=250, steps=40, indexed=100_000, drawn=(128, 1000))
TINY = Size(shards=8, each=24, steps=2, indexed=400, drawn=(32, 64))


def main() -> None:
    options = _options()
    if options.serve:
        serve(Path(options.serve), options.latency / 1000)
        return
    if options.measure:
        print(json.dumps(measure(json.loads(options.measure))))
        return
    size = TINY if options.tiny else FULL
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        make(work, size)
        last = size.shards - 1
        with server(work / "shards", options.latency) as url:
            remote = f"{url}/train-{{000000..{last:06d}}}.tar"
            found: dict[str, object] = {"index": index_costs(work, size), "local": local_costs(work, size)}
            found["remote"] = remote_costs(work, url, remote, size)
            found["resume"] = resume_costs(work, url, remote, size)
            found["processes"] = process_costs(work, url, remote, size)
    found["shuffle"] = shuffle_quality(size)
    finish("shards", {"latency_ms": options.latency, **found})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What tar shards cost.")
    parser.add_argument("--tiny", action="store_true", help="8 shards of 24 images")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds before each answer of the server")
    parser.add_argument("--work", help="an existing folder for the temporary files")
    parser.add_argument("--serve", help=argparse.SUPPRESS)  # what the processes of their own are started with
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(work: Path, size: Size) -> None:
    """The same JPEGs as a folder and as shards, with classes; and shards of tiny JPEGs to index."""
    print(f"making {size.shards * size.each:,} images", file=sys.stderr)
    large, small = ([_jpeg(i, side) for i in range(ORIGINALS)] for side in (320, 32))
    for shard in range(size.shards):
        names = [f"{shard * size.each + i:08d}" for i in range(size.each)]
        data = {name: large[int(name) % ORIGINALS] for name in names}
        _tar(work / "shards" / f"train-{shard:06d}.tar", data, shard // 4)
        folder = work / "folder" / f"{shard:03d}"
        folder.mkdir(parents=True)
        for name, image in data.items():
            (folder / f"{name}.jpg").write_bytes(image)
    for shard in range(10):
        per = size.indexed // 10
        _tar(work / "index" / f"i-{shard}.tar", {f"{i:08d}": small[i % ORIGINALS] for i in range(per)}, shard)
    for path in (*(work / "shards").iterdir(), *(work / "index").iterdir()):
        os.utime(path, times=(time.time() - 60,) * 2)  # of a file that changed in the last two seconds, no index is kept


def _jpeg(number: int, side: int) -> bytes:
    """A JPEG of about the size and detail of a photo."""
    rng = np.random.default_rng(number)
    noise = rng.integers(0, 256, (side // 5, side // 4, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((side + number, side - number % 7), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


def _tar(path: Path, data: dict[str, bytes], label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, image in data.items():
            for suffix, content in ((".jpg", image), (".cls", str(label).encode())):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def serve(root: Path, latency: float) -> None:
    """A web server with ranges; prints its port. /count answers with the bytes and requests since the last time."""
    sent, lock = {"bytes": 0, "requests": 0}, threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, body: bool = True) -> None:
            if self.path == "/count":
                with lock:
                    text = json.dumps(sent).encode()
                    sent.update(bytes=0, requests=0)
                self.begin(200, len(text))
                self.wfile.write(text)
                return
            time.sleep(latency)
            with open(root / self.path.lstrip("/"), "rb") as file:
                whole = os.fstat(file.fileno()).st_size
                match = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                start, end = (int(match[1]), min(int(match[2]), whole - 1)) if match else (0, whole - 1)
                self.begin(206 if match else 200, end + 1 - start, f"bytes {start}-{end}/{whole}" if match else "")
                if body:
                    with lock:
                        sent["bytes"] += end + 1 - start
                        sent["requests"] += 1
                    self.wfile.flush()
                    with contextlib.suppress(ConnectionError):
                        self.connection.sendfile(file, start, end + 1 - start)

        def begin(self, code: int, length: int, content_range: str = "") -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(length))
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(http.server_address[1], flush=True)
    http.serve_forever()


@contextlib.contextmanager
def server(root: Path, latency: float) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", str(root), "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def count(url: str) -> dict[str, int]:
    """What the server sent since the last time: bytes, requests."""
    with urllib.request.urlopen(f"{url}/count") as answer:
        found: dict[str, int] = json.loads(answer.read())
    return found


Found = dict[str, float]


def apart(data: str | Path, cache: Path, *, limit: str = "20 GB", **task: object) -> Found:
    """`measure` in a process of its own."""
    task["data"] = str(data)
    environment = {"BYOL_CACHE": str(cache), "BYOL_CACHE_LIMIT": limit}
    if "--tiny" in sys.argv:
        os.environ.update(environment)
        return measure(task)
    command = [sys.executable, __file__, "--measure", json.dumps(task)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment}).stdout
    found: Found = json.loads(out.splitlines()[-1])
    return found


def measure(task: dict[str, object]) -> Found:
    """Opens the data, and reads the steps that the task names: seconds, images a second, memory."""
    import torch

    from byol import views
    from byol.data import HostBatches, cores, open_source, steps_per_epoch

    torch.set_num_threads(1)
    resting = _rss()
    began = time.perf_counter()
    source = open_source(str(task["data"]))
    found = {"open_s": time.perf_counter() - began, "n": len(source), "held": _rss() - resting}
    start, stop = int(str(task.get("start", 0))), int(str(task.get("stop", 0))) or steps_per_epoch(len(source), BATCH)
    if not task.get("how"):
        return found
    rank, world = int(str(task.get("rank", 0))), int(str(task.get("world", 1)))
    batches = HostBatches(source, views.load("torchvision", size=224), n=len(source), batch=BATCH, seed=0)
    whole = batches._ids
    # A process that takes its stretch of the rows of every batch.
    batches._ids = lambda step: whole(step)[rank * BATCH // world : (rank + 1) * BATCH // world]  # type: ignore[method-assign]
    images, began = 0, time.perf_counter()
    with ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for step in range(start, stop):
            if task["how"] == "crops":
                images += len(batches.read(step, pool.map).ids)
            else:
                images += _bytes(batches, step, pool)
            found.setdefault("first_s", time.perf_counter() - began)
            if pace := float(str(task.get("pace", 0))):  # no faster than a network would take them
                time.sleep(max(0.0, images / pace - (time.perf_counter() - began)))
    seconds = time.perf_counter() - began
    return {**found, "seconds": seconds, "per_second": images / seconds, "peak": _peak() - resting}


def _bytes(batches: object, step: int, pool: ThreadPoolExecutor) -> int:
    """The encoded images of a step, read and thrown away."""
    wanted = batches._ids(step)  # type: ignore[attr-defined]
    batches._announce(step, wanted)  # type: ignore[attr-defined]
    reader = batches.source.reader  # type: ignore[attr-defined]
    return sum(1 for _ in pool.map(reader.blobs.load, wanted.tolist()))


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def index_costs(work: Path, size: Size) -> Found:
    cache = work / "cache-index"
    first, after = (apart(work / "index" / "i-{0..9}.tar", cache) for _ in range(2))
    kept = sum(p.stat().st_size for p in (cache / "index").iterdir())
    per = 100_000 / first["n"]
    found = {
        "first_s": first["open_s"] * per,
        "next_s": after["open_s"] * per,
        "held": after["held"] / first["n"],
        "kept": kept / first["n"],
    }
    row = [f"{found['first_s']:.1f} s", f"{found['next_s']:.2f} s", f"{found['held']:.0f} B", f"{found['kept']:.0f} B"]
    table("Index of local shards, for 100,000 samples", ["", "first start", "next start", "memory/sample", "disk/sample"], [["", *row]])
    return found


def local_costs(work: Path, size: Size) -> dict[str, Found]:
    """The same images as a folder and as local shards."""
    found = {}
    for name, data in (("folder", work / "folder"), ("shards", work / "shards")):
        for how, stop in (("bytes", 0), ("crops", size.steps)):
            found[f"{name} {how}"] = apart(data, work / "cache-local", how=how, stop=stop)
    rows = [[name, f"{f['per_second']:,.0f}", f"{f['peak'] / 1e6:.0f} MB"] for name, f in found.items()]
    table("Local", ["", "images/s", "memory"], rows)
    return found


def remote_costs(work: Path, url: str, remote: str, size: Size) -> dict[str, Found]:
    """An epoch over the server: copies of the first pass; without them, whole shards in windows; single samples."""
    found = {}
    kept = work / "cache-index-only"
    count(url)
    found["first start, index"] = _with_traffic(url, apart(remote, work / "cache-full"))
    shutil.copytree(work / "cache-full" / "index", kept / "index")
    for name, spec, cache in (
        ("window 16, copies there", remote, work / "cache-full"),
        ("window 16, no copy yet", remote, _fresh(work, kept)),
        ("window all, single samples", f"{remote}#window=all", _fresh(work, kept)),
    ):
        found[name] = _with_traffic(url, apart(spec, cache, how="bytes", limit=_limit(spec)))
    found["window 16, no copy yet, crops"] = _with_traffic(url, apart(remote, _fresh(work, kept), how="crops", stop=size.steps))
    rows = [
        [n, f"{f.get('per_second', f['n'] / f['open_s']):,.0f}", f"{f['bytes'] / 1e6:,.0f} MB", f"{f['requests']:,}", _memory(f)]
        for n, f in found.items()
    ]
    table("From the server, an epoch", ["", "images/s", "transferred", "requests", "memory"], rows)
    return found


def _memory(found: Found) -> str:
    return f"{found.get('peak', found['held']) / 1e6:.0f} MB"


def _with_traffic(url: str, found: Found) -> Found:
    return {**found, **count(url)}


def _limit(spec: str) -> str:
    """Of the cache: for single samples one that holds no shard."""
    return "100 KB" if spec.endswith("all") else "20 GB"


def _fresh(work: Path, kept: Path) -> Path:
    """A cache with indexes and without copies."""
    folder = Path(tempfile.mkdtemp(dir=work))
    shutil.copytree(kept / "index", folder / "index")
    return folder


def resume_costs(work: Path, url: str, remote: str, size: Size) -> dict[str, Found]:
    """The first batch in the middle of an epoch, by a process that has the index and no copy."""
    middle = size.shards * size.each // BATCH // 2
    count(url)
    found = {}
    for name, spec in (("window 16", remote), ("window all", f"{remote}#window=all")):
        cache = _fresh(work, work / "cache-index-only")
        found[name] = _with_traffic(url, apart(spec, cache, how="bytes", start=middle, stop=middle + 1, limit=_limit(spec)))
    rows = [[n, f"{f['open_s']:.2f} s", f"{f['first_s']:.2f} s", f"{f['bytes'] / 1e6:,.1f} MB"] for n, f in found.items()]
    table("Resumed in the middle", ["", "open", "first batch", "transferred"], rows)
    return found


def process_costs(work: Path, url: str, remote: str, size: Size) -> list[dict[str, object]]:
    """An epoch by each of P processes, each with a cache of its own, as on P machines."""
    data = sum(p.stat().st_size for p in (work / "shards").iterdir())
    found: list[dict[str, object]] = []
    for mode, spec in (("window 8", f"{remote}#window=8"), ("window all", f"{remote}#window=all")):
        for world in (1, 2, 4):
            sent = []
            for rank in range(world):
                cache = _fresh(work, work / "cache-index-only")
                count(url)
                apart(spec, cache, how="bytes", rank=rank, world=world, pace=0 if size is TINY else 500, limit=_limit(spec))
                sent.append(count(url)["bytes"])
            found.append({"mode": mode, "processes": world, "bytes": sent, "share": [round(s / data, 3) for s in sent]})
    rows = [[str(f["mode"]), str(f["processes"]), ", ".join(f"{s:.1%}" for s in f["share"])] for f in found]  # type: ignore[attr-defined]
    table(f"Fetched in an epoch by each process at 500 images/s, of {data / 1e6:,.0f} MB", ["", "processes", "share of the data"], rows)
    return found


def shuffle_quality(size: Size) -> list[dict[str, object]]:
    """How well each order mixes shards that are sorted by class; beside ours, shuffled shards through a buffer of samples."""
    import torch

    from byol import rng
    from byol.data.windows import Windows

    shards, each = size.drawn
    n, batch = shards * each, 256 if each > 256 else 32
    starts = np.arange(shards + 1) * each
    orders = {"full permutation (local)": lambda epoch: rng.permuted(0, epoch, n, torch.arange(n)).numpy()}
    for window in (4, 8, 16, 32, 64):
        windows = Windows(starts, window)
        orders[f"window of {window} shards"] = lambda epoch, w=windows: w.ids(0, epoch, torch.arange(n), batch).numpy()
    for buffer in (each, 10 * each):
        orders[f"shards in turn, buffer of {buffer:,}"] = lambda epoch, b=buffer: buffered(shards, each, b, epoch)
    orders["shards in turn, no buffer"] = lambda epoch: buffered(shards, each, 1, epoch)
    found = [{"order": name, **quality(order, shards, each, batch)} for name, order in orders.items()]
    rows = [[str(f["order"]), *(f"{f[k]:.4f}" for k in ("same_shard", "entropy", "position", "within"))] for f in found]
    head = ["", "same shard", "class entropy", "rank corr.", "within shard"]
    table(f"Shuffle: {shards} shards of {each:,}, sorted by class (100), batches of {batch}", head, rows)
    return found


def buffered(shards: int, each: int, buffer: int, epoch: int) -> np.ndarray:
    """Shuffled shards one after the other through a buffer from which a random sample is taken, as stream readers do."""
    draws = np.random.default_rng(epoch)
    stream = (draws.permutation(shards)[:, None] * each + np.arange(each)).reshape(-1)
    held, out = list(stream[:buffer]), []
    for sample in stream[buffer:]:
        at = int(draws.integers(len(held)))
        out.append(held[at])
        held[at] = sample
    draws.shuffle(held)
    return np.array([*out, *held])


def quality(order: object, shards: int, each: int, batch: int) -> dict[str, float]:
    """Means over three epochs.

    same_shard: the share of pairs in a batch that come from one shard. entropy: of the classes in a batch, of its maximum. position:
    |rank correlation| of place in the epoch and place in the data; within: the same inside each shard.
    """
    n, found = shards * each, []
    for epoch in range(3):
        ids = order(epoch)  # type: ignore[operator]
        whole = ids[: n // batch * batch].reshape(-1, batch)
        place = np.empty(n)
        place[ids] = np.arange(n)
        inside = [abs(np.corrcoef(place[k * each : (k + 1) * each].argsort().argsort(), np.arange(each))[0, 1]) for k in range(shards)]
        found.append(
            (
                np.mean([_pairs(b // each, shards) for b in whole]),
                np.mean([_entropy(b * 100 // n) for b in whole]),
                abs(np.corrcoef(place, np.arange(n))[0, 1]),
                np.mean(inside),
            )
        )
    return dict(zip(("same_shard", "entropy", "position", "within"), np.mean(found, 0).tolist(), strict=True))


def _pairs(shard: np.ndarray, shards: int) -> float:
    counts = np.bincount(shard, minlength=shards)
    return float((counts * (counts - 1)).sum() / (len(shard) * (len(shard) - 1)))


def _entropy(classes: np.ndarray) -> float:
    p = np.bincount(classes) / len(classes)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum() / math.log(min(100, len(classes))))


if __name__ == "__main__":
    main()
