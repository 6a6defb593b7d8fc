import pytest
import torch
import torchvision
from torch import nn

from byol.encoders import Input, describe, load
from byol.encoders.resnet import STEM_LARGE, STEM_SMALL, BasicBlock, Bottleneck, ResNet, Shape, parse, resnet, shape, stem_for
from byol.encoders.small import small

# Millions of parameters of the encoder (Grill et al. 2020); x4 of ResNet-101 to 200 were not published.
PUBLISHED = [
    (50, 1, 24), (50, 2, 94), (50, 3, 211), (50, 4, 375), (101, 1, 43), (101, 2, 170), (101, 3, 382),
    (152, 1, 58), (152, 2, 232), (152, 3, 522), (200, 1, 63), (200, 2, 250),
]  # fmt: skip


def millions(net: nn.Module) -> float:
    return sum(p.numel() for p in net.parameters()) / 1e6


@pytest.mark.parametrize(("depth", "width", "published"), PUBLISHED)
def test_parameter_counts_are_those_of_the_paper(depth, width, published):
    with torch.device("meta"):
        net = resnet(depth, width)
    assert round(millions(net)) == published
    assert net.shape.dim == 2048 * width


@pytest.mark.parametrize("stem", [STEM_LARGE, STEM_SMALL])
@pytest.mark.parametrize(("depth", "width"), [(18, 1), (34, 3), (152, 4), (200, 3), (200, 4)])
def test_parameters_are_counted_without_building_at_every_width(depth, width, stem):
    with torch.device("meta"):
        net = resnet(depth, width, stem=stem, channels=5)
    assert shape(depth, width, stem).parameters(5) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("depth", "make"), [(18, torchvision.models.resnet18), (50, torchvision.models.resnet50)])
def test_outputs_equal_torchvisions_with_the_same_weights(depth, make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs, ours = make(), resnet(depth)
        for m in theirs.modules():
            if isinstance(m, nn.BatchNorm2d):  # so that eval mode is no identity
                nn.init.uniform_(m.weight, 0.5, 1)
                nn.init.normal_(m.bias, std=0.1)
                nn.init.normal_(m.running_mean, std=0.1)
                nn.init.uniform_(m.running_var, 0.5, 2)
        x = torch.randn(2, 3, 75, 64)
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())  # strict: the names are the same, and there is no classifier
    for training in (False, True):
        theirs.train(training)
        ours.train(training)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [34, 101, 152])
def test_names_and_shapes_are_torchvisions(depth):
    with torch.device("meta"):
        ours, theirs = resnet(depth), getattr(torchvision.models, f"resnet{depth}")()
    expected = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


def test_batch_norm_is_the_papers():
    norms = [m for m in small(8).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.momentum, m.eps, m.affine, m.track_running_stats) for m in norms} == {(0.1, 1e-5, True, True)}


def test_weights_start_with_variance_two_over_fan_out_and_norms_as_the_identity():
    net = resnet(18)
    conv = net.layer4[0].conv1.weight  # from 256 channels to 512
    assert conv.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    scales = [m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(bool((s == 1).all()) for s in scales)


@pytest.mark.parametrize(("bottleneck", "kind", "last"), [(False, BasicBlock, "bn2"), (True, Bottleneck, "bn3")])
def test_zero_init_makes_every_block_start_as_its_shortcut(bottleneck, kind, last):
    net = ResNet(Shape((1, 2, 1, 1), bottleneck, 4, STEM_LARGE), zero_init=True)
    zeroed = [n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and bool((m.weight == 0).all())]
    assert zeroed == [f"{n}.{last}" for n, m in net.named_modules() if isinstance(m, kind)]
    x = torch.rand(2, net.layer2[1].conv1.in_channels, 5, 5)
    torch.testing.assert_close(net.layer2[1](x), x)


def test_the_stem_keeps_the_resolution_of_images_up_to_64_pixels():
    assert [stem_for(s) for s in (8, 64, 65, 224)] == [STEM_SMALL, STEM_SMALL, STEM_LARGE, STEM_LARGE]
    with torch.device("meta"):
        at = {s: stem_maps(s) for s in (32, 64, 96)}
    assert at == {32: (3, 32, 4), 64: (3, 64, 8), 96: (7, 24, 3)}  # kernel, side of the first stage's input, of the last stage's output


def stem_maps(size):
    net = resnet(18, stem=stem_for(size))
    x = net.maxpool(net.relu(net.bn1(net.conv1(torch.zeros(2, 3, size, size)))))
    y = net.layer4(net.layer3(net.layer2(net.layer1(x))))
    return net.conv1.kernel_size[0], x.shape[-1], y.shape[-1]


def test_describe_says_which_stem_and_why():
    def at(size):
        return Input(channels=3, size=size, mean=(0.5,) * 3, std=(0.5,) * 3)

    assert describe("resnet18", input=at(32)).endswith("3x3/1 stem, the choice up to 64 px")
    assert describe("resnet18", input=at(96)).endswith("7x7/2 stem + pool, the choice above 64 px")
    assert describe("resnet18-stem7", input=at(32)).endswith("7x7/2 stem + pool")
    assert describe("resnet50x2") == "93.9 M parameters, 4096 features; 7x7/2 stem, 3x3/1 up to 64 px"


def test_a_stem_can_be_asked_for():
    i = Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    kernels = {n: load(n, input=i).net.conv1.kernel_size for n in ("resnet18", "resnet18-stem3", "resnet18-stem7")}
    assert kernels == {"resnet18": (3, 3), "resnet18-stem3": (3, 3), "resnet18-stem7": (7, 7)}


@pytest.mark.parametrize("channels", [1, 2, 13])
@pytest.mark.parametrize("name", ["resnet18", "small-w8"])
def test_any_number_of_channels_goes_in(name, channels):
    i = Input(channels=channels, size=16, mean=(0.5,) * channels, std=(0.5,) * channels)
    encoder = load(name, input=i)
    assert encoder(torch.zeros(2, channels, 16, 16)).shape == (2, encoder.dim)


def test_names_that_are_almost_ours_are_not_ours():
    names = ["resnet26", "resnet18x5", "resnet18x", "resnet18.a1_in1k", "resnet50-stem5", "Resnet50", "xresnet50", "resnet18x2x2"]
    assert [n for n in names if parse(n)] == []


@pytest.mark.parametrize(
    ("name", "width", "first_map", "blocks"),
    [("small", 32, 32, 4), ("small-w16", 16, 32, 4), ("small-w64", 64, 32, 4), ("small-w8-s2-d2", 8, 16, 8), ("small-s4", 32, 8, 4)],
)
def test_small_has_the_shape_that_its_name_says(name, width, first_map, blocks):
    encoder = load(name, input=Input(channels=1, size=32, mean=(0.5,), std=(0.5,)))
    net = encoder.net
    assert encoder.dim == 8 * width
    assert net.conv1(torch.zeros(1, 1, 32, 32)).shape == (1, width, first_map, first_map)
    assert isinstance(net.maxpool, nn.Identity)
    assert sum(isinstance(m, BasicBlock) for m in net.modules()) == blocks


def test_a_small_encoder_of_three_stages_is_the_one_of_four_without_its_last():
    input = Input(channels=1, size=8, mean=(0.5,), std=(0.5,))
    four, three = (load(name, input=input) for name in ("small-w16", "small-w16-n3"))
    assert (four.dim, three.dim) == (128, 64)
    assert list(three.net.state_dict()) == [k for k in four.net.state_dict() if not k.startswith("layer4")]
    x = torch.randn(2, 1, 8, 8)
    three.net.load_state_dict({k: v for k, v in four.net.state_dict().items() if not k.startswith("layer4")})
    four.net.layer4 = nn.Identity()
    torch.testing.assert_close(three.eval()(x), four.eval()(x))
