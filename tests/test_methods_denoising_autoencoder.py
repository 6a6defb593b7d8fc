import pytest
import torch
from equations import build, overfits, two_views
from test_methods_byol import TinyEncoder

from byol import encoders, methods
from byol.methods import _draws

Autoencoder, Denoising = methods.load("autoencoder"), methods.load("denoising_autoencoder")
SMALL = {"hidden": 8, "channels": 2, "size": 9}


def test_the_loss_compares_with_the_clean_view_what_is_made_of_the_spoilt_one():
    method = build(Denoising, **SMALL, drop=0.3, noise=0.5)
    view = two_views()[0]
    torch.manual_seed(5)
    spoilt = method.spoilt(view)
    again = method.decoder(method.encoder(spoilt))
    differences = [(a - b) ** 2 for a, b in zip(again.flatten().tolist(), view.flatten().tolist(), strict=True)]
    torch.manual_seed(5)
    assert method((view,)).loss.item() == pytest.approx(sum(differences) / len(differences), abs=1e-10)
    assert (spoilt - view).abs().max() > 0.5


@pytest.mark.parametrize("little", [0.0, 1e-9])
def test_with_nothing_dropped_and_noise_that_goes_to_nothing_it_is_the_autoencoder(little):
    plain, method = build(Autoencoder, **SMALL), build(Denoising, **SMALL, drop=0.0, noise=little)
    method.load_state_dict(plain.state_dict())
    view = two_views()[0]
    losses = [m((view,)).loss for m in (plain, method)]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-7)
    ours, theirs = (torch.autograd.grad(loss, list(m.parameters())) for loss, m in zip(losses, (plain, method), strict=True))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_as_many_pixels_are_dropped_as_asked_in_all_channels_at_once_and_the_others_stay():
    method = build(Denoising, **SMALL | {"size": 64, "channels": 3}, drop=0.25)
    x = torch.rand(16, 3, 64, 64, dtype=torch.float64) + 1  # no value is 0 by itself
    spoilt = method.spoilt(x)
    gone = spoilt == 0
    assert torch.equal(gone.all(1), gone.any(1))
    assert gone.double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / (16 * 64 * 64)) ** 0.5)
    assert torch.equal(spoilt[~gone], x[~gone])
    assert not torch.equal(gone[0], gone[1]), "each image has its own"


def test_the_slices_of_a_volume_lose_places_of_their_own():
    encoder = encoders.load("lssl-3d", input=encoders.Input(channels=16, size=16, mean=(0.5,) * 16, std=(0.2,) * 16))
    method = Denoising(encoder, Denoising.Config(hidden=8))
    x = torch.ones(2, 16, 16, 16)
    gone = method.spoilt(x) == 0
    assert not torch.equal(gone[:, 0], gone[:, 1])
    assert method((x,)).loss.isfinite()


def test_noise_has_the_standard_deviation_asked_for_and_is_another_one_at_every_call():
    method = build(Denoising, **SMALL | {"size": 64}, drop=0.0, noise=0.8)
    x = torch.zeros(8, 2, 64, 64, dtype=torch.float64)
    first, second = method.spoilt(x), method.spoilt(x)
    assert first.std().item() == pytest.approx(0.8, rel=0.01)
    assert abs(first.mean().item()) < 4 * 0.8 / x.numel() ** 0.5
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()) < 4 / x.numel() ** 0.5


def test_what_is_drawn_follows_from_the_seed_and_the_row_whatever_the_share_of_a_process(monkeypatch):
    def drawn(rank, processes):
        monkeypatch.setattr(_draws.dist, "rank", lambda: rank)
        torch.manual_seed(7)
        return _draws.normals(12 // processes, 7, torch.device("cpu"))

    whole = drawn(0, 1)
    assert torch.equal(torch.cat([drawn(rank, 3) for rank in range(3)]), whole)
    assert torch.equal(drawn(0, 1), whole)


def test_normals_are_normal():
    scipy = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    found = _draws.normals(1000, 101, torch.device("cpu"))
    assert found.shape == (1000, 101)
    assert found.isfinite().all()
    assert scipy.kstest(found.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(torch.corrcoef(found.T[:2])[0, 1].item()) < 4 / 1000**0.5


@pytest.mark.parametrize(
    ("options", "sentence"), [({"drop": 1.0}, "drop is 1"), ({"noise": -0.1}, "noise is -0.1"), ({"hidden": 0}, "hidden")]
)
def test_options_out_of_range_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Denoising.Config(**options)


def test_it_learns_sixteen_images_by_heart_though_it_never_sees_them_whole():
    assert overfits(Denoising, drop=0.1) < 1e-2


def test_the_report_shows_views_spoilt_and_made_and_leaves_the_method_as_it_was():
    method = build(Denoising, **SMALL)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    (shown,) = method.exhibits(two_views())
    assert shown.columns == ("view", "spoilt", "made") * 2
    assert shown.pictures.shape == (4, 6, 2, 9, 9)
    assert torch.equal(shown.pictures[1, 3], two_views()[0][3])
    assert method.training
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_a_wrapped_encoder_says_its_size():
    wrapped = encoders.wrap(TinyEncoder(), input=encoders.Input(channels=2, size=9, mean=(0.5,) * 2, std=(0.2,) * 2))
    assert Denoising(wrapped, Denoising.Config(hidden=8))((torch.randn(4, 2, 9, 9),)).loss.isfinite()
