"""The blur, by shifted sums and by banded products, against scipy's correlation and torchvision's blur."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from byol.views.blur import blur, radius, reaches


def gaussian(sigma, reach):
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    k = np.exp(-(x**2) / (2 * sigma**2))
    return k / k.sum()


@pytest.mark.parametrize(("size", "taps"), [(19, 1), (20, 3), (32, 3), (96, 9), (128, 13), (224, 23)])
def test_the_kernel_rule_is_the_released_codes(size, taps):
    assert 2 * radius(size) + 1 == taps


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize(
    ("shape", "taps"), [((2, 8, 8), 3), ((3, 32, 32), 3), ((1, 70, 45), 9), ((3, 65, 64), 13), ((1, 100, 33), 23), ((2, 12, 12), 23)]
)
def test_the_blur_equals_a_separable_correlation(shape, taps, border):
    u = torch.tensor([[0.0], [0.3], [0.999]])
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    ours = blur(x, u, sigma=(0.1, 2.0), taps=taps, border=border)
    mode = {"zero": "constant", "reflect": "mirror"}[border]
    for sample, draw, out in zip(x.double().numpy(), u.double().flatten().numpy(), ours, strict=True):
        kernel = gaussian(0.1 + 1.9 * draw, taps // 2)
        expected = correlate1d(correlate1d(sample, kernel, axis=1, mode=mode), kernel, axis=2, mode=mode)
        np.testing.assert_allclose(out.numpy(), expected, atol=2e-6)


def test_a_reflected_blur_agrees_with_torchvision():
    from torchvision.transforms.v2 import functional as theirs

    x = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    u = torch.tensor([[0.2], [0.8]])
    ours = blur(x, u, sigma=(0.1, 2.0), taps=9, border="reflect")
    expected = torch.stack([theirs.gaussian_blur(one, [9, 9], [0.1 + 1.9 * float(d)] * 2) for one, d in zip(x, u, strict=True)])
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


def test_zero_padding_darkens_the_border_and_reflection_does_not():
    white, u = torch.ones(1, 1, 32, 32), torch.ones(1, 1)
    assert blur(white, u, sigma=(0.1, 2.0), taps=9, border="zero")[0, 0, 0, 0] < 0.5
    torch.testing.assert_close(blur(white, u, sigma=(0.1, 2.0), taps=9, border="reflect"), white)


@pytest.mark.parametrize("border", ["zero", "reflect"])
def test_pixels_left_out_beyond_the_reach_change_nothing_that_counts(border):
    u = torch.linspace(0, 0.999, 40)[:, None]
    x = (torch.rand(40, 1, 40, 44, generator=torch.Generator().manual_seed(2)) > 0.5).float()  # the largest steps that there are
    near = reaches(u[:, 0].numpy(), (0.1, 2.0), 23)
    assert 0 <= near[0] < near[-1] < 11
    assert (np.diff(near) >= 0).all()
    ours = torch.cat([blur(x[i : i + 1], u[i : i + 1], sigma=(0.1, 2.0), taps=23, border=border, reach=int(r)) for i, r in enumerate(near)])
    torch.testing.assert_close(ours, blur(x, u, sigma=(0.1, 2.0), taps=23, border=border), atol=1e-5, rtol=0)


def test_the_reach_never_exceeds_the_kernel():
    assert reaches(np.array([0.999], np.float32), (0.1, 2.0), 3).tolist() == [1]
