"""The general objective of the paper's ablations, between BYOL and InfoNCE, against torch's own cross-entropy and sums written out."""

import math

import pytest
import torch
from test_methods_byol import BYOL, TinyEncoder, batches, build, train
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from byol.losses import objective, regression_loss


def four(seed=0, b=6, d=5):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(b, d, dtype=torch.float64, generator=g, requires_grad=True) for _ in range(4)]


def gradients(loss, tensors):
    return torch.autograd.grad(loss, tensors, allow_unused=True)


def nt_xent(a, b, alpha):
    """SimCLR's loss over the 2B images, by torch's cross-entropy."""
    z = nn.functional.normalize(torch.cat([a, b]))
    logits = z @ z.T / alpha
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    n = len(a)
    return cross_entropy(logits, torch.cat([torch.arange(n) + n, torch.arange(n)]))


def test_beta_0_is_byols_loss_and_gradient():
    p_v, p_w, z_v, z_w = four()
    ours = objective((p_v, p_w), (z_v.detach(), z_w.detach()), alpha=0.1, beta=0.0)
    theirs = regression_loss(p_v, z_w) + regression_loss(p_w, z_v)
    assert torch.equal(ours, theirs)
    for a, b in zip(gradients(ours, (p_v, p_w)), gradients(theirs, (p_v, p_w)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0])
def test_beta_1_with_the_online_projections_is_info_nce_and_its_gradient(alpha):
    """4 + 2 alpha x (both directions), each direction half of the mean over 2B images, so 4 alpha x NT-Xent."""
    z_v, z_w, *_ = four()
    ours = objective((z_v, z_w), (z_v, z_w), alpha=alpha, beta=1.0)
    theirs = 4 + 4 * alpha * nt_xent(z_v, z_w, alpha)
    assert abs(ours.item() - theirs.item()) < 1e-6
    for a, b in zip(gradients(ours, (z_v, z_w)), gradients(theirs, (z_v, z_w)), strict=True):
        assert b.abs().max() > 1e-4
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def written_out(p, z, alpha, beta):
    """-J of both directions as the paper writes it, one image after the other, and the constant 2 of each."""
    total = 0.0
    for mine, same, other in ((p[0], z[0], z[1]), (p[1], z[1], z[0])):
        for i in range(len(mine)):
            s_same, s_other = (cosine_similarity(mine[i][None], t) for t in (same, other))
            negatives = sum(math.exp(s_same[j] / alpha) for j in range(len(mine)) if j != i)
            negatives += sum(math.exp(s_other[j] / alpha) for j in range(len(mine)))
            total += 2 - 2 * s_other[i].item() + 2 * alpha * beta * math.log(negatives)
    return total / len(p[0])


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_between_the_two_it_is_the_papers_sum_written_out(beta):
    p_v, p_w, z_v, z_w = (x.detach() for x in four(1))
    expected = written_out((p_v, p_w), (z_v, z_w), 0.3, beta)
    assert objective((p_v, p_w), (z_v, z_w), alpha=0.3, beta=beta).item() == pytest.approx(expected, abs=1e-6)


def test_gradients_reach_the_targets_unless_they_are_detached():
    p_v, p_w, z_v, z_w = four()
    assert gradients(objective((p_v, p_w), (z_v, z_w), alpha=0.1, beta=1.0), (z_v,))[0].abs().max() > 0
    assert gradients(objective((p_v, p_w), (z_v.detach(), z_w.detach()), alpha=0.1, beta=1.0), (z_v,)) == (None,)


def test_a_method_without_predictor_and_target_at_beta_1_trains_by_info_nce():
    method = build(predictor="none", target="online", beta=1.0, alpha=0.1)
    v, w = batches()[0][0]
    loss = method((v, w)).loss
    z_v, z_w = method.projector(method.encoder(v)), method.projector(method.encoder(w))
    assert loss.item() == pytest.approx((4 + 0.4 * nt_xent(z_v, z_w, 0.1)).item(), abs=1e-6)


def test_the_target_that_stops_gradients_is_the_online_projection():
    v, w = batches()[0][0]
    stopped, online = build(target="stop-gradient"), build(target="online")
    losses = [m((v, w)).loss for m in (stopped, online)]
    assert losses[0].item() == losses[1].item()
    z_v, z_w = stopped.projector(stopped.encoder(v)), stopped.projector(stopped.encoder(w))
    by_hand = regression_loss(stopped.predictor(z_v), z_w) + regression_loss(stopped.predictor(z_w), z_v)
    first = stopped.encoder.conv.weight
    (expected,) = torch.autograd.grad(by_hand, first)
    torch.testing.assert_close(torch.autograd.grad(losses[0], first)[0], expected, rtol=0, atol=1e-12)
    assert not torch.allclose(torch.autograd.grad(losses[1], online.encoder.conv.weight)[0], expected)


def by_hand(kind, x):
    if kind == "none":
        return x
    dim = 1 if kind == "layer" else 0
    return (x - x.mean(dim, keepdim=True)) / (x.var(dim, keepdim=True, correction=0) + 1e-5).sqrt() / math.sqrt(x.shape[1])


@pytest.mark.parametrize("kind", ["layer", "batch", "none"])
def test_the_loss_can_normalise_otherwise(kind):
    method = build(loss_norm=kind)
    v, w = batches()[0][0]
    z_v, z_w = method.projector(method.encoder(v)), method.projector(method.encoder(w))
    p_v, p_w = method.predictor(z_v), method.predictor(z_w)
    t_v, t_w = method.target_projector(method.target_encoder(v)), method.target_projector(method.target_encoder(w))
    p_v, p_w, t_v, t_w = (by_hand(kind, x) for x in (p_v, p_w, t_v, t_w))
    expected = ((p_v - t_w) ** 2).sum(1).mean() + ((p_w - t_v) ** 2).sum(1).mean()
    assert method((v, w)).loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert set(method.state_dict()) == set(build().state_dict())


def test_heads_have_as_many_layers_and_the_norms_that_were_asked_for():
    method = BYOL(TinyEncoder(), BYOL.Config(hidden=9, dim=4, projector_layers=1, predictor_layers=3, predictor_norm="layer"))
    assert [type(part) for part in method.projector] == [nn.Linear]
    assert [type(part) for part in method.predictor] == [*[nn.Linear, nn.LayerNorm, nn.ReLU] * 2, nn.Linear]
    assert [p.out_features for p in method.predictor if isinstance(p, nn.Linear)] == [9, 9, 4]
    assert isinstance(BYOL(TinyEncoder(), BYOL.Config(hidden=9, dim=4, predictor_norm="none")).projector[1], nn.BatchNorm1d)


def test_the_options_written_out_as_they_are_change_no_bit():
    plain = build(target="ema", beta=0.0, alpha=7.0, loss_norm="l2", projector_layers=2, predictor_layers=2, predictor_norm="batch")
    assert train(plain, batches()) == train(build(), batches())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beta": -1.0}, "beta=-1.0 and alpha=0.1 are not possible"),
        ({"alpha": 0.0}, "give beta 0 or more and alpha above 0"),
        ({"beta": 1.0, "loss_norm": "layer"}, "loss_norm=layer has no negative pairs"),
        ({"predictor_layers": 0}, "predictor_layers is 0; give 1 or more"),
    ],
)
def test_what_cannot_be_is_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**options)


def test_negative_pairs_need_neither_predictor_nor_average():
    assert build(predictor="none", target="online", beta=1.0).risks() == {}
    assert list(build(predictor="none", target="stop-gradient").risks().values()) == ["predictor=mlp", "target=ema"]
