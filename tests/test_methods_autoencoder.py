import pytest
import torch
from equations import build, overfits, two_views
from test_methods_byol import TinyEncoder
from torch import nn

from byol import encoders, methods

Autoencoder = methods.load("autoencoder")
SMALL = {"hidden": 8, "channels": 2, "size": 9}


def test_the_loss_is_the_mean_squared_error_of_the_view_from_its_features_alone():
    method = build(Autoencoder, **SMALL)
    view = two_views()[0]
    again = method.decoder(method.encoder(view))
    differences = [(a - b) ** 2 for a, b in zip(again.flatten().tolist(), view.flatten().tolist(), strict=True)]
    out = method((view,))
    assert out.loss.item() == pytest.approx(sum(differences) / len(differences), abs=1e-10)
    assert torch.equal(out.projections[0], method.encoder(view))


def test_the_gradient_at_the_reconstruction_is_that_of_the_equation():
    method = build(Autoencoder, **SMALL)
    view, seen = two_views()[0], []
    method.decoder.register_forward_hook(lambda module, args, out: (seen.append(out), out.retain_grad())[0])
    method((view,)).loss.backward()
    torch.testing.assert_close(seen[0].grad, 2 * (seen[0].detach() - view) / view.numel(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [3, 8, 28, 32, 75])
def test_any_size_and_number_of_channels_is_decoded(size):
    method = Autoencoder(TinyEncoder(), Autoencoder.Config(hidden=32, channels=5, size=size)).decoder
    assert method(torch.randn(2, 6)).shape == (2, 5, size, size)
    first = method[1].unflattened_size[1]
    assert first == size if size < 8 else 4 <= first <= 8


def test_channels_and_size_are_the_encoders_where_it_says_them():
    wrapped = encoders.wrap(TinyEncoder(), input=encoders.Input(channels=2, size=9, mean=(0.5,) * 2, std=(0.2,) * 2))
    method = Autoencoder(wrapped, Autoencoder.Config(hidden=8))
    assert method((torch.randn(4, 2, 9, 9),)).loss.isfinite()
    with pytest.raises(ValueError, match="TinyEncoder does not say how large its images are"):
        Autoencoder(TinyEncoder())


def test_views_of_another_size_are_refused_in_words():
    with pytest.raises(ValueError, match=r"the decoder makes \(2, 8, 8\) of views \(2, 9, 9\)"):
        build(Autoencoder, **SMALL | {"size": 8})(two_views()[:1])


def test_it_learns_to_reconstruct_a_batch():
    method = build(Autoencoder, **SMALL | {"hidden": 32})
    view = two_views()[0]
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    first = None
    for _ in range(150):
        optimizer.zero_grad()
        loss = method((view,)).loss
        first = first or loss.item()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.75 * first, (first, loss.item())


def test_the_last_layer_alone_has_a_bias_since_the_others_are_normalised():
    method = build(Autoencoder, **SMALL)
    layers = [m for m in method.decoder if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert [m.bias is not None for m in layers] == [*[False] * (len(layers) - 1), True]


def test_it_learns_sixteen_images_by_heart():
    assert overfits(Autoencoder) < 1e-3


def test_the_report_shows_views_beside_what_is_made_of_them_and_leaves_the_method_as_it_was():
    method = build(Autoencoder, **SMALL)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    view = two_views()[0]
    (shown,) = method.exhibits((view,))
    assert shown.columns == ("view", "made") * 4
    assert shown.pictures.shape == (2, 8, 2, 9, 9)
    assert torch.equal(shown.pictures[1, 2], view[5])
    assert torch.equal(shown.pictures[1, 3], method.eval().decoder(method.encoder(view))[5])
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
