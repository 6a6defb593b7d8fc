import math

import pytest
import torch
from equations import agree, build, layers, lightly, two_views, weights
from reference import encode

from byol import methods
from byol.methods import View
from byol.methods.swav import sinkhorn

SwAV = methods.load("swav")
SMALL = {"hidden": 10, "dim": 6, "prototypes": 5, "local_views": 2, "frozen": 0.0}


def four_views(size=8):
    g = torch.Generator().manual_seed(5)
    return (*two_views(size=size), *(torch.randn(size, 2, 5, 5, dtype=torch.float64, generator=g) for _ in "ab"))


def assigned(scores, epsilon=0.05, iterations=3):
    """Q of the paper, (K, B): rows to 1/K, columns to 1/B, in turns, and at the end times B."""
    q = torch.exp(scores.T / epsilon)
    q = q / q.sum()
    for _ in range(iterations):
        for k in range(len(q)):
            q[k] = q[k] / q[k].sum() / len(q)
        for b in range(q.shape[1]):
            q[:, b] = q[:, b] / q[:, b].sum() / q.shape[1]
    return (q * q.shape[1]).T


def projected(w, view):
    z = layers(encode(view, w), w, "projector", "LBRL")
    return torch.stack([row / (row * row).sum().sqrt() for row in z])


def written_out(w, views, queue=None):
    """The mean over whole views i, other views v and images of the cross-entropy of Q_i with softmax(scores_v / 0.1)."""
    scores = [projected(w, v) @ w["prototypes.weight"].T for v in views]
    total = 0.0
    for i in (0, 1):
        known = [] if queue is None else [queue[i] @ w["prototypes.weight"].detach().T]
        q = assigned(torch.cat([scores[i].detach(), *known]))[: len(scores[i])]
        for v in range(len(views)):
            if v != i:
                p = torch.exp(scores[v] / 0.1)
                total = total - (q * torch.log(p / p.sum(1, keepdim=True))).sum() / len(q) / (len(views) - 1)
    return total / 2


@pytest.mark.parametrize("local", [0, 2])
def test_loss_and_gradient_are_the_equation_written_out_to_1e_10(local):
    method = build(SwAV, **SMALL | {"local_views": local})
    w, views = weights(method), four_views()[: 2 + local]
    agree(method, method(views).loss, w, written_out(w, views))


def with_queue(**options):
    method = build(SwAV, **SMALL | {"queue": 12} | options)
    for seed in (7, 8):  # 16 projections into 12 places
        method((*two_views(seed=seed), *four_views()[2:]))
    return method


def test_a_full_queue_is_assigned_with_the_batch_and_itself_tells_nothing():
    method = with_queue()
    w, views, queue = weights(method), four_views(), method.queue.clone()
    agree(method, method(views).loss, w, written_out(w, views, queue))


def test_loss_and_gradient_are_lightlys_with_local_views_and_a_queue():
    criterion = lightly("loss").SwaVLoss()
    method, views = with_queue(), four_views()
    queue = [method.prototypes(rows).detach() for rows in method.queue.clone()]
    z = [torch.nn.functional.normalize(method.projector(method.encoder(v))) for v in views]
    scores = [method.prototypes(x) for x in z]
    theirs, loss = criterion(scores[:2], scores[2:], queue), method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-9)
    parameters = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_the_queue_holds_the_last_whole_views_in_the_order_of_the_batch_and_counts_once_it_is_full_and_its_share_has_come():
    method = build(SwAV, **SMALL | {"queue": 12})
    expected = torch.zeros(2, 12, 6, dtype=torch.float64)
    for step, seed in enumerate((7, 8)):
        views, w = (*two_views(seed=seed), *four_views()[2:]), weights(method)
        assert method(views).loss.item() == pytest.approx(written_out(w, views).item(), abs=1e-10), "not full: as without one"
        for view in (0, 1):
            for i, row in enumerate(projected(w, views[view]).detach()):
                expected[view, (8 * step + i) % 12] = row
        torch.testing.assert_close(method.queue, expected, rtol=0, atol=1e-10)
    later = with_queue(queue_from=0.5)
    w, views, queue = weights(later), four_views(), later.queue.clone()
    assert later(views).loss.item() == pytest.approx(written_out(w, views).item(), abs=1e-10), "its share has not come"
    later.queue.copy_(queue)
    later.after_step(0.5)
    assert later(views).loss.item() == pytest.approx(written_out(weights(later), views, queue).item(), abs=1e-9)


def test_of_more_projections_than_a_queue_holds_the_last_stay():
    method = build(SwAV, **SMALL | {"queue": 3})
    views = four_views()
    z = projected(weights(method), views[1]).detach()
    method(views)
    for i in (5, 6, 7):
        torch.testing.assert_close(method.queue[1, i % 3], z[i], rtol=0, atol=1e-10)


def scores(images, prototypes):
    return torch.randn(images, prototypes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_an_assignment_sums_to_one_and_is_even_over_prototypes_only_after_many_iterations():
    few, many = (sinkhorn(scores(64, 20), epsilon=0.05, iterations=n) for n in (3, 50))
    for q in (few, many):
        torch.testing.assert_close(q.sum(1), torch.ones(64, dtype=torch.float64), rtol=0, atol=1e-12)
    share = few.sum(0) / (64 / 20)
    assert share.min() < 0.5
    assert share.max() > 1.5
    even = sinkhorn(scores(64, 20), epsilon=1.0, iterations=50).sum(0)
    torch.testing.assert_close(even, torch.full((20,), 64 / 20, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (many.sum(0) / (64 / 20) - 1).abs().max() < (share - 1).abs().max()


def test_scores_that_are_all_one_are_assigned_to_all_alike():
    torch.testing.assert_close(sinkhorn(torch.ones(8, 5), epsilon=0.05, iterations=3), torch.full((8, 5), 1 / 5))


def test_a_small_epsilon_overflows_nothing():
    found = sinkhorn(scores(16, 5).float().clamp(-1, 1), epsilon=0.005, iterations=3)
    assert math.exp(1 / 0.05) > torch.finfo(torch.float16).max, "what half precision could not hold"
    assert found.isfinite().all()
    torch.testing.assert_close(found, assigned(scores(16, 5).clamp(-1, 1), epsilon=0.005).float(), rtol=0, atol=1e-4)


def test_a_batch_of_one_is_assigned_to_all_alike_whatever_its_scores_and_a_queue_mends_it():
    """A spread over more prototypes than there are images says nothing of the images."""
    torch.testing.assert_close(sinkhorn(scores(1, 20), epsilon=0.05, iterations=3), torch.full((1, 20), 1 / 20, dtype=torch.float64))
    assert sinkhorn(scores(200, 20), epsilon=0.05, iterations=3)[0].max() > 0.5


def test_prototypes_stay_for_their_share_of_the_run_and_are_of_length_one_after_every_step():
    method = build(SwAV, **SMALL | {"frozen": 0.5})
    for progress, moves in ((0.0, False), (0.5, False), (0.6, True)):  # of the step before
        method.zero_grad()
        method(four_views()).loss.backward()
        assert bool((method.prototypes.weight.grad != 0).any()) is moves
        with torch.no_grad():
            method.prototypes.weight.mul_(1.5)
        method.after_step(progress)
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_only_whole_views_are_assigned():
    method, views = build(SwAV, **SMALL), four_views()
    seen = []
    method._assignment = lambda view, scores: seen.append(view) or torch.full_like(scores, 1 / 5)
    method(views)
    assert seen == [0, 1]


def test_views_follow_from_the_options():
    assert methods.views_of(SwAV) == (View(0), View(1), *(View(i % 2, local=True) for i in range(6)))
    assert methods.views_of(SwAV, SwAV.Config(local_views=0)) == methods.BOTH


def test_assignments_as_soft_as_what_is_told_are_a_risk_and_bad_options_are_refused_in_words():
    assert build(SwAV, **SMALL | {"epsilon": 0.1}).risks() == {"assignments are no surer than views (epsilon 0.1)": "epsilon=0.05"}
    with pytest.raises(ValueError, match="prototypes is 1, and to be assigned takes a choice; give 2 or more"):
        SwAV.Config(prototypes=1)
    with pytest.raises(ValueError, match="epsilon is 0; give a number above 0"):
        SwAV.Config(epsilon=0)


def test_more_prototypes_than_images_are_a_risk_that_a_queue_mends():
    method = build(SwAV, **SMALL | {"prototypes": 50})
    method(four_views())
    ((what, mend),) = method.risks().items()
    assert what == "8 images are spread over 50 prototypes"
    assert mend == "queue=50"
