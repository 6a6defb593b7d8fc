"""What the device makes of BYOL: its limits, and how much of them the networks, the views and the input reach. No network needed.

    python benchmarks/gpu.py                       # on a GPU, about 5 minutes
    python benchmarks/gpu.py --compile             # networks compiled
    python benchmarks/gpu.py --tiny                # anywhere, toy sizes, to see that it works

For ResNet-18 at 32 px and ResNet-50 at 224 px, at the largest batch that fits: images/s with ready views, with images in device memory,
and through the host stage; model FLOP/s as a share of the matrix rate measured here; memory; the share of time in which the device idles.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from measure import finish, table
from step import session_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from views import INPUT, encoded, photos

from byol import views
from byol.allocator import keep_freed_memory
from byol.encoders import Input
from byol.feeds import HostFeed, MemoryFeed
from byol.run import find_device
from byol.training import Feed, Loop, autocast

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument("--compile", action="store_true", help="compile the networks")
    parser.add_argument("--batch", type=int, help="this batch for both networks, and not the largest that fits")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--workers", type=int, default=16, help="processes of the host stage")
    asked = parser.parse_args()
    if asked.tiny:
        asked.seconds, asked.workers = 0.2, 1
    keep_freed_memory()
    device = find_device("auto")
    limits = limits_of(device, asked)
    cases = [("small-w16", 32, 16), ("small-w16", 64, 4)] if asked.tiny else [("resnet18", 32, 8192), ("resnet50", 224, 1024)]
    result: dict[str, object] = {"device": device, "limits": limits, "compiled": asked.compile}
    for name, size, most in cases:
        result[f"{name}_{size}"] = network(name, size, asked.batch or largest(name, size, most, device), device, limits, asked)
    result["device_stage"] = device_stage(device, limits, asked)
    result["decode"] = decode_on_device(device, asked)
    finish("gpu", result)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rate(work: Callable[[], object], device: str, seconds: float, warm: int = 2) -> float:
    """Calls a second."""
    for _ in range(warm):
        work()
    wait(device)
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or calls < 3:
        work()
        calls += 1
        if calls % 8 == 0:
            wait(device)
    wait(device)
    return calls / (time.perf_counter() - began)


def limits_of(device: str, asked: argparse.Namespace) -> Figures:
    """The matrix rate in bf16 and the copy bandwidth, as torch reaches them."""
    n, floats = (8192, 1 << 28) if device == "cuda" else (512, 1 << 22)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(floats, device=device)
    y = torch.empty_like(x)
    found = {
        "matrix_tflops": 2e-12 * n**3 * rate(lambda: a @ b, device, asked.seconds / 2),
        "copy_gb_per_s": 8e-9 * floats * rate(lambda: y.copy_(x), device, asked.seconds / 2),
    }
    rows = [
        ("bf16 matrix product, TFLOP/s", f"{found['matrix_tflops']:,.2f}"),
        ("copy, GB/s read and written", f"{found['copy_gb_per_s']:,.0f}"),
    ]
    table(f"Limits of {device}", ("", ""), rows)
    return found


def largest(name: str, size: int, most: int, device: str) -> int:
    """The largest power of two, up to `most`, whose update fits into the device's memory."""
    if device != "cuda":
        return min(most, 16)
    batch = most
    while batch > 2 and not fits(name, size, batch, device):
        batch //= 2
        gc.collect()
        torch.cuda.empty_cache()
    return batch


def fits(name: str, size: int, batch: int, device: str) -> bool:
    """Whether one update fits beside what the views need when they are made on the device: some ten times their own size."""
    try:
        spare = torch.empty(12, batch, 3, size, size, device=device)
        update, _ = updates(name, size, batch, device, compiled=False)
        update(ready(size, batch, device))
        wait(device)
        return spare.numel() > 0
    except torch.OutOfMemoryError:
        return False


def ready(size: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, 3, size, size, generator=generator).to(device) for _ in range(2))  # type: ignore[return-value]


def updates(
    name: str, size: int, batch: int, device: str, *, compiled: bool
) -> tuple[Callable[[tuple[Tensor, ...]], None], torch.nn.Module]:
    """The update of `byol.training` as a function of the views, and the method."""
    from dataclasses import replace

    session = session_of(name, size, min(batch, 16), "bf16")
    settings = replace(session.plan.settings, batch_size=batch, compile=compiled, device=device)
    session.plan = replace(session.plan, settings=settings)
    method = session.method()
    loop = Loop(Path(tempfile.mkdtemp()), session.plan, method, session.optimizer(method), None, 0)
    step = iter(range(1, 10**9))
    return lambda seen: loop.update(next(step), iter([(seen, {})])), method


def network(name: str, size: int, batch: int, device: str, limits: Figures, asked: argparse.Namespace) -> Figures:
    """One network: how fast it learns from views that are ready, in device memory, and in files."""
    update, method = updates(name, size, batch, device, compiled=asked.compile)
    seen = ready(size, batch, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found: Figures = {"batch": batch, "gflop_per_image": flops(name, size, device) / 1e9}
    alone = batch * rate(lambda: update(seen), device, asked.seconds)
    found["images_per_s"] = alone
    found["share_of_matrix_rate"] = alone * found["gflop_per_image"] * 1e-3 / limits["matrix_tflops"]
    if device == "cuda":
        found["idle_share"] = idle(lambda: update(seen))
    images = np.random.default_rng(0).integers(0, 256, (4 * batch, 3, *(2 * [size if size < 64 else size + 32])), dtype=np.uint8)
    plan, given = views.load("small" if size <= 64 else "paper", size=size), Input(channels=3, size=size, mean=INPUT.mean, std=INPUT.std)
    memory = MemoryFeed(images, plan, given, batch=batch, seed=0, device=device)
    found["images_per_s_from_memory"] = fed(update, memory, batch, device, asked.seconds)
    with tempfile.TemporaryDirectory() as folder:
        source = photos(Path(folder), max(batch, 8 if asked.tiny else 256))
        host = HostFeed(source, plan, given, batch=batch, seed=0, device=device, workers=asked.workers)
        found["images_per_s_from_files"] = fed(update, host, batch, device, 2 * asked.seconds)
    if device == "cuda":
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    del method
    rows = [(k.replace("_", " "), f"{v:,.3f}" if v < 10 else f"{v:,.0f}") for k, v in found.items()]
    table(f"{name}, {size} px, batch {batch}, bf16", ("", ""), rows)
    return found


def flops(name: str, size: int, device: str) -> float:
    """Floating-point operations of all passes of one update, per image; optimiser, target and views are not counted."""
    update, method = updates(name, size, 2, device, compiled=False)
    del update
    with FlopCounterMode(display=False) as counter, autocast(device, "bf16"):
        method(ready(size, 2, device)).loss.backward()
    return counter.get_total_flops() / 2


def fed(update: Callable[[tuple[Tensor, ...]], None], feed: Feed, batch: int, device: str, seconds: float) -> float:
    """Images a second with a feed, after two batches."""
    batches: Iterator[tuple[Tensor, ...]] = (views for views, _ in feed(0, 10**6))
    for _ in range(2):
        update(next(batches))
    wait(device)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or count < 3:
        update(next(batches))
        count += 1
    wait(device)
    return batch * count / (time.perf_counter() - began)


def idle(work: Callable[[], object], steps: int = 5) -> float:
    """The share of wall time in which no kernel of the GPU runs."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        work()
    torch.cuda.synchronize()
    wall = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(steps):
            work()
        torch.cuda.synchronize()
    # One stream: kernels follow each other, so their times add up.
    busy = 1e-6 * sum(event.self_device_time_total for event in trace.key_averages())
    return max(0.0, 1 - busy / wall)


def device_stage(device: str, limits: Figures, asked: argparse.Namespace) -> Figures:
    """Everything after the crops at 224 px, alone; the floor reads the 8-bit crops once and writes the float32 views once."""
    batch = 256 if device == "cuda" else 4
    plan, ids = views.load("paper", size=224), torch.arange(batch)
    crops = torch.randint(0, 256, (2, batch, 3, 224, 224), dtype=torch.uint8, device=device)
    pairs = batch * rate(lambda: plan.device(crops, ids, 0, 0, INPUT), device, asked.seconds)
    floor = limits["copy_gb_per_s"] * 1e9 / (2 * 3 * 224 * 224 * (1 + 4))
    found = {"pairs_per_s": pairs, "share_of_copy_floor": pairs / floor}
    table("Device stage alone, 224 px, the paper's views", ("", ""), [(k.replace("_", " "), f"{v:,.3g}") for k, v in found.items()])
    return found


def decode_on_device(device: str, asked: argparse.Namespace) -> Figures:
    """JPEG of 500x375 to pixels by torchvision, where it offers that on this device; beside Pillow's on one core."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        blobs = encoded(photos(Path(folder), 4 if asked.tiny else 64))
    found = {"pillow_one_core": len(blobs) * rate(lambda: [np.asarray(Image.open(io.BytesIO(b))) for b in blobs], "cpu", asked.seconds / 2)}
    if device == "cuda":
        with warnings.catch_warnings(), contextlib.suppress(ImportError, RuntimeError):
            warnings.simplefilter("ignore")  # torchvision gives its decoders up in later versions, and says so
            from torchvision.io import decode_jpeg

            tensors = [torch.frombuffer(bytearray(b), dtype=torch.uint8) for b in blobs]
            found["torchvision_on_device"] = len(blobs) * rate(lambda: decode_jpeg(tensors, device=device), device, asked.seconds / 2)
    table("Decoding, images/s", ("", ""), [(k.replace("_", " "), f"{v:,.0f}") for k, v in found.items()])
    return found


if __name__ == "__main__":
    main()
