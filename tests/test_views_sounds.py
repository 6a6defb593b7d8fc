"""Views of sound against a transcription of BYOL-A's order of things, sample by sample in float64; only the draws come from us."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from sounds_together import BATCH, STEPS, batch, everything
from test_dist import free_port
from together import TESTS, start

from byol import rng
from byol.logmel import LogMel
from byol.views import sounds

EPS = 2.0**-23
SHORT = {"seconds": 0.2, "memory": 20}  # 21 frames


def crop(x, u):
    """(64, T), 4 draws -> (64, T)"""
    bands, frames = x.shape
    wide = int(1.5 * frames)
    canvas = np.zeros((bands, wide))
    canvas[:, (wide - frames) // 2 :][:, :frames] = x
    h = min(bands, int((0.6 + 0.9 * u[0]) * bands))
    w = min(wide, int((0.6 + 0.9 * u[1]) * frames))
    i, j = math.floor(u[2] * (bands - h + 1)), math.floor(u[3] * (wide - w + 1))
    cut = torch.from_numpy(canvas[i : i + h, j : j + w])[None, None]
    return F.interpolate(cut, size=(bands, frames), mode="bicubic", align_corners=True)[0, 0].numpy()


class Bank(list):
    """The last sounds, each in the place of the oldest: a place is what is drawn."""

    def put(self, sound, memory, turn):
        self[turn % memory : turn % memory + 1] = [sound]


def byol_a(steps, seed, *, alpha, gain, running, memory, noise=0.0, twice=True, post=True):
    """[(B, 64, T) log-mels, ids] of each step -> its two views (B, 64, T)."""
    bank, seen, turn = Bank(), [], itertools.count()
    for epoch, (log_mels, ids) in enumerate(steps):
        if running:
            seen.append(log_mels)
            known = np.concatenate(seen)
            x = (log_mels - known.mean()) / known.std()
        else:
            x = (log_mels + 9.66) / 4.72
        views = []
        for number in range(2):
            u = rng.uniforms(seed, epoch, number, ids, 12 + (x[0].size if noise else 0)).double().numpy()
            view = []
            for sample, draw in zip(x, u, strict=True):
                if bank and alpha:
                    share = alpha * draw[1]
                    sample = np.log((1 - share) * np.exp(sample) + share * np.exp(bank[int(draw[2] * len(bank))]) + EPS)
                if noise:
                    sample = sample + scipy.stats.norm.ppf(draw[12:] + 2**-25, scale=noise).reshape(sample.shape)
                sample = crop(sample, draw[3:7])
                head, tail = gain * (2 * draw[7:9] - 1)
                view.append(sample + np.linspace(head, tail, sample.shape[1]))
            views.append(np.stack(view))
            for entry in x if twice or number else []:
                bank.put(entry, memory, next(turn))
        whole = np.concatenate(views)
        yield [(v - whole.mean()) / whole.std(ddof=1) for v in views] if post else views


@pytest.mark.parametrize(
    ("name", "changes", "reference"),
    [
        ("byol-a-v1", {}, {"alpha": 0.4, "gain": 0.0, "running": True}),
        ("byol-a-v2", {}, {"alpha": 0.2, "gain": 1.0, "running": False}),
        ("byol-a-v2", {"mixup": 0, "noise": 0.4, "post": False}, {"alpha": 0, "gain": 1.0, "running": False, "noise": 0.4, "post": False}),
        ("byol-a-v1", {"push_each_view": False}, {"alpha": 0.4, "gain": 0.0, "running": True, "twice": False}),
    ],
)
def test_views_are_those_of_byol_a(name, changes, reference):
    plan = sounds.load(name, **SHORT, **changes)
    state = plan.state((-9.66, 4.72))
    steps = [batch(step, plan.samples) for step in range(4)]
    log_mels = [(LogMel()(waves)[:, 0].double().numpy(), ids) for waves, ids in steps]
    for epoch, ((waves, ids), theirs) in enumerate(zip(steps, byol_a(log_mels, 3, memory=20, **reference), strict=True)):
        ours = plan.device(waves, ids, 3, epoch, state)
        assert len(ours) == 2
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.shape == (BATCH, 1, 64, 21)
            assert mine.dtype == torch.float32
            assert not mine.requires_grad
            np.testing.assert_allclose(mine[:, 0].double().numpy(), other, rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What one process finds, and what two find together."""
    out = tmp_path_factory.mktemp("sounds")
    team = start(2, [TESTS / "sounds_together.py", out / "two.pt"], port=free_port())
    everything(out / "one.pt")
    assert [p.wait(240) for p in team] == [0, 0]
    return [torch.load(out / name, weights_only=True) for name in ("one.pt", "two.pt")]


def test_two_processes_have_the_views_the_bank_and_the_statistics_of_one(together):
    one, two = together
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}")
    assert int(two["byol-a-v1/count"]) == 20
    assert int(two["byol-a-v1/pointer"]) == 2 * BATCH * STEPS % 20
    assert int(two["byol-a-v1/seen"]) == BATCH * STEPS
    assert int(two["byol-a-v2/seen"]) == 0


def test_the_state_in_a_checkpoint_goes_on_bit_for_bit():
    plan = sounds.load("byol-a-v1", **SHORT)
    whole = plan.state()
    steps = [batch(step, plan.samples) for step in range(3)]
    for step in range(2):
        plan.device(*steps[step], 0, step, whole)
    again = plan.state()
    again.load_state_dict({k: v.clone() for k, v in whole.state_dict().items()})
    for ours, theirs in zip(plan.device(*steps[2], 0, 2, again), plan.device(*steps[2], 0, 2, whole), strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(again.state_dict()[k], v) for k, v in whole.state_dict().items())


def test_a_view_depends_on_its_sample_and_the_bank_and_not_on_its_neighbours():
    plan = sounds.load("byol-a-v2", **SHORT, post=False)
    first, (waves, ids) = batch(0, plan.samples), batch(1, plan.samples)
    states = [plan.state((-9.66, 4.72)) for _ in range(3)]
    for state in states:
        plan.device(*first, 0, 0, state)
    whole = plan.device(waves, ids, 0, 1, states[0])[0]
    part = plan.device(waves[[5, 2]], ids[[5, 2]], 0, 1, states[1])[0]
    torch.testing.assert_close(part, whole[[5, 2]], rtol=0, atol=1e-4)
    other = plan.device(waves, ids, 0, 2, states[2])[0]
    assert not torch.allclose(other, whole, atol=0.1)


def test_switching_one_op_off_leaves_the_draws_of_the_others():
    plan = sounds.load("byol-a-v1", **SHORT, mixup=0, post=False)
    faded = sounds.load("byol-a-v1", **SHORT, mixup=0, post=False, fader=1.0)
    (waves, ids) = batch(0, plan.samples)
    a, b = (p.device(waves, ids, 0, 0, p.state())[1] for p in (plan, faded))
    line = b - a
    torch.testing.assert_close(line, line[:, :, :1].expand_as(line), rtol=0, atol=1e-4)
    torch.testing.assert_close(line.diff(n=2, dim=3), torch.zeros(BATCH, 1, 64, 19), rtol=0, atol=1e-4)
    assert line.abs().max() > 0.3


def test_each_view_is_heard_at_a_level_of_its_own_and_the_bank_at_that_of_the_recording():
    plan = sounds.load("byol-a-v2", **SHORT, gain=12, mixup=0, crop=False, fader=0, post=False)
    (waves, ids) = batch(0, plan.samples)
    state = plan.state((-9.66, 4.72))
    for number, view in enumerate(plan.device(waves, ids, 0, 0, state)):
        level = 12 * (2 * rng.uniforms(0, 0, number, ids, 12)[:, 9:10] - 1)
        torch.testing.assert_close(view, state.normalised(LogMel()(waves * 10 ** (level / 20))), rtol=0, atol=1e-3)
        assert level.min() < -3
        assert level.max() > 3
    mixing = sounds.load("byol-a-v2", **SHORT, gain=12)
    bank = mixing.state((-9.66, 4.72))
    mixing.device(waves, ids, 0, 0, bank)
    torch.testing.assert_close(bank.bank[:BATCH], state.normalised(LogMel()(waves)), rtol=0, atol=1e-5)


def test_the_first_view_of_all_is_not_mixed_and_running_statistics_stop_after_their_epochs():
    kept = {"crop": False, "post": False, "pre_epochs": 2}
    plan = sounds.load("byol-a-v1", **SHORT, **kept)
    state = plan.state()
    waves, ids = batch(0, plan.samples)
    first, second = plan.device(waves, ids, 0, 0, state)
    bare = state.normalised(LogMel()(waves))
    assert torch.equal(first, bare)
    assert (second - bare).abs().max() > 0.01  # the bank holds this batch by now
    for epoch in range(1, 4):
        plan.device(*batch(epoch, plan.samples), 0, epoch, state)
        assert int(state.seen) == BATCH * min(2, epoch + 1)


def test_windows_lie_within_long_sounds_and_around_short_ones():
    plan = sounds.load("byol-a-v1")
    assert (plan.samples, plan.shape) == (15200, (64, 96))
    lengths, ids = torch.tensor([15200, 15199, 15000, 0, 15205, 10**9]), torch.arange(6)
    found = torch.stack([plan.windows(lengths, ids, 0, epoch) for epoch in range(300)])
    assert found.dtype == torch.int64
    assert [set(column) for column in found.T[:5].tolist()] == [{0}, {0}, {-100}, {-7600}, set(range(6))]
    assert 0 <= found[:, 5].min() < found[:, 5].max() <= 10**9 - 15200
    assert found[:, 5].double().mean() == pytest.approx(5e8, rel=0.1)
    ended = sounds.load("byol-a-v2").windows(lengths, ids, 0, 7)
    assert ended[:4].tolist() == [0] * 4
    assert torch.equal(ended[4:], found[7, 4:])
    assert torch.equal(plan.windows(lengths[4:], ids[4:], 0, 7), found[7, 4:])


def test_any_number_of_views_is_of_the_same_window():
    plan = sounds.load("byol-a-v2", takes=((0, False),) * 3, **SHORT)
    state = plan.state((-9.66, 4.72))
    waves, ids = batch(0, plan.samples)
    views = plan.device(waves, ids, 0, 0, state)
    assert len(views) == 3
    assert int(state.count) == 20
    assert torch.cat(views).mean() == pytest.approx(0, abs=1e-5)
    assert torch.cat(views).std() == pytest.approx(1, abs=1e-4)


def test_a_mild_view_is_the_window_itself_and_neither_it_nor_a_view_without_mixup_fills_the_bank():
    plan = sounds.load("byol-a-v1", takes=((0, False), (1, False), (0, True), (0, True)), **SHORT, post=False)
    assert (plan.mixing, len(plan.pipelines)) == ([0, 1], 4)
    state = plan.state()
    waves, ids = batch(0, plan.samples)
    first, second, third, fourth = plan.device(waves, ids, 0, 0, state)
    bare = state.normalised(LogMel()(waves))
    assert torch.equal(third, bare)
    assert torch.equal(fourth, bare)
    # Mild views leave the others as they are.
    usual = sounds.load("byol-a-v1", **SHORT, post=False)
    for ours, theirs in zip((first, second), usual.device(waves, ids, 0, 0, usual.state()), strict=True):
        assert torch.equal(ours, theirs)
    assert int(state.pointer) == 2 * BATCH
    alone = sounds.load("byol-a-v1", **SHORT, **{"view2.mixup": 0})
    alone.device(waves, ids, 0, 0, state := alone.state())
    assert int(state.count) == BATCH
    said = " ".join(plan.describe())
    assert "view 3: the window itself view 4: the window itself" in said


def test_a_setting_of_one_view_changes_that_view_alone():
    plan, faded = (sounds.load("byol-a-v1", **SHORT, mixup=0, post=False, **more) for more in ({}, {"view2.fader": 1.0}))
    waves, ids = batch(0, plan.samples)
    (first, second), (same, other) = (p.device(waves, ids, 0, 0, p.state()) for p in (plan, faded))
    assert torch.equal(first, same)
    line = other - second
    torch.testing.assert_close(line, line[:, :, :1].expand_as(line), rtol=0, atol=1e-4)
    assert line.abs().max() > 0.3


def test_views_are_told_in_words_of_at_most_80_columns():
    first, second = (sounds.load(name).describe() for name in sounds.PLANS)
    assert max(map(len, [*first, *second])) <= 72
    said = " ".join(" ".join(first).split())
    assert "2 views of one window of 0.95 s at 16,000 Hz" in said
    assert "64 mel bands from 60 to 7800 Hz, 96 frames, one every 10 ms" in said
    assert "one of the last 2,048 sounds mixed in, up to 40 %" in said
    assert "no fader" in said
    assert "linear fader +-1" in " ".join(second)
    other = " ".join(sounds.load("byol-a-v1", mixup=0, noise=0.4, crop=False, pre="none", post=False, takes=[(0, False)]).describe())
    for words in ("nothing mixed in", "Gaussian noise of 0.4 deviations", "no crop", "not normalised before"):
        assert words in other
    assert "then normalised" not in other


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("byol-a-v3", {}, r"there are no views of sound 'byol-a-v3' \(did you mean byol-a-v2 or byol-a-v1\?\)"),
        ("byol-a-v1", {"mixupp": 0}, r"no setting 'mixupp' \(did you mean mixup\?\)"),
        ("byol-a-v1", {"mixup": 2}, "mixup 2.0 is no share"),
        ("byol-a-v1", {"mixup": float("nan")}, "mixup nan is no share"),
        ("byol-a-v1", {"memory": 0}, "memory 0 keeps no sound to mix with"),
        ("byol-a-v1", {"memory": 2.5}, "memory 2.5 is not a whole number"),
        ("byol-a-v1", {"memory": float("inf")}, "memory inf is not a whole number"),
        ("byol-a-v1", {"crop": 2}, "crop 2 is not true or false; give that"),
        ("byol-a-v1", {"heights": 0.5}, "heights 0.5 is no pair"),
        ("byol-a-v1", {"heights": (0.0, 1.0)}, "heights 0.0, 1.0 is no range"),
        ("byol-a-v1", {"widths": (1.5, 0.6)}, "widths 1.5, 0.6 is no range"),
        ("byol-a-v1", {"canvas": 0.5}, "canvas 0.5 is no width that holds the sound"),
        ("byol-a-v1", {"pre": "always"}, "pre 'always' is not known; give one of running, given, none"),
        ("byol-a-v1", {"pad": "start"}, "pad 'start' is not known; give one of both, end"),
        ("byol-a-v1", {"noise": -1}, "noise -1.0 is no amount"),
        ("byol-a-v1", {"noise": "loud"}, "noise 'loud' is not a number"),
        ("byol-a-v1", {"seconds": 0}, "seconds 0.0 is no length of a window"),
        ("byol-a-v1", {"seconds": 1e-6}, "seconds 1e-06 is less than a sample at 16000 Hz"),
        ("byol-a-v1", {"takes": ()}, "the views byol-a-v1 are 0; give 1 or more"),
        ("byol-a-v1", {"view2.seconds": 2}, "views of sound share one seconds, not 0.95 and 2.0; set seconds without a view before it"),
        ("byol-a-v1", {"view3.fader": 1}, "view3.fader: the views byol-a-v1 have no view 3; give view1 to view2"),
        ("byol-a-v1", {"view2.fade": 1}, r"no setting 'fade' \(did you mean fader\?\)"),
    ],
)
def test_views_that_cannot_be_are_one_sentence(name, changes, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        sounds.load(name, **changes)
    assert "\n" not in str(error.value)


def test_views_that_need_statistics_are_not_made_without():
    with pytest.raises(ValueError, match="the views byol-a-v2 need the statistics of the data; give their mean and deviation"):
        sounds.load("byol-a-v2").state()


def test_waveforms_of_another_length_are_one_sentence():
    plan = sounds.load("byol-a-v1")
    with pytest.raises(ValueError, match="the views byol-a-v1 are of 15200 samples; these waveforms have 16000"):
        plan.device(torch.zeros(2, 16000), torch.arange(2), 0, 0, plan.state())
