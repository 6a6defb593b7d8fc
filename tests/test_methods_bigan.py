import math

import pytest
import torch
from equations import build, digits, two_views
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from byol import encoders, methods, optim

BiGAN = methods.load("bigan")
SMALL = {"hidden": 8, "channels": 2, "size": 9, "dim": 5, "judge_width": 4, "judge_hidden": 12}


def informed(**options):
    """With a discriminator that has an opinion, unlike at the start."""
    method = build(BiGAN, **SMALL | options)
    with torch.no_grad():
        method.discriminator.pair[-1].weight.normal_(generator=torch.Generator().manual_seed(2))
    return method


def called(method, view, seed=5):
    torch.manual_seed(seed)
    return method((view,))


def players(method, x, seed=5):
    """Both losses, each half judged alone: E(x) and G(z) are to be taken for each other."""
    torch.manual_seed(seed)
    z = method.prior(len(x), x.device).double()
    real = method.discriminator(x, method.code(method.encoder(x)))
    fake = method.discriminator(method.generator(z), z)
    ones = torch.ones_like(real)
    judge = 0.5 * bce(real, ones) + 0.5 * bce(fake, 0 * ones)
    others = 0.5 * bce(real, 0 * ones) + 0.5 * bce(fake, ones)
    return judge, others


def test_each_player_has_the_gradient_of_its_own_cross_entropy_and_none_of_the_others():
    method, view = informed(), two_views()[0]
    judge, others = players(method, view)
    out = called(method, view)
    assert out.loss.item() == pytest.approx((judge + others).item(), abs=1e-10)
    assert out.metrics["judge_loss"].item() == pytest.approx(judge.item(), abs=1e-10)
    assert out.metrics["others_loss"].item() == pytest.approx(others.item(), abs=1e-10)
    ours = dict(zip(dict(method.named_parameters()), torch.autograd.grad(out.loss, list(method.parameters())), strict=True))
    for loss, belongs in ((judge, True), (others, False)):
        own = {n: p for n, p in method.named_parameters() if n.startswith("discriminator") == belongs}
        for name, expected in zip(own, torch.autograd.grad(loss, list(own.values()), retain_graph=True), strict=True):
            torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    assert max(g.abs().max() for n, g in ours.items() if n.startswith("encoder")) > 1e-4
    assert max(g.abs().max() for n, g in ours.items() if n.startswith("generator")) > 1e-4


def test_a_discriminator_that_is_sure_still_teaches_the_generator():
    """Reversed gradients would have vanished with its own: sigma(-20) of them is left."""
    method, view = informed(), two_views()[0]
    gradients = []
    method.discriminator.register_forward_hook(lambda module, args, out: out.register_hook(gradients.append) and None)
    with torch.no_grad():
        method.discriminator.pair[-1].weight.zero_()
        method.discriminator.pair[-1].bias.fill_(-20.0)
    called(method, view).loss.backward()
    count = 2 * len(view)
    by_made = {bool(g[-1].abs() > 1e-6): g for g in gradients}
    torch.testing.assert_close(by_made[True][len(view) :], torch.full((len(view),), -1 / count, dtype=torch.float64), rtol=1e-6, atol=0)
    assert by_made[False][len(view) :].abs().max() < 1e-8, "the discriminator has nothing left to learn of them"


def test_it_begins_at_chance_with_ln_2_for_everyone():
    out = called(build(BiGAN, **SMALL), two_views()[0])
    assert out.metrics["judged_right"] == 0.5
    assert out.metrics["judge_loss"].item() == pytest.approx(math.log(2), abs=1e-12)
    assert out.metrics["others_loss"].item() == pytest.approx(math.log(2), abs=1e-12)


def test_who_is_right_is_counted_over_both_kinds_of_pairs():
    method, view = informed(), two_views()[0]
    torch.manual_seed(5)
    z = method.prior(len(view), view.device).double()
    with torch.no_grad():
        real = method.discriminator(view, method.code(method.encoder(view))).sigmoid()
        fake = method.discriminator(method.generator(z), z).sigmoid()
    right = [p > 0.5 for p in real.tolist()] + [p < 0.5 for p in fake.tolist()]
    assert 0 < sum(right) < len(right)
    assert called(method, view).metrics["judged_right"].item() == pytest.approx(sum(right) / len(right))


def test_the_discriminator_judges_each_pair_for_itself_and_statistics_move_once_an_update():
    method, view = informed(), two_views()[0]
    z = torch.rand(8, 5, dtype=torch.float64)
    whole = method.discriminator(view, z)
    torch.testing.assert_close(torch.cat([method.discriminator(view[i : i + 1], z[i : i + 1]) for i in range(8)]), whole)
    called(method, view)
    assert {int(m.num_batches_tracked) for m in method.modules() if isinstance(m, nn.BatchNorm2d)} == {1}
    assert not list(method.discriminator.buffers())


def test_codes_of_the_prior_are_uniform_between_minus_one_and_one():
    scipy = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    z = build(BiGAN, **SMALL).prior(2000, torch.device("cpu"))
    assert z.shape == (2000, 5)
    assert scipy.kstest(z.flatten().numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_adam_gets_the_momentum_of_the_options_and_the_discriminator_its_factor_on_the_rate():
    method = build(BiGAN, **SMALL, judge_rate=0.5, beta1=0.3)
    groups = method.param_groups()
    for name in ("adam", "adamw", "sgd", "lars"):
        made = optim.make(name, groups, lr=0.1, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3)
        assert "adam" not in name or {group["betas"] for group in made.param_groups} == {(0.3, 0.999)}
    judges = {id(p) for p in method.discriminator.parameters()}
    for group in groups:
        assert {id(p) in judges for p in group["params"]} == {group["lr_scale"] == 0.5}


def test_the_generator_learns_how_bright_the_images_are():
    torch.manual_seed(0)
    x = 0.5 * digits(64) + 1.0
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
    encoder.dim = 32
    options = BiGAN.Config(hidden=32, channels=1, size=8, dim=4, judge_width=16, judge_hidden=32)
    method = BiGAN(encoder, options)
    optimizer = optim.make("adam", method.param_groups(), lr=1e-3, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3)

    def brightness():
        return method.generator(method.prior(256, x.device)).mean().item()

    assert abs(brightness() - 1) > 0.5
    for _ in range(200):
        optimizer.zero_grad()
        out = method((x,))
        out.loss.backward()
        optimizer.step()
    assert abs(brightness() - 1) < 0.3
    assert 0.2 < out.metrics["judged_right"] < 1


@pytest.mark.parametrize("size", [3, 8, 28, 33])
def test_images_of_any_size_are_judged(size):
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder.dim = 3
    method = BiGAN(encoder, BiGAN.Config(**SMALL | {"size": size, "channels": 3}))
    assert method((torch.randn(4, 3, size, size),)).loss.isfinite()


def test_volumes_are_made_and_judged_along_all_three_axes():
    encoder = encoders.load("lssl-3d", input=encoders.Input(channels=16, size=16, mean=(0.5,) * 16, std=(0.2,) * 16))
    method = BiGAN(encoder, BiGAN.Config(hidden=8, dim=5, judge_width=4, judge_hidden=8))
    method((torch.randn(2, 16, 16, 16),)).loss.backward()
    assert sum(isinstance(m, nn.Conv3d) for m in method.discriminator.modules()) == 2
    assert all(p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize(
    ("options", "sentence"), [({"dim": 0}, "dim is 0"), ({"judge_rate": 0.0}, "judge_rate is 0"), ({"beta1": 1.0}, "beta1 is 1")]
)
def test_options_out_of_range_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        BiGAN.Config(**options)


def test_a_discriminator_that_runs_ahead_is_named_as_a_risk():
    assert build(BiGAN, **SMALL).risks() == {}
    assert build(BiGAN, **SMALL, judge_rate=10.0).risks() == {"the discriminator learns 10 times as fast": "judge_rate=1.0"}


def test_the_report_shows_samples_the_same_every_time_and_leaves_the_method_as_it_was():
    method, view = informed(), two_views()[0]
    before = {k: v.clone() for k, v in method.state_dict().items()}
    (again, first), (_, second) = method.exhibits((view,)), method.exhibits((view,))
    assert again.pictures.shape == (2, 8, 2, 9, 9)
    assert first.pictures.shape == (3, 8, 2, 9, 9)
    assert torch.equal(first.pictures, second.pictures)
    assert method.training
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
