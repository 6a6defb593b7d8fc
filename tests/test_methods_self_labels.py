"""CCSL and CSSL, which are reconstructions: against their losses written out pair by pair."""

import copy
import math

import pytest
import torch
from test_methods_byol import TinyEncoder, batches
from torch.nn.functional import cosine_similarity

from byol import dist, methods
from byol.losses import regression_loss
from byol.methods._self_labels import labels, mean_where

CCSL, CSSL = methods.load("ccsl"), methods.load("cssl")


def build(method, **options):
    torch.manual_seed(0)
    made = method(TinyEncoder(), method.Config(**({"hidden": 10, "dim": 4, "warmup": 0.0} | options))).double()
    return made


def networks(m, views):
    p = [m.predictor(m.projector(m.encoder(x))) for x in views]
    t = [m.target_projector(m.target_encoder(x)).detach() for x in views]
    return p, t


def ccsl(p, t, other, c):
    same, different = [], []
    for i in range(len(p)):
        for j in range(len(p)):
            similar = cosine_similarity(p[i], other[j], 0)
            judged = similar.item() if c.labels_from == "online" else cosine_similarity(t[i], other[j], 0).item()
            if i == j or judged > c.theta_positive:
                same.append(2 - 2 * similar)
            elif judged < c.theta_negative:
                different.append(similar.clamp_min(0))
    loss = sum(same) / len(same)
    return (loss + sum(different) / len(different) if c.negatives else loss), len(same), len(different)


def cssl(p, t, other, c):
    terms, positives, negatives = [], 0, 0
    for i in range(len(p)):
        for j in range(len(p)):
            s = torch.sigmoid((p[i] * other[j]).sum())
            judged = s.item() if c.labels_from == "online" else 1 / (1 + math.exp(-(t[i] * other[j]).sum().item()))
            if i == j or judged > c.theta_positive:
                terms.append(-s.log())
                positives += 1
            elif judged < c.theta_negative:
                negatives += 1
                terms += [-(1 - s).log()] if c.negatives else []
    return sum(terms) / len(terms), positives, negatives


@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("labels_from", ["online", "target"])
@pytest.mark.parametrize(
    ("method", "direction", "thresholds"),
    [(CCSL, ccsl, {"theta_positive": 0.4, "theta_negative": 0.1}), (CSSL, cssl, {"theta_positive": 0.52, "theta_negative": 0.48})],
)
def test_loss_and_gradient_are_those_of_all_pairs_written_out(method, direction, thresholds, labels_from, negatives):
    ours = build(method, labels_from=labels_from, negatives=negatives, **thresholds)
    other, views = copy.deepcopy(ours), batches()[0][0]
    (p_v, p_w), (t_v, t_w) = networks(other, views)
    first, positives, different = direction(p_v, t_v, t_w, ours.config)
    second, *_ = direction(p_w, t_w, t_v, ours.config)
    assert 8 < positives < 64, "some pairs beside the image itself, and not all"
    assert different
    (first + second).backward()
    out = ours(views)
    out.loss.backward()
    assert out.loss.item() == pytest.approx((first + second).item(), abs=1e-10)
    for (name, p), q in zip(ours.named_parameters(), other.parameters(), strict=True):
        assert (p.grad is None) == name.startswith("target_")
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert ours.encoder.conv.weight.grad.abs().max() > 1e-5
    assert out.metrics["pseudo_positives"].item() == pytest.approx(positives / 8 - 1)
    assert out.metrics["pseudo_negatives"].item() == pytest.approx(different / 8)


@pytest.mark.parametrize("method", [CCSL, CSSL])
def test_before_the_warm_up_ends_it_is_byol_and_afterwards_not_and_a_restored_one_knows(method):
    ours = build(method, warmup=0.3, theta_positive=0.45, theta_negative=0.4, negatives=True)
    views = batches()[0][0]

    def byol():
        (p_v, p_w), (t_v, t_w) = networks(copy.deepcopy(ours), views)
        return (regression_loss(p_v, t_w) + regression_loss(p_w, t_v)).item()

    for progress in (0.0, 0.29):
        ours.after_step(progress)
        out = ours(views)
        assert out.loss.item() == pytest.approx(byol(), abs=1e-10)
        assert out.metrics["pseudo_positives"] == out.metrics["pseudo_negatives"] == 0
    ours.after_step(0.3)
    assert ours(views).metrics["pseudo_positives"] > 0
    assert ours(views).loss.item() != pytest.approx(byol(), abs=1e-4)
    again = build(method, warmup=0.3, theta_positive=0.45, theta_negative=0.4, negatives=True)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(views).loss, ours(views).loss)


def test_each_process_labels_its_own_rows_and_divides_by_the_pairs_of_all(monkeypatch):
    similarity = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = labels(similarity, above=0.7, below=0.2, trusted=True)
    counts = [whole.same[rows].sum().double() for rows in (slice(0, 2), slice(2, 4), slice(4, 6))]
    monkeypatch.setattr(dist, "size", lambda: 3)
    monkeypatch.setattr(dist, "mean", lambda x: sum(counts) / 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        here = labels(similarity[2 * rank : 2 * rank + 2], above=0.7, below=0.2, trusted=True)
        assert torch.equal(here.same, whole.same[2 * rank : 2 * rank + 2])
        assert torch.equal(here.different, whole.different[2 * rank : 2 * rank + 2])
        parts.append(mean_where(values[2 * rank : 2 * rank + 2], here.same))
    assert (sum(parts) / 3).item() == pytest.approx(values[whole.same].mean().item(), abs=1e-12)


def test_where_no_pair_is_different_nothing_is_added():
    assert mean_where(torch.ones(3, 3), torch.zeros(3, 3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("method", [CCSL, CSSL])
def test_it_says_itself_that_it_is_a_reconstruction(method):
    import sys

    assert "RECONSTRUCTION" in sys.modules[method.__module__].__doc__
    assert "reconstruction" in sys.modules[method.__module__].__doc__.split("\n")[0]


def test_a_threshold_below_every_sigmoid_is_refused():
    with pytest.raises(ValueError, match=r"theta_negative is -0.5; give 0 or more"):
        build(CSSL, theta_negative=-0.5)


@pytest.mark.parametrize("method", [CCSL, CSSL])
def test_what_is_known_to_end_in_collapse_is_named(method):
    assert build(method, warmup=0.25).risks() == {}
    found = build(method, warmup=0.0, tau_base=0.0, theta_positive=0.3).risks()
    assert sorted(found.values()) == ["tau_base=0.99", "theta_positive=0.8", "warmup=0.25"]


@pytest.mark.parametrize("method", [CCSL, CSSL])
@pytest.mark.parametrize(
    "options", [{"theta_positive": 0.1}, {"theta_negative": -2.0}, {"warmup": 2.0}, {"hidden": 0}, {"predictor_rate": -1.0}]
)
def test_options_that_cannot_be_are_named_with_their_value(method, options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"{name}(=| is ){value}.*; give"):
        method.Config(**options)
