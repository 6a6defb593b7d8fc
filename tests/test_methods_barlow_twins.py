import pytest
import torch
from equations import agree, build, layers, lightly, two_views, weights
from reference import encode
from test_methods_byol import TinyEncoder
from torch import nn

from byol import methods
from byol.methods.barlow_twins import correlation

Barlow = methods.load("barlow_twins")
SMALL = {"hidden": 10, "dim": 6}
HEAD = "LBRLBRL"


def written_out(z_v, z_w, off_diagonal):
    """sum over i of (1 - C_ii)^2 + weight x sum over i != j of C_ij^2, one entry after the other."""
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (z_v, z_w))
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            c = (a[:, i] * b[:, j]).sum() / len(a)
            total = total + ((1 - c) ** 2 if i == j else off_diagonal * c**2)
    return total


@pytest.mark.parametrize("off_diagonal", [0.0051, 0.3])
def test_loss_and_gradient_are_the_equation_written_out_to_1e_10(off_diagonal):
    method = build(Barlow, **SMALL, off_diagonal=off_diagonal)
    w, views = weights(method), two_views()
    z = [layers(encode(v, w), w, "projector", HEAD) for v in views]
    agree(method, method(views).loss, w, written_out(*z, off_diagonal))


def test_loss_and_gradient_are_lightlys():
    criterion = lightly("loss").BarlowTwinsLoss(lambda_param=0.0051)
    method, views = build(Barlow, **SMALL), two_views()
    theirs = criterion(*(method.projector(method.encoder(v)) for v in views))
    loss = method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    parameters = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def loss_of(z_v, z_w, off_diagonal=0.0051):
    """Of projections that are given."""
    method = Barlow(TinyEncoder(), Barlow.Config(**SMALL, off_diagonal=off_diagonal)).double()
    method.encoder, method.projector = nn.Identity(), nn.Identity()
    return method((z_v, z_w)).loss.item()


def test_two_views_alike_whose_units_are_uncorrelated_leave_no_loss():
    z = torch.randn(64, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = z - z.mean(0)
    white = torch.linalg.qr(z).Q * 8
    assert loss_of(white, white) < 1e-8


def test_scale_and_shift_of_a_unit_change_nothing():
    g = torch.Generator().manual_seed(1)
    v, w = (torch.randn(32, 6, dtype=torch.float64, generator=g) for _ in "vw")
    scale, shift = torch.rand(6, dtype=torch.float64, generator=g) * 4 + 1, torch.randn(6, dtype=torch.float64, generator=g)
    assert loss_of(v * scale + shift, w) == pytest.approx(loss_of(v, w), rel=1e-4)  # as far as the epsilon lets it


def test_the_weight_belongs_to_sums_over_the_matrix_and_not_to_means():
    """All units say the same: the diagonal costs nothing, and each of the d (d - 1) other entries the whole weight."""
    one = torch.randn(32, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).expand(32, 6)
    assert loss_of(one, one, off_diagonal=0.01) == pytest.approx(0.01 * 6 * 5, rel=1e-3)


def test_correlations_of_few_images_are_noise():
    """Why batches want to be large: of unrelated units those off the diagonal are about 1 / sqrt(B)."""
    g = torch.Generator().manual_seed(3)
    found = [correlation(*(torch.randn(b, 50, generator=g) for _ in "vw")).square().mean().sqrt().item() for b in (16, 256)]
    assert found == pytest.approx([1 / 4, 1 / 16], rel=0.1)


def test_biases_and_normalisation_have_a_rate_of_their_own():
    groups = build(Barlow, **SMALL).param_groups()
    assert [(g["exclude"], g.get("lr_scale", 1.0)) for g in groups] == [(False, 1.0), (True, 0.024)]


def test_the_projector_is_the_released_one():
    method = Barlow(TinyEncoder(), Barlow.Config(hidden=12, dim=6))
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(p) for p in method.projector] == kinds
    assert method.projector[-1].bias is None
    assert vars(Barlow.Config()) == {"hidden": 8192, "dim": 8192, "off_diagonal": 0.0051, "bias_rate": 0.024}


def test_what_lets_units_say_the_same_is_a_risk_and_bad_options_are_refused_in_words():
    assert build(Barlow, **SMALL, off_diagonal=0.0).risks()
    assert not build(Barlow, **SMALL).risks()
    with pytest.raises(ValueError, match="off_diagonal is -1; give 0 or more"):
        Barlow.Config(off_diagonal=-1)
