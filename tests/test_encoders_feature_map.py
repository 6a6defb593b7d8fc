import copy

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn
from torchvision.models import resnet18

from byol import encoders
from byol.encoders import FeatureMap, Input, wrap
from byol.encoders.feature_map import dilate

RGB = Input(channels=3, size=96, mean=(0.5,) * 3, std=(0.2,) * 3)


def load(name):
    return encoders.load(name, input=RGB).eval()


@pytest.mark.parametrize(
    ("name", "size", "channels", "grid"),
    [
        ("resnet18-stem7", (97, 65), 512, (7, 5)),  # 32 without dilation: ceil(97 / 16), ceil(65 / 16)
        ("small-w16", (24, 40), 128, (3, 5)),
        ("timm:resnet10t", (64, 96), 512, (4, 6)),
        ("timm:test_vit", (50, 70), 64, (4, 5)),  # whole patches of 16
    ],
)
def test_every_kind_of_network_gives_a_map_of_any_size(name, size, channels, grid):
    maps = FeatureMap(load(name), size=size).eval()
    assert maps.channels == channels
    assert maps(torch.rand(2, 3, *size)).shape == (2, channels, *grid)


def test_the_average_of_the_map_is_the_feature():
    encoder, x = load("resnet18-stem7"), torch.rand(2, 3, 96, 96)
    maps = FeatureMap(encoder, size=(96, 96), dense=False).eval()
    assert maps.stride == 32
    torch.testing.assert_close(maps(x).mean((2, 3)), encoder(x))


def test_dilation_keeps_the_weights_and_leaves_the_encoder_as_it_was():
    encoder = load("resnet18-stem7")
    before = copy.deepcopy(encoder.net.state_dict())
    maps = FeatureMap(encoder, size=(64, 64))
    assert maps.stride == 16
    for found in (maps.net.state_dict(), encoder.net.state_dict()):
        assert found.keys() == before.keys()
        assert all(torch.equal(found[k], before[k]) for k in before)
    assert encoder.net.get_submodule("layer4.0.conv1").stride == (2, 2)


def test_a_dilated_stage_is_a_convolution_with_kernels_spread_to_5x5():
    stage = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)).double()
    dilate(stage)
    x = torch.rand(1, 1, 9, 11, dtype=torch.float64)
    spread = np.zeros((5, 5))
    spread[::2, ::2] = stage[0].weight.detach().numpy()[0, 0]
    np.testing.assert_allclose(stage(x).detach().numpy()[0, 0], correlate2d(x.numpy()[0, 0], spread, mode="same"), atol=1e-12)


def test_without_the_new_dilation_of_its_first_block_every_other_place_is_that_of_the_strided_net():
    # What pre-training saw is kept: strides became spacing. The paper's FCN dilates the first 3x3 convolution as well.
    encoder, x = load("resnet18-stem7"), torch.rand(1, 3, 128, 128)
    plain, dilated = FeatureMap(encoder, size=(128, 128), dense=False).eval(), FeatureMap(encoder, size=(128, 128)).eval()
    first = dilated.net.get_submodule("layer4.0.conv1")
    first.dilation, first.padding = (1, 1), (1, 1)
    torch.testing.assert_close(dilated(x)[..., ::2, ::2], plain(x), rtol=1e-4, atol=1e-5)


def test_torchvisions_net_gives_the_map_before_its_pooling_and_classifier():
    torch.manual_seed(0)
    net = resnet18().eval()
    x = torch.rand(1, 3, 64, 64)
    maps = FeatureMap(wrap(net, input=RGB), size=(64, 64), dense=False).eval()
    torch.testing.assert_close(net.fc(maps(x).mean((2, 3))), net(x))


def test_a_module_without_places_is_refused_in_one_sentence():
    flat = wrap(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), input=RGB)
    with pytest.raises(ValueError, match="no feature map; make it return"):
        FeatureMap(flat, size=(96, 96))
