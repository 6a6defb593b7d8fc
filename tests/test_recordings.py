"""Recordings of neurons, their views, and what is read from features, against loops, NumPy and scikit-learn."""

import json
import math
import os
import signal

import numpy as np
import pytest
import sklearn.metrics
import torch
from test_benchmarks import last_line
from test_dist import free_port
from together import start
from torch import nn

import byol
from byol import run, views
from byol.cli import main
from byol.config import Request
from byol.data import load_memory, open_source, statistics, stretches
from byol.encoders import Input
from byol.encoders import load as load_encoder
from byol.encoders.mlp import Mlp
from byol.evaluation import decoding, splits
from byol.evaluation import evaluate as evaluate_features
from byol.evaluation.metrics import measured, near, plane, weighted_f1
from byol.evaluation.probe import Task
from byol.views.recordings import Pipeline, RecordingViews, changed
from byol.views.recordings import load as load_views

LENGTHS = [4, 1, 6, 5]


@pytest.fixture
def reaches(tmp_path):
    x = np.random.default_rng(0).poisson(3, (16, 9)).astype(np.float32)
    np.savez(tmp_path / "r.npz", x=x, y=np.arange(16) % 8, trial_lengths=np.array(LENGTHS), vel=np.zeros((16, 2)))
    return tmp_path / "r.npz"


@pytest.fixture
def tuned(tmp_path):
    """64 trials of 3 bins in 8 directions; each of 12 neurons fires most for one of them."""
    noise = np.random.default_rng(0)
    y = np.repeat(np.arange(64) % 8, 3)
    rate = 4 + 3.5 * np.cos(y[:, None] * np.pi / 4 - np.linspace(0, 2 * np.pi, 12, endpoint=False))
    np.savez(tmp_path / "tuned.npz", x=noise.poisson(rate).astype(np.float32), y=y, trial_lengths=np.full(64, 3))
    return tmp_path / "tuned.npz"


@pytest.fixture
def sleep(tmp_path):
    """120 bins in three states, which last 4 bins each, without trials."""
    noise = np.random.default_rng(0)
    state = (np.arange(120) // 4 % 3).astype(np.uint8)
    np.savez(tmp_path / "sleep.npz", rates=noise.poisson(1 + 4 * (np.arange(6) % 3 == state[:, None])).astype(np.int16), state=state)
    return tmp_path / "sleep.npz"


def test_a_recording_of_reaches_has_trials_and_no_common_clock(reaches):
    r = open_source(reaches)
    assert (r.modality, len(r), r.channels, r.dtype) == ("recording", 16, 9, "float32")
    assert r.groups.tolist() == [0] * 4 + [1] + [2] * 6 + [3] * 5
    assert r.times is None
    assert r.labels.tolist() == [i % 8 for i in range(16)]
    assert r.classes == [str(i) for i in range(8)]
    np.testing.assert_array_equal(r.read(5)[0, 0], np.load(reaches)["x"][5])
    first, last = stretches(r)
    for i in range(16):
        same = [j for j in range(16) if r.groups[j] == r.groups[i]]
        assert (first[i], last[i]) == (min(same), max(same))


def test_a_recording_of_sleep_has_a_clock_and_no_trials(tmp_path):
    np.savez(tmp_path / "m.npz", rates=np.ones((7, 3), np.int16), state=np.array([0, 1, 1, 2, 0, 0, 1], np.uint8))
    r = open_source(tmp_path / "m.npz")
    assert (r.groups, r.times.tolist(), r.labels.tolist()) == (None, list(range(7)), [0, 1, 1, 2, 0, 0, 1])
    assert [b.tolist() for b in stretches(r)] == [[0] * 7, [6] * 7]
    np.savez(tmp_path / "gap.npz", x=np.ones((7, 3)), times=np.array([0, 1, 2, 9, 10, 11, 12]))
    assert [b.tolist() for b in stretches(open_source(tmp_path / "gap.npz"))] == [[0] * 3 + [3] * 4, [2] * 3 + [6] * 4]


def test_every_bin_is_measured_and_a_limit_keeps_the_first(reaches):
    x = np.load(reaches)["x"].astype(np.float64)
    found = statistics(open_source(reaches))
    span = x.max() - x.min()
    np.testing.assert_allclose(found.mean, (x.mean(0) - x.min()) / span)
    np.testing.assert_allclose(found.std, x.std(0) / span)
    some = open_source(reaches, limit=6)
    assert (some.names, some.groups.tolist()) == (list("012345"), [0] * 4 + [1, 2])
    assert "the first 6 of 16 bins" in some.notes


def test_an_array_of_images_stays_one(tmp_path):
    np.savez(tmp_path / "i.npz", x=np.zeros((4, 8, 8), np.uint8))
    assert open_source(tmp_path / "i.npz").modality == "image"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.ones((4, 0))}, "has no spike counts; save them as x"),
        ({"rates": np.full((4, 2), "a")}, "has no spike counts"),
        ({"x": np.array([[1.0, 2.0], [np.nan, 1.0]])}, r"the counts of 1 bins are not finite \(first: bin 1\)"),
        ({"x": np.ones((4, 2)), "trial_lengths": np.array([3])}, "do not add up to the 4 bins"),
        ({"x": np.ones((4, 2)), "trial_lengths": np.array([5, -1])}, "do not add up to the 4 bins"),
        ({"x": np.ones((4, 2)), "y": np.ones(3, int)}, "give one whole number for each of the 4 bins"),
        ({"x": np.array([[object()]])}, "could run code"),
    ],
)
def test_what_is_no_recording_is_one_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(ValueError, match=sentence) as error:
        open_source(tmp_path / "r.npz")
    assert "\n" not in str(error.value)


def seen_by(source, *pipelines):
    """Its plan, all of its bins, and an input that only standardises."""
    memory, _ = load_memory(source)
    s = statistics(source)
    made = Input(channels=source.channels, size=1, mean=s.mean, std=s.std, low=s.low, high=s.high)
    plan = RecordingViews("bins", pipelines, *map(torch.from_numpy, stretches(source)))
    return lambda ids, seed, epoch: [v[:, :, 0, 0] for v in plan.from_memory(torch.from_numpy(memory), ids, seed, epoch, made)]


PLAIN = Pipeline(shift=(0, 0), drop=0, noise=0)


def test_a_mild_view_is_the_standardised_bin_itself(reaches):
    source = open_source(reaches)
    (plain,) = seen_by(source, PLAIN)(torch.arange(16), 0, 0)
    x = np.load(reaches)["x"]
    np.testing.assert_allclose(plain, (x - x.mean(0)) / x.std(0), atol=1e-5)
    plan = load_views("bins", *stretches(source), takes=[(0, False), (1, False), (0, True)], pepper=0.2, **{"view2.drop": 0.5})
    assert plan.pipelines == (Pipeline(pepper=0.2), Pipeline(pepper=0.2, drop=0.5), PLAIN)
    assert plan.describe()[-1] == "view 3: the bin itself"
    with pytest.raises(ValueError, match=r"views have no setting 'dorp' \(did you mean drop"):
        load_views("bins", *stretches(source), dorp=1.0)


def test_a_shifted_view_is_a_bin_of_the_same_trial_and_every_shift_comes_up(reaches):
    r = open_source(reaches)
    views = seen_by(r, Pipeline(shift=(-2, 1), drop=0, noise=0))
    (plain,) = seen_by(r, PLAIN)(torch.arange(16), 0, 0)
    seen = set()
    for epoch in range(60):
        (view,) = views(torch.arange(16), 0, epoch)
        for i, row in enumerate(view):
            j = int((plain == row).all(1).nonzero()[0])
            assert r.groups[j] == r.groups[i]
            seen.add(j - i)
    assert seen == {-2, -1, 0, 1}


def test_views_are_a_function_of_seed_epoch_view_and_bin_alone(reaches):
    views = seen_by(open_source(reaches), Pipeline(pepper=0.5), Pipeline())
    whole = views(torch.arange(16), 1, 2)
    parts = [views(torch.arange(16)[[3, 7]], 1, 2), views(torch.tensor([7]), 1, 2)]
    assert torch.equal(parts[0][0], whole[0][[3, 7]])
    assert torch.equal(parts[1][1], whole[1][[7]])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(views(torch.arange(16), 1, 3)[0], whole[0])


def test_the_parts_of_a_view_have_the_statistics_that_they_are_said_to_have():
    g = torch.Generator().manual_seed(0)
    x, u = torch.ones(4000, 50), torch.rand(4000, 6 + 150, generator=g)
    dropped = changed(x, u, Pipeline(drop=0.9, share=0.8, noise=0)) == 0
    assert dropped.any(1).double().mean() == pytest.approx(0.9, abs=0.03)
    assert dropped.double().mean() == pytest.approx(0.9 * 0.4, abs=0.01)
    fixed = changed(x, u, Pipeline(drop=1, share=0.25, randomised=False, scaled=True, noise=0))
    assert fixed.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert fixed.mean() == pytest.approx(1, abs=0.01)
    noisy = changed(x, u, Pipeline(drop=0, sigma=(0.1, 0.2))) - 1
    assert noisy.mean() == pytest.approx(0, abs=0.002)
    assert noisy.std() == pytest.approx(math.sqrt((0.2**3 - 0.1**3) / 0.3), abs=0.003)
    peppered = changed(x, u, Pipeline(drop=0, noise=0, pepper=0.5, peppered=0.3, raised=1.5))
    assert set(peppered.unique().tolist()) == {1.0, 2.5}
    assert (peppered > 1).double().mean() == pytest.approx(0.15, abs=0.01)
    assert changed(x, torch.zeros_like(u), Pipeline(drop=0)).isfinite().all()


def test_switching_one_op_off_leaves_the_draws_of_the_others(reaches):
    r = open_source(reaches)
    noisy, both = (seen_by(r, Pipeline(drop=drop))(torch.arange(16), 0, 0)[0] for drop in (0.0, 0.9))
    kept = both != 0
    assert torch.equal(noisy[kept], both[kept])
    assert not kept.all()


def test_a_group_is_on_one_side_of_every_split_and_time_goes_forward():
    noise = np.random.default_rng(0)
    groups = np.repeat(noise.permutation(60), noise.integers(1, 6, 60))
    labels = groups % 4
    tied = splits.Ties(groups=groups)
    for split in (splits.stratified, splits.held_out):
        kept, out = split(labels, 0.2, seed=1, ties=tied)
        assert sorted([*kept, *out]) == list(range(len(labels)))
        assert not set(groups[kept]) & set(groups[out])
        assert [len(set(groups[out][labels[out] == c])) for c in range(4)] == [3] * 4, "a fifth of the groups of each class"
    fold = splits.folds(labels, 5, seed=1, ties=tied)
    assert all(len(set(fold[groups == g])) == 1 for g in range(60))
    few, more = (splits.draw_labels(labels, share, seed=0, draw=0, ties=tied) for share in (0.1, 0.5))
    for rows in (few, more):
        assert set(rows) == set(np.flatnonzero(np.isin(groups, groups[rows])))
    assert set(few) < set(more)
    times = noise.permutation(50)
    kept, out = splits.stratified(times % 2, 0.2, seed=0, ties=splits.Ties(times=times))
    assert (times[kept].max(), times[out].min(), len(out)) == (39, 40, 10)
    fold = splits.folds(times % 2, 5, seed=0, ties=splits.Ties(times=times))
    assert [sorted(times[fold == k]) for k in range(5)] == [list(range(10 * k, 10 * k + 10)) for k in range(5)]


def test_an_unknown_group_is_a_sample_of_its_own():
    groups = np.array([-1, -1, 0, 0, 0, -1, 1, 1, 1, -1])
    _, out = splits.stratified(np.zeros(10, np.int64), 0.5, seed=3, ties=splits.Ties(groups=groups))
    assert len({(g, i) if g < 0 else g for i, g in enumerate(groups) if i in out}) == 3


def test_weighted_f1_is_scikit_learns():
    noise = np.random.default_rng(0)
    for _ in range(5):
        y, said = noise.choice(3, 40, p=[0.6, 0.35, 0.05]), noise.integers(0, 3, 40)
        theirs = sklearn.metrics.f1_score(y, said, average="weighted", zero_division=0)
        assert weighted_f1(torch.from_numpy(said), torch.from_numpy(y)) == pytest.approx(theirs)
        assert measured("weighted F1", torch.eye(3)[said], torch.from_numpy(y)) == pytest.approx(theirs)


def test_angles_count_as_right_within_their_bounds_also_across_the_turn():
    gaps = torch.tensor([0.0, 0.12, 0.13, 0.18, 0.19, -0.12, -0.18, 1.0], dtype=torch.float64) * math.pi
    angle = 7 * math.pi / 4 + gaps
    out = torch.stack([angle.cos(), angle.sin()], 1) * 3
    y = torch.full((8,), 7)
    assert near(out, y, math.pi / 8).tolist() == [True, True, False, False, False, True, False, False]
    scores = out @ plane(torch.arange(8)).T
    assert measured("within pi/8", scores, y) == measured("top-1", scores, y) == 3 / 8
    assert measured("within 3pi/16", scores, y) == 6 / 8


def task(x, y, test_x):
    fields = {"encoder": None, "train": None, "centred": False, "seed": 0, "precision": "fp32", "workers": 0}
    return Task(train_x=x, train_y=y, test_x=test_x, classes=int(y.max()) + 1, **fields)


def test_directions_and_states_that_are_in_the_features_are_read_from_them():
    y = torch.arange(160) % 8
    g = torch.Generator().manual_seed(0)
    x = plane(y).float() @ torch.randn(2, 12, generator=g) + 0.05 * torch.randn(160, 12, generator=g)
    order = torch.randperm(160, generator=g)
    train, test = order[:120], order[120:]
    scores = decoding.Reach().predict(task(x[train], y[train], x[test])).scores
    assert measured("within pi/8", scores, y[test]) > 0.95
    chance = decoding.Reach().predict(task(torch.randn(120, 12, generator=g), y[train], torch.randn(40, 12, generator=g))).scores
    assert measured("within pi/8", chance, y[test]) < 0.4
    state = y % 3
    features = torch.eye(3)[state] + 0.1 * x[:, :3]
    said = decoding.State().predict(task(features[train], state[train], features[test])).scores
    assert measured("weighted F1", said, state[test]) > 0.95
    with pytest.raises(ValueError, match="out of 8 directions, and the training part has 3; give --protocol state"):
        decoding.Reach().predict(task(features[train], state[train], features[test]))


def test_readouts_side_by_side_are_those_of_torchs_adamw_one_by_one(monkeypatch):
    g = torch.Generator().manual_seed(1)
    x, test_x = (torch.randn(30, 4, generator=g).double() for _ in range(2))
    y = torch.arange(30) % 8
    monkeypatch.setattr(decoding, "DECAYS", (2.0,))
    found = decoding.Reach(held_out=0.2).predict(task(x, y, test_x)).scores
    kept = torch.from_numpy(splits.held_out(y.numpy(), 0.2, seed=0)[0])
    mean, std = x[kept].mean(0), x[kept].std(0)
    readout = nn.Linear(4, 2).double()
    nn.init.zeros_(readout.weight)
    nn.init.zeros_(readout.bias)
    optimizer = torch.optim.AdamW(readout.parameters(), lr=0.01, weight_decay=2.0)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.mse_loss(readout((x[kept] - mean) / std), plane(y[kept])).backward()
        optimizer.step()
    said = readout((test_x - mean) / std).detach()
    angles = torch.arange(8).double() * math.pi / 4
    torch.testing.assert_close(found, said[:, :1] * angles.cos() + said[:, 1:] * angles.sin(), rtol=0, atol=1e-10)


def test_the_perceptron_has_its_layers_and_is_drawn_anew():
    torch.manual_seed(0)
    net = Mlp(5, hidden=6, layers=2, dim=3)
    assert [type(m) for m in net.net] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert net(torch.ones(4, 5, 1, 1)).shape == (4, net.dim)
    before = net.net[0].weight.clone()
    net.reset_parameters()
    assert not torch.equal(net.net[0].weight, before)


def test_a_perceptron_has_a_name_and_takes_bins_as_they_are():
    given = Input(channels=5, size=1, mean=(0.5,) * 5, std=(0.25,) * 5, high=8.0)
    encoder = load_encoder("mlp-w16-d2", input=given).eval()
    assert (encoder.dim, encoder.name) == (16, "mlp-w16-d2")
    counts = np.random.default_rng(0).poisson(3, (7, 5)).clip(max=8)
    expected = encoder.net(torch.from_numpy((counts / 8 - 0.5) / 0.25).float())
    torch.testing.assert_close(encoder(encoder.preprocess(counts)), expected)
    with pytest.raises(ValueError, match="no encoder 'mlp-w0'"):
        load_encoder("mlp-w0", input=given)


def last(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_commands_take_a_recording(tuned, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, out = str(tuned), str(tmp_path / "run")
    assert main(["train", data, "--out", out, "--method", "myow", "--epochs", "2", "--set", "drop=0.5", "sigma=0.1,0.3"]) == 0
    said = capsys.readouterr()
    told = said.out + said.err
    assert "192 bins, 12 neurons" in told
    assert "64 trials" in told
    assert "--protocol reach" in told
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["settings"]["encoder"], plan["settings"]["optimizer"], plan["settings"]["lr"]) == ("mlp", "lars", 0.8)
    assert plan["method"] | {"mined_dim": 16, "neighbours": 3, "hidden": 256, "dim": 32} == plan["method"]
    assert plan["views"] == {"drop": 0.5, "sigma": [0.1, 0.3]}
    assert (tmp_path / "run" / "views.png").stat().st_size > 0
    assert main(["evaluate", out, data, "--protocol", "knn", "reach", "--json"]) == 0
    knn, reach = last(capsys)["evaluations"]
    assert [s["name"] for s in reach["scores"]] == ["counts", "random mlp", out]
    assert reach["scores"][0]["top1"] > 0.5
    assert reach["scores"][0]["also"]["within 3pi/16"] >= reach["scores"][0]["top1"]
    assert (knn["metric"], reach["metric"], reach["samples"]) == ("top-1", "within pi/8", "bins")
    assert main(["report", out]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "12 neurons" in page
    assert "cannot be drawn" not in page
    assert main(["embed", out, data, "--out", "e.npz"]) == 0
    exported = tmp_path / "e.safetensors"
    assert main(["export", out, "--out", str(exported)]) == 0
    x = np.load(data)["x"]
    loaded = byol.load(exported)
    with torch.no_grad():
        torch.testing.assert_close(loaded(loaded.preprocess(x)), torch.from_numpy(np.load("e.npz")["features"]))


def test_the_doctor_speaks_of_bins_and_neurons(tuned):
    x = np.load(tuned)["x"]
    x[:, 3] = 2
    np.savez(tuned, x=x, y=np.zeros(len(x), int))
    report = byol.doctor(tuned)
    said = "\n".join(report.lines())
    assert "192 bins" in said
    assert "neurons" in said
    assert report.doubts() == ["1 neuron that never changes"]


def test_a_recording_without_trials_is_tested_on_what_comes_last(sleep):
    (found,) = byol.evaluate("counts", sleep, protocols=["state"])
    assert (found.train, found.test, found.split, found.metric) == (96, 24, "the last in time", "weighted F1")
    assert found.scores[0].name == "counts"
    assert found.scores[0].top1 > 0.6
    plan = run.prepare(Request(data=str(sleep), method="myow")).plan
    assert plan.method["gap"] == 150


def test_counts_of_the_test_trials_are_those_that_no_split_saw(tuned):
    """The baseline by hand: the same trials held out, and scikit-learn's neighbours on the counts of the rest."""
    source = open_source(tuned)
    (found,) = evaluate_features([("counts", None)], source, protocols=["knn"])
    kept, out = splits.stratified(source.labels, 0.2, seed=0, ties=splits.Ties(source.groups))
    x = np.load(tuned)["x"].astype(np.float64)
    centred = x - x[kept].mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    alike = unit[out] @ unit[kept].T
    best = np.argsort(-alike, axis=1)[:, :20]
    votes = np.zeros((len(out), 8))
    for row, columns in enumerate(best):
        for column in columns:
            votes[row, source.labels[kept][column]] += np.exp(alike[row, column] / 0.1)
    assert found.scores[0].top1 == pytest.approx((votes.argmax(1) == source.labels[out]).mean(), abs=0.03)
    assert not set(source.groups[kept]) & set(source.groups[out])


@pytest.mark.parametrize("method", ["myow", "byol"])
def test_a_resumed_run_ends_in_the_weights_of_one_that_was_not_stopped(tuned, tmp_path, method):
    class Stop:
        def step(self, done):
            if done == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def log(self, record): ...
        def note(self, text): ...

    byol.train(tuned, tmp_path / "whole", method=method, epochs=4)
    assert byol.train(tuned, tmp_path / "cut", method=method, epochs=4, watcher=Stop()).outcome.step == 3
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    whole, cut = (byol.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_two_processes_end_where_one_does(tuned, tmp_path):
    words = ["-m", "byol", "train", tuned, "--out", tmp_path / "two", "--method", "myow", "--epochs", "2"]
    assert [p.wait(240) for p in start(2, words, port=free_port())] == [0, 0]
    byol.train(tuned, tmp_path / "one", method="myow", epochs=2)
    one, two = (byol.load(tmp_path / name).state_dict() for name in ("one", "two"))
    for key, value in one.items():  # sums in another order, in float32
        torch.testing.assert_close(two[key].double(), value.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"image_size": 32}, "image_size=32 is for images"),
        ({"recipe": "imagenet-r50-100"}, "recipe imagenet-r50-100 is for images"),
        ({"set": ("blur=0.5",)}, "--set blur: no such setting"),
        ({"set": ("views=small",)}, "no view plan 'small'; there are: bins"),
        ({"set": ("shift=0.5,2",)}, r"shift .* is no pair; give two whole numbers"),
    ],
)
def test_what_is_for_images_alone_is_refused_in_one_sentence(tuned, asked, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        run.prepare(Request(data=str(tuned), **asked))
    assert "\n" not in str(error.value)


def test_an_evaluation_that_cannot_be_is_one_sentence(tuned, sleep, tmp_path):
    with pytest.raises(ValueError, match=r"semi is for images, and .* is a recording; give knn, linear, reach or state"):
        byol.evaluate("random:mlp", tuned, protocols=["semi"])
    trained = byol.train(sleep, tmp_path / "run", epochs=1).run
    with pytest.raises(ValueError, match=r"takes 6 neurons and .* has 12; give a recording of the same neurons"):
        byol.evaluate(trained, tuned)


def test_the_image_plan_from_memory_is_that_of_its_batch():
    x = torch.arange(5 * 3 * 8 * 8).view(5, 3, 8, 8).remainder(255).to(torch.uint8)
    plan = views.load("small", size=8, compiled=False)
    given, ids = Input(channels=3, size=8, mean=(0.5,) * 3, std=(0.5,) * 3), torch.tensor([4, 1])
    for ours, theirs in zip(plan.from_memory(x, ids, 1, 2, given), plan.memory(x[ids], ids, 1, 2, given), strict=True):
        assert torch.equal(ours, theirs)


def test_the_program_measures_counts_methods_and_labels_on_a_recording():
    found = last_line("neural.py")
    assert {row["subject"] for row in found["rows"]} == {"counts", "untrained", "byol", "myow", "supervised"}
    assert all(0 <= row["within pi/8"] <= row["within 3pi/16"] <= 1 for row in found["rows"])
