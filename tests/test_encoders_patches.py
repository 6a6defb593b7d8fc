import pytest
import torch
from torch import nn

from byol import encoders
from byol.encoders import Cut, Input, Patches, describe, load

RGB = Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.2,) * 3)


def test_features_are_the_mean_over_patches_cut_by_hand():
    encoder = load("patches:small-w8-n2", input=RGB).eval()
    x = torch.randn(2, 3, 32, 32)
    each = [encoder.net.net(x[:, :, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8]) for i in range(7) for j in range(7)]
    torch.testing.assert_close(encoder(x), torch.stack(each).mean(0))
    assert encoder.net.feature_map(x).shape == (2, encoder.dim, 7, 7)
    torch.testing.assert_close(encoder.net.feature_map(x)[:, :, 2, 5], each[2 * 7 + 5])


@pytest.mark.parametrize(("size", "cut", "rows"), [(8, (2, 1), 7), (28, (7, 3), 8), (32, (8, 4), 7), (64, (16, 8), 7), (96, (24, 12), 7)])
def test_patches_are_a_quarter_of_the_image_and_overlap_by_half(size, cut, rows):
    net = load("patches:small-w8-n2", input=Input(channels=1, size=size, mean=(0.5,), std=(0.2,))).net
    assert (net.patch, net.stride) == cut
    assert net.cut(torch.zeros(1, 1, size, size)).shape[1:3] == (rows, rows)


def test_what_patches_do_not_cover_is_left_out_on_both_sides():
    x = torch.arange(13.0).expand(1, 1, 13, 13)
    parts = Patches(nn.Flatten(), Cut(4, 3), RGB).cut(x)
    assert parts.shape[1:3] == (4, 4)
    assert (parts.min(), parts.max()) == (0, 12)
    assert Patches(nn.Flatten(), Cut(4, 4), RGB).cut(x[:, :, :, :15]).min() == 0
    assert Patches(nn.Flatten(), Cut(4, 4), RGB).cut(torch.arange(14.0).expand(1, 1, 14, 14)).aminmax() == (1.0, 12.0)


def test_a_patch_knows_nothing_of_the_others_in_training_since_norms_are_of_layers():
    net = load("patches:resnet18", input=RGB).net.train()
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in net.modules())
    assert {part.num_groups for part in net.modules() if isinstance(part, nn.GroupNorm)} == {1}
    x = torch.randn(1, 3, 32, 32)
    y = x.clone()
    y[:, :, :4, :4] += 1  # in the first patch alone
    changed = (net.feature_map(x) - net.feature_map(y)).abs().amax((0, 1)) > 1e-5
    assert changed.nonzero().tolist() == [[0, 0]]


def test_names_say_the_cut_and_the_norm_and_are_read_back():
    assert encoders.of_kind("resnet18", "patches") == encoders.of_kind("patches:resnet18", "patches") == "patches:resnet18"
    encoder = load("patches:80-36:small-w8+gn", input=Input(channels=3, size=260, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert encoder.name == "patches:80-36:small-w8+gn"
    assert (encoder.net.patch, encoder.net.stride) == (80, 36)
    assert {part.num_groups for part in encoder.net.modules() if isinstance(part, nn.GroupNorm)} == {8, 16}
    assert describe("patches:small-w8", input=RGB).endswith("layer norm; the mean of patches of 8 px, 4 px apart")
    assert "a quarter of the image" in describe("patches:resnet18")


@pytest.mark.parametrize(
    ("name", "input", "words"),
    [
        ("patches:80-36:small", RGB, "no two patches of 80 px, 36 px apart, in 32 px; give larger images"),
        ("patches:small", encoders.SoundInput(mean=0.0, std=1.0), "cuts images into patches, and these data are none"),
        ("patches:small", Input(channels=7, size=1, mean=(0.0,) * 7, std=(1.0,) * 7), "and these data are none; give images"),
        ("patches:resnet19", RGB, "no encoder 'resnet19'"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_a_sentence(name, input, words):
    with pytest.raises(ValueError, match=words):
        load(name, input=input)


def test_there_are_no_pre_trained_weights_of_patches():
    with pytest.raises(ValueError, match="no pre-trained weights for patches:resnet18, which sees patches"):
        encoders.pretrained_note("patches:resnet18")
