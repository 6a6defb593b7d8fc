import copy

import pytest
import torch
from torch.nn import functional as F

from byol.encoders import Input, SoundInput, describe, load, names, random_twin, wrap
from byol.encoders.audio import V2, AudioNet, parse, v1

HEARD = SoundInput(mean=-5.0, std=4.5)
PUBLISHED = {"byol-a-v1-d512": 600_192, "byol-a-v1-d1024": 1_649_792, "byol-a-v1-d2048": 5_321_856}


def spectrogram(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def published_frames(w, x, blocks, stacked):
    """The papers' forward pass in evaluation mode, written with functions and loops alone."""
    for i in range(0, 4 * blocks, 4):
        x = F.conv2d(x, w[f"features.{i}.weight"], w[f"features.{i}.bias"], padding=1)
        mean, var = w[f"features.{i + 1}.running_mean"], w[f"features.{i + 1}.running_var"]
        scale = w[f"features.{i + 1}.weight"] / (var + 1e-5).sqrt()
        x = (x - mean[:, None, None]) * scale[:, None, None] + w[f"features.{i + 1}.bias"][:, None, None]
        x = x.clamp(min=0)
        b, c, f, t = x.shape
        x = x[..., : f // 2 * 2, : t // 2 * 2].reshape(b, c, f // 2, 2, t // 2, 2).amax((3, 5))
    moments = []
    for t in range(x.shape[3]):
        flat = torch.cat([x[:, :, f, t] for f in range(x.shape[2])], 1)  # the lowest band with all its channels first
        z = (flat @ w["fc.0.weight"].T + w["fc.0.bias"]).clamp(min=0)
        z = (z @ w["fc.3.weight"].T + w["fc.3.bias"]).clamp(min=0)
        moments.append(torch.cat([flat, z], 1) if stacked else z)
    return torch.stack(moments, 1)


def lively(net):
    """The net in double precision with batch-norm statistics that are not 0 and 1."""
    g = torch.Generator().manual_seed(3)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=g) * 0.1)
            part.running_var.copy_(torch.rand(part.num_features, generator=g) + 0.5)
    return net.double().eval()


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_the_first_papers_networks_have_its_numbers_of_parameters(name, count):
    with torch.device("meta"):
        net = AudioNet(parse(name))
    assert sum(p.numel() for p in net.parameters()) == count
    assert parse(name).parameters(64) == count


@pytest.mark.parametrize("shape", [v1(8), V2, parse("audio-small-c4-d6")])
@pytest.mark.parametrize("bands", [16, 64])
def test_the_counts_without_building_are_those_of_the_network(shape, bands):
    with torch.device("meta"):
        net = AudioNet(shape, bands=bands)
    assert sum(p.numel() for p in net.parameters()) == shape.parameters(bands)
    assert net.dim == shape.dim(bands)


@pytest.mark.parametrize(("name", "dim", "frames"), [("byol-a-v1-d512", 512, 96), ("byol-a-v2", 3072, 96), ("byol-a-v1-d24", 24, 61)])
@torch.no_grad()
def test_the_forward_pass_is_the_papers(name, dim, frames):
    net = lively(load(name, input=HEARD, seed=1).net)
    x = spectrogram(2, 1, 64, frames).double()
    w, shape = net.state_dict(), parse(name)
    theirs = published_frames(w, x, shape.blocks, shape.stacked)
    assert theirs.shape == (2, frames // shape.stride, dim)
    torch.testing.assert_close(net.frames(x), theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(net(x), theirs.amax(1) + theirs.sum(1) / theirs.shape[1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_version_2_has_the_features_of_its_convolutions_first():
    net = load("byol-a-v2", input=HEARD).net.eval()
    x = spectrogram(1, 1, 64, 20)
    convolved = net.features(x).permute(0, 3, 2, 1).flatten(2)
    assert torch.equal(net.frames(x)[..., :1024], convolved)
    assert net.frames(x).shape[-1] == 1024 + 2048


@pytest.mark.parametrize(("name", "stride"), [("audio-small", 8), ("byol-a-v2", 4)])
@torch.no_grad()
def test_any_number_of_frames_from_one_stride_on_gives_the_same_number_of_features(name, stride):
    encoder = load(name, input=HEARD).eval()
    for t in (stride, stride + 1, 97, 400):
        assert encoder(spectrogram(2, 1, 64, t)).shape == (2, encoder.dim)
        assert encoder.net.frames(spectrogram(2, 1, 64, t)).shape == (2, t // stride, encoder.dim)
    for shape in [(2, 1, 64, stride - 1), (2, 1, 32, 96)]:
        with pytest.raises(ValueError, match="pad it with silence"):
            encoder(spectrogram(*shape))


@torch.no_grad()
def test_a_sound_has_the_same_features_alone_and_in_a_batch_in_evaluation_mode():
    encoder = load("audio-small", input=HEARD).eval()
    x = spectrogram(3, 1, 64, 50)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), rtol=0, atol=1e-6)


def test_weights_come_from_the_seed_and_dropout_is_in_training_alone():
    first, again, other = (load("audio-small", input=HEARD, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.net.fc[0].weight, other.net.fc[0].weight)
    kept = copy.deepcopy(first.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        first.net.reset_parameters()
        assert torch.equal(first.net.fc[0].weight, other.net.fc[0].weight)
        assert not torch.equal(first.net.fc[0].weight, kept["net.fc.0.weight"])
        x = spectrogram(4, 1, 64, 16)
        assert not torch.equal(first.train().net.frames(x), first.net.frames(x))
        assert torch.equal(first.eval()(x), first(x))


def test_the_gradient_of_the_pooling_reaches_every_frame():
    net = AudioNet(parse("audio-small-c4-d6")).eval()
    x = spectrogram(1, 1, 64, 64).requires_grad_()
    net(x).sum().backward()
    assert bool((x.grad.abs().amax((0, 1, 2)) > 0).all())


@pytest.mark.parametrize(
    ("name", "size"), [("timm:test_convnext", None), ("timm:vit_tiny_patch16_224", (64, 96)), ("resnet18", None), ("small-w8", None)]
)
@torch.no_grad()
def test_networks_for_images_take_spectrograms_of_one_channel(name, size):
    encoder = load(name, input=HEARD).eval()
    assert encoder(spectrogram(2, 1, 64, 96)).shape == (2, encoder.dim)
    if size is not None:
        assert encoder.net.patch_embed.img_size == size


def test_the_stem_of_a_residual_net_is_chosen_by_the_longer_side():
    assert load("resnet18", input=HEARD).net.shape.stem.kernel == 7


def test_an_encoder_of_sound_is_no_encoder_of_images_and_says_so():
    images = Input(channels=1, size=64, mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="byol-a-v2 is an encoder of sound, and these data are no sounds"):
        load("byol-a-v2", input=images)
    with pytest.raises(ValueError, match="audio-small is an encoder of sound, and this takes one of images"):
        _ = load("audio-small", input=HEARD).images
    assert load("small-w8", input=images).images == images


def test_suffixes_twins_and_modules_of_ones_own_work_for_sound_too():
    encoder = load("audio-small-c8-d16+gn", input=HEARD, seed=0)
    assert not [m for m in encoder.net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    twin = random_twin(encoder, seed=5)
    assert (twin.name, twin.dim, twin.input) == (encoder.name, 16, HEARD)
    assert not torch.equal(twin.net.fc[0].weight, encoder.net.fc[0].weight)
    own = wrap(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()), input=HEARD)
    assert own.dim == 4


def test_the_listed_names_of_sound_are_described():
    for name in ("audio-small", *PUBLISHED, "byol-a-v2"):
        assert name in names()
        assert " features; sound, 64 bands" in describe(name)
    assert describe("byol-a-v2") == "6.3 M parameters, 3072 features; sound, 64 bands"
    assert "128 bands" in describe("byol-a-v2", input=SoundInput(mean=0.0, std=1.0, bands=128))


@pytest.mark.parametrize("name", ["byol-a-v1", "byol-a-v1-d0", "byol-a-v3", "audio-small-d0", "audio-small-x"])
def test_a_name_that_is_no_encoder_of_sound_is_one_sentence(name):
    with pytest.raises(ValueError, match="no encoder") as caught:
        load(name, input=HEARD)
    assert "\n" not in str(caught.value)


def test_too_few_bands_for_the_blocks_are_one_sentence():
    with pytest.raises(ValueError, match="4 bands are too few for 3 blocks"):
        load("audio-small", input=SoundInput(mean=0.0, std=1.0, bands=4))
