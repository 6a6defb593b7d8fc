"""The ops on spectrograms against NumPy and torch's own interpolation, one sample at a time in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byol.logmel import EPS, FrontEnd, LogMel
from byol.views import sound_ops
from byol.views.sound_norm import standardised, statistics
from byol.views.sound_state import SoundState

SHARES = ((0.6, 1.5), (0.6, 1.5), 1.5)


def spectrograms(count, bands=64, frames=96, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, bands, frames, generator=g, dtype=dtype), torch.rand(count, 4, generator=g)


def cropped(x, u, heights, widths, canvas):
    """(1, F, T), (4,) -> (1, F, T): cut out of a canvas of zeros and resized by torch."""
    bands, frames = x.shape[1:]
    wide = int(canvas * frames)
    whole = torch.zeros(1, 1, bands, wide, dtype=x.dtype)
    before = (wide - frames) // 2
    whole[0, :, :, before : before + frames] = x
    u = [float(v) for v in u]
    h = int(np.clip(int((heights[0] + (heights[1] - heights[0]) * u[0]) * bands), 1, bands))
    w = int(np.clip(int((widths[0] + (widths[1] - widths[0]) * u[1]) * frames), 1, wide))
    i, j = math.floor(u[2] * (bands - h + 1)), math.floor(u[3] * (wide - w + 1))
    return F.interpolate(whole[:, :, i : i + h, j : j + w], size=(bands, frames), mode="bicubic", align_corners=True)[0]


@pytest.mark.parametrize(
    ("size", "shares"),
    [
        ((64, 96), SHARES),
        ((7, 10), ((0.01, 2.0), (0.01, 3.0), 2.55)),
        ((1, 3), SHARES),
        ((5, 1), SHARES),
        ((8, 6), ((0.5, 0.7), (1, 1), 1.0)),
    ],
)
def test_a_random_resize_crop_is_torchs_bicubic_interpolation_of_every_sample(size, shares):
    x, u = spectrograms(48, *size)
    u[0], u[1] = 0, 1 - 2**-24  # the first and the last of everything
    ours = sound_ops.resize_crop(x, u, *shares)
    torch.testing.assert_close(ours, torch.stack([cropped(*pair, *shares) for pair in zip(x, u, strict=True)]), rtol=0, atol=1e-12)
    single = sound_ops.resize_crop(x.float(), u, *shares)
    torch.testing.assert_close(single.double(), ours, rtol=0, atol=1e-4)


def test_crops_take_every_size_and_place_that_there_is():
    u = torch.rand(200_000, 4, generator=torch.Generator().manual_seed(0))
    top, height, left, width = sound_ops.boxes(u, 8, 6, *SHARES).unbind(1)
    assert set(height.tolist()) == {4, 5, 6, 7, 8}
    assert set(width.tolist()) == {3, 4, 5, 6, 7, 8}
    assert (height == 8).double().mean() == pytest.approx((1.5 - 1.0) / 0.9, abs=0.01)
    assert set((top[height == 4]).tolist()) == {0, 1, 2, 3, 4}
    assert set((left[width == 3]).tolist()) == set(range(-1, 6))  # a canvas of 9, of which one frame lies before the sound


def test_a_louder_view_is_the_log_mel_of_the_louder_sound():
    waves = 0.1 * torch.rand(3, 8000, generator=torch.Generator().manual_seed(0))
    waves[2, 4000:] = 0  # silence stays silence
    u = torch.tensor([[0.0], [0.5], [0.9]])
    factor = 10 ** (12 * (2 * u - 1) / 20)  # of the amplitude
    assert torch.allclose(sound_ops.louder(LogMel()(waves), u, 12.0), LogMel()(factor * waves), atol=1e-3)


def test_sounds_are_mixed_as_energies_with_another_in_the_background():
    (x, u), (other, _) = spectrograms(20), spectrograms(20, seed=1)
    share = 0.4 * u[:, :1].double().numpy()[:, :, None, None]
    theirs = np.log((1 - share) * np.exp(x.numpy()) + share * np.exp(other.numpy()) + EPS)
    torch.testing.assert_close(sound_ops.mixed(x, u[:, :1].double(), other, 0.4), torch.from_numpy(theirs))
    assert torch.allclose(sound_ops.mixed(x, torch.zeros(20, 1).double(), other, 0.4), x, atol=1e-4)
    assert torch.allclose(sound_ops.mixed(x, torch.ones(20, 1).double(), other, 1.0), other, atol=1e-4)


def test_a_fader_adds_a_line_over_time():
    x, u = spectrograms(20)
    ours = sound_ops.faded(x, u[:, :2].double(), 1.5)
    for mine, before, (head, tail) in zip(ours, x, (1.5 * (2 * u[:, :2].double() - 1)).tolist(), strict=True):
        np.testing.assert_allclose(mine, before + torch.from_numpy(np.linspace(head, tail, 96)), atol=1e-12)


def test_noise_is_normal_and_of_its_own_on_every_value():
    u = torch.rand(4, 64 * 96, generator=torch.Generator().manual_seed(0))
    noise = sound_ops.noised(torch.ones(4, 1, 64, 96), u, 0.4) - 1
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(0.4, abs=0.01)
    assert (noise < -0.4).double().mean() == pytest.approx(0.1587, abs=0.01)
    assert noise.unique().numel() > 0.99 * noise.numel()
    assert sound_ops.noised(torch.ones(1, 1, 2, 2), torch.zeros(1, 4), 0.4).isfinite().all()


def test_views_are_normalised_by_the_mean_and_deviation_of_all_of_them():
    views = [3 * spectrograms(5)[0] + 1, spectrograms(5, seed=1)[0] - 4]
    whole = torch.cat(views)
    for mine, view in zip(standardised(views), views, strict=True):
        torch.testing.assert_close(mine, (view - whole.mean()) / whole.std(dim=(0, 1, 2, 3)))
    flat = standardised([torch.full((3, 1, 2, 2), 7.0)])[0]
    assert torch.equal(flat, torch.zeros_like(flat))


def test_statistics_are_those_of_the_first_windows_and_no_more_are_asked_for():
    logmel = LogMel(FrontEnd(bands=16))
    batches = [0.1 * torch.randn(4, 800, generator=torch.Generator().manual_seed(i)) for i in range(3)]

    def waves():
        yield from batches
        raise AssertionError("asked for more than was needed")

    values = logmel(torch.cat(batches)[:10]).double().numpy()
    assert statistics(waves(), logmel, most=10) == pytest.approx((values.mean(), values.std()), rel=1e-6)
    with pytest.raises(ValueError, match="there is no sound to take statistics of; give at least one window"):
        statistics([], logmel)


def test_the_bank_holds_the_last_sounds_first_in_first_out():
    state, kept = SoundState(2, 3, memory=7), []
    for number, count in enumerate((3, 5, 2, 16, 1)):
        assert state.count == len(kept)
        x = spectrograms(count, 2, 3, seed=number, dtype=torch.float32)[0]
        state.push(x)
        kept = [*kept, *x][-7:]
        oldest_first = torch.roll(state.bank, -int(state.pointer), 0)[7 - len(kept) :]
        assert torch.equal(oldest_first, torch.stack(kept))


def test_what_is_drawn_from_the_bank_is_uniform_over_what_is_in_it():
    state = SoundState(1, 1, memory=100)
    assert torch.equal(state.drawn(torch.rand(5)), torch.zeros(5, 1, 1, 1))
    state.push(torch.arange(1, 11).view(10, 1, 1, 1).float())
    u = torch.arange(2**10) / 2**10
    found, times = state.drawn(u).flatten().unique(return_counts=True)
    assert found.tolist() == list(range(1, 11))
    assert set(times.tolist()) <= {102, 103}
    for count in range(11, 101):
        state.push(torch.tensor(float(count)).view(1, 1, 1, 1))
        assert state.drawn(torch.tensor([1 - 2**-24])).item() == count


def test_running_statistics_are_those_of_everything_seen():
    state = SoundState(4, 6, memory=0)
    parts = [(number + 1) * spectrograms(count, 4, 6, seed=number, dtype=torch.float32)[0] - 8 for number, count in enumerate((3, 1, 9))]
    for number, part in enumerate(parts):
        state.learn(part)
        seen = torch.cat(parts[: number + 1]).double().numpy()
        assert float(state.mean) == pytest.approx(seen.mean(), rel=1e-6)
        assert float(state.std()) == pytest.approx(seen.std(), rel=1e-6)
        assert int(state.seen) == len(seen)
    state.settle(-5.5, 5.0)
    torch.testing.assert_close(state.normalised(torch.tensor([-5.5, -0.5])), torch.tensor([0.0, 1.0]))
