"""Encoders that see lightness and colours apart: scikit-image's values, names, and what they are built of."""

import dataclasses

import numpy as np
import pytest
import torch

from byol import encoders
from byol.encoders import FeatureMap, Input, describe, load
from byol.encoders.lab import lab

RGB = Input(channels=3, size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
CORNERS = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)], dtype=torch.float64)


def test_lab_has_the_values_of_scikit_image_and_goes_back():
    color = pytest.importorskip("skimage.color")
    x = torch.rand(2, 3, 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, :, 0] /= 30  # where both curves are straight
    ours = lab(x).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(ours, color.rgb2lab(x.permute(0, 2, 3, 1).numpy()), atol=1e-11)
    np.testing.assert_allclose(color.lab2rgb(ours), x.permute(0, 2, 3, 1).numpy(), atol=1e-6)


def test_all_colours_of_srgb_are_split_into_minus_1_to_1():
    net = load("lab:small-w8-n2", input=RGB).net.double()
    seen = torch.rand(40_000, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round(decimals=0)
    x = torch.cat([seen[:8], CORNERS.view(8, 3, 1, 1)])
    values = lab(x).flatten(1)
    assert values.amin(0).tolist() == pytest.approx([0, -86.183, -107.857], abs=2e-3)
    assert values.amax(0).tolist() == pytest.approx([100, 98.233, 94.478], abs=2e-3)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (RGB.mean, RGB.std))
    split = torch.cat(net.split((x - mean) / std), 1).flatten(1)
    torch.testing.assert_close(split.amin(0), -torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(split.amax(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_the_gradient_of_the_darkest_pixels_is_finite():
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("name", "like", "ratio"), [("lab:resnet18", "resnet18", 0.5), ("lab:whole:small-w8", "small-w8", 2.0)])
def test_two_halves_have_as_many_features_as_the_named_one_and_half_its_weights_and_whole_ones_twice(name, like, ratio):
    two, one = load(name, input=RGB), load(like, input=RGB)
    count = [sum(p.numel() for p in e.parameters()) for e in (two, one)]
    assert count[0] / count[1] == pytest.approx(ratio, rel=0.02)
    assert two.dim == (1 if ratio < 1 else 2) * one.dim
    x = torch.randn(2, 3, 32, 32)
    first, second = two.net.halves(x)
    assert torch.equal(two.eval()(x), torch.cat(two.net.halves(x), 1))
    assert first.shape == second.shape == (2, two.dim // 2)


def test_a_name_says_how_it_is_built_and_is_described_with_its_weights():
    assert load("lab:small-w8+gn", input=RGB).name == "lab:small-w8+gn"
    assert describe("lab:resnet50") == "11.8 M parameters, 2048 features; two networks: lightness, colours"
    net = load("lab:resnet50", input=RGB).net
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 11.8
    assert encoders.of_kind("resnet18", "lab") == encoders.of_kind("lab:resnet18", "lab") == "lab:resnet18"
    assert encoders.of_kind("resnet18", "") == "resnet18"


@pytest.mark.parametrize(
    ("name", "input", "words"),
    [
        ("lab:small", dataclasses.replace(RGB, channels=1, mean=(0.5,), std=(0.2,)), "red, green and blue, and these data have 1 channel;"),
        ("lab:small", encoders.SoundInput(mean=0.0, std=1.0), "these data have sounds"),
        ("lab:mlp", RGB, "mlp cannot be built with half its channels; give a resnet or small one, or lab:whole:mlp"),
        ("lab:resnet19", RGB, "no encoder 'resnet19'"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_sentence(name, input, words):
    with pytest.raises(ValueError, match=words):
        load(name, input=input)


def test_there_are_no_pre_trained_weights_and_a_random_twin_is_the_same_kind():
    with pytest.raises(ValueError, match="no pre-trained weights for lab:resnet18, which is two networks"):
        encoders.pretrained_note("lab:resnet18")
    encoder = load("lab:small-w8", input=RGB)
    twin = encoders.random_twin(encoder, seed=3)
    assert twin.name == "lab:small-w8"
    assert not torch.equal(twin.net.lightness.conv1.weight, encoder.net.lightness.conv1.weight)


def test_the_last_maps_of_both_halves_lie_side_by_side():
    encoder = load("lab:small-w8", input=RGB).eval()
    x = torch.randn(1, 3, 32, 32)
    maps = FeatureMap(encoder, size=(32, 32)).eval()(x)
    torch.testing.assert_close(maps.mean((2, 3)), encoder(x))
