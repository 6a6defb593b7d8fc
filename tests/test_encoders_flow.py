"""Encoders behind an invertible flow on colours: what it gives back, its volume, and how it is named and built."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from byol import encoders, training
from byol.encoders import FeatureMap, Input, describe, load
from byol.encoders.flow import rotation

RGB = Input(channels=3, size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def flow(seed=0):
    """A flow whose couplings add something, as they do after a step."""
    net = load("flow:small-w8-n2", input=RGB, seed=seed).net
    torch.manual_seed(seed)
    for layer in net.flow:
        nn.init.normal_(layer.out, std=0.3)
    return net


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_inverse_gives_every_image_back(dtype, bound):
    x = torch.randn(4, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        net = flow(seed).to(dtype)
        one, two = net.split(x)
        assert one.shape == (4, 1, 32, 32)
        assert two.shape == (4, 2, 32, 32)
        assert (torch.cat([one, two], 1) - x).abs().max() > 0.5, "it does change them"
        assert (net.inverse(one, two) - x).abs().max() < bound


def test_the_inverse_is_as_good_under_autocast_which_rounds_matrix_products():
    net, x = flow(), torch.randn(2, 3, 8, 8)
    with training.autocast("cpu", "bf16"):
        assert (net.inverse(*net.split(x)) - x).abs().max() < 1e-5


def test_a_flow_keeps_the_volume_and_looks_at_each_pixel_by_itself():
    net = flow().double()

    def of_pixel(colour):
        return torch.cat(net.split(colour.view(1, 3, 1, 1)), 1).flatten()

    for colour in torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)):
        jacobian = torch.autograd.functional.jacobian(of_pixel, colour)
        assert torch.linalg.det(jacobian).item() == pytest.approx(1, abs=1e-12)
        assert torch.linalg.cond(jacobian) > 1 + 1e-6, "it is more than a rotation"
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    whole = torch.cat(net.split(x), 1)
    for i in range(4):
        torch.testing.assert_close(whole[0, :, i, 2], of_pixel(x[0, :, i, 2]), rtol=0, atol=1e-12)


def test_no_colour_is_carried_far_away_whatever_the_weights():
    net = flow()
    for layer in net.flow:
        nn.init.constant_(layer.out, 1e3)
    x = torch.rand(2, 3, 8, 8)
    # A rotation keeps the length, and each of four couplings moves at most two colours by 1.
    assert torch.cat(net.split(x), 1).norm(dim=1).max() <= 3**0.5 + 2 * 2**0.5 + 2


def test_rotations_are_scipys_whatever_the_length_of_the_quaternion():
    for q in np.random.default_rng(0).normal(size=(5, 4)):
        expected = Rotation.from_quat([*q[1:], q[0]]).as_matrix()
        for length in (0.1, 1, 30):
            np.testing.assert_allclose(rotation(torch.from_numpy(length * q)).numpy(), expected, atol=1e-14)


def test_at_the_beginning_it_is_a_rotation_of_the_colours():
    net = load("flow:small-w8-n2", input=RGB).net.double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(torch.cat(net.split(x), 1).norm(dim=1), x.norm(dim=1))


@pytest.mark.parametrize(("name", "like", "ratio"), [("flow:resnet18", "resnet18", 0.5), ("flow:whole:small-w8", "small-w8", 2.0)])
def test_features_are_those_of_both_networks_of_half_the_channels_or_all(name, like, ratio):
    two, one = load(name, input=RGB).eval(), load(like, input=RGB)
    count = [sum(p.numel() for p in e.parameters()) for e in (two, one)]
    assert count[0] / count[1] == pytest.approx(ratio, rel=0.02)
    assert two.dim == (1 if ratio < 1 else 2) * one.dim
    x = torch.randn(2, 3, 32, 32)
    first, second = two.net.first(two.net.split(x)[0]), two.net.second(two.net.split(x)[1])
    assert first.shape == second.shape == (2, two.dim // 2)
    assert torch.equal(two(x), torch.cat([first, second], 1))
    torch.testing.assert_close(FeatureMap(two, size=(32, 32)).eval()(x).mean((2, 3)), two(x))


def test_a_name_says_how_it_is_built_and_a_random_twin_has_a_flow_of_its_own():
    words = "two networks: channel 1, channels 2 and 3 of an invertible flow that is trained"
    assert describe("flow:resnet50") == f"11.8 M parameters, 2048 features; {words}"
    assert encoders.of_kind("resnet18", "flow") == encoders.of_kind("flow:resnet18", "flow") == "flow:resnet18"
    encoder = load("flow:small-w8+gn", input=RGB)
    twin = encoders.random_twin(encoder, seed=3)
    assert twin.name == encoder.name == "flow:small-w8+gn"
    assert not torch.equal(twin.net.flow[0].turn, encoder.net.flow[0].turn)


@pytest.mark.parametrize(
    ("name", "input", "words"),
    [
        ("flow:small", Input(channels=1, size=32, mean=(0.5,), std=(0.2,)), "red, green and blue, and these data have 1 channel;"),
        ("flow:mlp", RGB, "mlp cannot be built with half its channels; give a resnet or small one, or flow:whole:mlp"),
        ("flow:resnet19", RGB, "no encoder 'resnet19'"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(name, input, words):
    with pytest.raises(ValueError, match=words):
        load(name, input=input)
    with pytest.raises(ValueError, match="no pre-trained weights for flow:resnet18, which is two networks"):
        encoders.pretrained_note("flow:resnet18")
