import json
import sys

import numpy as np
import pytest
import torch
from cli_calls import byol as command
from dense_files import measured, save
from torch.nn.functional import conv2d, pad
from torchvision.transforms.v2.functional import adjust_hue

from byol import dense
from byol.dense.depth import WIDTHS, Sums, UpProjection, berhu, coloured, up_head
from byol.dense.pictures import read_depth

TINY = "depth:iterations=3,batch_size=4,shrink=1,lr=0.001"


def test_the_defaults_are_the_papers():
    d = dense.load("depth")
    assert (d.iterations, d.batch_size, d.lr, d.weight_decay) == (7_500, 256, 0.16, 5e-4)
    assert (round(480 * d.shrink), round(640 * d.shrink), d.height, d.width) == (240, 320, 228, 304)
    assert WIDTHS == (512, 256, 128, 64)


def test_the_scale_of_berhu_is_of_the_whole_batch():
    generator = torch.Generator().manual_seed(2)
    e = torch.rand(2, 4, 4, dtype=torch.float64, generator=generator)
    e[1] /= 100
    zero, every = torch.zeros_like(e), torch.ones_like(e, dtype=torch.bool)
    c = 0.2 * e[0].max()
    of_batch = [torch.where(x <= c, x, (x * x + c * c) / (2 * c)).mean() for x in e]
    torch.testing.assert_close(berhu(e, zero, every), torch.stack(of_batch).mean())
    alone = torch.stack([berhu(e[i : i + 1], zero[:1], every[:1]) for i in (0, 1)]).mean()
    assert abs(alone - berhu(e, zero, every)) > 1e-6


def test_the_metrics_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    d, p = rng.uniform(0.5, 8, (6, 20, 30)), rng.uniform(0.5, 8, (6, 20, 30))
    d[:, 3] = 0
    sums = Sums()
    for part in (slice(0, 4), slice(4, 6)):  # sums over batches are those over all pixels
        sums.add(p[part], d[part])
    found = sums.metrics()
    t, q = d[d > 0], p[d > 0]
    for k, name in ((1, "< 1.25"), (2, "< 1.25^2"), (3, "< 1.25^3")):
        assert found[name] == pytest.approx(np.mean([max(a / b, b / a) < 1.25**k for a, b in zip(t, q, strict=True)]))
    assert found["rms"] == pytest.approx(np.sqrt(np.mean((t - q) ** 2)))
    assert found["rel"] == pytest.approx(np.mean(abs(t - q) / t))


def test_a_perfect_prediction_is_perfect():
    d = np.full((1, 4, 4), 2.0)
    sums = Sums()
    sums.add(d, d)
    assert sums.metrics() == {"< 1.25": 1, "< 1.25^2": 1, "< 1.25^3": 1, "rms": 0, "rel": 0}


def test_berhu_is_its_equation_in_float64():
    generator = torch.Generator().manual_seed(0)
    p, d = (torch.rand(3, 5, 7, dtype=torch.float64, generator=generator) * 4 for _ in range(2))
    counted = torch.rand(3, 5, 7, generator=generator) < 0.7
    e = (p - d).abs()[counted]
    c = 0.2 * e.max()
    by_hand = torch.stack([v if v <= c else (v**2 + c**2) / (2 * c) for v in e]).mean()
    torch.testing.assert_close(berhu(p, d, counted), by_hand)
    assert (e > c).any()
    assert (e <= c).any()


def test_berhu_and_its_gradient_are_0_where_nothing_is_wrong_or_measured():
    p = torch.ones(2, 3, 3, requires_grad=True)
    for counted in (torch.ones(2, 3, 3, dtype=torch.bool), torch.zeros(2, 3, 3, dtype=torch.bool)):
        loss = berhu(p, torch.ones(2, 3, 3), counted)
        (gradient,) = torch.autograd.grad(loss, p)
        assert loss == 0
        assert not gradient.any()


def test_the_up_convolution_is_a_5x5_convolution_of_the_unpooled_map():
    block = UpProjection(3, 4).double()
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    unpooled = torch.zeros(2, 3, 10, 12, dtype=torch.float64)
    unpooled[..., ::2, ::2] = x
    kernel = block.up.weight.transpose(0, 1).flip(2, 3)
    torch.testing.assert_close(block.up(x), conv2d(unpooled, kernel, padding=2))


def test_the_up_convolution_is_the_papers_four_interleaved_convolutions():
    block = UpProjection(3, 4).double()
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    kernel = block.up.weight.transpose(0, 1).flip(2, 3)
    out = torch.empty(2, 4, 10, 12, dtype=torch.float64)
    for i in (0, 1):  # of a row: taps 0, 2, 4 at even places, 1, 3 at odd ones
        for j in (0, 1):
            part = pad(x, (1 - j, 1, 1 - i, 1))
            out[..., i::2, j::2] = conv2d(part, kernel[..., i::2, j::2])
    torch.testing.assert_close(block.up(x), out)


def test_four_blocks_make_the_map_sixteen_times_as_large():
    assert up_head(8)(torch.rand(2, 8, 2, 3)).shape == (2, 1, 32, 48)


def test_colours_change_as_torchvisions_do_and_grey_comes_with_probability_3_in_10():
    u = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(500, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    kept = x.clone()
    y = coloured(x, u)
    assert torch.equal(x, kept)
    grey = (y.amax(1) - y.amin(1)).flatten(1).amax(1) < 1e-6
    assert torch.equal(grey, u[:, 4] < 0.3)
    plain = u.clone()
    plain[:, 1:3], plain[:, 4] = 0.5, 0.9  # no change of brightness and saturation
    for i in range(5):
        torch.testing.assert_close(
            coloured(x[i : i + 1], plain[i : i + 1])[0], adjust_hue(x[i], float(0.4 * u[i, 3] - 0.2)), rtol=0, atol=1e-4
        )
    assert coloured(x[:, :1], u).shape == (500, 1, 4, 4)


def test_a_depth_map_is_in_metres_and_0_where_nothing_was_measured(tmp_path):
    path = save(tmp_path / "d.png", np.array([[0, 65535, 1500], [1, 2, 65534]], np.uint16))
    np.testing.assert_allclose(read_depth(path, 1000), [[0, 0, 1.5], [0.001, 0.002, 65.534]], rtol=1e-6)


def test_depth_is_learnt_frozen_and_finetuned_and_tested_on_the_last_frames(tmp_path):
    measured(tmp_path)
    call = command("evaluate", "random:small-w8", tmp_path, "--protocol", TINY, "--json")
    assert call.code == 0, call.err
    (found,) = json.loads(call.out)["evaluations"]
    assert (found["train"], found["test"], found["facts"]) == (8, 2, {"height": 24, "width": 32})
    assert [s["mode"] for s in found["scores"]] == ["frozen", "finetuned"]
    table = call.err.splitlines()
    assert max(len(line.replace(str(tmp_path), "")) for line in table) <= 80
    assert any(line.split()[-2:] == ["rms", "rel"] for line in table)
    assert list(found["scores"][0]["metrics"]) == ["< 1.25", "< 1.25^2", "< 1.25^3", "rms", "rel"]


def test_a_depth_map_of_8_bit_is_refused(tmp_path):
    measured(tmp_path)
    save(tmp_path / "depth" / "03.png", np.zeros((24, 32), np.uint8))
    call = command("evaluate", "random:small-w8", tmp_path, "--protocol", TINY)
    assert call.code == 2
    assert "mode L; give 16-bit grey PNG" in " ".join(call.err.split())


def test_a_mat_file_without_h5py_says_how_to_read_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "nyu.mat").write_bytes(b"MATLAB 7.3")
    with pytest.raises(ValueError, match="h5py is not installed; pip install h5py"):
        dense.load("depth").open(str(tmp_path / "nyu.mat"), None, None)


def test_nyus_file_is_read_with_its_axes_reversed_and_its_official_split(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the extra `nyu` is not installed")
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    images, depths = rng.integers(0, 255, (5, 3, 8, 6), np.uint8), rng.uniform(1, 5, (5, 8, 6)).astype(np.float32)
    with h5py.File(tmp_path / "nyu.mat", "w") as file:
        file["images"], file["depths"] = images, depths
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[1], [3], [5]], "testNdxs": [[2], [4]]})
    task = dense.load("depth").open(str(tmp_path / "nyu.mat"), None, None)
    assert (task.train, task.test, task.how) == (3, 2, "the official split")
    np.testing.assert_array_equal(task.split.test.image(1), images[3].transpose(2, 1, 0))
    np.testing.assert_array_equal(task.split.train.target(1), depths[2].T)
