"""Checkpoints of other libraries: the features are those of the network that wrote them, and what was assumed is said."""

import copy
import json
import os

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import byol
from byol import others
from byol.cli import main
from byol.config import Request
from byol.run import prepare

pytestmark = pytest.mark.filterwarnings("ignore::byol.others.Notice")


def settled(net, seed=0):
    """With statistics that make the eval mode no identity."""
    draw = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, (a, b) in ((m.weight, (0.5, 1)), (m.bias, (-0.1, 0.1)), (m.running_mean, (-0.1, 0.1)), (m.running_var, (0.5, 2))):
                nn.init.uniform_(t, a, b, generator=draw)
    return net.eval()


@pytest.fixture(scope="module")
def resnet18():
    return settled(torchvision.models.resnet18())


def cifar(padding=1):
    """As CIFAR networks begin; solo-learn's is padded by 2."""
    net = torchvision.models.resnet18()
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=padding, bias=False), nn.Identity()
    return settled(net)


def without_head(net):
    net = copy.deepcopy(net)
    net.fc = nn.Identity()
    return net


def trunk(net, prefix=""):
    return {prefix + k: v.clone() for k, v in net.state_dict().items() if not k.startswith("fc.")}


def heads(*names):
    return {f"{name}.0.weight": torch.zeros(4, 512) for name in names}


@torch.no_grad()
def same(encoder, net, size=40):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encoder(x), net(x).flatten(1), rtol=1e-5, atol=1e-5)


LAYOUTS = {
    "torchvision": (lambda n: n.state_dict(), "torchvision's and timm's layout", ["fc"]),
    "MoCo": (
        lambda n: {"epoch": 1, "arch": "resnet18", "state_dict": trunk(n, "module.encoder_q.") | trunk(cifar(), "module.encoder_k.")
                   | {"module.encoder_q.fc.0.weight": torch.zeros(1, 1), "module.queue": torch.zeros(2, 3)}, "optimizer": {"state": {}}},
        "MoCo's layout", ["module.encoder_q.fc", "encoder_k", "queue", "epoch", "arch", "optimizer"],
    ),
    "solo-learn": (
        lambda n: {"state_dict": trunk(n, "backbone.") | trunk(cifar(), "momentum_backbone.")
                   | heads("classifier", "projector", "predictor")},
        "solo-learn's layout", ["classifier", "momentum_backbone", "predictor", "projector"],
    ),
    "SimSiam": (lambda n: {"state_dict": trunk(n, "module.encoder.") | heads("module.predictor")}, "SimSiam's layout", ["predictor"]),
    "lightly": (
        lambda n: trunk(n, "backbone.") | trunk(cifar(), "backbone_momentum.") | heads("projection_head", "prediction_head"),
        "lightly's examples' layout", ["backbone_momentum", "prediction_head", "projection_head"],
    ),
    "byol-pytorch": (
        lambda n: trunk(n, "net.") | trunk(n, "online_encoder.net.") | trunk(cifar(), "target_encoder.net.") | heads("online_predictor"),
        "byol-pytorch's layout", ["net", "online_encoder", "online_predictor", "target_encoder"],
    ),
    "another": (lambda n: trunk(n, "my.own.net."), "a layout of its own (my.own.net.)", []),
}  # fmt: skip


@pytest.mark.parametrize("which", LAYOUTS)
def test_a_residual_net_is_found_in_each_layout_and_the_rest_is_named(resnet18, tmp_path, which):
    made, whose, left_out = LAYOUTS[which]
    torch.save(made(resnet18), tmp_path / "x.pth")
    found = byol.load(tmp_path / "x.pth")
    same(found, without_head(resnet18))
    assert (found.name, found.dim, found.input.size, found.input.resize) == ("resnet18-stem7", 512, 224, 256)
    assert found.provenance["whose"] == whose
    assert set(found.provenance["left_out"]) - {"online_encoder"} == set(left_out) - {"online_encoder"}
    assert found.provenance["licence"].startswith("unknown")
    assert any("mean and std of ImageNet" in line for line in found.provenance["assumed"])


def test_what_is_assumed_and_the_licence_are_a_warning(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "x.pt")
    with pytest.warns(
        others.Notice, match=r"x\.pt: torchvision's .* licence: unknown, ask who made them.*left out: fc.*assumed: .*ImageNet"
    ):
        byol.load(tmp_path / "x.pt")


@pytest.mark.parametrize("depth", [34, 50, 101, 152])
def test_depths_are_told_by_the_blocks(depth):
    from byol.others import layouts

    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    assert layouts.name_of(layouts.trunk(state))[0] == f"resnet{depth}-stem7"


def test_files_from_before_batches_were_counted_are_read(resnet18, tmp_path):
    torch.save(
        {k: v for k, v in resnet18.state_dict().items() if "num_batches" not in k}, tmp_path / "x.pth", _use_new_zipfile_serialization=False
    )
    same(byol.load(tmp_path / "x.pth"), without_head(resnet18))


def test_safetensors_of_timm_are_read(tmp_path):
    import timm

    net = settled(timm.create_model("resnet18"))
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    net.reset_classifier(0)
    same(byol.load(tmp_path / "model.safetensors"), net)


@pytest.mark.parametrize(
    ("make", "prefix", "name"),
    [
        (cifar, "", "resnet18-stem3"),
        (cifar, "backbone.", "resnet18-stem3"),
        (lambda: cifar(padding=2), "solo", "resnet18-stem3pad2"),
    ],
)
def test_the_stems_of_small_images_are_told_by_the_first_convolution(tmp_path, make, prefix, name):
    net = make()
    state = trunk(net, "backbone.") | heads("classifier", "projector") if prefix == "solo" else trunk(net, prefix)
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    found = byol.load(tmp_path / "x.ckpt")
    assert (found.name, found.input.size) == (name, 32)
    assert "max-pooling" in found.provenance["assumed"][0]
    same(found, without_head(net), size=32)


def test_a_pooling_that_the_file_does_not_show_can_be_asked_for(tmp_path):
    net = cifar()
    net.maxpool = nn.MaxPool2d(3, 2, 1)
    torch.save(net.state_dict(), tmp_path / "x.pth")
    found = byol.load(f"resnet18-stem3pool:{tmp_path}/x.pth")
    assert found.name == "resnet18-stem3pool"
    same(found, without_head(net), size=32)


def test_a_file_is_read_as_the_network_of_timm_that_is_named(tmp_path):
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=224).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "x.pth")
    found = byol.load(f"timm:vit_tiny_patch16_224:{tmp_path}/x.pth")
    net.reset_classifier(0)
    same(found, net, size=224)
    assert found.provenance["left_out"] == ["head"]


def test_lightlys_backbones_give_their_own_features(tmp_path):
    models = pytest.importorskip("lightly.models")
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

    class Model(nn.Module):
        """As lightly's example for BYOL is laid out."""

        def __init__(self, backbone):
            super().__init__()
            self.backbone, self.backbone_momentum = backbone, settled(copy.deepcopy(backbone), seed=1)
            self.projection_head = BYOLProjectionHead(512, 8, 4)
            self.prediction_head = BYOLPredictionHead(4, 8, 4)

    net = settled(torchvision.models.resnet18())
    large = nn.Sequential(*list(net.children())[:-1]).eval()
    torch.save(Model(large).state_dict(), tmp_path / "a.pth")
    same(byol.load(tmp_path / "a.pth"), large)
    torch.save({"resnet18_parameters": large.state_dict()}, tmp_path / "b.pth")
    same(byol.load(tmp_path / "b.pth"), large)
    # Their network for small images calls relu as a function, which an nn.Sequential of its parts does without.
    small = nn.Sequential(*list(settled(models.ResNetGenerator("resnet-18")).children())[:-1], nn.AdaptiveAvgPool2d(1)).eval()
    torch.save(Model(small).state_dict(), tmp_path / "c.pth")
    found = byol.load(tmp_path / "c.pth")
    assert found.name == "resnet18-stem3linear"
    same(found, small, size=32)
    whole = settled(models.ResNetGenerator("resnet-18"))
    torch.save(whole.state_dict(), tmp_path / "d.pth")
    whole.linear = nn.Identity()
    same(byol.load(tmp_path / "d.pth"), whole, size=32)


def test_byol_pytorchs_networks_give_their_own_features(tmp_path):
    byol_pytorch = pytest.importorskip("byol_pytorch")
    net = settled(torchvision.models.resnet18())
    learner = byol_pytorch.BYOL(net, image_size=32, hidden_layer="avgpool", projection_size=8, projection_hidden_size=16)
    torch.save(net.state_dict(), tmp_path / "improved-net.pt")  # as their README stores it
    torch.save(learner.state_dict(), tmp_path / "learner.pt")
    net.eval()
    for name in ("improved-net.pt", "learner.pt"):
        same(byol.load(tmp_path / name), without_head(net))


def test_exported_files_keep_whose_the_weights_are(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "x.pth")
    byol.export(tmp_path / "x.pth", tmp_path / "y.safetensors", format="torchvision")
    found = byol.load(tmp_path / "y.safetensors")
    same(found, without_head(resnet18))
    assert found.provenance["licence"] == others.UNKNOWN
    assert found.provenance["weights"] == "x.pth"


# -- what is refused


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (lambda n: n.state_dict() | {"layer1.0.se.fc1.weight": torch.zeros(1)}, r"layer1\.0\.se\.fc1\.weight .* has no such tensor"),
        (lambda n: n.state_dict() | {"neck.weight": torch.zeros(1)}, r"a tensor has no place in a residual net \(neck\.weight\)"),
        (lambda n: {k: v for k, v in n.state_dict().items() if k != "bn1.bias"}, r"bn1\.bias is missing"),
        (lambda n: n.state_dict() | {"bn1.bias": torch.zeros(3)}, r"bn1\.bias has the shape \(3,\), where the network has \(64,\)"),
        (lambda n: trunk(n, "a.") | trunk(cifar(), "b."), r"several networks \(a, b\)"),
        (lambda n: {"a": trunk(n), "b": trunk(n)}, r"several networks \(a, b\)"),
        (lambda n: {"lr": 0.1}, "no tensors by name"),
        (lambda n: {"a.weight": torch.zeros(1, 1, 1, 1)}, r"no residual net is known by its names \(a\.weight"),
        (lambda n: [torch.zeros(1)], "holds a list"),
        (lambda n: trunk(n) | {"conv1.weight": torch.zeros(64, 3, 5, 5)}, "5x5"),
        (lambda n: torchvision.models.resnext50_32x4d().state_dict(), r"layer1\.0\.conv1\.weight has the shape"),
    ],
)
def test_what_has_no_place_is_refused_in_a_sentence_that_names_it(resnet18, tmp_path, state, said):
    torch.save(state(resnet18), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=said) as told:
        byol.load(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(told.value)
    assert "\n" not in str(told.value)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch pickle-was-executed",))


def test_a_torch_file_that_would_have_to_be_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for old in (True, False):
        torch.save(
            {"state_dict": {"conv1.weight": torch.zeros(1)}, "hyper_parameters": Evil()}, "x.ckpt", _use_new_zipfile_serialization=not old
        )
        with pytest.raises(ValueError, match=r"cannot be read without running .* torch\.save\(model\.state_dict\(\), FILE\)") as told:
            byol.load("x.ckpt")
        assert "\n" not in str(told.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.ckpt"]


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.pkl"])
def test_damaged_and_missing_files_are_one_sentence(tmp_path, name):
    with pytest.raises(ValueError, match=r"there is no file|is no \.safetensors"):
        byol.load(tmp_path / name)
    for content in (b"", b"PK\x03\x04", b"\x80\x02", b"\xff" * 64):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")) as told:
            byol.load(tmp_path / name)
        assert "\n" not in str(told.value)


# -- on the command line


def test_evaluate_says_whose_weights_these_are(resnet18, tmp_path, capsys):
    torch.save(trunk(cifar()), tmp_path / "x.pth")
    words = ["evaluate", str(tmp_path / "x.pth"), "digits", "--protocol", "knn", "--limit", "60", "--no-baselines", "--json"]
    assert main(words) == 0
    out = capsys.readouterr()
    assert "licence: unknown, ask who made them" in " ".join(out.err.split())
    assert json.loads(out.out.splitlines()[-1])["evaluations"][0]["scores"][-1]["name"].endswith("x.pth")


def test_training_begins_with_weights_of_others_and_keeps_their_licence(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8))
    net = cifar()
    torch.save({"state_dict": trunk(net, "backbone.")}, tmp_path / "x.ckpt")
    request = Request(data=str(tmp_path / "x.npy"), init=str(tmp_path / "x.ckpt"), epochs=1, batch_size=20, device="cpu", precision="fp32")
    session = prepare(request)
    assert session.input.mean == others.MEAN
    assert "licence: unknown" in session.plan.notes[0]
    method = session.method()
    assert all(torch.equal(v, method.encoder.net.state_dict()[k]) for k, v in trunk(net).items())


def test_a_named_network_takes_no_weights_that_have_more_than_it_has(tmp_path, resnet18):
    torch.save(trunk(resnet18) | {"layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)}, tmp_path / "se.pth")
    with pytest.raises(ValueError, match=r"it has tensors that the network has not \(layer1\.0\.se\.fc1\.weight\)"):
        byol.load(f"timm:resnet18:{tmp_path / 'se.pth'}")


def test_a_wrong_name_before_a_file_that_is_there_is_what_the_sentence_is_about(tmp_path, resnet18):
    torch.save(trunk(resnet18), tmp_path / "r.pth")
    with pytest.raises(ValueError, match="resnet18-stem3pol"):
        byol.load(f"resnet18-stem3pol:{tmp_path / 'r.pth'}")
