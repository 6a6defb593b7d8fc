"""A whole run from a folder of pictures: what is decided, what is stored, and that a kill loses nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import byol
from byol import config, run

TINY = {
    "encoder": "small-w16",
    "epochs": 6,
    "batch_size": 8,
    "precision": "fp32",
    "device": "cpu",
    "set": ("checkpoint_minutes=0", "log_steps=1", "hidden=16", "dim=8", "channels_last=true"),  # nothing left to a measurement
}

# What a user would type in Python; killed from outside.
BEGIN = """
import json, sys, torch
import byol
torch.set_num_threads(int(sys.argv[4]))
asked = json.loads(sys.argv[3])
byol.train(sys.argv[1], sys.argv[2], **asked | {"set": tuple(asked["set"])})
"""
GO_ON = "import sys, byol; byol.resume(sys.argv[1])"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty-two small photos of two sizes, so that they go through the host stage; one file is no image."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for i in range(32):
        size = (20, 24) if i % 2 else (28, 20)
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
    (folder / "b" / "broken.jpg").write_bytes(b"<html>not found</html>")
    return folder


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return byol.train(photos, out, workers=0, image_size=16, **TINY).run


@pytest.fixture(scope="module")
def whole_bf16(photos, tmp_path_factory):
    """The same in bf16 and with two threads."""
    out = tmp_path_factory.mktemp("whole") / "bf16"
    return with_threads(2, lambda: byol.train(photos, out, workers=0, image_size=16, **TINY | {"precision": "bf16"}).run)


def with_threads(number, work):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def killed(words, log, lines):
    """Start a process and kill it when the log has so many lines."""
    process = subprocess.Popen([sys.executable, "-c", *map(str, words)], start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not (log.exists() and log.read_text().count("\n") >= lines):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(("precision", "threads", "workers"), [("fp32", 1, 0), ("fp32", 1, 2), ("bf16", 2, 2)])
def test_a_run_killed_at_random_steps_ends_like_the_uninterrupted_one(photos, request, tmp_path, precision, threads, workers):
    uninterrupted = request.getfixturevalue("whole" if precision == "fp32" else "whole_bf16")
    out, draws = tmp_path / "run", random.Random(workers)
    asked = TINY | {"precision": precision, "workers": workers, "image_size": 16}
    first, second = sorted(draws.sample(range(2, 18), 2))
    killed([BEGIN, photos, out, json.dumps(asked), threads], out / "metrics.jsonl", first)
    killed([GO_ON, out], out / "metrics.jsonl", second)
    assert not (out / "encoder.safetensors").exists(), "the run ended before it could be killed"
    # As on a machine that offers another number of threads now: the run keeps the one it began with.
    with_threads(3 - threads, lambda: byol.resume(out))
    for name in ("last.safetensors", "encoder.safetensors"):
        ours, theirs = load_file(out / name), load_file(uninterrupted / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_folder_says_what_was_asked_decided_and_left_out(photos, whole):
    names = {p.name for p in whole.iterdir()}
    expected = {"config.json", "plan.json", "data.json", "metrics.jsonl", "last.safetensors", "encoder.safetensors", "encoder.json"}
    assert expected <= names
    plan, data = (json.loads((whole / f"{n}.json").read_text()) for n in ("plan", "data"))
    assert plan["settings"]["batch_size"] == 8
    assert plan["reasons"]["batch_size"] == "asked for"
    assert data["images"] == 32
    assert [s["name"] for s in data["skipped"]] == ["b/broken.jpg"]


def test_a_finished_run_is_left_as_it_is(whole):
    before = {p.name: p.read_bytes() for p in whole.iterdir() if p.name != "data.json"}
    byol.resume(whole)
    assert {n: (whole / n).read_bytes() for n in before} == before


def test_a_second_run_in_the_same_folder_is_refused_and_touches_nothing(photos, whole):
    before = {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file()}
    with pytest.raises(ValueError, match="byol resume"):
        byol.train(photos, whole)
    assert {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file()} == before


def test_data_that_changed_since_is_refused_on_resume(photos, whole, tmp_path):
    noise = np.random.default_rng(1)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        Image.fromarray(noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    out = byol.train(folder, tmp_path / "run", image_size=16, **{**TINY, "epochs": 1}).run
    (folder / "0.png").unlink()
    with pytest.raises(ValueError, match="has changed since"):
        byol.resume(out)


def test_the_exported_encoder_gives_the_features_of_the_run(photos, whole):
    session = run.reopen(whole)
    method = session.method()
    from byol import checkpoint

    checkpoint.restore(whole / "last.safetensors", method=method, optimizer=session.optimizer(method))
    encoder = byol.load(whole)
    x = encoder.preprocess(sorted((photos / "a").glob("*.png"))[:4])
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), method.encoder.eval()(x), rtol=1e-5, atol=1e-6)
    assert encoder.dim == encoder(x).shape[1]


def test_an_encoder_of_ones_own_trains_resumes_and_loads(photos, tmp_path):
    def net():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    own = net()
    before = own[0].weight.clone()
    asked = {**TINY, "encoder": own, "epochs": 2}
    trained = byol.train(photos, tmp_path / "run", image_size=16, workers=0, **asked)
    assert torch.equal(own[0].weight, before), "the given module is copied, not trained"
    with pytest.raises(ValueError, match="encoder of your own"):
        byol.resume(tmp_path / "run")
    byol.resume(tmp_path / "run", encoder=own)
    encoder = byol.load(trained.run, net=net())
    assert not torch.equal(encoder.net[0].weight, before)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"set": ("tau_bas=0.1",)}, "did you mean tau_base"),
        ({"set": ("lr=fast",)}, "give a number"),
        ({"set": ("lr",)}, "KEY=VALUE"),
        ({"set": ("tau_base=2",)}, "tau_base is 2"),
        ({"recipe": "imagenet"}, "recipe"),
        ({"method": "boyl"}, "did you mean byol"),
        ({"batch_size": 64}, "do not fill a batch of 64"),
        ({"batch_size": 1}, "batch norm needs 2"),
        ({"epochs": 0}, "epochs is 0"),
        ({"accumulate": 30, "batch_size": 8}, "fewer than --accumulate 30"),
        ({"minutes": -1.0}, "give a time above 0"),
        ({"encoder": "resnet19"}, "resnet1"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(photos, tmp_path, asked, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        byol.train(photos, tmp_path / "run", **asked)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists(), "nothing is written before everything is known to work"


def test_every_recipe_resolves_and_says_why(photos):
    from byol import modalities, recipes

    for name, recipe in recipes.every().items():
        kind = recipe.modality
        facts = recipes.Facts(images=50_000, short_side=256, device="cpu", cores=2, bf16_gain=1.0, classes=10, modality=kind)
        views = modalities.of(kind)
        options = byol.methods.load(recipe.method).Config
        request = config.Request(data="x", recipe=name, method=recipe.method)
        plan = recipes.resolve(request, facts, options, views.Pipeline, views.names())
        named = {**vars(plan.settings), **plan.method}
        assert set(named) <= set(plan.reasons), name
        assert plan.expected, name
        assert recipe.about
        options(**plan.method)
    for kind in recipes.AUTO:
        for device in ("cpu", "cuda"):
            facts = recipes.Facts(images=5_000, short_side=128, device=device, cores=2, modality=kind, image_size=None)
            views = modalities.of(kind)
            plan = recipes.resolve(config.Request(data="x"), facts, byol.methods.load("byol").Config, views.Pipeline, views.names())
            assert {*vars(plan.settings), *plan.method, *plan.views} <= set(plan.reasons), (kind, device)


@pytest.mark.parametrize(
    ("epochs", "lr", "wd", "tau"), [(40, 0.45, 1e-6, 0.97), (100, 0.45, 1e-6, 0.99), (300, 0.3, 1e-6, 0.99), (1000, 0.2, 1.5e-6, 0.996)]
)
def test_the_paper_recipes_hold_the_released_values(epochs, lr, wd, tau):
    from byol import recipes, views

    facts = recipes.Facts(images=1_281_167, short_side=400, device="cpu", cores=2, bf16_gain=1.0)
    request = config.Request(data="x", recipe=f"imagenet-r50-{epochs}")
    plan = recipes.resolve(request, facts, byol.methods.load("byol").Config, views.Pipeline, views.names())
    s = plan.settings
    assert (s.epochs, s.lr, s.weight_decay, plan.method["tau_base"]) == (epochs, lr, wd, tau)
    assert (s.optimizer, s.momentum, s.trust_coefficient, s.warmup_epochs) == ("lars", 0.9, 1e-3, 10)
    assert s.batch_size * s.accumulate == 4096
    assert plan.peak_lr == pytest.approx(lr * 16)
    assert (plan.method["hidden"], plan.method["dim"]) == (4096, 256)
    assert (s.encoder, s.image_size, s.views) == ("resnet50", 224, "paper")


def planned(images=1000, short_side=64, **asked):
    from byol import recipes, views

    facts = recipes.Facts(images=images, short_side=short_side, device="cpu", cores=2)
    return recipes.resolve(
        config.Request(data="x", **asked).folded(), facts, byol.methods.load("byol").Config, views.Pipeline, views.names()
    )


def test_a_setting_given_by_set_is_the_same_as_its_option():
    by_set, by_option = planned(set=("epochs=3", "batch_size=32")), planned(epochs=3, batch_size=32)
    assert by_set == by_option
    assert by_set.warmup_steps < by_set.steps / 10, "the warm-up follows the epochs"


def test_tau_follows_the_number_of_updates_under_accumulation():
    updates = {k: planned(epochs=400, accumulate=k) for k in (1, 4)}
    assert updates[4].steps == updates[1].steps // 4
    assert updates[4].method["tau_base"] == planned(epochs=100).method["tau_base"]


def test_a_smaller_pass_keeps_the_papers_batch():
    plan = planned(10_000, recipe="imagenet-r50-1000", batch_size=64)
    assert plan.settings.batch_size * plan.settings.accumulate == 4096
    assert "74.3" in plan.expected
    assert "batch_size" in plan.expected, "what was changed stands beside the published number"


@pytest.mark.parametrize(("side", "size"), [(28, 28), (32, 32), (61, 60), (64, 64), (7, 8)])
def test_small_images_are_trained_at_their_own_size(side, size):
    plan = planned(short_side=side)
    assert plan.settings.image_size == size
    assert ("own size" in plan.reasons["image_size"]) == (side == size)


def test_a_word_that_no_option_knows_is_refused_from_python_too():
    with pytest.raises(ValueError, match="precision is 'fp16'; give one of auto, fp32, bf16"):
        config.Request(data="x", precision="fp16")


def test_a_pair_of_numbers_can_be_set():
    assert planned(set=("sigma=0.5,1.5",)).views["sigma"] == (0.5, 1.5)
    with pytest.raises(ValueError, match="two numbers with a comma"):
        planned(set=("sigma=1.0",))


def test_a_run_goes_on_from_another_folder(photos, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.chdir(photos.parent)
    byol.train(photos.name, out, image_size=16, workers=0, **{**TINY, "epochs": 1})
    monkeypatch.chdir(tmp_path)
    assert run.reopen(out).plan.images == 32


def test_a_folder_with_parts_of_a_run_is_refused(photos, whole, tmp_path):
    (tmp_path / "last.safetensors").write_bytes((whole / "last.safetensors").read_bytes())
    with pytest.raises(ValueError, match="holds a run already"):
        byol.train(photos, tmp_path)


def test_the_target_is_exported_without_the_data(whole, tmp_path):
    import shutil

    shutil.copytree(whole, tmp_path / "run")
    asked = json.loads((tmp_path / "run" / "config.json").read_text())
    asked["request"]["data"] = "gone"
    (tmp_path / "run" / "config.json").write_text(json.dumps(asked))
    byol.export(tmp_path / "run", tmp_path / "target.safetensors", network="target")
    weights, stored = load_file(tmp_path / "target.safetensors"), load_file(whole / "last.safetensors")
    assert all(torch.equal(weights[k], stored[f"method/target_encoder.net.{k}"]) for k in weights)


def test_an_evaluation_says_what_it_was_made_of_and_leaves_others_beside_it(photos, whole, tmp_path):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (first,) = byol.evaluate(out, photos, protocols=["knn"], baselines=False)
    assert any("trained on these images" in note for note in first.notes)
    assert any("broken.jpg" in note for note in first.notes)
    byol.evaluate(out, photos, protocols=["knn"], baselines=False)
    byol.evaluate(out, photos, protocols=["knn"], baselines=False, seed=1)
    stored = {p.name: json.loads(p.read_text())["asked"]["seed"] for p in (out / "evaluations").iterdir()}
    assert stored == {"knn.json": 0, "knn-2.json": 1}


def test_a_module_of_ones_own_stands_beside_its_random_twin():
    from byol.encoders import Input, random_twin, wrap

    seen = Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    own = wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()), input=seen)
    own.net[1].running_mean += 5
    twins = [random_twin(own, seed=s) for s in (0, 0, 1)]
    assert torch.equal(twins[0].net[0].weight, twins[1].net[0].weight)
    assert not torch.equal(twins[0].net[0].weight, twins[2].net[0].weight)
    assert not torch.equal(twins[0].net[0].weight, own.net[0].weight)
    assert float(twins[0].net[1].running_mean.abs().max()) == 0

    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 3, 1, 1))

        def forward(self, x):
            return torch.nn.functional.conv2d(x, self.weight)

    assert random_twin(wrap(Bare(), input=seen)) is None


# torch's own, while it looks at what it compiles.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_networks_learn_the_same_and_leave_the_same_keys(photos, tmp_path, monkeypatch):
    # Another backend than the default one: it needs no C++ compiler and takes seconds; what is tested is who is compiled.
    compiled, plain_compile = [], torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self) or plain_compile(self, backend="aot_eager"))
    asked = {"epochs": 1, "batch_size": 8, "encoder": "small-w16", "image_size": 16, "precision": "fp32", "set": ("channels_last=true",)}
    with_it, without = tmp_path / "with", tmp_path / "without"
    byol.train(photos, with_it, compile=True, **asked)
    networks = len(compiled)
    byol.train(photos, without, **asked)
    assert networks == 5  # encoder, projector, predictor and the target's two
    assert len(compiled) == networks
    ours, theirs = (load_file(out / "last.safetensors") for out in (with_it, without))
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=1e-3, rtol=1e-3)
    assert byol.load(with_it).dim == byol.load(without).dim
