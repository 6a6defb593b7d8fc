"""Predictors in closed form against torch.linalg, SciPy and sums written out, and what the paper claims of them."""

import copy
import math

import pytest
import scipy.linalg
import torch
from test_methods_byol import TinyEncoder, batches
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from byol import methods
from byol.methods import _predictors as forms
from byol.methods.closed_form import orthogonality

METHOD = methods.load("closed_form")
PREDICTORS = ["stiefel", "ns2", "ns", "visser", "ne", "lrp", "direct_pred", "direct_copy", "trainable"]
D = 5


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moments(seed=0, b=40, d=D):
    """(Z, Z', Z^T Z / b, Z^T Z' / b), well-conditioned."""
    z = draw(b, d, seed=seed)
    t = z + 0.3 * draw(b, d, seed=seed + 100)
    return z, t, z.T @ z / b, z.T @ t / b


def root(m, power=0.5):
    u, s, _ = torch.linalg.svd(m)
    return (u * s**power) @ u.T


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# Each formula.


def test_the_optimal_predictor_is_torchs_least_squares():
    z, t, sigma, cross = moments()
    close(forms.optimal(sigma, cross), torch.linalg.lstsq(z, t).solution)


def test_the_optimal_predictor_of_fewer_images_than_dimensions_is_the_least_of_those_that_fit():
    z, t = draw(3, D), draw(3, D, seed=1)
    p = forms.optimal(z.T @ z / 3, z.T @ t / 3)
    close(p, torch.linalg.pinv(z) @ t)
    close(z @ p, t)


def test_direct_pred_is_scipys_root_and_direct_copy_the_moments():
    _, _, sigma, _ = moments()
    close(forms.direct_pred(sigma), torch.from_numpy(scipy.linalg.sqrtm(sigma.numpy())))
    assert torch.equal(forms.direct_copy(sigma), sigma)


def test_ne_is_its_sum_written_out_and_tends_to_the_optimum_for_eigenvalues_in_0_to_2():
    _, _, sigma, cross = moments()
    rows = range(D)
    product = [[sum(sigma[i, k].item() * cross[k, j].item() for k in rows) for j in rows] for i in rows]
    written = [[2 * cross[i, j].item() - product[i][j] for j in rows] for i in rows]
    close(forms.neumann(sigma, cross), torch.tensor(written, dtype=torch.float64))
    # Two terms of sum (I - S)^k: the error is (I - S)^2 of the optimum.
    rest = torch.eye(D, dtype=torch.float64) - sigma
    close(forms.neumann(sigma, cross), (torch.eye(D, dtype=torch.float64) - rest @ rest) @ forms.optimal(sigma, cross))


@pytest.mark.parametrize("n", [1, 9, 25])
def test_newton_schulz_is_its_scalar_recursion_on_every_eigenvalue(n):
    _, _, sigma, _ = moments()
    values, vectors = torch.linalg.eigh(sigma)
    norm = values.square().sum().sqrt().item()
    roots = []
    for value in values.tolist():
        a, b = value / norm, 1.0
        for _ in range(n):
            a, b = a * (3 - b * a) / 2, (3 - b * a) * b / 2
        roots.append(a * math.sqrt(norm))
    close(forms.ns(sigma, n=n), vectors @ torch.diag(torch.tensor(roots, dtype=torch.float64)) @ vectors.T)


def test_newton_schulz_tends_to_root_and_inverse_root_and_ns2_to_the_fourth_root():
    _, _, sigma, _ = moments()
    a, b = forms.newton_schulz(sigma, n=25)
    close(a, root(sigma))
    close(b, root(sigma / torch.linalg.matrix_norm(sigma), -0.5))
    close(forms.ns2(sigma, n=25), root(sigma, 0.25))


def test_visser_tends_to_the_root():
    _, _, sigma, _ = moments()
    close(forms.visser(sigma, n=400, eta=None), root(sigma))
    close(forms.visser(sigma, n=400, eta=0.1), root(sigma))


def test_stiefel_tends_to_the_orthogonal_factor_times_the_published_scale():
    s = draw(D, D) + 3 * torch.eye(D, dtype=torch.float64)  # no symmetry needed
    u, _, vt = torch.linalg.svd(s)
    p = forms.stiefel(s, n=30)
    close(p / torch.linalg.matrix_norm(p, 2), (u @ vt).T)
    scale = root(s.T @ s / torch.linalg.matrix_norm(s.T @ s), -0.5)
    close(p, scale @ s.T / torch.linalg.matrix_norm(scale))


@pytest.mark.parametrize("m", [draw(64, 64), torch.eye(64, dtype=torch.float64), 1e-4 * draw(8, 2) @ draw(2, 8)])
def test_the_spectral_norm_is_the_largest_singular_value_to_two_tenths_of_a_per_cent(m):
    exact = torch.linalg.svdvals(m)[0].item()
    assert exact * (1 - 1e-9) <= forms.spectral_norm(m).item() <= exact * 1.002
    assert exact * (1 - 1e-4) <= forms.spectral_norm(m.float()).item() <= exact * 1.002


@pytest.mark.parametrize("decay", [0, 6])
def test_float32_is_enough_for_the_iterations_whatever_the_spectrum(decay):
    z = normalize(draw(64, 64) * torch.logspace(0, -decay, 64, dtype=torch.float64))
    sigma = (z.T @ z / len(z)).float()
    for form in (
        lambda m: forms.ns(m, n=9),
        lambda m: forms.ns2(m, n=7),
        lambda m: forms.stiefel(m, n=9),
        lambda m: forms.visser(m, n=50, eta=None),
    ):
        wide = form(sigma.double())
        assert torch.linalg.matrix_norm(form(sigma).double() - wide) < 2e-5 * torch.linalg.matrix_norm(wide)


def test_a_batch_of_zeros_gives_finite_predictors():
    zeros = torch.zeros(D, D)
    for p in (forms.ns(zeros, n=9), forms.ns2(zeros, n=7), forms.stiefel(zeros, n=9), forms.visser(zeros, n=9, eta=None)):
        assert p.isfinite().all()
    assert (zeros / forms.spectral_norm(zeros)).isfinite().all()


# What the papers claim, and what was found of their formulas.


def test_the_optimal_prediction_is_the_projection_on_the_columns_and_the_loss_what_is_left():
    z, t, sigma, cross = moments()
    prediction = z @ forms.optimal(sigma, cross)
    q, _ = torch.linalg.qr(z)
    close(prediction, q @ q.T @ t)
    rest = torch.eye(len(z), dtype=torch.float64) - q @ q.T
    close((prediction - t).square().sum(), (rest @ t).square().sum())


def test_without_noise_between_the_views_the_optimal_predictor_becomes_the_identity():
    z, noise = draw(400, D), draw(400, D, seed=9)
    gaps = []
    for sigma_t in (1.0, 0.1, 0.01, 0.0):
        p = forms.optimal(z.T @ z, z.T @ (z + sigma_t * noise))
        gaps.append(torch.linalg.matrix_norm(p - torch.eye(D, dtype=torch.float64)).item())
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=1e-6)
    assert gaps[2] == pytest.approx(gaps[0] / 100, rel=1e-6)
    assert gaps[3] < 1e-12


@pytest.mark.parametrize("k", [1, 2, 3])
def test_of_rank_k_the_optimal_predictor_of_the_same_projections_does_pca(k):
    """The best P = U W of rank k, by least squares in turns, predicts the projection on the k largest principal directions."""
    z = draw(60, D) * torch.tensor([3.0, 2.0, 1.4, 1.0, 0.5], dtype=torch.float64)
    u = draw(D, k, seed=3)
    for _ in range(200):
        code = z @ u
        w = forms.optimal(code.T @ code, code.T @ z)
        wanted = z @ torch.linalg.pinv(w)
        u = forms.optimal(z.T @ z, z.T @ wanted)
    _, s, vt = torch.linalg.svd(z, full_matrices=False)
    close(z @ u @ w, z @ vt[:k].T @ vt[:k], 1e-8)
    assert (z @ u @ w - z).square().sum().item() == pytest.approx(s[k:].square().sum().item(), rel=1e-10)


def test_through_the_input_of_an_optimal_predictor_flows_the_gradient_of_what_it_cannot_explain():
    """BYOL's paper: the update follows the gradient of the conditional variance, though it takes the predictor for constant."""
    z, t, _, _ = moments()
    z.requires_grad_()
    p = forms.optimal(z.T @ z, z.T @ t).detach()
    through_input = torch.autograd.grad((z @ p - t).square().sum(), z)[0]
    q, _ = torch.linalg.qr(z)
    of_the_rest = torch.autograd.grad((t - q @ (q.T @ t)).square().sum(), z)[0]
    assert of_the_rest.abs().max() > 1e-2
    close(through_input, of_the_rest)


def test_constant_features_leave_more_variance_unexplained_than_any_others():
    _, t, _, _ = moments()
    constant = torch.ones(len(t), 1, dtype=torch.float64)
    rest = []
    for z in (constant, torch.cat([constant, draw(len(t), 1, seed=8)], 1), torch.cat([constant, t[:, :2]], 1)):
        rest.append((z @ forms.optimal(z.T @ z, z.T @ t) - t).square().sum().item())
    assert rest[0] > rest[1] > rest[2]


def test_nine_iterations_leave_small_eigenvalues_at_a_quarter_of_their_root_and_fifteen_do_not():
    values = torch.tensor([1.0, 4e-5], dtype=torch.float64)
    found = {n: (forms.ns(torch.diag(values), n=n).diagonal() / values.sqrt()).tolist() for n in (9, 15)}
    assert found[9] == pytest.approx([1.0, 0.25], abs=0.02)
    assert found[15] == pytest.approx([1.0, 0.9995], abs=5e-4)


def test_stiefels_scale_is_far_below_one_and_falls_for_small_eigenvalues():
    f, c = 64, 0.7
    close(forms.stiefel(c * torch.eye(f, dtype=torch.float64), n=9), c / math.sqrt(f) * torch.eye(f, dtype=torch.float64), 1e-9)
    falling = torch.diag(torch.logspace(0, -4, f, dtype=torch.float64))
    found = forms.stiefel(falling / falling.trace(), n=9).diagonal()
    assert found[0] < 0.02
    assert found[3].item() == pytest.approx(found[0].item(), rel=1e-3)
    assert found[-1] < found[0] / 2
    assert (found.diff() <= 1e-12).all()


def test_visser_falls_to_the_root_while_eta_is_small_enough_fades_slowly_without_variance_and_breaks_above():
    sigma = torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))  # the root of the largest is 2
    before = math.inf
    for n in (1, 5, 20, 80):
        found = forms.visser(sigma, n=n, eta=0.25).diagonal()  # eta root(4) = 1/2
        assert found[0].item() == pytest.approx(2, abs=1e-12)
        assert 1 <= found[1].item() < before
        before = found[1].item()
        assert found[2].item() == pytest.approx(1 / (0.25 * (n + 2)), rel=0.3)
    broken = forms.visser(sigma, n=80, eta=0.6).diagonal()[0]  # eta root(4) = 1.2
    assert not abs(broken - 2) < 0.1
    bound = 0.5 / torch.linalg.matrix_norm(sigma).sqrt()
    assert bound <= 0.25, "the step that is chosen is one of those that fall"


# The method.


def build(**options):
    torch.manual_seed(0)
    return METHOD(TinyEncoder(), METHOD.Config(**({"hidden": 10, "dim": 3} | options))).double()


def references(sigma, cross, c):
    n = c.n or {"visser": 50, "ns": 9, "ns2": 7, "stiefel": 9}.get(c.predictor)
    eye = torch.eye(len(sigma), dtype=sigma.dtype)

    def newton_schulz(m):
        norm = math.sqrt(sum(x * x for x in m.flatten().tolist()))
        a, b = m / norm, eye
        for _ in range(n):
            k = 3 * eye - b @ a
            a, b = 0.5 * a @ k, 0.5 * k @ b
        return a * math.sqrt(norm), b

    if c.predictor == "visser":
        p = math.sqrt(torch.linalg.matrix_norm(sigma).item()) * eye
        for _ in range(n):
            p = p + (sigma - p @ p) / (2 * math.sqrt(torch.linalg.matrix_norm(sigma).item()))
        return p
    if c.predictor == "stiefel":
        b = newton_schulz(sigma.T @ sigma)[1]
        return b @ sigma.T / b.square().sum().sqrt()
    if c.predictor in ("ns", "ns2"):
        a = newton_schulz(sigma)[0]
        return newton_schulz(a)[0] if c.predictor == "ns2" else a
    return {
        "lrp": lambda: torch.linalg.solve(sigma, cross),
        "ne": lambda: 2 * cross - sigma @ cross,
        "direct_pred": lambda: root(sigma),
        "direct_copy": lambda: sigma,
    }[c.predictor]()


def written_out(method, passes):
    """The loss of the last pass, one image after the other, and the predictor's average after all of them."""
    c, average = method.config, None
    for v, w in passes:
        z_v, z_w = (method.projector(method.encoder(x)) for x in (v, w))
        t_v, t_w = (method.target_projector(method.target_encoder(x)).detach() for x in (v, w))
        if c.target == "stop-gradient":
            t_v, t_w = z_v.detach(), z_w.detach()
        if c.predictor == "trainable":
            p = method.predictor.weight.T
        else:
            sigma = cross = torch.zeros(c.dim, c.dim, dtype=torch.float64)
            for z, t in [*zip(z_v.detach(), t_w, strict=True), *zip(z_w.detach(), t_v, strict=True)]:
                if c.unit_rows:
                    z, t = z / z.norm(), t / t.norm()
                sigma = sigma + torch.outer(z, z) / (2 * len(v))
                cross = cross + torch.outer(z, t) / (2 * len(v))
            new = references(sigma, cross, c)
            average = new if average is None else c.predictor_decay * average + (1 - c.predictor_decay) * new
            # A number beside its own test above; the exact one differs by up to 0.2 %.
            scale = forms.spectral_norm(average) if c.rescale_predictor == "spectral" else 1.0
            p = average / scale + c.alpha * torch.eye(c.dim, dtype=torch.float64)
        loss = 0.0
        for i in range(len(v)):
            loss = loss + 2 - 2 * cosine_similarity(z_v[i] @ p, t_w[i], 0) + 2 - 2 * cosine_similarity(z_w[i] @ p, t_v[i], 0)
    return loss / len(v), average


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("options", [{}, {"unit_rows": False, "rescale_predictor": "none", "alpha": 0.0, "target": "stop-gradient"}])
def test_loss_gradient_and_average_are_those_of_the_method_written_out(predictor, options):
    method = build(predictor=predictor, predictor_decay=0.7, **options)
    passes = [views for (views,) in batches()[:2]]
    other = copy.deepcopy(method)
    expected, average = written_out(other, passes)
    expected.backward()
    for views in passes:
        method.zero_grad()
        out = method(views)
    out.loss.backward()
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-10)
    if average is not None:
        close(method.predictor_matrix, average)
    for (name, p), q in zip(method.named_parameters(), other.parameters(), strict=True):
        assert (p.grad is None) == name.startswith("target_")
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert method.encoder.conv.weight.grad.abs().max() > 1e-4


def test_only_the_methods_that_have_a_decomposition_decompose(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("decomposed")

    for name in ("eigh", "eigvalsh", "svd", "svdvals", "pinv", "inv", "solve", "qr", "cholesky"):
        monkeypatch.setattr(torch.linalg, name, refused)
    for predictor in PREDICTORS:
        method = build(predictor=predictor)
        if predictor in ("lrp", "direct_pred"):
            with pytest.raises(AssertionError, match="decomposed"):
                method(batches()[0][0])
        else:
            method(batches()[0][0]).loss.backward()


def test_under_bf16_moments_predictor_and_loss_stay_in_float32():
    method = build().float()
    views = tuple(x.float() for x in batches()[0][0])
    with torch.autocast("cpu", torch.bfloat16):
        out = method(views)
        z = [method.projector(method.encoder(x)).float() for x in views]
        t = [method.target_projector(method.target_encoder(x)).float() for x in views]
    assert out.loss.dtype == method.predictor_matrix.dtype == torch.float32
    rows = normalize(torch.cat(z).double())
    expected = forms.stiefel(rows.T @ rows / len(rows), n=9)
    torch.testing.assert_close(method.predictor_matrix.double(), expected, rtol=0, atol=1e-5)
    assert len(t) == 2


@pytest.mark.parametrize("p", [draw(6, 6), torch.diag(torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))])
def test_distance_to_orthogonal_is_that_of_scipys_polar_factor(p):
    found = orthogonality(3 * p)
    scaled = p / torch.linalg.matrix_norm(p, 2)
    polar = torch.from_numpy(scipy.linalg.polar(scaled.numpy())[0])
    d = len(p)
    assert found["predictor_polar_distance"].item() == pytest.approx(torch.linalg.matrix_norm(scaled - polar).item() / math.sqrt(d))
    assert found["predictor_stable_rank"].item() == pytest.approx(torch.linalg.matrix_norm(scaled).item() ** 2 / d)
    assert found["predictor_trace"].item() == pytest.approx(scaled.trace().item() / d)


def test_an_orthogonal_predictor_is_known_whatever_its_scale():
    q, _ = torch.linalg.qr(draw(7, 7))
    found = orthogonality(0.01 * q)
    assert found["predictor_stable_rank"].item() == pytest.approx(1)
    assert found["predictor_polar_distance"].item() == pytest.approx(0, abs=1e-9)
    assert [found[f"predictor_value_q{k}"].item() for k in (10, 50, 90)] == pytest.approx([1, 1, 1])


def test_diagnostics_are_of_the_matrix_that_predicts_ridge_included():
    found = []
    for alpha in (0.0, 100.0):
        method = build(alpha=alpha, predictor="direct_copy")
        method(batches()[0][0])
        found.append(method.diagnostics())
    assert found[0]["predictor_stable_rank"] < 0.95
    assert found[1]["predictor_stable_rank"] > 0.95
    assert found[1]["predictor_trace"] == pytest.approx(1, abs=0.02)


def test_a_predictor_restored_goes_on_as_it_was():
    first, second = build(), build(target_init="copy")
    for views in batches()[:3]:
        first(views[0])
        first.after_step(0.1)
    second.load_state_dict(first.state_dict())
    views = batches()[4][0]
    assert torch.equal(first(views).loss, second(views).loss)
    assert torch.equal(first.predictor_matrix, second.predictor_matrix)


@pytest.mark.parametrize(
    "options",
    [{"alpha": -1.0}, {"predictor_decay": 1.0}, {"n": 0}, {"eta": 0.0}, {"dim": 0}, {"tau_base": 1.5}, {"predictor_rate": -1.0}],
)
def test_options_that_cannot_be_are_named_with_their_value(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"{name} is {value}; give"):
        METHOD.Config(**options)


def test_a_predictor_that_the_ridge_may_swamp_is_named():
    trace_1 = build(rescale_predictor="none", alpha=0.3).risks()
    assert trace_1 == {"the ridge (alpha=0.3) may be all of the predictor, whose moments have trace 1": "unit_rows=false"}
    norm_1 = build(alpha=0.9).risks()
    assert norm_1 == {"the ridge (alpha=0.9) may be most of a predictor that is scaled to norm 1": "alpha=0.1"}
    for options in ({"alpha": 0.15}, {"alpha": 0.0, "rescale_predictor": "none"}, {"unit_rows": False, "rescale_predictor": "none"}):
        assert build(**options).risks() == {}, options


def test_a_trainable_predictor_has_its_rate_and_the_others_no_parameters():
    rates = {g.get("lr_scale", 1.0) for g in build(predictor="trainable", predictor_rate=10.0).param_groups()}
    assert rates == {1.0, 10.0}
    method = build(predictor_rate=10.0)
    trained = {id(p) for g in method.param_groups() for p in g["params"]}
    online = nn.ModuleList([method.encoder, method.projector])
    assert trained == {id(p) for p in online.parameters()}
