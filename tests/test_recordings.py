"""Recordings of neurons, their views, and what is read from features, against loops, NumPy and scikit-learn."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from test_benchmarks import last_line
from torch import nn

from byol.data.recordings import by_trial, in_time, open_recording
from byol.encoders.mlp import Mlp
from byol.evaluation import decoding
from byol.feeds import RecordingFeed
from byol.views.recordings import PLAIN, Pipeline, RecordingViews, changed

LENGTHS = [4, 1, 6, 5]


@pytest.fixture
def reaches(tmp_path):
    x = np.random.default_rng(0).poisson(3, (16, 9)).astype(np.float32)
    np.savez(tmp_path / "r.npz", x=x, y=np.arange(16) % 8, trial_lengths=np.array(LENGTHS), vel=np.zeros((16, 2)))
    return tmp_path / "r.npz"


def test_a_recording_of_reaches_has_trials_and_no_common_clock(reaches):
    r = open_recording(reaches)
    assert r.counts.shape == (16, 9)
    assert r.groups.tolist() == [0] * 4 + [1] + [2] * 6 + [3] * 5
    assert r.times is None
    assert r.labels.tolist() == [i % 8 for i in range(16)]
    first, last = r.bounds()
    for i in range(16):
        same = [j for j in range(16) if r.groups[j] == r.groups[i]]
        assert (first[i], last[i]) == (min(same), max(same))


def test_a_recording_of_sleep_has_a_clock_and_no_trials(tmp_path):
    np.savez(tmp_path / "m.npz", rates=np.ones((7, 3), np.int16), state=np.array([0, 1, 1, 2, 0, 0, 1], np.uint8))
    r = open_recording(tmp_path / "m.npz")
    assert (r.groups.tolist(), r.times.tolist(), r.labels.tolist()) == ([0] * 7, list(range(7)), [0, 1, 1, 2, 0, 0, 1])
    assert [b.tolist() for b in r.bounds()] == [[0] * 7, [6] * 7]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"z": np.ones((4, 2))}, "has no spike counts; save them as x"),
        ({"x": np.ones(4)}, "has no spike counts"),
        ({"x": np.ones((4, 2)), "trial_lengths": np.array([3])}, "do not add up to the 4 bins"),
        ({"x": np.ones((4, 2)), "trial_lengths": np.array([5, -1])}, "do not add up to the 4 bins"),
        ({"x": np.ones((4, 2)), "y": np.ones(3, int)}, "give one whole number for each of the 4 bins"),
        ({"x": np.array([[object()]])}, "could run code"),
    ],
)
def test_what_is_no_recording_is_one_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(ValueError, match=sentence) as error:
        open_recording(tmp_path / "r.npz")
    assert "\n" not in str(error.value)


def test_a_trial_is_in_one_part_and_time_goes_forward(reaches):
    groups = np.repeat(np.arange(30), 5)
    parts = by_trial(groups, (0.8, 0.1, 0.1), seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(150))
    assert [len(set(groups[p])) for p in parts] == [24, 3, 3]
    assert not set(groups[parts[0]]) & set(groups[parts[2]])
    assert [(p[0], p[-1]) for p in in_time(100, (0.7, 0.1, 0.2))] == [(0, 69), (70, 79), (80, 99)]
    with pytest.raises(ValueError, match="too few for 3 parts"):
        in_time(2, (0.7, 0.1, 0.2))
    with pytest.raises(ValueError, match="add up to 1"):
        in_time(10, (0.7, 0.1))


def plain_views(recording, *pipelines):
    x = torch.from_numpy(recording.counts)
    return RecordingViews((x - x.mean(0)) / x.std(0), *recording.bounds(), pipelines)


def test_a_shifted_view_is_a_bin_of_the_same_trial_and_every_shift_comes_up(reaches):
    r = open_recording(reaches)
    views = plain_views(r, Pipeline(shift=(-2, 1), drop=0, noise=0))
    seen = set()
    for epoch in range(60):
        (view,) = views(torch.arange(16), 0, epoch)
        for i, row in enumerate(view):
            j = int((views.x == row).all(1).nonzero()[0])
            assert r.groups[j] == r.groups[i]
            seen.add(j - i)
    assert seen == {-2, -1, 0, 1}


def test_views_are_a_function_of_seed_epoch_view_and_bin_alone(reaches):
    views = plain_views(open_recording(reaches), Pipeline(pepper=0.5), Pipeline())
    whole = views(torch.arange(16), 1, 2)
    parts = [views(torch.arange(16)[[3, 7]], 1, 2), views(torch.tensor([7]), 1, 2)]
    assert torch.equal(parts[0][0], whole[0][[3, 7]])
    assert torch.equal(parts[1][1], whole[1][[7]])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(views(torch.arange(16), 1, 3)[0], whole[0])
    assert torch.equal(plain_views(open_recording(reaches), PLAIN)(torch.arange(16), 0, 0)[0], views.x)


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
    r = open_recording(reaches)
    noisy, both = (plain_views(r, Pipeline(drop=drop))(torch.arange(16), 0, 0)[0] for drop in (0.0, 0.9))
    kept = both != 0
    assert torch.equal(noisy[kept], both[kept])
    assert not kept.all()


def test_a_feed_gives_trials_of_its_own_bins_alone(reaches):
    r = open_recording(reaches)
    bins = np.array([0, 2, 5, 6, 9, 12, 13, 15])
    feed = RecordingFeed(plain_views(r, PLAIN, PLAIN), batch=4, seed=0, rows={"groups": r.groups}, bins=bins)
    seen = list(feed(0, 2))
    assert sorted(g for _, rows in seen for g in rows["groups"].tolist()) == sorted(r.groups[bins].tolist())
    assert all(torch.equal(v, w) for (v, w), _ in seen)
    again = next(iter(feed(1, 2)))
    assert torch.equal(again[0][0], seen[1][0][0])


def test_weighted_f1_is_scikit_learns():
    noise = np.random.default_rng(0)
    for _ in range(5):
        y, said = noise.choice(3, 40, p=[0.6, 0.35, 0.05]), noise.integers(0, 3, 40)
        theirs = sklearn.metrics.f1_score(y, said, average="weighted", zero_division=0)
        assert decoding.weighted_f1(torch.from_numpy(said), torch.from_numpy(y)) == pytest.approx(theirs)


def test_angles_count_as_right_within_their_bounds_also_across_the_turn():
    gaps = torch.tensor([0.0, 0.12, 0.13, 0.18, 0.19, -0.12, -0.18, 1.0]) * math.pi
    angle = 7 * math.pi / 4 + gaps
    out = torch.stack([angle.cos(), angle.sin()], 1) * 3
    y = torch.full((8,), 7)
    assert decoding._off(out, y, math.pi / 8) == 3 / 8
    assert decoding._off(out, y, 3 * math.pi / 16) == 6 / 8


def test_directions_and_states_that_are_in_the_features_are_read_from_them():
    y = torch.arange(160) % 8
    g = torch.Generator().manual_seed(0)
    x = decoding._plane(y) @ torch.randn(2, 12, generator=g) + 0.05 * torch.randn(160, 12, generator=g)
    parts = [decoding.Part(x[i::3], y[i::3]) for i in range(3)]
    assert decoding.reach(*parts).acc > 0.95
    chance = decoding.reach(*(decoding.Part(torch.randn(len(p.y), 12, generator=g), p.y) for p in parts))
    assert chance.acc < 0.4
    assert chance.delta_acc >= chance.acc
    states = [decoding.Part(torch.eye(3)[p.y % 3] + 0.1 * p.x[:, :3], p.y % 3) for p in parts]
    assert decoding.state(*states) > 0.95


def test_readouts_side_by_side_are_those_of_torchs_adamw_one_by_one(monkeypatch):
    g = torch.Generator().manual_seed(1)
    parts = [decoding.Part(torch.randn(30, 4, generator=g).double(), torch.randint(0, 8, (30,), generator=g)) for _ in range(3)]
    monkeypatch.setattr(decoding, "DECAYS", (2.0,))
    monkeypatch.setattr(decoding, "_off", lambda out, y, most: out)  # what the readout itself says
    found = decoding.reach(*parts).acc
    x, y = parts[0].x, decoding._plane(parts[0].y)
    mean, std = x.mean(0), x.std(0)
    readout = nn.Linear(4, 2).double()
    nn.init.zeros_(readout.weight)
    nn.init.zeros_(readout.bias)
    optimizer = torch.optim.AdamW(readout.parameters(), lr=0.01, weight_decay=2.0)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.mse_loss(readout((x - mean) / std), y).backward()
        optimizer.step()
    torch.testing.assert_close(found, readout((parts[2].x - mean) / std).detach(), rtol=0, atol=1e-10)


def test_the_perceptron_has_its_layers_and_is_drawn_anew():
    torch.manual_seed(0)
    net = Mlp(5, hidden=6, layers=2, dim=3)
    assert [type(m) for m in net.net] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert net(torch.ones(4, 5, 1, 1)).shape == (4, net.dim)
    before = net.net[0].weight.clone()
    net.reset_parameters()
    assert not torch.equal(net.net[0].weight, before)


@pytest.mark.parametrize("method", ["myow", "byol"])
def test_the_program_trains_on_a_recording_and_reads_the_angle(method):
    found = last_line("neural.py", "--method", method)
    (row,) = found["rows"]
    assert row["bins"] == 300
    assert row["counts acc"] > 0.5
    assert 0 <= row[f"{method} acc"] <= row[f"{method} delta_acc"] <= 1
