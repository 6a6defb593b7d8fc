"""The compiled views beside the torch version, which says what they are: the same draws, the same values to 1e-5."""

import builtins
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import byol
from byol import run as runs
from byol import views
from byol.encoders import Input
from byol.views import named

needs_numba = pytest.mark.skipif(not views.has_numba(), reason="numba is not installed: pip install 'byol[numba]'")
RAW = {"atol": 1e-5, "rtol": 0}


def unscaled(channels, size, **changes):
    """An input whose normalisation changes nothing, so that differences are fractions of the value range."""
    return Input(channels=channels, size=size, mean=(0.0,) * channels, std=(1.0,) * channels, **changes)


def pair(name, size, channels=3, **changes):
    """The same plan for torch and for numba."""
    return tuple(views.load(name, size=size, channels=channels, compiled=c, **changes) for c in (False, True))


def images_of(batch, size, channels=3, width=None):
    """Noise, gradients, flat gray, black, and white in turns: colours, no colours, and both ends of the range."""
    g = torch.Generator().manual_seed(7)
    x = torch.randint(0, 256, (batch, channels, size, width or size), dtype=torch.uint8, generator=g)
    x[1::6] = torch.linspace(0, 255, x.shape[3]).to(torch.uint8)
    x[2::6] = 119
    x[3::6] = 0
    x[4::6] = 255
    x[5::6, 1:] = x[5::6, :1]
    return x


def assert_alike(torch_plan, numba_plan, x, input, epoch=0):
    ids = torch.arange(len(x)) + 1000
    ours, theirs = (p.memory(x, ids, 5, epoch, input) for p in (numba_plan, torch_plan))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **RAW)
    if x.shape[2:] == (torch_plan.size, torch_plan.size):
        crops = torch.stack([x, x.flip(0)])
        for one, other in zip(*(p.device(crops, ids, 5, epoch, input) for p in (numba_plan, torch_plan)), strict=True):
            torch.testing.assert_close(one, other, **RAW)


@needs_numba
@pytest.mark.parametrize("size", [8, 32, 33, 96])
@pytest.mark.parametrize("name", views.names())
def test_compiled_views_are_those_of_torch(name, size):
    torch_plan, numba_plan = pair(name, size)
    assert_alike(torch_plan, numba_plan, images_of(48, size), unscaled(3, size))


@needs_numba
@pytest.mark.parametrize("name", ["paper", "torchvision"])
def test_compiled_views_are_those_of_torch_at_224_pixels(name):
    torch_plan, numba_plan = pair(name, 224)
    assert_alike(torch_plan, numba_plan, images_of(12, 224), unscaled(3, 224))


@needs_numba
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", ["paper", "torchvision"])
def test_compiled_views_of_other_channels_are_those_of_torch(name, channels):
    torch_plan, numba_plan = pair(name, 40, channels)
    assert_alike(torch_plan, numba_plan, images_of(48, 40, channels), unscaled(channels, 40))


@needs_numba
@pytest.mark.parametrize("op", ["jitter", "gray", "blur", "solarize", "flip"])
@pytest.mark.parametrize(("name", "channels"), [("paper", 3), ("torchvision", 3), ("paper", 1), ("torchvision", 2)])
def test_every_op_alone_and_strong_is_that_of_torch(name, channels, op):
    off = {"flip": 0.0, "jitter": 0.0, "gray": 0.0, "blur": 0.0, "solarize": 0.0, "kernel": 11}
    strong = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
    torch_plan, numba_plan = pair(name, 24, channels, **(off | strong | {op: 1.0}))
    assert_alike(torch_plan, numba_plan, images_of(96, 24, channels), unscaled(channels, 24))


@needs_numba
@pytest.mark.parametrize(("height", "width", "size"), [(90, 50, 20), (16, 64, 24), (5, 7, 32), (300, 400, 48)])
def test_images_of_another_size_are_cut_as_torch_cuts_them(height, width, size):
    torch_plan, numba_plan = pair("torchvision", size, min_area=0.01, aspect=(0.3, 3.0))
    assert_alike(torch_plan, numba_plan, images_of(40, height, width=width), unscaled(3, size))


@needs_numba
@pytest.mark.parametrize("kind", ["raw floats", "bytes with their channels last", "16-bit integers", "one image many times"])
def test_images_of_other_types_and_layouts_give_the_views_of_torch(kind):
    torch_plan, numba_plan = pair("paper", 32)
    x, input = images_of(24, 32), unscaled(3, 32)
    if kind == "raw floats":
        x, input = x * 3.5 - 200, unscaled(3, 32, low=-100.0, high=600.0)  # also values out of the range
    elif kind == "16-bit integers":
        x, input = x.to(torch.int16) * 100, unscaled(3, 32, high=25500.0)
    else:
        x = x.to(memory_format=torch.channels_last) if "last" in kind else x[:1].expand(24, 3, 32, 32)
    assert_alike(torch_plan, numba_plan, x, input)


@needs_numba
def test_the_normalisation_is_that_of_torch():
    torch_plan, numba_plan = pair("paper", 32)
    input = Input(channels=3, size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    ids, x = torch.arange(24), images_of(24, 32)
    for ours, theirs in zip(*(p.memory(x, ids, 0, 0, input) for p in (numba_plan, torch_plan)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)  # 1e-5 of the range over the smallest deviation


@needs_numba
@pytest.mark.parametrize("channels", [3, 1])
def test_not_a_number_stays_in_its_own_sample(channels):
    plan = views.load("paper", size=32, channels=channels, compiled=True)
    ids, input = torch.arange(60), unscaled(channels, 32)
    x = images_of(60, 40, channels).float()
    before = plan.memory(x, ids, 0, 0, input)
    x[30, :, 5:30, 5:30] = torch.nan
    x[31] = torch.inf
    after = plan.memory(x, ids, 0, 0, input)
    others = (ids < 30) | (ids > 31)
    for b, a in zip(before, after, strict=True):
        assert torch.equal(b[others], a[others])
        assert a[30].isnan().any()


@needs_numba
def test_a_view_depends_neither_on_the_batch_nor_on_the_number_of_threads():
    plan, input = views.load("paper", size=32, compiled=True), unscaled(3, 32)
    ids, x, before = torch.arange(200), images_of(200, 32), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.stack(plan.memory(x, ids, 3, 4, input))
        torch.set_num_threads(5)
        together = torch.stack(plan.memory(x, ids, 3, 4, input))
    finally:
        torch.set_num_threads(before)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = torch.stack(plan.memory(x[order], ids[order], 3, 4, input))
    single = torch.stack([torch.stack(plan.memory(x[i : i + 1], ids[i : i + 1], 3, 4, input))[:, 0] for i in (0, 7, 199)], 1)
    assert torch.equal(alone, together)
    assert torch.equal(alone[:, order], shuffled)
    assert torch.equal(alone[:, [0, 7, 199]], single)


@needs_numba
def test_the_kernel_uses_the_threads_of_torch_and_leaves_none_behind(monkeypatch):
    plan, input = views.load("crop", size=32, compiled=True), unscaled(3, 32)
    ids, x, before = torch.arange(200), images_of(200, 32), torch.get_num_threads()
    from byol.views import compiled

    asked = []
    real = compiled.ThreadPoolExecutor
    monkeypatch.setattr(compiled, "ThreadPoolExecutor", lambda n: asked.append(n) or real(n))
    running = threading.active_count()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            plan.memory(x, ids, 0, 0, input)
    finally:
        torch.set_num_threads(before)
    assert asked == [3, 3]  # one for each view; none with one thread
    assert threading.active_count() == running


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_makes_the_same_views_and_does_not_hang_and_no_import_of_the_package_loads_numba():
    # In a fresh process: this one may hold threads of other tests, and then a fork is a gamble of its own.
    code = """if True:
        import os, signal, sys, torch
        from byol import views
        from byol.encoders import Input
        assert "numba" not in sys.modules
        torch.set_num_threads(2)
        plan = views.load("paper", size=32, compiled=True)
        x, ids = torch.arange(64 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(64, 3, 32, 32), torch.arange(64)
        input = Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
        here = torch.stack(plan.memory(x, ids, 0, 0, input)).numpy().tobytes()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            torch.set_num_threads(1)  # as DataLoader does in its workers
            os._exit(torch.stack(plan.memory(x, ids, 0, 0, input)).numpy().tobytes() != here)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=False, timeout=120).returncode == 0


def test_torch_makes_the_views_where_numba_is_missing_or_does_not_work(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.0 or less")
        return real(name, *rest, **more)

    named.has_numba.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    try:
        assert not views.load("paper", size=32).compiled
        with pytest.raises(ValueError, match=r"pip install 'byol\[numba\]'"):
            views.load("paper", size=32, compiled=True)
    finally:
        named.has_numba.cache_clear()


@needs_numba
def test_pictures_to_look_at_are_made_by_torch_so_that_nobody_waits_for_a_compiler(monkeypatch):
    plan = views.load("paper", size=32, compiled=True)
    x, ids = torch.stack([images_of(6, 32)] * 2), torch.arange(6)
    torch_images = replace(plan, compiled=False).images(x, ids, 0, 0, unscaled(3, 32))
    assert torch.equal(plan.images(x, ids, 0, 0, unscaled(3, 32)), torch_images)


@needs_numba
@pytest.mark.parametrize("home", ["can be written", "cannot be written"])
def test_an_installation_that_cannot_be_written_compiles_into_the_users_cache_or_for_itself(tmp_path, home):
    # Missing permissions keep root from nothing; a file where a folder should be keeps everybody out.
    source = Path(views.__file__).parent.parent
    for path in source.rglob("*.py"):
        copy = tmp_path / "byol" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "byol" / "views" / "__pycache__").write_text("")
    cache = tmp_path / "cache"
    if home == "cannot be written":
        cache.write_text("")
    code = "import sys, numpy; from byol.views import kernels as k; k._clipped(numpy.float32(2)); assert k.__file__.startswith(sys.argv[1])"
    env = os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(cache), "HOME": str(cache)}
    env.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env, cwd=tmp_path)
    assert bool(list(cache.rglob("*.nbi"))) == (home == "can be written")


@needs_numba
def test_no_value_leaves_the_range():
    plan, x, ids = views.load("paper", size=32, compiled=True), images_of(120, 48), torch.arange(120)
    for view in plan.memory(x, ids, 0, 0, unscaled(3, 32)):
        assert float(view.min()) >= 0
        assert float(view.max()) <= 1
        assert np.isfinite(view.numpy()).all()


ASKED = {"encoder": "small-w8", "epochs": 2, "batch_size": 32, "limit": 64, "device": "cpu", "precision": "fp32"}
ASKED |= {"set": ("checkpoint_minutes=0", "log_steps=1", "hidden=16", "dim=8", "channels_last=true")}


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


@needs_numba
def test_a_run_by_numba_loses_as_one_by_torch_and_neither_goes_on_as_the_other(tmp_path, monkeypatch):
    by_numba = byol.train("digits", tmp_path / "numba", **ASKED).run
    monkeypatch.setattr(named, "has_numba", lambda: False)
    monkeypatch.setattr(views, "has_numba", lambda: False)
    by_torch = byol.train("digits", tmp_path / "torch", **ASKED).run
    assert [json.loads((run / "config.json").read_text())["views"] for run in (by_numba, by_torch)] == ["numba", "torch"]
    assert losses(by_numba) == pytest.approx(losses(by_torch), rel=1e-4)
    with pytest.raises(ValueError, match=r"numba began with views made by numba.* `pip install 'byol\[numba\]'`"):
        byol.resume(by_numba)
    monkeypatch.undo()
    assert not runs.reopen(by_torch).views.compiled
    assert runs.reopen(by_numba).views.compiled
