"""The encoders of RGB-D frames: their shape, points that are never lost, frames without any, what is told where something is missing."""

import sys

import pytest
import torch
from rgbd_frames import encoder, frames, input_of

from byol import encoders, exporting, geometry
from byol.encoders import rgbd


def tiny(**changes):
    torch.manual_seed(0)
    return rgbd.RGBD(rgbd.Shape(**{"width": 4, "whole": False, "voxel": 0.1} | changes))


@pytest.mark.parametrize("shape", [rgbd.Shape(8), rgbd.Shape(8, whole=False), rgbd.Shape(2, whole=False, voxel=0.05)])
def test_the_number_of_parameters_is_that_of_the_net(shape):
    assert sum(p.numel() for p in rgbd.RGBD(shape).parameters()) == shape.parameters()


def test_the_whole_network_is_the_papers():
    shape = rgbd.parse("byoc")
    assert (shape.down, shape.up) == ((32, 32, 64, 128, 256), (256, 256, 128, 96, 96))  # MinkUNet34C
    assert (shape.down_blocks, shape.blocks, shape.voxel) == ((2, 3, 4, 6), 2, 0.025)
    assert "39.4 M parameters, 64 features; RGB-D frames, cells of 2.5 cm" in encoders.describe("byoc")
    assert rgbd.parse("byoc-w16-v50") == rgbd.Shape(16, whole=False, voxel=0.05)
    assert not any(rgbd.parse(name) for name in ("byoc-w15", "byoc-v0", "byoc-w0", "byol", "byoc-x"))


@pytest.mark.parametrize("voxel", [0.001, 0.025, 0.05, 0.3])
def test_points_of_ten_metres_stay_inside_the_cube_however_they_are_turned(voxel):
    shape = rgbd.Shape(voxel=voxel)
    corner = torch.tensor([10.0, 10.0, 10.0]).norm() + 0.5
    assert corner < shape.half
    assert shape.depth <= 16  # what a key of the octree can hold
    net = tiny(voxel=voxel)
    p = torch.tensor([[10.0, 10.0, 10.0], [-10.0, 0.1, 10.0], [-10.0, 0.1 + 2 * voxel, 10.0], [0.1, 0.1, 0.4]])
    for k in range(4):
        R = geometry.rotation_about(torch.eye(3)[k % 3], torch.tensor(0.7 + k))
        assert net.thin(geometry.move(R, torch.full((3,), 0.5), p)).tolist() == [0, 1, 2, 3]


def test_features_have_length_1_and_points_of_one_cell_the_same_ones():
    net = tiny()
    p = 3 * torch.rand(300, 3) + torch.tensor([-1.0, -1.0, 1.0])
    q = p[:40] + 1.0
    f, g = net.geometric([p, q])
    assert (f.shape, g.shape) == ((300, 32), (40, 32))
    torch.testing.assert_close(f.norm(dim=1), torch.ones(300))
    cells = [tuple(c) for c in torch.floor(p / 0.1 + 1e-6).long().tolist()]
    rows = net.thin(p)
    assert rows.tolist() == sorted({cell: n for n, cell in reversed(list(enumerate(cells)))}.values())
    first = {cells[n]: f[n] for n in rows.tolist()}
    assert all(torch.equal(first[cell], f[n]) for n, cell in enumerate(cells))
    torch.testing.assert_close(net.geometric([p[rows], q])[0], f[rows])
    torch.testing.assert_close(net.visual(frames(2)).norm(dim=1), torch.ones(2, 8, 8))


def test_a_cloud_has_its_features_whatever_it_is_beside():
    net = tiny().eval()
    p, q = torch.rand(50, 3) + 1, 2 * torch.rand(70, 3) + 1
    alone = net.geometric([p])[0]
    for beside in ([p, q], [q, p], [q, torch.zeros(0, 3), p], [p, p]):
        found = net.geometric(beside)
        torch.testing.assert_close(found[beside.index(p)] if beside[0] is not q else found[-1], alone)


def test_geometric_features_know_nothing_of_colour_and_visual_ones_nothing_of_depth():
    net, x = tiny().eval(), frames(2)
    other = torch.cat([torch.randn_like(x[:, :3]), 2 * x[:, 3:]], 1)
    torch.testing.assert_close(net.visual(torch.cat([x[:, :3], other[:, 3:]], 1)), net.visual(x))
    torch.testing.assert_close(net(torch.cat([other[:, :3], x[:, 3:]], 1))[:, 32:], net(x)[:, 32:])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("valid", [[], [(0, 0)], [(3, 3), (3, 4)]])
def test_frames_without_points_or_with_one_have_finite_features_and_gradients(train, valid):
    net = tiny().train(train)
    x = torch.zeros(3, 6, 8, 8)
    for v, u in valid:
        x[1, 3:, v, u] = torch.tensor([0.1 * u, 0.1 * v, 1.0])
    y = net(x)
    assert torch.equal(y[0], torch.zeros(64))
    assert bool(y[1].any()) is bool(valid)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_mean_features_are_those_of_the_valid_pixels():
    net, x = tiny().eval(), frames(3)
    for n, y in enumerate(net(x)):
        valid = x[n, 5] > 0
        torch.testing.assert_close(y[:32], net.visual(x)[n][:, valid].mean(1))
        torch.testing.assert_close(y[32:], net.geometric([x[n, 3:][:, valid].T])[0].mean(0))


def test_points_are_never_in_half_precision_and_float64_stays():
    net, x = tiny().eval(), frames(2)
    p = [x[0, 3:].flatten(1).T]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net.geometric(p)[0], net.geometric(p)[0].float())
        half = net(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half[:, 32:], net(x)[:, 32:])
    assert net.double()(x.double()).dtype == torch.float64


def test_an_encoder_is_kept_in_a_file_drawn_anew_by_its_seed_and_never_a_graph(tmp_path):
    kept, x = encoder().eval(), frames(2)
    exporting.save_encoder(kept, tmp_path / "e.safetensors", extra={})
    assert torch.equal(exporting.load_encoder(tmp_path / "e.safetensors")(x), kept(x))
    assert torch.equal(encoders.random_twin(kept, seed=0)(x), kept(x))
    assert not torch.equal(encoders.random_twin(kept, seed=1)(x), kept(x))
    for end in ("onnx", "pt2"):
        with pytest.raises(ValueError, match=rf"cannot be written as \.{end}: it sorts .*; export \.safetensors$"):
            exporting.save_encoder(kept, tmp_path / f"e.{end}", extra={})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.json", "e.safetensors"]


def test_other_data_and_a_missing_package_get_one_sentence(monkeypatch):
    images = encoders.Input(channels=3, size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    for ask in (encoders.load, encoders.describe):
        with pytest.raises(ValueError, match=r"byoc is an encoder of RGB-D frames .* have 3 channels"):
            ask("byoc", input=images)
    monkeypatch.setitem(sys.modules, "ocnn.models", None)
    with pytest.raises(ValueError, match=r"need the package ocnn; install it with: pip install 'byol\[points\]'$"):
        encoders.load("byoc-w4", input=input_of())
    assert "0.1 M parameters" in encoders.describe("byoc-w4", input=input_of())


def test_group_norm_takes_the_place_of_every_batch_norm():
    net = encoder(name="byoc-w4-v100+gn").net
    assert not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in net.modules())
    assert net(frames(2)).isfinite().all()


def test_frames_are_for_themselves_in_evaluation_mode_however_many_there_are():
    net = encoder().eval()
    x = frames(20)
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
