"""What every method promises, asked of each file in methods/: a new one is tested by being there."""

import ast
import dataclasses
import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_training as single
import torch
from rgbd_files import plain
from rgbd_frames import frames
from sklearn.datasets import load_digits
from sound_files import SMALL, tones

import byol
from byol import config, encoders, methods, modalities, optim, recipes, run, training
from byol.methods import _draws

PACKAGE = Path(byol.__file__).parent
EVERY = pytest.mark.parametrize("name", methods.names())


def build(name, **options):
    """The method with few units on the small network of the training tests, without its dropout."""
    cls = methods.load(name)
    torch.manual_seed(0)
    method = cls(single.net_for(cls), single.small(cls, **options))
    for part in method.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return method


def batch(name, seed=3, size=8):
    cls = methods.load(name)
    x = (
        frames(size, seed=seed)
        if recipes.kind_of(name) == "rgbd"
        else torch.randn(size, single.channels_of(cls), 8, 8, generator=torch.Generator().manual_seed(seed))
    )
    return single.called_with(cls, x, torch.arange(size))


def call(method, name, seed=3):
    """One forward pass, seeded as the trainer does before each."""
    torch.manual_seed(seed)
    seen, rows = batch(name, seed)
    return method(seen, **rows)


def a_step(method, name, optimizer, progress=0.0, seed=3):
    optimizer.zero_grad(set_to_none=True)
    out = call(method, name, seed)
    out.loss.backward()
    optimizer.step()
    method.after_step(progress)
    return out


def sgd(method):
    return optim.make("sgd", method.param_groups(), lr=0.05, weight_decay=1e-4, momentum=0.9, trust_coefficient=1e-3)


@EVERY
def test_a_few_updates_have_finite_losses_and_finite_gradients_where_they_belong_alone(name):
    method = build(name)
    grouped = [p for group in method.param_groups() for p in group["params"]]
    learning = {id(p) for p in method.parameters() if p.requires_grad}
    assert {id(p) for p in grouped} == learning, "what learns is what is in the groups"
    assert len(grouped) == len(learning), "each parameter once"
    assert {id(p) for p in method.encoder.parameters()} <= learning
    optimizer = sgd(method)
    before = {n: p.detach().clone() for n, p in method.encoder.named_parameters()}
    taught = set()
    for step in range(4):
        out = a_step(method, name, optimizer, step / 4, seed=step)
        assert out.loss.shape == ()
        assert out.loss.isfinite()
        taught |= {n for n, p in method.encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == before.keys(), "a gradient of zeros teaches nothing"
    for n, p in method.named_parameters():
        assert p.requires_grad or p.grad is None, f"{n} has a gradient and is not meant to"
        assert p.grad is None or p.grad.isfinite().all(), n
    assert all(p.grad is not None for p in method.encoder.parameters())
    assert any(not torch.equal(p, before[n]) for n, p in method.encoder.named_parameters())


@EVERY
def test_projections_are_one_b_d_a_view_without_gradient_and_metrics_are_numbers(name):
    method = build(name)
    seen, rows = batch(name)
    kept = [v.clone() for v in seen]
    out = method(seen, **rows)
    assert len(out.projections) == len(methods.views_of(methods.load(name)))
    assert len({p.shape for p in out.projections}) == 1
    assert all(p.ndim == 2 and len(p) % 8 == 0 and not p.requires_grad for p in out.projections)
    for key, value in (out.metrics | method.diagnostics()).items():
        assert value.shape == (), key
        assert not value.requires_grad, key
        assert value.isfinite(), key
    assert all(torch.equal(v, k) for v, k in zip(seen, kept, strict=True)), "the views are as they were"


@EVERY
def test_a_method_trains_in_train_mode_and_the_loss_is_float32_under_bf16(name):
    method = build(name)
    assert all(part.training for part in method.modules())
    with training.autocast("cpu", "bf16"):
        loss = call(method, name).loss
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    seen, rows = batch(name)
    assert build(name).double()(tuple(v.double() for v in seen), **rows).loss.dtype == torch.float64


@EVERY
def test_the_loss_does_not_depend_on_the_order_of_the_batch(monkeypatch, name):
    """What is drawn for a sample goes with it; negatives are all rows of the bank, which no draw chooses."""
    order = torch.tensor([5, 2, 7, 0, 1, 3, 6, 4])
    seen, rows = batch(name)
    options = {"negatives": 0} if recipes.own_values(name).get("negatives") == 0 else {}
    method, again = build(name, **options), build(name, **options)
    ours = called_in_double(method, seen, rows)
    for module, of in ((_draws, "words"), (torch, "rand")):
        monkeypatch.setattr(module, of, of_the_sample(getattr(module, of), order))
    theirs = called_in_double(again, [v[order] for v in seen], {k: v[order] for k, v in rows.items()})
    torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-12)


def called_in_double(method, seen, rows):
    torch.manual_seed(3)
    return method.double()(tuple(v.double() for v in seen), **rows).loss


def of_the_sample(draw, order):
    """The same draws, with the rows of the samples in this order."""

    def drawn(rows, *rest):
        found = draw(rows, *rest)
        return found.reshape(len(order), -1)[order].reshape(found.shape)

    return drawn


# A teacher that stands still, since what it learns may be harder to tell; a game has no loss that both players lower.
STANDING = {"dino": {"tau_base": 1.0, "center_momentum": 1.0}}


@pytest.mark.parametrize("name", [name for name in methods.names() if name != "bigan"])
def test_the_loss_falls_on_fixed_images(name):
    """From when a queue is full of them: easy negatives of its beginning are gone."""
    method = build(name, **STANDING.get(name, {}))
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    seen, rows = batch(name, size=4 if recipes.kind_of(name) == "rgbd" else 64)
    losses = []
    for step in range(40):
        optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(3)
        out = method(seen, **rows)
        out.loss.backward()
        optimizer.step()
        method.after_step(step / 40)
        losses.append(out.loss.item())
    first, last = sum(losses[2:5]) / 3, sum(losses[-3:]) / 3
    assert last < first - 0.005 * abs(first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@EVERY
def test_loss_and_gradient_on_a_gpu_are_those_on_the_cpu(monkeypatch, name):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found = []
    for device in ("cpu", "cuda"):
        method = build(name).to(device)
        seen, rows = batch(name)
        torch.manual_seed(3)
        loss = method(tuple(v.to(device) for v in seen), **{k: v.to(device) for k, v in rows.items()}).loss
        loss.backward()
        found.append((loss.detach().cpu(), {n: p.grad.cpu() for n, p in method.named_parameters() if p.grad is not None}))
    (loss, gradients), (again, others) = found
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-4)
    assert others.keys() == gradients.keys()
    for n, gradient in gradients.items():
        assert (others[n] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5, n


@EVERY
def test_schedules_diagnostics_and_risks_are_of_the_types_that_training_logs(name):
    method = build(name)
    call(method, name)
    keys = [list(method.schedule(progress)) for progress in (0.0, 0.5, 1.0)]
    assert keys[0] == keys[1] == keys[2]
    assert all(type(v) is float and math.isfinite(v) for p in (0.0, 0.5, 1.0) for v in method.schedule(p).values())
    assert all(isinstance(k, str) and "=" in v for k, v in method.risks().items())
    known = {f.name for f in dataclasses.fields(method.Config)}
    assert {v.partition("=")[0] for v in method.risks().values()} <= known, "what mends is a setting that there is"
    assert not set(method.schedule(0.0)) & {"lr", "loss", "step", "spread", "rank"}


@EVERY
def test_the_state_goes_into_another_instance_which_continues_bit_for_bit(name):
    method, again = build(name), build(name)
    optimizer = sgd(method)
    for step in range(3):
        a_step(method, name, optimizer, step / 4, seed=step)
    assert not all(torch.equal(a, b) for a, b in zip(method.state_dict().values(), again.state_dict().values(), strict=True))
    again.load_state_dict(method.state_dict())
    ours, theirs = (a_step(m, name, sgd(m), 0.75, seed=9).loss for m in (method, again))
    assert torch.equal(ours, theirs)
    for key, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@EVERY
def test_resume_from_every_third_step_is_bit_exact(tmp_path, name):
    plan = single.make_plan(method=name, optimizer="sgd", lr=0.5, epochs=1, warmup_epochs=0.25, log_steps=1)
    whole, whole_optimizer, _ = single.run(tmp_path / "whole", plan)
    assert all(math.isfinite(row["loss"]) for row in single.losses(tmp_path / "whole"))
    for stop in range(1, plan.steps, 3):
        folder = tmp_path / f"stopped-{stop}"
        single.run(folder, plan, stop_after=stop)
        method, optimizer, outcome = single.run(folder, plan)
        assert (outcome.ended, outcome.step) == ("finished", plan.steps)
        for key, value in whole.state_dict().items():
            assert torch.equal(method.state_dict()[key], value), key
        for p, q in zip(whole.parameters(), method.parameters(), strict=True):
            for key, value in whole_optimizer.state.get(p, {}).items():
                assert torch.equal(optimizer.state[q][key], value), key
        assert single.losses(folder) == single.losses(tmp_path / "whole")


@EVERY
def test_no_part_of_an_update_reads_a_number_back_from_the_device(tmp_path, name):
    if recipes.kind_of(name) == "rgbd":
        pytest.skip("how many points a frame has, and where, has to be known before they can be matched")
    plan = single.make_plan(method=name, device="meta", log_steps=1000)
    method, _ = single.build(single.make_plan(method=name))
    method.to("meta")
    seen, rows = batch(name)
    there = tuple(v.to("meta") for v in seen), {k: v.to("meta") for k, v in rows.items()}
    optimizer = optim.make("sgd", method.param_groups(), lr=0.1, weight_decay=1e-4, momentum=0.9, trust_coefficient=0.01)
    training.Loop(tmp_path, plan, method, optimizer, None, 0).update(1, iter([there]))


@EVERY
def test_the_file_says_what_it_is_and_its_values_are_known_settings(name):
    module = importlib.import_module(f"byol.methods.{name}")
    first = (module.__doc__ or "").strip().split("\n")[0]
    assert 20 < len(first) < 120, "the first line is what `byol list methods` prints"
    assert first.endswith(".")
    own = {f.name for f in dataclasses.fields(module.METHOD.Config)}
    kind = modalities.of(recipes.kind_of(name) or "image")
    known = own | {f.name for f in dataclasses.fields(config.Settings)} | {f.name for f in dataclasses.fields(kind.Pipeline)}
    assert set(recipes.own_values(name)) <= known
    assert dict(recipes.own_values(name)) == getattr(module, "AUTO", {}), "read as a literal, it is what the file holds"
    assert dict(recipes.own_values(name, "recording")) == getattr(module, "AUTO_RECORDING", {})
    assert set(recipes.own_values(name, "recording")) <= own
    assert dict(recipes.own_values(name, "rgbd")) == getattr(module, "AUTO_RGBD", {})
    assert set(recipes.own_values(name, "rgbd")) <= own
    assert dict(recipes.own_values(name, "volume")) == getattr(module, "AUTO_VOLUME", {})
    for title, preset in getattr(module, "RECIPES", {}).items():
        assert title.startswith(f"{name}-") or name == "byol", "the name of a recipe begins with that of its method"
        assert {"about", "expected", "source", "values"} <= set(preset)
        assert set(preset["values"]) <= known, title
        modality = preset.get("modality", "image")
        facts = recipes.Facts(images=50_000, short_side=32, device="cuda", cores=8, classes=10, modality=modality)
        request = config.Request(data="x", recipe=title, method=name)
        plan = recipes.resolve(request, facts, module.METHOD.Config, modalities.of(modality).Pipeline, modalities.of(modality).names())
        assert plan.expected == preset["expected"]
        assert {k: plan.method[k] for k in own & set(preset["values"])} == {k: preset["values"][k] for k in own & set(preset["values"])}


@EVERY
def test_auto_resolves_on_every_device(name):
    options = methods.load(name).Config
    modality = recipes.kind_of(name) or "image"
    kind = modalities.of(modality)
    for device in ("cpu", "cuda"):
        facts = recipes.Facts(images=1797, short_side=8, device=device, cores=2, classes=10, modality=modality)
        plan = recipes.resolve(config.Request(data="x", method=name), facts, options, kind.Pipeline, kind.names())
        options(**plan.method)


FEW = {"epochs": 1, "batch_size": 16, "precision": "fp32", "device": "cpu"}
IMAGES = {"limit": 64, "encoder": "small-w8-n2", "image_size": 8}


HEARD = tuple(word for word in SMALL if not word.startswith(("hidden", "dim")))


def dated_digits(folder):
    """Images of subjects at several times, for methods whose views are of two visits."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:64].reshape(-1, 8, 8).astype(np.uint8), y[:64]
    np.savez(folder / "visits.npz", x=x, y=y, groups=np.arange(64) // 4, times=np.arange(64) % 4 * 30)
    return str(folder / "visits.npz")


def few_units(name):
    return [f"{f.name}=16" for f in dataclasses.fields(methods.load(name).Config) if f.name in ("hidden", "dim", "queue")]


def holds_what_it_learnt(out, x):
    """The exported encoder, which is that of the run bit for bit."""
    exported, kept = byol.load(out), run.restored(out).encoder.eval()
    assert all(torch.equal(exported.state_dict()[k], v) for k, v in kept.state_dict().items())
    torch.testing.assert_close(exported(x), kept(x))  # another memory layout
    return exported


@EVERY
def test_one_epoch_of_digits_trains_evaluates_and_exports_the_encoder_of_the_run(tmp_path, name):
    out = tmp_path / "run"
    if recipes.kind_of(name) not in ("", "image"):
        refused_in_one_sentence("digits", out, name)
        return
    data = dated_digits(tmp_path) if recipes.own_values(name).get("views") == "visits" else "digits"
    asked = {"method": name, "set": (*few_units(name), "channels_last=true"), **FEW, **IMAGES}
    if name in ("cmc", "infomin_flow"):  # which compare colours
        with pytest.raises(ValueError, match="images of red, green and blue"):
            byol.train(data, out, **asked)
        assert not out.exists()
        return
    trained = byol.train(data, out, **asked)
    assert trained.outcome.ended == "finished"
    assert math.isfinite(trained.outcome.record["loss"])
    exported = holds_what_it_learnt(out, torch.randn(4, 1, 8, 8))
    (found,) = byol.evaluate(out, "digits", protocols=("knn",), limit=64, baselines=False, device="cpu")
    assert [s.dim for s in found.scores] == [exported.dim]


def refused_in_one_sentence(data, out, name):
    with pytest.raises(ValueError, match=f"--method {name} is for .*, and these data are ") as told:
        byol.train(data, out, method=name, **FEW)
    assert "\n" not in str(told.value)
    assert not out.exists()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return tones(tmp_path_factory.mktemp("data") / "tones", 48)


@EVERY
def test_an_epoch_of_sounds_is_refused_in_one_sentence_or_stopped_goes_on_bit_for_bit_and_exports(tmp_path, sounds, name):
    if recipes.kind_of(name) not in ("", "sound"):
        refused_in_one_sentence(sounds, tmp_path / "run", name)
        return
    asked = {"method": name, "set": (*HEARD, *few_units(name), "log_steps=1"), **FEW}
    if name in ("autoencoder", "bigan", "denoising_autoencoder", "lssl", "vae"):  # which draw images
        with pytest.raises(ValueError, match="takes one of images") as told:
            byol.train(sounds, tmp_path / "whole", **asked)
        assert "\n" not in str(told.value)
        return
    assert byol.train(sounds, tmp_path / "whole", **asked).outcome.ended == "finished"
    assert byol.train(sounds, tmp_path / "cut", watcher=StopAfter(2), **asked).outcome.step == 2
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    whole, cut = (run.restored(tmp_path / of).state_dict() for of in ("whole", "cut"))
    assert all(torch.equal(cut[key], value) for key, value in whole.items())
    rows, again = (single.losses(tmp_path / of) for of in ("whole", "cut"))
    assert rows == again
    assert all(math.isfinite(row["loss"]) for row in rows)
    holds_what_it_learnt(tmp_path / "whole", torch.randn(4, 1, 64, 21))


@pytest.mark.parametrize("name", [name for name in methods.names() if recipes.kind_of(name) == "rgbd"])
def test_an_epoch_of_frames_that_is_stopped_goes_on_bit_for_bit_and_exports(tmp_path, name):
    pytest.importorskip("ocnn")
    plain(tmp_path / "room", 12)
    asked = {"method": name, "encoder": "byoc-w16-v200", "image_size": 16, "epochs": 1, "batch_size": 2, "precision": "fp32"}
    asked |= {"device": "cpu", "set": ("apart=2,2", "log_steps=1")}
    assert byol.train(tmp_path / "room", tmp_path / "whole", **asked).outcome.ended == "finished"
    assert byol.train(tmp_path / "room", tmp_path / "cut", watcher=StopAfter(2), **asked).outcome.step == 2
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    whole, cut = (run.restored(tmp_path / of).state_dict() for of in ("whole", "cut"))
    assert all(torch.equal(cut[key], value) for key, value in whole.items())
    rows = single.losses(tmp_path / "whole")
    assert rows == single.losses(tmp_path / "cut")
    assert all(math.isfinite(row["loss"]) and row["verdict"] in ("OK", "WARN", "COLLAPSED") for row in rows)
    holds_what_it_learnt(tmp_path / "whole", frames(4, 16))


class StopAfter:
    """Interrupts a run, as Ctrl-C does."""

    def __init__(self, steps):
        self.steps = steps

    def step(self, done):
        if done == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)

    def log(self, record): ...
    def note(self, text): ...


TWELFTH = '''"""Decorrelation of nothing: the twelfth method, of a test.

It pulls the features of two views together and gives no reason not to collapse.
"""

from dataclasses import dataclass

from torch import nn

from byol.methods import StepOutput
from byol.optim import param_groups

AUTO = {"lr": 0.03, "pull": 0.5}
RECIPES = {
    "twelfth-tiny": {"about": "a recipe of its own", "expected": "none", "source": "this test", "values": {"epochs": 1, "lr": 0.01}},
}


@dataclass(frozen=True, kw_only=True)
class Options:
    pull: float = 1.0


class Twelfth(nn.Module):
    Config = Options

    def __init__(self, encoder, config=None):
        super().__init__()
        self.encoder, self.config = encoder, config or Options()

    def forward(self, views):
        a, b = (self.encoder(v) for v in views)
        return StepOutput(self.config.pull * (a - b).square().mean(), (a.detach(), b.detach()))

    def after_step(self, progress):
        pass

    def param_groups(self):
        return param_groups(self)

    def schedule(self, progress):
        return {}

    def diagnostics(self):
        return {}

    def risks(self):
        return {}


METHOD = Twelfth
'''


def test_a_new_method_is_one_new_file(tmp_path):
    copy = tmp_path / "src" / "byol"
    shutil.copytree(PACKAGE, copy)
    (copy / "methods" / "twelfth.py").write_text(TWELFTH)
    changed = [p for p in copy.rglob("*.py") if not (PACKAGE / p.relative_to(copy)).exists()]
    assert [p.name for p in changed] == ["twelfth.py"]

    def command(*words):
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run([sys.executable, "-m", "byol", *words, "--json"], capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    listed = command("list", "methods")["methods"]
    assert listed["twelfth"] == "Decorrelation of nothing: the twelfth method, of a test."
    assert set(listed) == {*methods.names(), "twelfth"}
    assert command("list", "recipes")["recipes"]["twelfth-tiny"] == "a recipe of its own"
    words = ["--epochs", "1", "--limit", "64", "--batch-size", "16", "--encoder", "small-w8-n2", "--precision", "fp32", "--device", "cpu"]
    command("train", "digits", "--method", "twelfth", "--out", "run", *words)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["settings"]["method"], plan["settings"]["lr"], plan["method"]) == ("twelfth", 0.03, {"pull": 0.5})
    assert (tmp_path / "run" / "encoder.safetensors").exists()


def test_no_file_outside_methods_names_a_method_but_byol():
    """What would have to be touched for a new method: a word of the file names of methods in the code of another file."""
    others = set(methods.names()) - {"byol", "supervised"} - set(encoders.names())  # byoc and lssl have encoders of the same name
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name in ("methods", "studies"):  # a study is about a method
            continue
        words = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert not words & others, f"{path.relative_to(PACKAGE)} names {words & others}"
