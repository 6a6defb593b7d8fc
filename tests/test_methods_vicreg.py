import pytest
import torch
from equations import agree, build, layers, lightly, two_views, weights
from reference import encode
from test_methods_byol import TinyEncoder
from torch import nn

from byol import methods
from byol.methods.vicreg import spread_terms

VICReg = methods.load("vicreg")
SMALL = {"hidden": 10, "dim": 6}


def spread_written_out(z):
    """The mean over units of max(0, 1 - sqrt(Var + 1e-4)); the sum over i != j of Cov_ij^2, over d."""
    n, d = z.shape
    covariance = [[((z[:, i] - z[:, i].mean()) * (z[:, j] - z[:, j].mean())).sum() / (n - 1) for j in range(d)] for i in range(d)]
    lacking = sum((1 - (covariance[i][i] + 1e-4).sqrt()).clamp_min(0) for i in range(d)) / d
    return lacking, sum(covariance[i][j] ** 2 for i in range(d) for j in range(d) if i != j) / d


def test_loss_and_gradient_are_the_three_terms_written_out_to_1e_10():
    method = build(VICReg, **SMALL, invariance=20.0, variance=15.0, covariance=2.0)
    w, views = weights(method), two_views()
    z = [layers(encode(v, w), w, "projector", "LBRLBRL") for v in views]
    (lack_v, cov_v), (lack_w, cov_w) = (spread_written_out(x) for x in z)
    distance = ((z[0] - z[1]) ** 2).sum() / z[0].numel()  # the mean over images and units: what the coefficients belong to
    agree(method, method(views).loss, w, 20 * distance + 15 * (lack_v + lack_w) / 2 + 2 * (cov_v + cov_w))


def test_loss_and_gradient_are_lightlys():
    criterion = lightly("loss").VICRegLoss()
    method, views = build(VICReg, **SMALL), two_views()
    theirs = criterion(*(method.projector(method.encoder(v)) for v in views))
    loss = method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    parameters = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_projections_that_are_all_one_lack_all_but_a_hundredth():
    lacking, covariance = spread_terms(torch.full((8, 6), 3.0, dtype=torch.float64))
    assert (lacking.item(), covariance.item()) == pytest.approx((1 - 0.01, 0.0), abs=1e-12)


def test_where_projections_stand_changes_neither_variance_nor_covariance():
    g = torch.Generator().manual_seed(0)
    z, shift = torch.randn(32, 6, dtype=torch.float64, generator=g), torch.randn(6, dtype=torch.float64, generator=g) * 5
    for a, b in zip(spread_terms(z), spread_terms(z + shift), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_units_that_vary_enough_cost_nothing_and_those_alike_cost_their_covariance():
    one = torch.randn(32, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one = (one - one.mean()) / one.std() * 2
    lacking, covariance = spread_terms(one.expand(32, 6))
    assert (lacking.item(), covariance.item()) == pytest.approx((0.0, 4.0**2 * 6 * 5 / 6), abs=1e-9)


def test_the_expander_and_the_coefficients_are_the_released_ones():
    method = VICReg(TinyEncoder(), VICReg.Config(hidden=12, dim=6))
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(p) for p in method.projector] == kinds
    assert vars(VICReg.Config()) == {"hidden": 8192, "dim": 8192, "invariance": 25.0, "variance": 25.0, "covariance": 1.0}


def test_what_ends_in_collapse_is_a_risk_and_bad_options_are_refused_in_words():
    assert list(build(VICReg, **SMALL, variance=0.0, covariance=0.0).risks().values()) == ["variance=25", "covariance=1"]
    assert not build(VICReg, **SMALL).risks()
    with pytest.raises(ValueError, match="variance is -1; give 0 or more"):
        VICReg.Config(variance=-1)
