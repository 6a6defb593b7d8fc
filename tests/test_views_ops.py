"""Each colour op against torchvision, scikit-image or the equation in float64."""

import numpy as np
import pytest
import torch

from byol.views import channels, ops

B = 6


@pytest.fixture
def images():
    """(6, 3, 9, 11) in [0, 1]; among them gray, black, white and saturated pixels, where HSV is degenerate."""
    x = torch.rand(B, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    x[0, :, 0] = 0
    x[0, :, 1] = 1
    x[0, :, 2] = 0.3
    x[0, :, 3] = torch.eye(3).repeat(1, 4)[:, :11]
    x[0, :, 4] = 1 - torch.eye(3).repeat(1, 4)[:, :11]
    return x


@pytest.fixture
def u():
    return torch.rand(B, 1, generator=torch.Generator().manual_seed(1))


def each(function, x, factors):
    return torch.stack([function(one, float(factor)) for one, factor in zip(x, factors.flatten(), strict=True)])


def hsv(x, change):
    """Through scikit-image's HSV in float64 and back: `change(h, s, v, sample)`."""
    from skimage.color import hsv2rgb, rgb2hsv

    planes = [rgb2hsv(one.permute(1, 2, 0).double().numpy()) for one in x]
    back = [hsv2rgb(np.stack(change(p[..., 0], p[..., 1], p[..., 2], i), -1)) for i, p in enumerate(planes)]
    return torch.from_numpy(np.stack(back)).permute(0, 3, 1, 2).float()


def test_brightness_of_the_paper_is_added(images, u):
    delta = (u * 0.8 - 0.4)[:, :, None, None]
    torch.testing.assert_close(ops.brightness_added(images.clone(), u, 0.4), (images + delta).clamp(0, 1))


def test_contrast_of_the_paper_is_about_the_mean_of_each_channel(images, u):
    x, f = images.double(), (0.6 + 0.8 * u.double())[:, :, None, None]
    mean = x.flatten(2).mean(2)[:, :, None, None]
    torch.testing.assert_close(
        ops.contrast_of_channels(images.clone(), u, 0.4), (f * (x - mean) + mean).clamp(0, 1).float(), atol=1e-6, rtol=0
    )


def test_saturation_of_the_paper_is_that_of_hsv(images, u):
    expected = hsv(images, lambda h, s, v, i: (h, np.clip(s * (0.8 + 0.4 * float(u[i])), 0, 1), v))
    torch.testing.assert_close(ops.saturation_hsv(images.clone(), u, 0.2), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_hue_turns_that_of_hsv(images, u, strength):
    expected = hsv(images, lambda h, s, v, i: ((h + strength * (2 * float(u[i]) - 1)) % 1.0, s, v))
    torch.testing.assert_close(ops.hue(images.clone(), u, strength), expected, atol=3e-6, rtol=0)


def test_hue_agrees_with_torchvision(images, u):
    from torchvision.transforms.v2 import functional as theirs

    torch.testing.assert_close(ops.hue(images.clone(), u, 0.1), each(theirs.adjust_hue, images, 0.2 * u - 0.1), atol=3e-6, rtol=0)


@pytest.mark.parametrize(
    ("ours", "name", "strength"),
    [
        (ops.brightness_scaled, "adjust_brightness", 0.4),
        (ops.contrast_of_gray, "adjust_contrast", 0.4),
        (ops.saturation_blended, "adjust_saturation", 0.2),
    ],
)
def test_the_blending_ops_agree_with_torchvision(images, u, ours, name, strength):
    from torchvision.transforms.v2 import functional

    expected = each(getattr(functional, name), images, 1 - strength + 2 * strength * u)
    torch.testing.assert_close(ours(images.clone(), u, strength), expected, atol=1e-6, rtol=0)


def test_grayscale_and_solarize_agree_with_torchvision(images, u):
    from torchvision.transforms.v2 import functional as theirs

    torch.testing.assert_close(ops.grayscale(images.clone(), u), theirs.rgb_to_grayscale(images, num_output_channels=3), atol=1e-6, rtol=0)
    torch.testing.assert_close(ops.solarize(images.clone(), u), theirs.solarize(images, 0.5))
    half = torch.full((1, 3, 2, 2), 0.5)
    assert torch.equal(ops.solarize(half, u), half)


def test_brightness_of_the_dialects_differs_where_the_trap_says(u):
    # torchvision's multiplicative brightness leaves black black; the paper's additive one lifts it.
    black, up = torch.zeros(1, 3, 2, 2), torch.full((1, 1), 0.999)
    assert ops.brightness_scaled(black, up, 0.4).max() == 0
    assert ops.brightness_added(black, up, 0.4).min() > 0.39


def test_per_channel_draws_change_each_channel_by_its_own():
    x = torch.full((2, 4, 3, 3), 0.5)
    u = torch.rand(2, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ops.brightness_added(x.clone(), u, 0.4)[:, :, 0, 0], 0.5 + 0.8 * u - 0.4)
    torch.testing.assert_close(channels.gain(x.clone(), u, 0.1)[:, :, 0, 0], 0.5 * (0.9 + 0.2 * u))


def test_ops_for_other_channels_equal_their_equations():
    x = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(3))
    u = torch.tensor([[0.0], [0.5], [0.9]])
    f = (0.8 + 0.4 * u)[:, :, None, None]
    mean = x.mean(1, keepdim=True)
    torch.testing.assert_close(channels.towards_mean(x.clone(), u, 0.2), (f * x + (1 - f) * mean).clamp(0, 1))
    torch.testing.assert_close(channels.mean_everywhere(x.clone(), u), mean.expand(3, 5, 4, 4))
    one = x[:, :1]
    torch.testing.assert_close(channels.gamma(one.clone(), u, 0.2), one**f)
    stretched = channels.stretch(one, u)
    assert torch.equal(stretched.amin((1, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(stretched.amax((1, 2, 3)), torch.ones(3))
    flat = torch.full((1, 1, 2, 2), 0.7)
    assert torch.equal(channels.stretch(flat, u[:1]), flat)
