import pytest
import torch
from equations import agree, build, digits, overfits, two_views, weights
from reference import encode
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from byol import methods
from byol.methods._draws import normals
from byol.methods.vae import divergence

Autoencoder, VAE = methods.load("autoencoder"), methods.load("vae")
SMALL = {"hidden": 8, "channels": 2, "size": 9, "dim": 5}
VALUES = 2 * 9 * 9


def called(method, view, seed=5):
    torch.manual_seed(seed)
    return method((view,))


def written_out(method, w, x, *, beta, pixel_sigma=0.4, seed=5):
    """The negative bound by torch.distributions, image by image, its constant taken away and over the number of values."""
    torch.manual_seed(seed)
    eps = normals(len(x), SMALL["dim"], x.device).double()
    y = encode(x, w)
    mu, variance = (y @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("mu", "log_variance"))
    spread = torch.exp(0.5 * variance)
    made = functional_call(method.decoder, {n.removeprefix("decoder."): p for n, p in w.items() if "decoder" in n}, (mu + spread * eps,))
    bounds = []
    for i in range(len(x)):
        constant = Normal(x[i], pixel_sigma).log_prob(x[i]).sum()  # of an image made without an error
        likelihood = Normal(made[i], pixel_sigma).log_prob(x[i]).sum() - constant
        bounds.append(beta * kl_divergence(Normal(mu[i], spread[i]), Normal(0.0, 1.0)).sum() - likelihood)
    return sum(bounds) / len(x) / x[0].numel()


@pytest.mark.parametrize(
    "options", [{"beta": 1.0, "pixel_sigma": 0.4}, {"beta": 4.0, "pixel_sigma": 1.3}, {"beta": 0.0, "pixel_sigma": 0.1}]
)
def test_loss_and_gradient_are_those_of_the_negative_bound_to_1e_10(options):
    method = build(VAE, **SMALL, warmup=0.0, **options)
    w, view = weights(method), two_views()[0]
    transcribed = written_out(method, w, view, **options)
    if options["beta"]:
        agree(method, called(method, view).loss, w, transcribed)
    else:
        assert called(method, view).loss.item() == pytest.approx(transcribed.item(), abs=1e-10)


def test_the_divergence_is_that_of_torch_distributions():
    g = torch.Generator().manual_seed(0)
    mu, log_variance = torch.randn(2, 8, 5, dtype=torch.float64, generator=g)
    expected = kl_divergence(Normal(mu, (log_variance / 2).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    torch.testing.assert_close(divergence(mu, log_variance), expected, rtol=0, atol=1e-12)
    assert divergence(torch.zeros(1), torch.zeros(1)) == 0


def test_without_the_prior_and_with_sharp_codes_it_is_the_autoencoder():
    method = build(VAE, **SMALL, beta=0.0, pixel_sigma=0.5**0.5)
    nn.init.zeros_(method.log_variance.weight)
    nn.init.constant_(method.log_variance.bias, -80.0)
    plain = build(Autoencoder, **{k: v for k, v in SMALL.items() if k != "dim"})
    plain.encoder = nn.Sequential(method.encoder, method.mu)
    plain.decoder = method.decoder
    view = two_views()[0]
    assert called(method, view).loss.item() == pytest.approx(plain((view,)).loss.item(), abs=1e-12)


def test_a_mean_over_pixels_beside_a_sum_over_dimensions_would_be_beta_times_as_many_values():
    """The classical mistake, which empties the code."""
    view, weighed = two_views()[0], build(VAE, **SMALL, warmup=0.0, beta=float(VALUES))
    out = called(weighed, view)
    mistaken = out.metrics["mse"] / (2 * weighed.config.pixel_sigma**2) + out.metrics["kl"]
    assert out.loss.item() == pytest.approx(mistaken.item(), abs=1e-10)
    right = called(build(VAE, **SMALL, warmup=0.0), view)
    bound = right.metrics["mse"] * VALUES / (2 * weighed.config.pixel_sigma**2) + right.metrics["kl"]
    assert right.loss.item() == pytest.approx(bound.item() / VALUES, abs=1e-10)


def test_beta_rises_to_what_was_asked_for_and_is_in_the_checkpoint():
    method = build(VAE, **SMALL, beta=2.0, warmup=0.25)
    assert [method.schedule(p)["beta"] for p in (0.0, 0.125, 0.25, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    view = two_views()[0]
    first = called(method, view)
    assert first.loss.item() == pytest.approx(first.metrics["mse"].item() / (2 * 0.4**2), abs=1e-12), "nothing for the code at first"
    method.after_step(0.125)
    again = build(VAE, **SMALL, beta=2.0, warmup=0.25)
    again.load_state_dict(method.state_dict())
    out = called(again, view)
    assert out.loss.item() == pytest.approx(first.loss.item() + out.metrics["kl"].item() / VALUES, rel=1e-9)


def test_a_code_that_says_nothing_is_counted_and_named_as_a_risk():
    method = build(VAE, **SMALL)
    assert method.risks() == {}
    for layer in (method.mu, method.log_variance):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    view = two_views()[0]
    out = called(method, view)
    assert (out.metrics["idle"], out.metrics["kl"]) == (1, 0)
    assert method.risks() == {}, "the code costs nothing yet"
    method.after_step(0.5)
    assert method.risks() == {"100% of the code's dimensions carry less than 0.01 nat": "beta=0.1"}
    nn.init.constant_(method.mu.bias[:3], 1.0)
    out = called(method, view)
    assert out.metrics["idle"].item() == pytest.approx(0.4)
    assert out.metrics["kl_dimension_most"].item() == pytest.approx(0.5)
    assert method.risks() == {}
    assert set(build(VAE, **SMALL, beta=4.0, warmup=0.0).risks().values()) == {"beta=1.0", "warmup=0.1"}


def test_it_learns_sixteen_images_by_heart_where_there_is_no_prior():
    assert overfits(VAE, dim=32, beta=0.0, pixel_sigma=0.5) < 1e-2


@pytest.mark.parametrize(("beta", "emptied"), [(1.0, False), (64.0, True)])
def test_the_bound_keeps_the_code_of_digits_and_the_classical_mistake_empties_it(beta, emptied):
    torch.manual_seed(0)
    x = digits(128)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
    encoder.dim = 64
    method = VAE(encoder, VAE.Config(hidden=32, channels=1, size=8, dim=8, beta=beta, warmup=0.0))
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        out = method((x,))
        out.loss.backward()
        optimizer.step()
    assert (out.metrics["idle"] > 0.5) == emptied, out.metrics
    of_the_mean = (x - x.mean(0)).square().mean()  # what an image costs that is the same for all
    assert (out.metrics["mse"] > 0.95 * of_the_mean) == emptied, out.metrics


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"beta": -1.0}, "beta is -1"),
        ({"warmup": 2.0}, "warmup is 2"),
        ({"pixel_sigma": 0.0}, "sigma is 0"),
    ],
)
def test_options_out_of_range_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        VAE.Config(**options)


def test_the_report_shows_reconstructions_of_mean_codes_and_samples_the_same_every_time():
    method = build(VAE, **SMALL)
    view = two_views()[0]
    state = torch.random.get_rng_state()
    (first, samples), (_, again) = method.exhibits((view,)), method.exhibits((view,))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.pictures.shape == (2, 8, 2, 9, 9)
    assert torch.equal(first.pictures[0, 0], view[0])
    assert samples.pictures.shape == (3, 8, 2, 9, 9)
    assert torch.equal(samples.pictures, again.pictures)
    assert method.training
