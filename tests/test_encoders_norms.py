"""Encoders without batch norm, against torch's own layers, torchvision's networks and the formula in loops."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from test_dist import free_port
from timm.layers import BatchNormAct2d
from together import start
from torch import nn

import byol
from byol import encoders, exporting, methods, optim, run
from byol.config import Request
from byol.encoders import Input, norms

GREY = Input(channels=1, size=16, mean=(0.5,), std=(0.5,))
RGB = Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
SUFFIXES = ["+gn", "+gn4", "+ln", "+none", "+scale", "+data", "+gn+ws", "+ln+ws", "+data+ws", "+ws"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_loops(weight, eps=1e-5):
    """Weight standardisation written out, one output at a time."""
    rows = []
    for w in weight.reshape(len(weight), -1):
        mean = sum(w) / len(w)
        variance = sum((v - mean) ** 2 for v in w) / (len(w) - 1)
        rows.append(torch.stack([(v - mean) / (variance.sqrt() + eps) for v in w]))
    return torch.stack(rows).reshape(weight.shape)


@pytest.mark.parametrize(
    ("layer", "shape", "apply"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7), partial(nn.functional.conv2d, stride=2, padding=1, groups=2)),
        (nn.Conv1d(3, 4, 3), (2, 3, 9), nn.functional.conv1d),
        (nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4), nn.functional.conv3d),
        (nn.Linear(7, 5), (3, 7), nn.functional.linear),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_standardised_weights_and_their_gradient_are_those_of_the_formula_in_loops(layer, shape, apply):
    layer = copy.deepcopy(layer).double()
    x, weight = noise(*shape), layer.weight.detach().clone().requires_grad_()
    expected = apply(x, in_loops(weight), layer.bias.detach())
    encoders.standardise_weights(layer)
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=0, atol=1e-10 * float(weight.grad.abs().max()) + 1e-10)


def test_standardised_weights_of_a_layer_that_starts_at_zero_are_finite():
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    encoders.standardise_weights(layer)(torch.ones(2, 4)).sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_a_resnet_with_group_norm_is_torchvisions_with_group_norm():
    ours = encoders.load("resnet18-stem7+gn", input=RGB).net
    theirs = torchvision.models.resnet18(norm_layer=partial(nn.GroupNorm, 16))
    theirs.fc = nn.Identity()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = noise(2, 3, 40, 40).float()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_names_of_parameters_stay_and_those_of_running_statistics_go():
    plain = encoders.load("small-w8", input=GREY).net.state_dict()
    for suffix in ("+gn+ws", "+ln", "+data+ws", "+scale"):
        found = encoders.load(f"small-w8{suffix}", input=GREY).net.state_dict()
        assert list(found) == [k for k in plain if "running" not in k and "num_batches" not in k]
        assert all(found[k].shape == plain[k].shape for k in found)
        # The weights are those of the same seed; only what normalises is other.
        assert all(torch.equal(found[k], plain[k]) for k in found)
    assert not any("bn" in k for k in encoders.load("small-w8+none", input=GREY).net.state_dict())


@pytest.mark.parametrize(("channels", "groups"), [(64, 16), (24, 12), (20, 10), (7, 7), (34, 2), (1, 1), (17, 1)])
def test_groups_are_the_most_up_to_16_that_divide_the_channels(channels, groups):
    new = encoders.without_batch_norm(nn.Sequential(nn.BatchNorm2d(channels)))[0]
    assert (new.num_groups, new.num_channels, new.eps) == (groups, channels, 1e-5)


def test_layer_norm_is_over_channels_and_places_of_each_image():
    x = noise(3, 6, 5, 5)
    new = encoders.without_batch_norm(nn.BatchNorm2d(6).double(), "layer")
    torch.testing.assert_close(new(x), nn.functional.layer_norm(x, (6, 5, 5)))


@pytest.mark.parametrize("norm", ["group", "layer", "none", "scale", "data"])
def test_timms_fused_layers_keep_their_activation_their_scale_and_their_mode(norm):
    old = BatchNormAct2d(8, act_layer=nn.LeakyReLU).double().eval()
    nn.init.normal_(old.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(old.bias, generator=torch.Generator().manual_seed(2))
    net = nn.Sequential(copy.deepcopy(old))
    encoders.without_batch_norm(net, norm, groups=4)
    x = noise(3, 8, 4, 4)
    w, b = old.weight.detach(), old.bias.detach()
    groups = {"group": 4, "layer": 1}.get(norm)
    plain = x if norm == "none" else x * w.view(1, -1, 1, 1) + b.view(1, -1, 1, 1)
    inside = nn.functional.group_norm(x, groups, w, b) if groups else plain
    torch.testing.assert_close(net(x.clone()), nn.functional.leaky_relu(inside))
    assert not net[0].training
    assert [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] == []


def test_without_a_norm_no_activation_writes_over_what_another_branch_needs():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.relu = nn.BatchNorm2d(2), nn.ReLU(inplace=True)

        def forward(self, x):
            return x + self.relu(self.bn(x))

    x = noise(2, 2, 3, 3)
    torch.testing.assert_close(encoders.without_batch_norm(Branches(), "none")(x.clone()), x + x.relu())


@pytest.mark.parametrize(
    ("base", "suffix"),
    [*(("small-w8-n2", s) for s in SUFFIXES), ("timm:test_resnet", "+gn"), ("timm:test_efficientnet", "+data"), ("timm:test_vit", "+ws")],
)
def test_an_encoder_is_rebuilt_from_its_name_with_its_weights(tmp_path, base, suffix):
    encoder = encoders.load(f"{base}{suffix}", input=GREY, seed=1).eval()
    assert encoder.name == f"{base}{suffix}"
    with torch.no_grad():
        for p in encoder.parameters():
            p += 0.01
    encoders.save_weights(encoder, tmp_path / "e.safetensors", extra={})
    again, twin = encoders.load_weights(tmp_path / "e.safetensors"), encoders.random_twin(encoder, seed=1)
    x = noise(2, 1, 16, 16).float()
    assert torch.equal(again(x), encoder(x))
    assert [type(m) for m in twin.modules()] == [type(m) for m in encoder.modules()]
    assert [type(m) for m in again.modules()] == [type(m) for m in encoder.modules()]
    assert not torch.equal(twin(x), encoder(x))
    assert any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules()) is (encoder.name == "small-w8-n2+ws")


def test_a_name_has_one_spelling():
    for text, name in (("small+ws+gn", "small+gn+ws"), ("small+gn16", "small+gn"), ("resnet26+gn8", "timm:resnet26+gn8")):
        assert encoders.load(text, input=GREY).name == name if "small" in text else encoders.catalogue.canonical(text) == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("small+bn", r"no encoder 'small\+bn': \+bn cannot stand there; give one of \+gn, \+ln, \+none, \+scale, \+data, and \+ws"),
        ("small+gn+ln", r"\+ln cannot stand there"),
        ("small+gn0", r"\+gn0 cannot stand there"),
        ("smal+gn", "did you mean small"),
        ("small+none+ws", "takes nothing back; give group, layer or data"),
        ("test_vit+gn", "VisionTransformer has no batch norm to replace"),
    ],
)
def test_a_suffix_that_cannot_be_is_one_sentence(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        encoders.load(name, input=RGB)


def test_pretrained_weights_are_for_the_norms_that_they_were_trained_with():
    with pytest.raises(
        ValueError, match=r"no pre-trained weights for resnet18\+gn: those of resnet18 are for its batch norms; leave \+gn out"
    ):
        encoders.load("resnet18+gn", input=RGB, pretrained=True)


def test_layers_that_cannot_be_standardised_are_named():
    with pytest.raises(ValueError, match="1 is a ConvTranspose2d, whose weights are not standardised"):
        encoders.standardise_weights(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 1, 3)))


@pytest.mark.parametrize("suffix", ["", "+gn+ws", "+none", "+data"])
def test_parameters_are_counted_without_building(suffix):
    net = encoders.load(f"resnet50{suffix}", input=RGB).net
    said = encoders.describe(f"resnet50{suffix}", input=RGB)
    assert said.startswith(f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M")
    assert ("standardised" in said) is ("ws" in suffix)


@pytest.mark.parametrize("suffix", ["+gn+ws", "+data+ws", "+none"])
def test_every_parameter_gets_a_gradient_and_only_weights_decay(suffix):
    net = encoders.load(f"small-w8{suffix}", input=GREY)
    net(noise(4, 1, 16, 16).float()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    groups = optim.param_groups(net)
    decayed = {id(p) for g in groups if not g["exclude"] for p in g["params"]}
    assert decayed == {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d)}
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))


@pytest.mark.parametrize("name", ["small-w8", "timm:test_efficientnet"])
def test_scales_set_by_a_batch_give_the_outputs_of_batch_norm(name):
    plain = encoders.load(name, input=GREY).double().train()
    ours = encoders.load(f"{name}+data", input=GREY).double().train()
    x = noise(6, 1, 16, 16)
    assert encoders.waits_for_data(ours)
    with torch.no_grad(), encoders.set_by_data(ours):
        torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=1e-10)
    assert not encoders.waits_for_data(ours)
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=1e-10)
    with torch.no_grad(), encoders.set_by_data(ours):  # once is all
        ours(3 * x)
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=1e-10)


WITHOUT = ["head_norm=data", "projection_norm=none", "hidden=16", "dim=8", "log_steps=1"]


def tiny(**asked):
    return Request(
        data="digits", encoder="small-w8-n2+data", batch_size=64, limit=128, precision="fp32", device="cpu", set=tuple(WITHOUT), **asked
    )


def test_a_run_starts_where_the_same_network_with_batch_norm_would():
    session = run.prepare(tiny())
    views, _ = next(iter(session.feed()(0, 1)))
    found = session.method()
    run.set_by_first_batch(session, found)
    assert not encoders.waits_for_data(found)
    same = {k: getattr(tiny(), k) for k in ("batch_size", "limit", "precision", "device")}
    plain = run.prepare(Request(data="digits", encoder="small-w8-n2", set=tuple(WITHOUT[1:]), **same)).method()
    for ours, theirs in ((found.encoder, plain.encoder), (found.target_encoder, plain.target_encoder)):
        torch.testing.assert_close(ours(views[0]), theirs(views[0]), rtol=1e-3, atol=1e-4)
    z = found.projector(found.encoder(views[0]))
    torch.testing.assert_close(z, plain.projector(plain.encoder(views[0])), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.predictor(z), plain.predictor(z), rtol=1e-3, atol=1e-4)


def test_a_run_that_was_stopped_keeps_what_its_first_batch_set(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    asked = {k: v for k, v in vars(tiny(epochs=2)).items() if k not in ("data", "set")}
    for folder in (whole, out):
        byol.train("digits", folder, set=(*WITHOUT, "checkpoint_minutes=0"), **asked)
    (out / "last.safetensors").unlink()
    (out / "encoder.safetensors").unlink()
    byol.resume(out)  # from the checkpoint before the last
    ours, theirs = (byol.load(folder).state_dict() for folder in (out, whole))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert len(set((out / "metrics.jsonl").read_text().splitlines())) == 4


TOGETHER = """
import sys, torch
from byol import dist, encoders
from byol.encoders import Input

with dist.joined("cpu"):
    x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[dist.share(8)]
    net = encoders.load("small-w8+data", input=Input(channels=1, size=16, mean=(0.5,), std=(0.5,))).double()
    with torch.no_grad(), encoders.set_by_data(net):
        net(x)
    torch.save(net.state_dict(), f"{sys.argv[1]}/{dist.rank()}-{dist.size()}.pt")
"""


def test_two_processes_set_the_scales_of_one(tmp_path):
    (tmp_path / "each.py").write_text(TOGETHER)
    teams = [start(count, [tmp_path / "each.py", tmp_path], port=free_port()) for count in (1, 2)]
    assert [p.wait(60) for team in teams for p in team] == [0] * 3
    alone, first, second = (torch.load(tmp_path / f"{n}.pt") for n in ("0-1", "0-2", "1-2"))
    for key, value in alone.items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("suffix", ["+gn+ws", "+data"])
def test_the_graph_of_such_an_encoder_is_exported(tmp_path, suffix):
    encoder = encoders.load(f"small-w8-n2{suffix}", input=GREY).eval()
    exporting.save_encoder(encoder, tmp_path / "e.pt2", extra={})  # compares features at batch sizes 1 and 5
    assert torch.export.load(tmp_path / "e.pt2").module()(torch.zeros(3, 1, 16, 16)).shape == (3, encoder.dim)


def test_the_heads_take_group_norm_and_standardised_weights():
    cls = methods.load("byol")
    method = cls(encoders.load("small-w8", input=GREY), cls.Config(hidden=512, dim=8, head_norm="group", head_standardise=True))
    for head in (method.projector, method.predictor, method.target_projector):
        assert (type(head[1]), head[1].num_groups) == (nn.GroupNorm, 16)
        x = noise(3, head[0].in_features).float()
        torch.testing.assert_close(head[0](x), nn.functional.linear(x, in_loops(head[0].weight), head[0].bias), rtol=1e-4, atol=1e-4)
        assert isinstance(head[3], norms.StandardisedLinear)
    assert [h[1].num_groups for h in (cls(method.encoder, cls.Config(hidden=h, dim=4, head_norm="group")).projector for h in (48, 16))] == [
        3,
        1,
    ]


def test_ones_own_module_is_changed_in_place_and_can_be_drawn_anew():
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert byol.encoders.without_batch_norm(net, standardise=True) is net
    assert isinstance(net[1], nn.GroupNorm)
    encoder = encoders.wrap(net, input=GREY)
    assert not torch.equal(encoders.random_twin(encoder, seed=3).net[0].weight, net[0].weight)
    assert net(noise(4, 1, 16, 16).float() * 5 + 3).isfinite().all()
