import pytest
import torch
from equations import agree, build, cosine, two_views, weights
from reference import encode
from test_methods_byol import TinyEncoder
from torch import nn
from torch.func import functional_call

from byol import encoders, methods
from byol.methods._decoder import decoder

Lssl = methods.load("lssl")
SMALL = {"hidden": 8, "channels": 2, "size": 9}


def written_out(method, w, earlier, later, *, weight=1.0, recon=1.0, total=False, counts=None):
    """recon (|x_s - x_s'|^2 + |x_t - x_t'|^2) + weight (1 - cos(z_t - z_s, tau)), one pair after the other."""
    pairs = [x for pair in zip(earlier, later, strict=True) for x in pair]
    z = encode(torch.stack(pairs), w)
    if "latent.weight" in w:
        z = z @ w["latent.weight"].T
    own = {name.removeprefix("decoder."): p for name, p in w.items() if name.startswith("decoder.")}
    again = functional_call(method.decoder, own, (z,))
    errors = [((a - b) ** 2).sum() if total else ((a - b) ** 2).sum() / a.numel() for a, b in zip(again, pairs, strict=True)]
    counts = range(len(earlier)) if counts is None else counts
    directions = [1 - cosine(z[2 * i + 1] - z[2 * i], w["tau"]) for i in counts]
    return recon * sum(errors) / len(earlier) + (weight * sum(directions) / len(directions) if directions else 0)


@pytest.mark.parametrize("options", [{}, {"latent": 5}, {"reduction": "sum"}, {"weight": 0.3, "recon_weight": 2.0}])
def test_loss_and_gradient_are_those_of_the_equation_to_1e_10(options):
    method = build(Lssl, **SMALL, **options)
    w, views = weights(method), two_views()
    says = {"weight": options.get("weight", 1.0), "recon": options.get("recon_weight", 1.0), "total": "reduction" in options}
    agree(method, method(views).loss, w, written_out(method, w, *views, **says))


def test_pairs_of_one_picture_twice_do_not_count_and_give_no_gradient_that_is_not_finite():
    method = build(Lssl, **SMALL)
    earlier, later = two_views()
    later = torch.cat([later[:3], earlier[3:]])
    w = weights(method)
    out = method((earlier, later))
    agree(method, out.loss, w, written_out(method, w, earlier, later, counts=range(3)))
    assert out.metrics["counted"] == 3 / 8
    alone = method((earlier, earlier.clone()))
    alone.loss.backward()
    assert alone.metrics["counted"] == 0
    assert alone.loss.item() == pytest.approx(alone.metrics["reconstruction"].item(), abs=1e-12), "no direction, and no constant for it"
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    assert method.tau.grad.abs().max() == 0


def test_one_picture_twice_does_not_count_where_dropout_tells_the_two_apart():
    torch.manual_seed(0)
    encoder = TinyEncoder()
    encoder.forward = lambda x, inner=encoder.forward: nn.functional.dropout(inner(x), 0.5)
    method = Lssl(encoder, Lssl.Config(**SMALL))
    x = two_views()[0].float()
    assert method((x, x.clone())).metrics["counted"] == 0


def test_a_change_below_the_least_does_not_count():
    earlier, later = two_views()
    assert build(Lssl, **SMALL, least_change=1e3)((earlier, later)).metrics["counted"] == 0
    assert build(Lssl, **SMALL)((earlier, later)).metrics["counted"] == 1


def test_the_loss_does_not_know_how_long_tau_is_and_knows_which_picture_is_the_later():
    method = build(Lssl, **SMALL, recon_weight=0.0)
    earlier, later = two_views()
    loss = method((earlier, later)).loss.item()
    with torch.no_grad():
        method.tau.mul_(7.0)
    assert method((earlier, later)).loss.item() == pytest.approx(loss, abs=1e-12)
    assert method.direction().norm().item() == pytest.approx(1, abs=1e-12)
    assert 1 - method((later, earlier)).loss.item() == pytest.approx(loss - 1, abs=1e-9)


def test_tau_neither_decays_nor_adapts():
    method = build(Lssl, **SMALL)
    (mine,) = [g for g in method.param_groups() if any(p is method.tau for p in g["params"])]
    assert mine["exclude"]
    assert mine["weight_decay"] == 0


def test_both_visits_share_the_statistics_of_one_batch():
    method = build(Lssl, **SMALL)
    seen = []
    method.encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    method(two_views())
    assert seen == [16]


@pytest.mark.parametrize("latent", [0, 4])
def test_the_direction_that_is_kept_orders_features_as_the_projection_on_tau_does(latent):
    method = build(Lssl, **SMALL, latent=latent).eval()
    x = two_views()[0]
    kept = torch.tensor(method.keeps()["direction"], dtype=torch.float64)
    ours, theirs = method.encoder(x) @ kept, method.latent(method.encoder(x)) @ method.direction()
    assert kept.norm().item() == pytest.approx(1, abs=1e-12)
    ratio = (ours - ours.mean()) / (theirs - theirs.mean())
    torch.testing.assert_close(ratio, ratio[:1].expand(8), rtol=1e-9, atol=0)
    assert ratio[0] > 0


def test_walks_are_what_the_decoder_makes_of_the_earlier_picture_moved_along_tau():
    method = build(Lssl, **SMALL)
    earlier, later = two_views()
    (shown,) = method.exhibits((earlier, later))
    assert method.training
    method.eval()
    assert shown.columns == ("earlier", "later", "-2", "-1", "0", "+1", "+2")
    assert shown.pictures.shape == (6, 7, 2, 9, 9)
    assert torch.equal(shown.pictures[:, 0], earlier[:6])
    assert torch.equal(shown.pictures[:, 1], later[:6])
    z = method.encoder(torch.cat([earlier, later]))
    far = z[:6] + 2 * (z @ method.direction()).std() * method.direction()
    torch.testing.assert_close(shown.pictures[:, 6], method.decoder(far), rtol=0, atol=1e-10)
    torch.testing.assert_close(shown.pictures[:, 4], method.decoder(z[:6]), rtol=0, atol=1e-10)


def test_a_frozen_encoder_stays_as_it_is_while_tau_and_the_decoder_learn():
    method = build(Lssl, **SMALL, latent=4, freeze=True)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    optimizer = torch.optim.SGD([p for g in method.param_groups() for p in g["params"]], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        method(two_views()).loss.backward()
        optimizer.step()
    after = method.train().state_dict()
    assert all(torch.equal(v, before[k]) for k, v in after.items() if k.startswith("encoder."))
    assert not torch.equal(after["tau"], before["tau"])
    assert not torch.equal(after["latent.weight"], before["latent.weight"])
    assert not method.encoder.training


@pytest.mark.parametrize(
    ("option", "said"),
    [({"weight": -1}, "weight=-1"), ({"weight": 0, "recon_weight": 0}, "ask for nothing"), ({"reduction": "max"}, "mean or sum"),
     ({"least_change": 0}, "least_change=0"), ({"hidden": 0}, "hidden=0"), ({"size": -1}, "size=-1")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused_in_one_sentence(option, said):
    with pytest.raises(ValueError, match=said) as told:
        Lssl.Config(**option)
    assert "\n" not in str(told.value)


def test_nothing_keeps_features_from_one_line_without_reconstruction_and_the_risk_is_named():
    assert build(Lssl, **SMALL).risks() == {}
    assert build(Lssl, **SMALL, recon_weight=0.0).risks() == {"nothing is reconstructed": "recon_weight=1.0"}


def an_input(channels, size):
    return encoders.Input(channels=channels, size=size, mean=(0.5,) * channels, std=(0.2,) * channels)


@pytest.mark.parametrize(("name", "channels", "size", "first"), [("lssl", 3, 32, (16, 3, 3, 3)), ("lssl-3d", 32, 32, (16, 1, 3, 3, 3))])
def test_the_encoder_has_the_channels_of_the_released_code_and_draws_what_it_sees(name, channels, size, first):
    encoder = encoders.load(name, input=an_input(channels, size))
    convolutions = [p for p in encoder.parameters() if p.ndim > 2]
    assert convolutions[0].shape == first
    assert [len(p) for p in convolutions] == [16, 32, 64, 16]
    method = Lssl(encoder, Lssl.Config(hidden=8))
    kinds = {type(m) for m in method.decoder}
    assert (nn.Conv3d in kinds) is (name == "lssl-3d")
    x = torch.randn(2, channels, size, size)
    out = method((x, x + 0.1))
    out.loss.backward()
    assert out.projections[0].shape == (2, encoder.dim) == (2, 512)
    assert out.projections[0].abs().max() <= 1, "tanh"
    assert encoders.load(f"{name}-linear", input=an_input(channels, size))(10 * x).abs().max() > 0
    assert "512 features" in encoders.describe(name, input=encoder.input)


def test_a_volume_is_seen_along_all_three_axes():
    """Turned about, with weights that are the same along all axes, it gives the same maps turned about."""
    encoder = encoders.load("lssl-3d", input=an_input(16, 16)).net
    with torch.no_grad():
        for p in encoder.features.parameters():
            p.copy_(p.flatten(2).mean(-1)[..., None, None, None].expand_as(p)) if p.ndim == 5 else None
    x = torch.randn(1, 16, 16, 16)
    torch.testing.assert_close(encoder.features(x[:, None]), encoder.features(x.permute(0, 3, 1, 2)[:, None]))


@pytest.mark.parametrize(("name", "channels", "size", "said"), [("lssl", 1, 8, "16 or more"), ("lssl-3d", 3, 32, "take lssl")])
def test_what_the_encoder_cannot_take_is_refused_in_one_sentence(name, channels, size, said):
    with pytest.raises(ValueError, match=said) as told:
        encoders.load(name, input=an_input(channels, size))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("size", [3, 16, 20])
def test_a_decoder_of_volumes_makes_cubes_of_any_size(size):
    assert decoder(6, size, size, hidden=16, volume=True)(torch.randn(2, 6)).shape == (2, size, size, size)
    with pytest.raises(ValueError, match="is no cube"):
        decoder(6, 3, 16, hidden=16, volume=True)
