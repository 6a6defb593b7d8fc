"""Dialect `paper` against a transcription of the released code, image by image, in float64 numpy, that shares no code with it.

Source: deepmind-research, byol/utils/augmentations.py. Only the random numbers come from us, by the number of their column.
"""

import numpy as np
import pytest
import torch

from byol import rng, views
from byol.encoders import Input

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ORDERS = [(a, b, c, d) for a in range(4) for b in range(4) for c in range(4) for d in range(4) if len({a, b, c, d}) == 4]


def rgb_to_hsv(r, g, b):
    v = np.maximum(np.maximum(r, g), b)
    span = v - np.minimum(np.minimum(r, g), b)
    s = np.where(v > 0, span / np.where(v > 0, v, 1), 0)
    norm = np.where(span != 0, 1 / (6 * np.where(span != 0, span, 1)), 1e9)
    h = np.where(r == v, norm * (g - b), np.where(g == v, norm * (b - r) + 2 / 6, norm * (r - g) + 4 / 6))
    h = h * (span > 0)
    return h + (h < 0), s, v


def hsv_to_rgb(h, s, v):
    c = s * v
    m, dh = v - c, (h % 1) * 6
    x, sector = c * (1 - np.abs(dh % 2 - 1)), np.floor(dh).astype(int)
    zero = np.zeros_like(c)
    tables = ((c, x, zero, zero, x, c), (x, c, c, x, zero, zero), (zero, zero, x, c, c, x))
    return np.stack([np.choose(sector, table) + m for table in tables])


def jitter(x, u, number):
    if number == 0:
        return x + (-0.4 + 0.8 * u[3])
    if number == 1:
        mean = x.mean((1, 2), keepdims=True)
        return (0.6 + 0.8 * u[4]) * (x - mean) + mean
    h, s, v = rgb_to_hsv(*x)
    if number == 2:
        return hsv_to_rgb(h, np.clip(s * (0.8 + 0.4 * u[5]), 0, 1), v)
    return hsv_to_rgb((h + (-0.1 + 0.2 * u[6])) % 1, s, v)


def blur(x, sigma):
    reach = int(x.shape[1] / 10 / 2)
    k = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    k /= k.sum()
    rows = np.apply_along_axis(lambda line: np.convolve(np.pad(line, reach), k, "valid"), 2, x)
    return np.apply_along_axis(lambda line: np.convolve(np.pad(line, reach), k, "valid"), 1, rows)


def view(raw, u, blur_probability, solarize_probability):
    """(3, S, S) uint8, its row of random numbers -> (3, S, S) float64, normalised."""
    x = raw.astype(np.float64) / 255
    if u[0] <= 0.5:
        x = x[:, :, ::-1]
    if u[1] <= 0.8:
        for number in ORDERS[int(u[2] * 24)]:
            x = np.clip(jitter(x, u, number), 0, 1)
    if u[7] <= 0.2:
        x = np.repeat((x * np.array([0.2989, 0.5870, 0.1140])[:, None, None]).sum(0, keepdims=True), 3, 0)
    if u[8] <= blur_probability:
        x = blur(x, 0.1 + 1.9 * u[9])
    if solarize_probability and u[10] <= solarize_probability:
        x = np.where(x < 0.5, x, 1 - x)
    return (np.clip(x, 0, 1) - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]


@pytest.mark.parametrize(("size", "batch"), [(48, 96), (96, 24)])
def test_device_equals_a_transcription_of_the_released_code(size, batch):
    generator = torch.Generator().manual_seed(size)
    crops = torch.randint(0, 256, (2, batch, 3, size, size), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, 10**9, (batch,), generator=generator)
    plan = views.load("paper", size=size)
    ours = plan.device(crops, ids, 5, 9, Input(channels=3, size=size, mean=MEAN, std=STD))
    for v, probabilities in enumerate([(1.0, 0.0), (0.1, 0.2)]):
        u = rng.uniforms(5, 9, rng.STREAM_VIEWS + v, ids, 11).double().numpy()
        theirs = np.stack([view(raw.numpy(), row, *probabilities) for raw, row in zip(crops[v], u, strict=True)])
        np.testing.assert_allclose(ours[v].numpy(), theirs, atol=1e-4)
