import copy
import pickle
import socket

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from byol.encoders import Input, describe, load, names, pretrained_note, pretrained_statistics, wrap
from byol.encoders.resnet import resnet


def of(size, channels=3):
    return Input(channels=channels, size=size, mean=(0.5,) * channels, std=(0.25,) * channels)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def offline(monkeypatch):
    asked = []

    def refuse(host, *args, **options):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


@pytest.fixture
def cached_resnet18(monkeypatch, tmp_path, offline):
    """A Hugging Face cache as a download leaves it, with weights of our own making; returns them, without the classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = timm.create_model("resnet18", pretrained=False)
    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    (folder / "snapshots" / "0").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0")
    save_file(theirs.state_dict(), folder / "snapshots" / "0" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}


@pytest.mark.parametrize(
    ("name", "size", "channels", "dim"),
    [
        ("resnet10t", 32, 3, 512),
        ("timm:vit_tiny_patch16_224", 32, 1, 192),
        ("mobilenetv3_small_050", 32, 4, 1024),
        ("test_convnext", 64, 3, 64),
    ],
)
def test_a_timm_name_gives_the_pooled_features_of_the_timm_model(name, size, channels, dim):
    encoder = load(name, input=of(size, channels)).eval()
    bare = name.removeprefix("timm:")
    theirs = timm.create_model(bare, num_classes=0, in_chans=channels, **({"img_size": size} if "vit" in bare else {})).eval()
    theirs.load_state_dict(encoder.net.state_dict())
    x = torch.linspace(-1, 1, 2 * channels * size * size).view(2, channels, size, size)
    with torch.no_grad():
        assert torch.equal(encoder(x), theirs(x))
        assert encoder(x).shape == (2, dim)
    assert (encoder.dim, encoder.name) == (dim, f"timm:{bare}")


@pytest.mark.parametrize("name", ["small-w8", "test_vit"])
def test_a_seed_gives_the_same_weights_and_leaves_torchs_generator_alone(name):
    before = torch.random.get_rng_state()
    first, again, other = (load(name, input=of(32), seed=s).net.state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("name", ["small-w8", "test_vit"])
def test_reset_parameters_draws_what_load_draws_into_the_same_parameters(name):
    encoder = load(name, input=of(32), seed=1)
    parameters = [id(p) for p in encoder.parameters()]
    encoder(torch.ones(2, 3, 32, 32))  # moves the running statistics, which must be fresh again
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        encoder.reset_parameters()
    assert [id(p) for p in encoder.parameters()] == parameters
    assert same(encoder.net.state_dict(), load(name, input=of(32), seed=7).net.state_dict())


def test_a_copy_of_an_encoder_is_independent_and_can_be_reset():
    encoder = load("small-w8", input=of(16))
    kept = copy.deepcopy(encoder.net.state_dict())
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        twin.reset_parameters()
        assert not same(twin.net.state_dict(), kept)
    assert same(encoder.net.state_dict(), kept)


def test_the_state_of_net_has_no_prefix_and_no_second_copy():
    encoder = load("small-w8", input=of(16))
    assert set(encoder.state_dict()) == {f"net.{k}" for k in encoder.net.state_dict()}
    assert "conv1.weight" in encoder.net.state_dict()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50x9", "did you mean .*resnet50x"),
        ("resnet19", "did you mean .*resnet1"),
        ("resnet18-stem3pol", "did you mean resnet18-stem3pool"),
        ("vit_tiny_patch16_225", "did you mean .*vit_tiny_patch16_224"),
        ("resnet18.no_such_tag", "did you mean .*resnet18"),
        ("hf-hub:someone/model", "no encoder"),
        ("", "no encoder"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_nearest_names(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(name, input=of(32))
    assert "\n" not in str(caught.value)


def test_every_name_that_is_listed_is_described_with_its_parameters():
    for name in names():
        assert " M parameters, " in describe(name)
        assert len(f"{name:12}{describe(name)}") <= 80
    assert describe("vit_tiny_patch16_224").startswith("timm's vit_tiny")


def test_zero_init_is_for_our_own_nets():
    assert bool((load("small-w8", input=of(16), zero_init=True).net.layer1[0].bn2.weight == 0).all())
    with pytest.raises(ValueError, match="zero_init"):
        load("test_vit", input=of(32), zero_init=True)


# Pre-trained weights


def test_weights_that_cannot_be_fetched_are_one_sentence_with_the_cure(offline, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"resnet18\.a1_in1k cannot be fetched from .*HF_HOME.*--pretrained") as caught:
        load("resnet18", input=of(96), pretrained=True)
    assert "\n" not in str(caught.value)


def test_cached_pretrained_weights_are_used_without_asking_anyone(cached_resnet18, offline):
    before = torch.random.get_rng_state()
    encoder = load("resnet18", input=of(96), pretrained=True)
    assert same(encoder.net.state_dict(), cached_resnet18)
    assert encoder.name == "resnet18"
    assert torch.equal(torch.random.get_rng_state(), before)
    assert pretrained_note("resnet18") == "resnet18.a1_in1k, from this machine's cache"
    timms = load("timm:resnet18", input=of(96), pretrained=True)
    assert same(timms.net.state_dict(), cached_resnet18)
    assert offline == []


def test_pretrained_weights_bring_their_stem_and_the_name_says_so(cached_resnet18):
    encoder = load("resnet18", input=of(32), pretrained=True)
    assert encoder.name == "resnet18-stem7"
    assert encoder.net.conv1.kernel_size == (7, 7)
    with pytest.raises(ValueError, match="resnet18-stem3"):
        load("resnet18-stem3", input=of(32), pretrained=True)


def test_pretrained_weights_for_grey_images_sum_the_first_convolution(cached_resnet18):
    # timm's rule, so that a grey image gives what the same image as RGB did
    encoder = load("resnet18", input=of(96, channels=1), pretrained=True)
    torch.testing.assert_close(encoder.net.conv1.weight, cached_resnet18["conv1.weight"].sum(1, keepdim=True))


def test_pretrained_weights_have_no_reset_parameters(cached_resnet18):
    # A method that redraws its target must not be able to throw such weights away.
    assert not hasattr(load("resnet18", input=of(96), pretrained=True), "reset_parameters")
    assert hasattr(load("resnet18", input=of(96)), "reset_parameters")


@pytest.mark.parametrize("name", ["small", "resnet50x2", "resnet200", "test_unknown"])
def test_names_without_pretrained_weights_say_so(name, offline):
    with pytest.raises(ValueError, match=name):
        load(name, input=of(96), pretrained=True)


def test_pretrained_statistics_are_those_of_the_weights():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
    assert pretrained_statistics("resnet50") == (mean, std)
    assert pretrained_statistics("vit_tiny_patch16_224") == ((0.5,) * 3, (0.5,) * 3)
    assert pretrained_statistics("resnet50", channels=1)[0] == pytest.approx((sum(mean) / 3,))
    assert pretrained_statistics("resnet50", channels=4) == ((*mean, mean[0]), (*std, std[0]))


def test_a_download_is_announced_with_its_size(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert pretrained_note("resnet18") == "resnet18.a1_in1k, downloads about 45 MB from https://huggingface.co"


# Modules of one's own


def test_wrap_measures_the_features_and_averages_feature_maps():
    x = torch.rand(2, 3, 8, 8)
    vector = wrap(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), input=of(8))
    maps = wrap(nn.Conv2d(3, 7, 3), input=of(8), name="one convolution")
    assert (vector.dim, maps.dim, maps.name) == (5, 7, "one convolution")
    torch.testing.assert_close(maps(x), maps.net(x).flatten(2).mean(-1))
    assert torch.equal(vector(x), vector.net(x))


def test_wrap_leaves_statistics_modes_and_the_generator_alone():
    frozen = nn.BatchNorm2d(4).eval()
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), frozen, nn.Dropout())
    before, rng = copy.deepcopy(module.state_dict()), torch.random.get_rng_state()
    wrap(module, input=of(8))
    assert same(module.state_dict(), before)
    assert [m.training for m in module.modules()] == [True, True, True, False, True]
    assert torch.equal(torch.random.get_rng_state(), rng)


def test_a_wrapped_module_is_not_redrawn():
    assert not hasattr(wrap(resnet(18), input=of(32)), "reset_parameters")


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Flatten(0), r"shape \(384,\)"),
        (nn.Flatten(2), r"shape \(2, 3, 64\)"),
        (Pair(), "a tuple"),
        (nn.Conv2d(1, 2, 3), r"does not take a batch of shape \(2, 3, 8, 8\)"),
        (nn.Linear(9, 2), "does not take"),
    ],
)
def test_wrap_refuses_a_module_that_is_no_encoder_in_one_sentence(module, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrap(module, input=of(8))
    assert "\n" not in str(caught.value)
    assert module.training


def test_wrap_refuses_a_wrong_dim():
    assert wrap(nn.Conv2d(3, 7, 3), input=of(8), dim=7).dim == 7
    with pytest.raises(ValueError, match="gives 7 features, not dim=8"):
        wrap(nn.Conv2d(3, 7, 3), input=of(8), dim=8)
