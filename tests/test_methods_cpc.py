import math

import pytest
import torch
from torch import nn

from byol import encoders, methods, training
from byol.encoders import Cut, Input, Patches
from byol.methods import cpc
from byol.methods.cpc import Context, labels
from byol.views.alter import alter, columns, dropped

CPC = methods.load("cpc")
RGB = Input(channels=3, size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
STILL = {"patch_flip": 0.0, "patch_jitter": 0.0, "patch_gray": 0.0, "patch_drop": 0.0}
FEW = {"dim": 6, "hidden": 8, "blocks": 2}


class Means(nn.Module):
    """A network of a patch that can be written down: its channels' means, and their mean squares."""

    def forward(self, x):
        return torch.cat([x.mean((2, 3)), x.square().mean((2, 3))], 1)


def build(net=None, seed=0, **options):
    torch.manual_seed(seed)
    patches = Patches(net or nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh()), Cut(8, 4), RGB)
    return CPC(encoders.wrap(patches, input=RGB), CPC.Config(**{**FEW, **STILL, **options})).double()


def images(size=2, seed=1):
    x = torch.rand(size, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (x - torch.tensor(RGB.mean).view(3, 1, 1)) / torch.tensor(RGB.std).view(3, 1, 1)


def context_written_out(context, z):
    """(B, 7, 7, D): every block a sum over what it sees, with a row of zeros on top; what comes out is added to what came in."""
    c = z
    for block in context.blocks:
        w = list(block.parameters())
        u = torch.relu(c @ w[0][:, :, 0, 0].T + w[1])
        beside = torch.cat([torch.zeros_like(u[:, :, :1]), u, torch.zeros_like(u[:, :, :1])], 2)
        u = sum(beside[:, :, k : k + 7] @ w[2][:, :, 0, k].T for k in range(3)) + w[3]
        above = torch.cat([torch.zeros_like(u[:, :1]), u], 1)
        u = torch.relu(above[:, :7] @ w[4][:, :, 0, 0].T + above[:, 1:] @ w[4][:, :, 1, 0].T + w[5])
        c = c + u @ w[6][:, :, 0, 0].T + w[7]
    return c


def written_out(method, x):
    """Patch by patch: its latents from a slice of the image, its place counted by hand, one softmax after the other."""
    net = method.encoder.net.net
    z = torch.stack([
        torch.stack([
            torch.stack([net(one[None, :, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8]).mean((2, 3))[0] for j in range(7)]) for i in range(7)
        ])
        for one in x
    ])  # fmt: skip
    total, count = 0.0, 0
    for side in range(method.config.sides):
        turned = z.rot90(side, (1, 2))
        c = torch.relu(context_written_out(method.context, turned))
        for number, k in enumerate(method.distances):
            predictor = method.predictors[side * len(method.distances) + number]
            losses = []
            for b in range(len(x)):
                for i in range(7 - k):
                    for j in range(7):
                        scores = 0.1 * (method.projector(turned).flatten(0, 2) @ predictor(c[b, i, j]))
                        own = 0.1 * method.projector(turned[b, i + k, j]) @ predictor(c[b, i, j])
                        losses.append(scores.exp().sum().log() - own)
            total, count = total + torch.stack(losses).mean(), count + 1
    return total / count


@pytest.mark.parametrize(("sides", "offsets"), [(1, 3), (4, 1)])
def test_loss_and_gradient_are_the_cross_entropy_written_out_to_1e_10(sides, offsets):
    method, x = build(sides=sides, offsets=offsets), images()
    ours, theirs = method((x,)).loss, written_out(method, x)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-10)
    learning = list(method.parameters())
    for a, b in zip(torch.autograd.grad(ours, learning), torch.autograd.grad(theirs, learning), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_predictions_are_compared_in_float32_whatever_the_networks_are_in():
    p, every = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((2, 2, 3, 5), (18, 5)))
    exact, _ = cpc.found(p, every, 1, (3, 3))
    with training.autocast("cpu", "bf16"):
        assert torch.equal(cpc.found(p, every, 1, (3, 3))[0], exact)


def test_a_context_sees_its_row_left_and_right_and_all_rows_above_and_none_below():
    torch.manual_seed(0)
    context = Context(5, 8, 5).double()
    for part in context.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.3)
    z = torch.randn(1, 7, 7, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(context(z)[0, 3, 3].sum(), z)
    seen = gradient[0].abs().amax(-1) > 0
    assert seen[:4].all()
    assert not seen[4:].any()


def test_labels_are_the_places_k_rows_down_on_a_grid_of_two_images_3_by_3(monkeypatch):
    down_two = [6, 7, 8, 15, 16, 17]
    assert labels(2, 2, (3, 3), torch.device("cpu")).tolist() == down_two
    assert labels(2, 1, (3, 3), torch.device("cpu")).tolist() == [3, 4, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17]
    monkeypatch.setattr(cpc.dist, "rank", lambda: 1)
    assert labels(2, 2, (3, 3), torch.device("cpu")).tolist() == [18 + place for place in down_two]


def test_the_first_loss_is_about_the_logarithm_of_all_patches():
    encoder = encoders.load("patches:small-w8", input=RGB)
    out = CPC(encoder, CPC.Config(**FEW))((images(8).float(),))
    assert out.loss.item() == pytest.approx(math.log(8 * 49), abs=0.1)
    assert out.metrics["information"].item() == pytest.approx(math.log(8 * 49) - out.loss.item(), abs=1e-5)


def test_predictions_that_are_the_targets_drive_the_loss_to_0_and_rows_out_of_order_do_not():
    t = 40 * torch.nn.functional.normalize(torch.randn(2, 7, 7, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    every = t.flatten(0, 2)
    loss, share = cpc.found(t[:, 2:], every, 2, (7, 7))
    assert loss.item() < 1e-6
    assert share.item() == 1
    assert cpc.found(t[:, 2:].roll(1, 1), every, 2, (7, 7))[0].item() > 100


def test_moving_columns_alike_changes_no_loss_of_one_row_and_moving_rows_does():
    x = torch.randn(2, 7, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    predictions = torch.randn(2, 5, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = cpc.found(predictions, x.flatten(0, 2), 2, (7, 7))[0]
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    moved = cpc.found(predictions[:, :, order], x[:, :, order].flatten(0, 2), 2, (7, 7))[0]
    torch.testing.assert_close(moved, whole, rtol=0, atol=1e-12)
    assert (cpc.found(predictions, x[:, order].flatten(0, 2), 2, (7, 7))[0] - whole).abs() > 1e-3


@pytest.mark.parametrize(("cut", "least"), [((80, 36), 3), ((64, 32), 2), ((8, 4), 2), ((9, 4), 3), ((2, 1), 2)])
def test_patches_that_share_pixels_with_the_context_are_never_foretold(cut, least):
    patches = Patches(Means(), Cut(*cut), encoders.Input(channels=1, size=260, mean=(0.5,), std=(0.2,)))
    assert CPC.Config().distances(patches)[0] == least
    rows = [range(i * cut[1], i * cut[1] + cut[0]) for i in range(5)]
    assert not set(rows[0]) & set(rows[least])
    assert set(rows[0]) & set(rows[least - 1])
    with pytest.raises(ValueError, match=f"share pixels with those {least - 1} rows below; give offset={least} or more"):
        CPC.Config(offset=least - 1).distances(patches)


def test_the_published_geometry_has_six_by_six_patches_and_one_distance():
    patches = Patches(Means(), Cut(80, 36), encoders.Input(channels=1, size=260, mean=(0.5,), std=(0.2,)))
    assert patches.cut(torch.zeros(1, 1, 260, 260)).shape == (1, 6, 6, 1, 80, 80)
    assert list(CPC.Config(offset=3, offsets=1).distances(patches)) == [3]
    assert list(CPC.Config().distances(patches)) == [3]
    assert list(CPC.Config(offsets=4).distances(patches)) == [3, 4, 5]
    with pytest.raises(ValueError, match="a grid of 2 rows has none 2 below another"):
        CPC.Config().distances(Patches(Means(), Cut(8, 4), encoders.Input(channels=1, size=12, mean=(0.5,), std=(0.2,))))


def test_every_patch_is_changed_by_itself_alike_for_any_number_of_processes(monkeypatch):
    method = build(patch_jitter=1.0, patch_gray=0.5, patch_flip=0.5)
    patches = method.encoder.net
    parts = torch.full((4, 7, 7, 3, 8, 8), 0.3, dtype=torch.float64)
    parts[:, :, :, 0] = -0.5
    torch.manual_seed(3)
    every = method._changed(patches, parts.clone())
    assert len(every.mean((4, 5)).flatten(0, 2).unique(dim=0)) > 150, "196 patches that were alike, each with colours of its own"
    monkeypatch.setattr("byol.methods._bank.dist.rank", lambda: 1)
    torch.manual_seed(3)
    torch.testing.assert_close(method._changed(patches, parts[2:].clone()), every[2:], rtol=0, atol=1e-12)


def test_a_dropped_patch_keeps_one_channel_and_gray_has_equal_ones():
    u = torch.rand(4000, 40, generator=torch.Generator().manual_seed(0))
    lost = dropped(u, 0.25, 3)
    assert set(lost.sum(1).tolist()) == {0, 2}
    assert lost.any(1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not dropped(u, 0.0, 3).any()
    method = build(patch_gray=1.0)
    changed = method._changed(method.encoder.net, method.encoder.net.cut(images(1)))
    raw = changed * torch.tensor(RGB.std).view(3, 1, 1) + torch.tensor(RGB.mean).view(3, 1, 1)
    assert (raw - raw[:, :, :, :1]).abs().max() < 1e-6


def test_without_changes_patches_are_the_images_own():
    method, x = build(), images()
    parts = method.encoder.net.cut(x)
    torch.testing.assert_close(method._changed(method.encoder.net, parts.clone()), parts, rtol=0, atol=1e-6)


def test_an_encoder_that_sees_images_whole_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="cpc trains an encoder of patches, and small-w8 sees images whole; give --encoder patches:NAME"):
        CPC(encoders.load("small-w8", input=RGB), CPC.Config())


def test_the_loss_falls_on_64_images_below_what_chance_gives():
    torch.manual_seed(0)
    x = torch.linspace(0, 6.3, 32)
    turns = torch.rand(64, 2, 1, 1)
    wave = torch.sin(x[:, None] * (1 + 3 * turns[:, :1]) + x * (1 + 3 * turns[:, 1:]))  # a grating goes on as it began
    inp = Input(channels=1, size=32, mean=(0.0,), std=(1.0,))
    method = CPC(encoders.load("patches:small-w8-n2", input=inp), CPC.Config(dim=32, hidden=16, blocks=2, sides=1, offsets=1, **STILL))
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    for _ in range(16):
        optimizer.zero_grad()
        out = method(((wave + 1) / 2,))
        out.loss.backward()
        optimizer.step()
    assert out.loss.item() < math.log(64 * 49) - 0.3


def test_brightness_of_patches_is_added_as_inception_has_it():
    """A multiple of almost nothing would be almost nothing: dark patches change by as much as light ones."""
    u = torch.rand(2000, columns(3), generator=torch.Generator().manual_seed(0))
    odds = {"flip": 0.0, "jitter": 1.0, "gray": 0.0, "drop": 0.0}
    spread = [alter(torch.full((2000, 3, 2, 2), v), u, mean=(0,) * 3, std=(1,) * 3, **odds).mean((1, 2, 3)).std() for v in (0.2, 0.8)]
    assert spread[0] == pytest.approx(32 / 255 / 3**0.5, rel=0.05)
    assert spread[0] == pytest.approx(spread[1].item(), rel=0.1)
