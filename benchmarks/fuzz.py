"""Every reader of files, given bytes that nobody wrote: does it give a result or one sentence, in bounded time and memory?

    uv run --with atheris python benchmarks/fuzz.py --seconds 900          # all readers in turn, guided by coverage
    uv run --with atheris python benchmarks/fuzz.py --reader zip --seconds 60
    python benchmarks/fuzz.py --tiny                                       # some mutations of every seed, no atheris, some seconds

An input is passed when the reader returns, or raises Unreadable or ValueError with one sentence. Anything else is a finding: another
exception, more than 10 s, more than 3 GB. Each reader is a process of its own; findings are kept in --work with their input.
Without atheris the mutations are drawn blindly. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEGABYTES = 10, 3072  # that one input may take
LONGEST = 1 << 16  # bytes of an input
TINY = 30  # mutations

Run = Callable[[bytes], object]


@dataclass(frozen=True)
class Reader:
    """One way into the library: what to start from, and what to do with an input."""

    seeds: Callable[[], list[bytes]]
    make: Callable[[Path], Run]  # the folder that it may write to -> the function that reads an input


def picture(form: str, size: tuple[int, int] = (13, 9), mode: str = "RGB", **options: object) -> bytes:
    """A small encoded image."""
    from PIL import Image

    noise = Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))
    out = io.BytesIO()
    noise.convert(mode).save(out, form, **options)
    return out.getvalue()


def exif() -> bytes:
    from PIL import Image

    block = Image.Exif()
    block[0x0112] = 6
    return block.tobytes()


def images(form: str) -> Callable[[], list[bytes]]:
    """Some images of a format: modes, layouts, metadata."""
    modes = {
        "JPEG": [("RGB", {"exif": exif()}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True, "icc_profile": b"x" * 200})],
        "PNG": [("RGB", {}), ("L", {}), ("P", {"transparency": 3}), ("RGBA", {}), ("I;16", {}), ("1", {}), ("LA", {"exif": exif()})],
        "WEBP": [("RGB", {"lossless": True}), ("RGBA", {"exif": exif()})],
        "TIFF": [
            ("RGB", {}),
            ("F", {}),
            ("I;16", {"compression": "tiff_lzw"}),
            ("1", {"compression": "group4"}),
            ("CMYK", {"compression": "jpeg"}),
        ],
        "GIF": [("P", {}), ("L", {"transparency": 1})],
        "BMP": [("RGB", {}), ("1", {}), ("P", {})],
    }
    return lambda: [picture(form, mode=mode, **options) for mode, options in modes[form]]


def decoding(work: Path) -> Run:
    from byol.data.decode import decode
    from byol.data.header import inspect
    from byol.data.source import Unreadable

    def run(data: bytes) -> None:
        with contextlib.suppress(Unreadable):
            inspect(io.BytesIO(data), len(data), "a.jpg")
        decode(data, shrink=4 if len(data) % 2 else 1)

    return run


def quick_headers(work: Path) -> Run:
    from byol.data.quick import plain

    def run(data: bytes) -> None:
        for form in ("JPEG", "PNG"):
            found = plain(form, data)
            assert found is None or (0 < found.height < 2**31 and 0 < found.width < 2**31)

    return run


def opened(name: str) -> Callable[[Path], Run]:
    """As DATA of that name: opened, and every sample read."""

    def make(work: Path) -> Run:
        from byol.data import Unreadable, open_source

        for k in range(3):
            (work / f"{k}.png").write_bytes(picture("PNG"))
        path = work / name

        def run(data: bytes) -> None:
            path.write_bytes(data)
            source = open_source(path)
            source.fingerprint()
            for i in range(min(len(source), 8)):
                with contextlib.suppress(Unreadable):
                    source.read(i)

        return run

    return make


def zips() -> list[bytes]:
    def one(compression: int, extra: bytes = b"") -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as archive:
            archive.writestr("a/0.png", picture("PNG"))
            archive.writestr("b/1.jpg", picture("JPEG"))
            archive.writestr("notes.txt", "no image")
        return out.getvalue() + extra

    return [one(zipfile.ZIP_STORED), one(zipfile.ZIP_DEFLATED), one(zipfile.ZIP_BZIP2), one(zipfile.ZIP_LZMA, b"tail")]


def tars(mode: str) -> Callable[[], list[bytes]]:
    def one(form: int, long: str) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
            for name, data in ((f"a/{long}.png", picture("PNG")), ("b/1.bmp", picture("BMP"))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "../../etc"
            archive.addfile(link)
        return out.getvalue()

    return lambda: [one(tarfile.USTAR_FORMAT, "0"), one(tarfile.GNU_FORMAT, "n" * 150), one(tarfile.PAX_FORMAT, "ü" * 100)]


def parquets() -> list[bytes]:
    import pyarrow
    import pyarrow.parquet

    found = []
    for label in (["cat", "dog", None], [3, 7, None], [1.5, float("nan"), 2.0]):
        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"path": ["0.png", "1.png", "2.png"], "label": label}), out)
        found.append(out.getvalue())
    return found


def arrays(zipped: bool) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        import numpy as np

        found = []
        for x in (np.zeros((3, 4, 5), np.uint8), np.ones((2, 4, 4, 3), np.float32), np.asfortranarray(np.arange(24).reshape(2, 3, 4))):
            out = io.BytesIO()
            np.savez(out, x=x, y=np.arange(len(x)), classes=np.array(["a", "b", "c"])) if zipped else np.save(out, x)
            found.append(out.getvalue())
        return found

    return make


def lists(csv: bool) -> Callable[[], list[bytes]]:
    texts = (
        ["path,label\n0.png,cat\n1.png,dog\n", '"0.png";"a;b"\n1.png;c\n', "0.png\tx\n"]
        if csv
        else ["0.png cat\n1.png dog\n# no\n", "0.png\n"]
    )
    return lambda: [text.encode() for text in texts] + ["\ufeff2.png, ä\n".encode()]


def tiny_encoder() -> object:
    from byol import encoders

    seen = encoders.Input(channels=1, size=8, mean=(0.5,), std=(0.5,))
    return encoders.load("small-w1-n2", input=seen)


def encoder_file(part: str) -> tuple[Callable[[], list[bytes]], Callable[[Path], Run]]:
    """The weights, or the JSON beside them; the checksum is made to fit, or every change would end there."""

    def files() -> tuple[bytes, bytes]:
        from byol.encoders import save_weights

        with tempfile.TemporaryDirectory() as folder:
            save_weights(tiny_encoder(), Path(folder) / "e.safetensors", extra={})  # type: ignore[arg-type]
            return (Path(folder) / "e.safetensors").read_bytes(), (Path(folder) / "e.json").read_bytes()

    def make(work: Path) -> Run:
        import timm  # noqa: F401  # takes seconds, which are not the input's

        from byol.encoders import load_weights

        weights, about = files()

        def run(data: bytes) -> object:
            stored, facts = (data, about) if part == "weights" else (weights, data)
            (work / "e.safetensors").write_bytes(stored)
            if part == "weights":
                facts = json.dumps(json.loads(about) | {"sha256": hashlib.sha256(stored).hexdigest()}).encode()
            (work / "e.json").write_bytes(facts)
            return load_weights(work / "e.safetensors")

        return run

    return (lambda: [files()[0 if part == "weights" else 1]]), make


def checkpoint_method() -> tuple[object, object]:
    import torch

    from byol import methods

    cls = methods.load("byol")
    method = cls(tiny_encoder(), cls.Config(hidden=4, dim=2))  # type: ignore[attr-defined]
    return method, torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)


def checkpoints() -> list[bytes]:
    from byol import checkpoint

    method, optimizer = checkpoint_method()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "last.safetensors", step=3, method=method, optimizer=optimizer)  # type: ignore[arg-type]
        return [(Path(folder) / "last.safetensors").read_bytes()]


def restoring(work: Path) -> Run:
    from byol import checkpoint

    method, optimizer = checkpoint_method()

    def run(data: bytes) -> object:
        (work / "last.safetensors").write_bytes(data)
        return checkpoint.restore(work / "last.safetensors", method=method, optimizer=optimizer)  # type: ignore[arg-type]

    return run


RUN_FILES = ("plan.json", "config.json", "data.json", "encoder.json", "metrics.jsonl", "evaluations/knn.json")


def whole_run(folder: Path) -> None:
    """A run as training, evaluation and export leave it, without the training."""
    import numpy as np

    from byol import exporting
    from byol import run as runs
    from byol.config import Request
    from byol.evaluation import Evaluation
    from byol.evaluation.result import Score

    np.savez(folder / "x.npz", x=np.random.default_rng(0).integers(0, 255, (8, 8, 8), np.uint8), y=np.arange(8) % 2)
    request = Request(
        data=str(folder / "x.npz"), encoder="small-w1-n2", epochs=2, image_size=8, batch_size=4, precision="fp32", device="cpu", workers=0
    )
    session = runs.prepare(request)
    runs.create(session, folder / "run")
    exporting.save_encoder(runs.encoder_of(session.method()), folder / "run" / "encoder.safetensors", extra={})
    record = {"step": 1, "epoch": 0.5, "loss": 1.5, "lr": 0.1, "spread": 0.9, "rank": 3.0, "suspects": 0, "verdict": "OK", "reason": ""}
    (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(record | {"step": s}) + "\n" for s in (1, 2, 4)))
    scores = [
        Score(name=n, labels=1.0, n_labels=6, top1=t, top5=None, interval=(t, t), draws=[t], dim=4)
        for n, t in (("pixels", 0.5), ("r", 0.7))
    ]
    result = Evaluation(protocol="knn", description="knn", settings={"k": 5}, train=6, test=2, classes=2, split="", scores=scores)
    (folder / "run" / "evaluations").mkdir()
    runs.write_json(folder / "run" / "evaluations" / "knn.json", result.to_json())


def run_files() -> list[bytes]:
    """The first byte says which file of the run the rest is."""
    with tempfile.TemporaryDirectory() as folder:
        whole_run(Path(folder))
        return [bytes([i]) + (Path(folder) / "run" / name).read_bytes() for i, name in enumerate(RUN_FILES)]


def run_folder(work: Path) -> Run:
    from byol import reporting, training
    from byol import run as runs
    from byol.evaluation import Evaluation
    from byol.reporting import run as read

    whole_run(work)
    whole = {name: (work / "run" / name).read_bytes() for name in RUN_FILES}
    parts = (reporting.facts, reporting.plan, reporting.data, reporting.repeat, reporting.worth, reporting.timeline, reporting.headline)

    def run(data: bytes) -> None:
        name = RUN_FILES[data[0] % len(RUN_FILES)] if data else RUN_FILES[0]
        path = work / "run" / name
        path.write_bytes(data[1:])
        try:
            if name == "metrics.jsonl":
                training.trim_log(path, 100)
            if name == "evaluations/knn.json":
                with allowed():
                    Evaluation.from_json(runs.read_json(path))
            with allowed():
                runs.reopen(work / "run")
            found = read.read(work / "run")
            for part in parts:
                part(found)
            reporting.curves([found])
            reporting.comparison([found, found])
            reporting.side_by_side([found, found])
            reporting.differences([found, found])
        finally:
            path.write_bytes(whole[name])

    return run


def indexes() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [b"j" + kept["about"].tobytes() for kept in [_index_arrays(Path(folder))]] + [b"k" + bytes(range(40)), b"w" + bytes(8)]


def _index_arrays(work: Path) -> dict[str, object]:
    import numpy as np

    from byol.data import index, open_source

    index.MANY = 2  # type: ignore[misc]
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    root = work / "photos"
    for k in range(4):
        (root / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (root / "ab"[k % 2] / f"{k}.png").write_bytes(picture("PNG") if k else b"no")
    for folder in (root, root / "a", root / "b"):
        os.utime(folder, (1e9, 1e9))
    open_source(root, fresh=True)
    with np.load(index.path_of(root)) as kept:
        return dict(kept)


def indexed(work: Path) -> Run:
    """An index of a folder: its JSON (j), one of its columns (w: the bytes of another), or the file itself."""
    import numpy as np

    from byol.data import index, open_source

    arrays = _index_arrays(work)
    path, names = index.path_of(work / "photos"), sorted(set(arrays) - {"about"})

    def run(data: bytes) -> object:
        if data[:1] == b"j":
            np.savez(path, **arrays | {"about": np.frombuffer(data[1:], np.uint8)})  # type: ignore[arg-type]
        elif data[:1] in b"wk" and len(data) > 2:
            name, dtype = names[data[1] % len(names)], np.dtype("<bBhHiIqQfdc?"[1 + data[2] % 11])
            whole = data[3 : 3 + (len(data) - 3) // dtype.itemsize * dtype.itemsize]
            np.savez(path, **arrays | {name: np.frombuffer(whole, dtype)})  # type: ignore[arg-type]
        else:
            path.write_bytes(data)
        return open_source(work / "photos")

    return run


READERS: dict[str, Reader] = {
    **{form.lower(): Reader(images(form), decoding) for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")},
    "header": Reader(lambda: [*images("JPEG")(), *images("PNG")()], quick_headers),
    "zip": Reader(zips, opened("x.zip")),
    "tar": Reader(tars("w:"), opened("x.tar")),
    "tar.gz": Reader(tars("w:gz"), opened("x.tar.gz")),
    "txt": Reader(lists(csv=False), opened("x.txt")),
    "csv": Reader(lists(csv=True), opened("x.csv")),
    "parquet": Reader(parquets, opened("x.parquet")),
    "npy": Reader(arrays(zipped=False), opened("x.npy")),
    "npz": Reader(arrays(zipped=True), opened("x.npz")),
    "encoder": Reader(*encoder_file("weights")),
    "encoder.json": Reader(*encoder_file("json")),
    "checkpoint": Reader(checkpoints, restoring),
    "run": Reader(run_files, run_folder),
    "index": Reader(indexes, indexed),
}


def sentence(error: BaseException) -> bool:
    """True for what a reader may raise: Unreadable or ValueError itself, with one short line."""
    from byol.data.source import Unreadable

    text = str(error)
    return type(error) in (ValueError, Unreadable) and 0 < len(text) <= 600 and "\n" not in text


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """One sentence ends the block and not what follows."""
    try:
        yield
    except Exception as error:
        if not sentence(error):
            raise


class Target:
    """What is called with every input: counts, and keeps what was found."""

    def __init__(self, run: Run, work: Path) -> None:
        self.run, self.work = run, work
        self.silent = io.StringIO()
        self.inputs = self.refused = 0
        self.slowest = 0.0
        self.found: dict[str, str] = {}

    def __call__(self, data: bytes) -> None:
        began = time.monotonic()
        self.inputs += 1
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(self.silent):
                warnings.simplefilter("ignore")
                self.run(data)
        except Exception as error:
            self.refused += 1
            if not sentence(error):
                self._keep(f"{type(error).__name__}: {str(error)[:100]}", traceback.format_exc(), data)
        seconds = time.monotonic() - began
        if seconds > self.slowest:
            self.slowest = seconds
        if seconds > SECONDS:
            self._keep("slow", f"{seconds:.1f} s", data)
        if self.inputs % 64 == 0:
            self.write()

    def _keep(self, what: str, how: str, data: bytes) -> None:
        frames = [line for line in how.splitlines() if "/byol/" in line]
        key = f"{what.split(':')[0]} {frames[-1].strip() if frames else ''}"
        if key not in self.found:
            self.found[key] = f"{what}\n{how}"
            name = hashlib.sha256(key.encode()).hexdigest()[:12]
            (self.work / f"finding-{name}").write_bytes(data)
            (self.work / f"finding-{name}.txt").write_text(f"{what}\n{how}")
            self.write()

    def write(self) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        state = {"inputs": self.inputs, "refused": self.refused, "slowest_s": round(self.slowest, 2), "peak_mb": round(peak)}
        (self.work / "state.json").write_text(json.dumps({**state, "findings": sorted(self.found)}))


def child(name: str, seconds: int, work: Path, blind: int) -> None:
    """Fuzz one reader in this process."""
    sandbox = work / "files"
    sandbox.mkdir(parents=True, exist_ok=True)
    reader = READERS[name]
    if blind:
        target = Target(reader.make(sandbox), work)
        for data in blindly(reader.seeds(), blind, time.monotonic() + seconds):
            target(data)
        target.write()
        return
    import atheris

    with atheris.instrument_imports(include=["byol.data", "byol.stored", "byol.reporting", "byol.encoders", "zipfile", "tarfile", "PIL"]):
        run = reader.make(sandbox)
    corpus = work / "corpus"
    corpus.mkdir(exist_ok=True)
    for i, seed in enumerate(reader.seeds()):
        (corpus / f"seed{i}").write_bytes(seed)
    target = Target(run, work)
    flags = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={work}/crash-", str(corpus)], target)
    atheris.Fuzz()


def blindly(seeds: list[bytes], count: int, until: float) -> Iterator[bytes]:
    """The seeds, and mutations of them: bytes changed, cut, doubled, and numbers at the edge of their range."""
    yield from seeds
    draw = random.Random(0)
    edges = [
        b"\0",
        b"\xff",
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\0" * 8,
        struct.pack("<q", -1),
        b"1e999",
        b"-1",
        b"[" * 3000,
        b"\n",
        b"\0\0\0\1",
    ]
    for _ in range(count):
        if time.monotonic() > until:
            return
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 2, 8))):
            at = draw.randrange(len(data) + 1)
            way = draw.randrange(5)
            if way == 0 and data:
                data[at % len(data)] ^= 1 << draw.randrange(8)
            elif way == 1:
                edge = draw.choice(edges)
                data[at : at + len(edge)] = edge
            elif way == 2:
                del data[at : at + draw.randrange(1, 40)]
            elif way == 3:
                data[at:at] = data[at : at + draw.randrange(1, 40)]
            else:
                del data[at:]
        yield bytes(data)


def fuzz(name: str, seconds: int, work: Path, blind: int) -> dict[str, object]:
    """One reader in a process of its own, begun again when an input ended it, until the time is over."""
    work.mkdir(parents=True, exist_ok=True)
    if blind == TINY:  # a process for each would take longer than the inputs
        child(name, seconds, work, blind)
        return {"reader": name, **json.loads((work / "state.json").read_text())}
    found: dict[str, object] = {"reader": name, "inputs": 0, "refused": 0, "slowest_s": 0.0, "peak_mb": 0}
    kinds: set[str] = set()
    until = time.monotonic() + seconds
    while (left := int(until - time.monotonic())) > 0:
        (work / "state.json").unlink(missing_ok=True)
        command = [sys.executable, __file__, "--child", name, "--seconds", str(left), "--work", str(work), "--blind", str(blind)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=left + 120, check=False)
        crashes = sorted(work.glob("crash-*"))
        kinds |= {f"ended by {c.name.split('-')[1]}" for c in crashes}
        if not (work / "state.json").exists():
            raise RuntimeError(f"{name} did not begin: {done.stderr[-2000:]}")
        state = json.loads((work / "state.json").read_text())
        for key in ("inputs", "refused"):
            found[key] = int(str(found[key])) + state[key]
        for key in ("slowest_s", "peak_mb"):
            found[key] = max(float(str(found[key])), state[key])
        kinds |= set(state["findings"])
        if blind or (done.returncode == 0 and not crashes):
            break
        for crash in crashes:
            crash.rename(work / f"kept-{crash.name}")
    return {**found, "findings": sorted(kinds)}


def has_atheris() -> bool:
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description="Every reader of files, given bytes that nobody wrote.")
    parser.add_argument("--seconds", type=int, default=900, help="for all readers together")
    parser.add_argument("--reader", choices=READERS, help="only this one")
    parser.add_argument("--tiny", action="store_true", help="30 blind mutations for each reader")
    parser.add_argument("--work", type=Path, help="where findings are kept (a new folder of /tmp)")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--blind", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.seconds, options.work, options.blind)
        return
    names = [options.reader] if options.reader else list(READERS)
    guided = has_atheris() and not options.tiny
    if not guided and not options.tiny:
        print("atheris is not installed, so the mutations are blind; `uv run --with atheris ...` brings it", file=sys.stderr)
    blind = 0 if guided else TINY if options.tiny else 10**9
    work = options.work or Path(tempfile.mkdtemp(prefix="byol-fuzz-"))
    rows = []
    print(f"{'reader':<13} {'inputs':>9} {'refused':>9} {'slowest':>8} {'peak MB':>8}  findings")
    for name in names:
        row = fuzz(name, max(5, options.seconds // len(names)), work / name, blind)
        rows.append(row)
        numbers = f"{row['inputs']:>9,} {row['refused']:>9,} {row['slowest_s']:>7.2f}s {row['peak_mb']:>8,.0f}"
        print(f"{name:<13} {numbers}  {'; '.join(row['findings']) or 'none'}", flush=True)  # type: ignore[arg-type]
    findings = sum(len(row["findings"]) for row in rows)  # type: ignore[arg-type]
    if not findings and options.work is None:
        shutil.rmtree(work)
    print(json.dumps({"benchmark": "fuzz", "guided": guided, "findings": findings, "readers": rows}), flush=True)


if __name__ == "__main__":
    main()
