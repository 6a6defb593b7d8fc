"""Views: from JPEG files to what the networks see, on a CPU, beside lightly's `BYOLTransform` and the cost of decoding alone.

    uv run --group bench python benchmarks/views.py            # about 3 minutes; --tiny: seconds, to see that it works

Photos of 500x375 pixels are cut from the two that scikit-learn carries. Every contender works on the same ones, in turns, on one core
unless the table says otherwise; figures are medians over the rounds, and of one core in seconds of processor time.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import Job, cores, finish, peer, side_by_side, table
from PIL import Image

from byol import views
from byol.allocator import keep_freed_memory
from byol.data import HostBatches, Source, open_source, read_image
from byol.encoders import Input
from byol.feeds import HostFeed, MemoryFeed
from byol.views import draws
from byol.views.blur import blur, reaches

INPUT = Input(channels=3, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="few images, one round: to see that it works")
    asked = parser.parse_args()
    keep_freed_memory()  # as in a run
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores, to see what they cost
    count, rounds = (4, 1) if asked.tiny else (32, 9)
    result: dict[str, object] = {"images": count, "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        source = photos(Path(folder), count)
        with cores(1):
            result["224_px"] = at_224(source, rounds)
            result["blur_224_px_ms"] = blurs(rounds)
            result["32_px"] = at_32(8 if asked.tiny else 256, rounds)
        large = photos(Path(folder) / "large", max(2, count // 8), scale=5)
        with cores(1):
            result["large_photos"] = large_photos(large, rounds)
        result["feed"] = feeding(source, 1 if asked.tiny else 3)
    finish("views", result)


def photos(folder: Path, count: int, *, scale: int = 1) -> Source:
    """Windows of 500x375 pixels of two real photos, saved as JPEG of quality 92, about 3.4 bits a pixel."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        photo = load_sample_images().images[number % 2]
        top, left = rng.integers(0, photo.shape[0] - 375 + 1), rng.integers(0, photo.shape[1] - 500 + 1)
        window = Image.fromarray(photo[top : top + 375, left : left + 500])
        window.resize((500 * scale, 375 * scale), Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg", quality=92)
    return open_source(folder)


def encoded(source: Source) -> list[bytes]:
    return [Path(source.spec, name).read_bytes() for name in source.names]


def rates(jobs: dict[str, Job], images: int, rounds: int) -> Figures:
    """Images per second of each job, in time of the processor: all of them keep one core busy, and others may want it too."""
    return {name: images / t.median for name, t in side_by_side(jobs, rounds=rounds, clock=time.process_time).items()}


def show(title: str, unit: str, figures: Figures, beside: str | None) -> None:
    """The table of one comparison: figures, and their ratio to one of them."""
    base = figures.get(beside) if beside else None
    rows = [(name, f"{value:,.0f}", f"{value / base:.2f}" if base else "") for name, value in figures.items()]
    table(title, ("", unit, f"x {beside.split(',')[0]}" if base and beside else ""), rows)


LIGHTLY = "lightly BYOLTransform, all of it"


def at_224(source: Source, rounds: int) -> Figures:
    """JPEG files to two views of 224 px: decoding alone, the host stage, everything."""
    blobs, n = encoded(source), len(source)
    host = HostBatches(source, views.load("torchvision", size=224), n=n, batch=n, seed=0)
    ids, crops, *_ = host[0]
    jobs: dict[str, Job] = decoders(blobs)
    if peer("lightly"):
        transform = lightly_transform(224)
        jobs[LIGHTLY] = lambda: [transform(Image.open(io.BytesIO(b)).convert("RGB")) for b in blobs]
    floats = torch.empty(crops.shape)
    jobs["floor of the device stage: 8-bit crops read and float views written, once"] = lambda: floats.copy_(crops)
    jobs["byol, decode only"] = lambda: [read_image(b) for b in blobs]
    jobs["byol, host stage"] = lambda: host[0]
    for by, plan in plans("torchvision", 224):
        jobs[f"byol{by}, device stage"] = lambda plan=plan: plan.device(crops, ids, 0, 0, INPUT)
        jobs[f"byol{by}, both stages"] = lambda plan=plan: plan.device(host[0].crops, ids, 0, 0, INPUT)
    figures = rates(jobs, n, rounds)
    show("JPEG of 500x375 to two views of 224 px, one core", "images/s", figures, LIGHTLY)
    return figures


def plans(name: str, size: int) -> list[tuple[str, views.ViewPlan]]:
    """The plan as torch makes its views, and as numba does where it is installed."""
    ways = {"": False} | ({", numba": True} if peer("numba") else {})
    return [(by, views.load(name, size=size, compiled=compiled)) for by, compiled in ways.items()]


def decoders(blobs: list[bytes]) -> dict[str, Job]:
    """What decoding costs at least, and with two plain resizes."""
    jobs: dict[str, Job] = {}
    if peer("simplejpeg"):
        import simplejpeg

        jobs["decode alone, simplejpeg"] = lambda: [simplejpeg.decode_jpeg(b) for b in blobs]
        if peer("cv2"):
            import cv2

            def resized(blob: bytes) -> list[object]:
                image = simplejpeg.decode_jpeg(blob)
                return [cv2.resize(image[40:340, 50:450], (224, 224)) for _ in range(2)]

            jobs["decode + two bilinear resizes, simplejpeg, OpenCV"] = lambda: [resized(b) for b in blobs]
    return jobs


def lightly_transform(size: int, blur: bool = True) -> Callable[[Image.Image], list[torch.Tensor]]:
    """Both views of lightly, with the distributions of the plan `torchvision`."""
    from lightly.transforms import BYOLTransform
    from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform

    first, second = (1.0, 0.1) if blur else (0.0, 0.0)
    return BYOLTransform(
        BYOLView1Transform(input_size=size, gaussian_blur=first), BYOLView2Transform(input_size=size, gaussian_blur=second)
    )


def large_photos(source: Source, rounds: int) -> Figures:
    """Photos of 2500x1875 pixels, where decoding is nearly all."""
    blobs, n = encoded(source), len(source)
    host = HostBatches(source, views.load("torchvision", size=224), n=n, batch=n, seed=0)
    jobs: dict[str, Job] = {k: v for k, v in decoders(blobs).items() if "alone" in k}
    if peer("lightly"):
        transform = lightly_transform(224)
        jobs[LIGHTLY] = lambda: [transform(Image.open(io.BytesIO(b)).convert("RGB")) for b in blobs]
    jobs["byol, host stage"] = lambda: host[0]
    figures = rates(jobs, n, rounds)
    show("JPEG of 2500x1875 to two crops of 224 px, one core", "images/s", figures, LIGHTLY)
    return figures


def blurs(rounds: int) -> Figures:
    """Milliseconds to blur one view of 224 px with 23 taps: sigmas drawn as in T, for every sample its own."""
    x, ids = torch.rand(16, 3, 224, 224), torch.arange(16)
    u = draws.for_device(0, 0, 0, ids, None)[:, draws.SIGMA]
    weights = kernels(0.1 + 1.9 * u[:, 0])

    def depthwise() -> torch.Tensor:
        y = torch.nn.functional.pad(x, (11, 11, 11, 11), mode="reflect").reshape(1, 48, 246, 246)
        y = torch.nn.functional.conv2d(y, weights[:, None, None, :], groups=48)
        return torch.nn.functional.conv2d(y, weights[:, None, :, None], groups=48)

    reach = reaches(u[:, 0].numpy(), (0.1, 2.0), 23).tolist()

    def near() -> list[torch.Tensor]:
        return [blur(x[i : i + 1], u[i : i + 1], sigma=(0.1, 2.0), taps=23, border="reflect", reach=r) for i, r in enumerate(reach)]

    jobs: dict[str, Job] = {
        "two depthwise convolutions": depthwise,
        "byol, all 23 taps": lambda: blur(x, u, sigma=(0.1, 2.0), taps=23, border="reflect"),
        "byol, as far as each sample's sigma reaches": near,
    }
    if peer("cv2"):
        import cv2

        bytes_ = (x.permute(0, 2, 3, 1) * 255).byte().numpy()
        jobs["OpenCV, 8 bit"] = lambda: [cv2.GaussianBlur(i, (23, 23), 0.1 + 1.9 * float(s)) for i, s in zip(bytes_, u[:, 0], strict=True)]
    figures = {name: 1000 * t.median / 16 for name, t in side_by_side(jobs, rounds=rounds, clock=time.process_time).items()}
    table("Blur of one view of 224 px, 23 taps, one core", ("", "ms"), [(k, f"{v:.2f}") for k, v in figures.items()])
    return figures


def kernels(sigma: torch.Tensor) -> torch.Tensor:
    """(B,) widths -> (3 B, 23) weights, one for each channel."""
    w = torch.exp(-torch.arange(-11, 12).square() / (2 * sigma[:, None].square()))
    return (w / w.sum(1, keepdim=True)).repeat_interleave(3, 0)


def at_32(count: int, rounds: int) -> Figures:
    """Images of 32 px in memory to pairs of views."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    pictures = [Image.fromarray(i) for i in images]
    jobs: dict[str, Job] = {}
    if peer("lightly"):
        transform, plain = lightly_transform(32), lightly_transform(32, blur=False)
        jobs["lightly BYOLTransform"] = lambda: [transform(p) for p in pictures]
        jobs["lightly BYOLTransform, no blur"] = lambda: [plain(p) for p in pictures]
    for name, note in (("torchvision", ""), ("small", ", no blur")):
        for by, plan in plans(name, 32):
            feed = MemoryFeed(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), plan, INPUT, batch=count, seed=0, device="cpu")
            jobs[f"byol{by}{note}"] = lambda feed=feed: next(feed(0, 1))
    figures = rates(jobs, count, rounds)
    show("Images of 32 px in memory to two views, one core", "pairs/s", figures, "lightly BYOLTransform")
    return figures


def feeding(source: Source, rounds: int) -> Figures:
    """Everything as a run does it: pairs of views of 224 px a second, from the first batch on, by number of worker processes."""
    steps, figures = 3 if rounds == 1 else 25, {}
    for count in (1, 2):
        found: dict[str, list[float]] = {}
        with cores(count):
            for _ in range(rounds):
                for workers in (0, 1, 2):
                    name = f"{count} core{'s' * (count > 1)}, " + (
                        f"{workers} worker process{'es' * (workers > 1)}" if workers else "no workers"
                    )
                    found.setdefault(name, []).append(steady(source, steps, workers))
        figures |= {name: statistics.median(values) for name, values in found.items()}
    show("The whole feed, once its workers have started", "images/s", figures, "1 core, 0 worker processes")
    return figures


def steady(source: Source, steps: int, workers: int) -> float:
    """Images a second of a feed, without what it takes to start."""
    plan = views.load("torchvision", size=224, compiled=False)
    feed = HostFeed(source, plan, INPUT, batch=len(source), seed=0, device="cpu", workers=workers)
    batches = feed(0, steps)
    next(batches)
    began = time.perf_counter()
    return sum(len(views[0]) for views, _ in batches) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
