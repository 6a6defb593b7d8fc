from dataclasses import replace

import numpy as np
import pytest
import test_training as single
import torch
from equations import agree, weights
from reference import batch_norm
from test_methods_instdisc import INDEX, nce_written_out, sgd, unit
from torch import nn

import byol
from byol import encoders, methods, views
from byol.encoders.lab import Lab

CMC = methods.load("cmc")
SMALL = {"dim": 5, "samples": 20, "negatives": 7}
RGB = encoders.Input(channels=3, size=9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


class Half(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean((2, 3))


def build(**options):
    torch.manual_seed(0)
    return CMC(encoders.wrap(Lab(Half(1), Half(2), RGB), input=RGB), CMC.Config(**{**SMALL, **options})).double()


def colours(seed=1, size=8):
    x = torch.rand(size, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (x - torch.tensor(RGB.mean).view(3, 1, 1)) / torch.tensor(RGB.std).view(3, 1, 1)


def called(method, x, seed=0):
    torch.manual_seed(seed)
    return method((x,), index=INDEX)


def halves(method, w, x):
    made = []
    for name, head, seen in zip(("lightness", "colour"), ("first", "second"), method.encoder.net.split(x), strict=True):
        prefix = f"encoder.net.{name}"
        h = nn.functional.conv2d(seen, w[f"{prefix}.conv.weight"], stride=2)
        y = torch.relu(batch_norm(h, w[f"{prefix}.norm.weight"], w[f"{prefix}.norm.bias"])).mean((2, 3))
        z = y @ w[f"{head}_projector.0.weight"].T + w[f"{head}_projector.0.bias"]
        made.append([unit(row) for row in z])
    return made


def across(method, w, x, columns):
    """NCE of each half with the bank of the other."""
    total = 0.0
    for made, bank in zip(halves(method, w, x), (method.second_bank, method.first_bank), strict=True):
        scores = [[(v * bank.rows[j]).sum() / 0.07 for j in columns[i]] for i, v in enumerate(made)]
        z = (20 * torch.stack([torch.exp(s) for row in scores for s in row]).mean()).detach()
        total = total + sum(nce_written_out(row, z, 20) for row in scores) / 8
    return total


def test_loss_and_gradient_are_nce_across_the_banks_written_out_to_1e_10():
    method, x = build(), colours()
    w = weights(method)
    torch.manual_seed(0)
    columns = method.first_bank.columns(INDEX)  # the same of both banks
    agree(method, called(method, x).loss, w, across(method, w, x, columns), bound=1e-9)
    assert method.first_bank.normaliser != method.second_bank.normaliser


def test_exchanging_the_halves_exchanges_their_scores():
    method = build()
    torch.manual_seed(0)
    other = CMC(Mirrored(method), CMC.Config(**SMALL)).double()
    names = (("first_projector", "second_projector"), ("second_projector", "first_projector"))
    banks = (("first_bank", "second_bank"), ("second_bank", "first_bank"))
    for mine, theirs in (*names, *banks):
        getattr(other, mine).load_state_dict(getattr(method, theirs).state_dict())
    x = colours()
    one, two = called(method, x), called(other, x)
    assert one.loss.item() == pytest.approx(two.loss.item(), abs=1e-10)
    assert one.metrics["first_found"] == two.metrics["second_found"]


class Mirrored(nn.Module):
    dim = 8

    def __init__(self, method):
        super().__init__()
        self.net = method.encoder.net

    def halves(self, x):
        return self.net.halves(x)[::-1]


def test_each_bank_is_written_with_its_own_half():
    method, x = build(), colours()
    before = [bank.rows.clone() for bank in (method.first_bank, method.second_bank)]
    made = halves(method, weights(method), x)
    called(method, x)
    method.after_step(0.0)
    for bank, then, v in zip((method.first_bank, method.second_bank), before, made, strict=True):
        for i, v_i in zip(INDEX, v, strict=True):
            torch.testing.assert_close(bank.rows[i], unit(then[i] / 2 + v_i.detach() / 2), rtol=0, atol=1e-12)


def test_without_a_bank_it_is_the_cross_entropy_within_the_batch_both_ways():
    method, x = build(negatives_from="batch", samples=0), colours()
    w = weights(method)
    v, u = (torch.stack(made) for made in halves(method, w, x))
    own = torch.arange(8)
    both = nn.functional.cross_entropy(v @ u.T / 0.07, own) + nn.functional.cross_entropy(u @ v.T / 0.07, own)
    agree(method, called(method, x).loss, w, both)
    assert not [b for n, b in method.named_buffers() if "bank" in n]


def test_grey_images_teach_the_network_of_the_colours_nothing():
    method, x = build(), colours()
    std, mean = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (RGB.std, RGB.mean))
    grey = ((x * std + mean).mean(1, keepdim=True).expand(-1, 3, -1, -1) - mean) / std
    _, ab = method.encoder.net.split(grey)
    shift = ab * torch.tensor([92.208, 101.1675]).view(2, 1, 1) + torch.tensor([6.025, -6.6895]).view(2, 1, 1)
    assert shift.abs().max() < 0.005, "ab of grey is 0"
    made = method.encoder.net.colour(ab)
    assert (made - made[0]).abs().max() < 1e-2, "all images look alike"
    assert (method.encoder.net.lightness(method.encoder.net.split(grey)[0]).std(0) > 1e-2).any()
    gradients = []
    for images in (grey, x):
        taught = build()
        called(taught, images).loss.backward()
        gradients.append(taught.encoder.net.colour.conv.weight.grad.norm().item())
    assert gradients[0] < 1e-2 * gradients[1]


def test_lab_is_that_of_the_view_after_its_colours_changed_and_before_it_was_normalised():
    color = pytest.importorskip("skimage.color")
    raw = torch.randint(256, (4, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plan = views.load("small", size=9, jitter=1.0, gray=0.0)
    (seen, _), (plain, _) = (plan.memory(raw, torch.arange(4), 0, 0, of) for of in (RGB, replace(RGB, mean=(0.0,) * 3, std=(1.0,) * 3)))
    lightness, ab = Lab(Half(1), Half(2), RGB).split(seen)
    for i in range(4):
        want = color.rgb2lab(plain[i].permute(1, 2, 0).numpy())
        torch.testing.assert_close(50 * lightness[i, 0] + 50, torch.from_numpy(want[..., 0]).float(), rtol=0, atol=1e-2)
        torch.testing.assert_close(92.208 * ab[i, 0] + 6.025, torch.from_numpy(want[..., 1]).float(), rtol=0, atol=1e-2)


def test_one_network_is_refused_and_any_module_of_two_halves_is_taken():
    with pytest.raises(ValueError, match="cmc trains two networks side by side, and small-w8-n2 is one; give --encoder lab:NAME"):
        CMC(encoders.load("small-w8-n2", input=RGB), CMC.Config(**SMALL))
    CMC(single.Net(), CMC.Config(**SMALL))


def test_its_recipes_and_auto_leave_the_colours():
    from byol import recipes
    from byol.recipes import stated

    assert recipes.own_values("cmc")["gray"] == 0.0
    for name, preset in stated.literals("RECIPES")["cmc"].items():
        assert preset["values"]["gray"] == 0.0, name


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two kinds of noise in colours, 48 images of 16 px."""
    noise, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    y = np.arange(48) % 2
    x = noise.integers(0, 120, (48, 16, 16, 3)).astype(np.uint8)
    x[y == 1, :, :, 0] += 100
    np.savez(folder / "x.npz", x=x, y=y)
    return folder / "x.npz"


FEW = {"encoder": "small-w8-n2", "epochs": 1, "batch_size": 16, "image_size": 16, "precision": "fp32", "device": "cpu"}


def test_a_run_trains_and_keeps_an_encoder_of_rgb_which_is_exported_and_evaluated(tmp_path, pictures):
    trained = byol.train(str(pictures), tmp_path / "run", method="cmc", **FEW, set=("dim=8",))
    assert trained.outcome.ended == "finished"
    plan = byol.run.read_plan(tmp_path / "run")
    assert plan.settings.encoder == "lab:small-w8-n2"
    assert plan.views["gray"] == 0.0
    kept = byol.load(tmp_path / "run")
    x = torch.randn(2, 3, 16, 16)
    assert kept.dim == kept(x).shape[1] == encoders.load("small-w8-n2", input=kept.input).dim
    byol.export(tmp_path / "run", tmp_path / "out.pt2")
    graph = torch.export.load(tmp_path / "out.pt2").module()
    torch.testing.assert_close(graph(x), kept(x), rtol=1e-4, atol=1e-4)
    (found,) = byol.evaluate(tmp_path / "run", str(pictures), protocols=("knn",), baselines=True, device="cpu")
    assert any(s.name.startswith("random") for s in found.scores)


def test_its_encoder_is_where_another_run_begins_and_one_network_is_refused(tmp_path, pictures):
    for name in ("cmc", "simclr"):
        byol.train(str(pictures), tmp_path / name, method=name, **FEW, set=("dim=8", "hidden=8")[: 1 + (name != "cmc")])
    few = {k: v for k, v in FEW.items() if k != "encoder"}
    begun = byol.train(str(pictures), tmp_path / "begun", method="cmc", init=str(tmp_path / "cmc"), **few, set=("dim=8",))
    assert begun.outcome.ended == "finished"
    with pytest.raises(ValueError, match="cmc trains two networks side by side"):
        byol.train(str(pictures), tmp_path / "no", method="cmc", init=str(tmp_path / "simclr"), **few, set=("dim=8",))


def test_the_loss_falls_on_64_fixed_images():
    method = build(samples=64, dim=8, temperature=0.2, negatives=0).float()
    optimizer, x, losses = sgd(method), colours(size=64).float(), []
    for step in range(30):
        optimizer.zero_grad()
        loss = method((x,), index=torch.arange(64)).loss
        loss.backward()
        optimizer.step()
        method.after_step(step / 30)
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
