import math

import pytest
import test_training as single
import torch
from equations import agree, build, two_views, weights
from test_methods_instdisc import INDEX, called, head

from byol import methods
from byol.methods._clusters import kmeans
from byol.methods.local_aggregation import SEED, aggregation

LA = methods.load("local_aggregation")
SMALL = {"dim": 5, "samples": 20, "negatives": 7, "background": 6, "labelings": 3, "clusters": 4, "steps": 10, "epochs": 5}


def at(method, progress):
    method.progress.fill_(progress)
    return method


def labelled(method, seed=5):
    method.labels.copy_(torch.randint(4, method.labels.shape, generator=torch.Generator().manual_seed(seed)))
    return method


def written_out(v, rows, labels, index, k, temperature=0.07):
    total = 0.0
    for v_i, i in zip(v, index.tolist(), strict=True):
        similar = [(v_i * m).sum() / temperature for m in rows]
        near = sorted(range(len(rows)), key=lambda j: -similar[j].item())[:k]
        close = [j for j in near if any(h[j] == h[i] for h in labels)]
        whole = sum(torch.exp(similar[j]) for j in near)
        total = total - torch.log(sum((torch.exp(similar[j]) for j in close), torch.zeros(())) / whole + 1e-7)
    return total / len(v)


def test_loss_and_gradient_are_the_formula_written_out_to_1e_10():
    method = at(labelled(build(LA, **SMALL)), 0.5)
    w, (view, _) = weights(method), two_views()
    agree(method, called(method, view).loss, w, written_out(head(w, view), method.bank.rows, method.labels, INDEX, 6))


def test_it_begins_as_instdisc_and_changes_after_its_share_of_the_run():
    InstDisc = methods.load("instdisc")
    method, other = labelled(build(LA, **SMALL, instdisc=0.25)), build(InstDisc, dim=5, samples=20, negatives=7)
    other.load_state_dict({k: v for k, v in method.state_dict().items() if k not in ("labels", "progress")})
    view, _ = two_views()
    theirs = called(other, view).loss
    assert torch.equal(called(at(method, 0.2), view).loss, theirs)
    assert not torch.equal(called(at(method, 0.25), view).loss, theirs)


def test_with_own_clusters_and_the_own_row_near_it_is_the_softmax_over_the_background():
    near, close = torch.randn(4, 6, dtype=torch.float64), torch.zeros(4, 6, dtype=torch.bool)
    close[torch.arange(4), torch.tensor([2, 0, 5, 1])] = True
    expected = -near.log_softmax(1)[close].mean()
    assert aggregation(near, close).item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(aggregation(near, torch.ones_like(close)).item() + math.log(1 + 1e-7)) < 1e-12, "all of one cluster"


def test_without_a_close_row_in_the_background_the_loss_is_a_constant_without_gradient():
    near = torch.randn(4, 6, requires_grad=True)
    loss = aggregation(near, torch.zeros(4, 6, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-7), abs=1e-4)  # 16.1
    assert not near.grad.any()


def test_in_an_untrained_bank_the_own_row_is_near_as_often_as_chance_and_that_is_logged():
    torch.manual_seed(0)
    method = LA(single.Net(), LA.Config(samples=5000, dim=32, negatives=0, background=410, labelings=1, clusters=10))
    x = torch.randn(512, 1, 8, 8)
    found = method((x,), index=torch.randperm(5000)[:512]).metrics["own_in_background"].item()
    assert found == pytest.approx(410 / 5000, abs=0.04)


def test_more_labelings_only_add_neighbours():
    one = at(labelled(build(LA, **SMALL)), 0.5)
    few = at(build(LA, **SMALL | {"labelings": 1}), 0.5)
    few.labels.copy_(one.labels[:1])
    few.bank.load_state_dict(one.bank.state_dict())
    view, _ = two_views()
    assert called(one, view).loss < called(few, view).loss


def test_two_blobs_far_apart_are_two_clusters_and_all_close_ones_are_of_the_own_blob():
    g = torch.Generator().manual_seed(0)
    blob = torch.arange(200) % 2
    x = torch.where(blob[:, None] == 0, 1.0, -1.0) + 0.05 * torch.randn(200, 8, generator=g)
    labels = kmeans(x, 2, iterations=20, seed=1)
    same = labels[:, None] == labels
    assert torch.equal(same, blob[:, None] == blob), "and so it is symmetric"


def test_k_means_is_lloyds_and_the_same_again_and_another_for_another_seed():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = kmeans(x, 7, iterations=4, seed=3)
    assert torch.equal(labels, kmeans(x, 7, iterations=4, seed=3))
    assert not torch.equal(labels, kmeans(x, 7, iterations=4, seed=4)), "the same seed for all labelings would make them one"
    centres = x[torch.randperm(300, generator=torch.Generator().manual_seed(3))[:7]]
    for step in range(4):
        plain = torch.cdist(x, centres).argmin(1)
        if step < 3:
            centres = torch.stack([x[plain == c].mean(0) for c in range(7)])
    assert torch.equal(labels, plain)


def test_a_cluster_that_is_empty_begins_again_at_a_row_of_the_largest():
    # All rows but one are equal: of five centres on them, four have nothing.
    x = torch.tensor([[0.0, 0.0]] * 40 + [[5.0, 5.0]] * 20 + [[5.0, 5.2]] * 3)
    for seed in range(5):
        labels = kmeans(x, 5, iterations=20, seed=seed)
        assert labels[:40].unique().numel() == 1
        assert labels[0] != labels[40]
        assert labels[40] != labels[60]


def test_the_bank_is_clustered_when_instdisc_ends_and_after_every_epoch_and_never_after_the_last_update():
    c = LA.Config(**SMALL | {"steps": 40, "epochs": 10, "instdisc": 0.25})
    after = [k for k in range(40) if c.clustering((k + 1) / 40) > c.clustering(k / 40)]
    assert after == [9, 13, 17, 21, 25, 29, 33, 37]
    c = LA.Config(**SMALL | {"steps": 40, "epochs": 10, "instdisc": 0.0})
    assert [k for k in range(40) if c.clustering((k + 1) / 40) > c.clustering(k / 40)] == [0, 3, 7, 11, 15, 19, 23, 27, 31, 35]
    assert LA.Config(samples=1_281_167).k() == 30_000
    assert LA.Config(samples=50_000, clusters=0).k() == 1170


def test_clusters_are_those_of_the_bank_after_it_was_written():
    method = build(LA, **SMALL, instdisc=0.1)
    view, _ = two_views()
    called(method, view).loss.backward()
    method.after_step(0.0)
    for h in range(3):
        assert torch.equal(method.labels[h].long(), kmeans(method.bank.rows, 4, iterations=20, seed=SEED + h))
    assert method.progress.item() == pytest.approx(0.1)


def test_a_run_that_is_stopped_between_clusterings_goes_on_bit_for_bit(tmp_path):
    plan = single.make_plan(method="local_aggregation", optimizer="sgd", lr=0.5, epochs=1, log_steps=1)
    whole, _, _ = single.run(tmp_path / "whole", plan)
    assert whole.labels.max() < 5, "it was clustered"
    for stop in (3, 4, 5):
        single.run(tmp_path / f"{stop}", plan, stop_after=stop)
        again, _, _ = single.run(tmp_path / f"{stop}", plan)
        assert all(torch.equal(again.state_dict()[k], v) for k, v in whole.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"clusters": 30}, "clusters is 30, of 20 samples"), ({"instdisc": 2.0}, "instdisc is 2.0"), ({"labelings": 0}, "labelings is 0")],
)
def test_options_out_of_range_are_refused_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        LA.Config(**SMALL | options)
