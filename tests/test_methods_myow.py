"""MYOW against the algorithm written out in loops, in float64."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from test_dist import free_port
from together import start
from torch import nn

import byol
from byol import dist, methods, run, views
from byol.config import Request
from byol.methods import myow

B = 6


class Net(nn.Module):
    dim = 7

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 7, 3, bias=False), nn.BatchNorm2d(7)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean((2, 3))

    def reset_parameters(self):
        self.conv.reset_parameters()
        self.norm.reset_parameters()


def build(progress=1.0, **options):
    torch.manual_seed(0)
    small = {"hidden": 9, "dim": 5, "mined_hidden": 8, "mined_dim": 4, "target_init": "fresh"}
    method = myow.MYOW(Net(), myow.Options(**(small | options))).double()
    method.progress.fill_(progress)
    return method


def batch(count=B):
    g = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, 1, 6, 6, dtype=torch.float64, generator=g) for _ in range(4))


def distance_of(a, b):
    """2 - 2 cos of two vectors."""
    return 2 - 2 * sum(x * y for x, y in zip(a, b, strict=True)) / (sum(x * x for x in a).sqrt() * sum(y * y for y in b).sqrt())


def written_out(m, views, *, k, w, u, allowed, symmetric=True):
    """The total loss, one sample at a time."""
    x1, x2, x3, x4 = views
    n = len(x1)
    z1, z2 = m.projector(m.encoder(x1)), m.projector(m.encoder(x2))
    q1, q2 = m.predictor(z1), m.predictor(z2)
    with torch.no_grad():
        t1, t2 = m.target_projector(m.target_encoder(x1)), m.target_projector(m.target_encoder(x2))
        pool = m.target_encoder(x4)
    augmented = sum(distance_of(q1[i], t2[i]) for i in range(n)) / n
    if symmetric:
        augmented = (augmented + sum(distance_of(q2[i], t1[i]) for i in range(n)) / n) / 2
    y = m.encoder(x3)
    chosen = []
    for i in range(n):
        order = sorted((float(distance_of(y[i].detach(), pool[j])), j) for j in range(n) if allowed(i, j))[:k]
        chosen.append(order[int(u[i] * len(order))][1] if order else None)
    counted = [i for i in range(n) if chosen[i] is not None]
    with torch.no_grad():
        mined = m.target_mined_projector(m.target_projector(torch.stack([pool[j or 0] for j in chosen])))
    predicted = m.mined_predictor(m.mined_projector(m.projector(y)))
    mining = sum(distance_of(predicted[i], mined[i]) for i in counted) / len(counted)
    return augmented / (1 + w) + mining * w / (1 + w)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, lambda i, j: i != j),
        ({"neighbours": 3, "mined_weight": 0.3}, lambda i, j: i != j),
        ({"neighbours": 9, "own": "keep"}, lambda i, j: True),
        ({"symmetric": False}, lambda i, j: i != j),
    ],
)
def test_loss_and_gradients_are_those_of_the_algorithm_in_loops(options, allowed):
    method, again = build(**options), build(**options)
    torch.manual_seed(5)
    u = torch.rand(B)
    torch.manual_seed(5)
    loss = method(batch()).loss
    c = method.config
    expected = written_out(again, batch(), k=c.neighbours, w=c.mined_weight, u=u, allowed=allowed, symmetric=c.symmetric)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-10)
    loss.backward()
    expected.backward()
    for (name, p), q in zip(method.named_parameters(), again.parameters(), strict=True):
        assert (p.grad is None) is (q.grad is None) is name.startswith("target_")
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_samples_of_the_same_group_or_near_in_time_are_no_candidates():
    groups, times = torch.tensor([0, 0, 1, 1, -1, -1]), torch.tensor([0, 5, 1, 9, 12, 30])

    def allowed(i, j):
        return i != j and (groups[i] != groups[j] or groups[i] < 0) and abs(int(times[i] - times[j])) > 4

    method, again = build(neighbours=2, gap=4), build(neighbours=2, gap=4)
    torch.manual_seed(5)
    u = torch.rand(B)
    torch.manual_seed(5)
    loss = method(batch(), groups=groups, times=times).loss
    expected = written_out(again, batch(), k=2, w=1.0, u=u, allowed=allowed)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-10)


def test_a_sample_without_candidates_does_not_count_and_a_batch_without_any_has_no_mining():
    groups = torch.tensor([0, 0, 0, 0, 0, 1])
    method, again = build(), build()
    loss = method(batch(), groups=groups, times=None).loss
    expected = written_out(again, batch(), k=1, w=1.0, u=torch.zeros(B), allowed=lambda i, j: i != j and groups[i] != groups[j])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-10)
    method, plain = build(), build(progress=0.0)
    alone = method(batch(), groups=torch.zeros(B, dtype=torch.int64))
    assert float(alone.loss.detach()) == pytest.approx(float(plain(batch()).loss.detach()) / 2, abs=1e-10)
    alone.loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


def test_each_of_the_nearest_is_drawn_equally_often_and_no_other():
    y, pool = torch.eye(4)[:1].expand(3000, 4), torch.tensor([[1.0, 0, 0, 0], [1, 0.1, 0, 0], [1, 0.5, 0, 0], [0, 1, 0, 0], [-1, 0, 0, 0]])
    u = torch.rand(3000, generator=torch.Generator().manual_seed(0))
    candidates = torch.ones(3000, 5, dtype=torch.bool)
    candidates[:, 0] = False
    counts = myow.nearest(y, pool, candidates, 3, u).bincount(minlength=5)
    assert counts[0] == counts[4] == 0
    assert (counts[1:4] - 1000).abs().max() < 120
    assert myow.nearest(y[:1], pool, candidates[:1], 3, torch.tensor([1 - 2**-24])).item() == 3  # the draw next to 1


def test_the_weight_is_0_up_to_warm_up_then_linear_then_at_its_greatest():
    method = build(mined_weight=0.6, mined_from=0.125, mined_full=0.1375)
    found = {}
    for progress in (0.0, 0.1, 0.125, 0.13125, 0.1375, 0.5, 1.0):
        method.after_step(progress)
        found[progress] = round(float(method._weight()), 5)
    assert found == {0.0: 0, 0.1: 0, 0.125: 0, 0.13125: 0.3, 0.1375: 0.6, 0.5: 0.6, 1.0: 0.6}
    stepped = build(mined_from=0.5, mined_full=0.5, progress=0.49)
    assert float(stepped._weight()) == 0.0
    stepped.after_step(0.5)
    assert float(stepped._weight()) == 1.0


def test_no_gradient_reaches_the_targets_and_they_follow_in_parameters_only():
    method = build()
    method(batch()).loss.backward()
    assert all((p.grad is not None) is not n.startswith("target_") for n, p in method.named_parameters())
    buffers = {n: b.clone() for n, b in method.named_buffers() if n != "progress"}
    before = method.target_mined_projector[0].weight.clone()
    method.after_step(0.25)
    tau = 1 - (1 - 0.98) * (np.cos(np.pi * 0.25) + 1) / 2
    torch.testing.assert_close(method.target_mined_projector[0].weight, tau * before + (1 - tau) * method.mined_projector[0].weight)
    assert all(torch.equal(b, dict(method.named_buffers())[n]) for n, b in buffers.items())


def test_the_mined_views_are_cropped_mildly_and_flipped_and_nothing_else():
    session = run.prepare(Request(data="digits", method="myow", encoder="small-w8-n2", limit=64, device="cpu", precision="fp32"))
    for pipeline in session.views.pipelines[2:]:
        assert (pipeline.min_area, pipeline.max_area, pipeline.flip) == (0.8, 1.0, 0.5)
        assert pipeline.jitter == pipeline.gray == pipeline.blur == pipeline.solarize == 0
    assert session.views.pipelines[0].min_area < 0.8
    assert len(session.views.pipelines) == 4
    assert session.rows() == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"neighbours": 0}, "neighbours is 0; give 1 or more"),
        ({"mined_from": 0.5, "mined_full": 0.2}, "0 <= from <= full <= 1"),
        ({"gap": -1}, "must be 0 or more"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        myow.Options(**options)


def test_a_stopped_run_goes_on_bit_for_bit_through_warm_up_and_ramp(tmp_path):
    asked = {"method": "myow", "encoder": "small-w8-n2", "limit": 128, "batch_size": 32, "epochs": 3, "precision": "fp32", "device": "cpu"}
    sets = ("hidden=16", "dim=8", "mined_hidden=16", "mined_dim=8", "log_steps=1", "neighbours=3", "mined_from=0.3", "mined_full=0.8",
            "mined_weight=1", "checkpoint_minutes=0")  # fmt: skip
    whole, out = tmp_path / "whole", tmp_path / "run"
    for folder in (whole, out):
        byol.train("digits", folder, set=sets, **asked)
    (out / "last.safetensors").unlink()
    (out / "encoder.safetensors").unlink()
    byol.resume(out)  # from the checkpoint before the last
    ours, theirs = (byol.load(folder).state_dict() for folder in (out, whole))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    weights = [json.loads(line)["mined_weight"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert weights[0] == 0.0 < weights[6] < weights[-1] == 1.0


TOGETHER = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from test_methods_myow import batch, build
from byol import dist

with dist.joined("cpu"):
    from byol.sync_norm import synchronise
    method = build(neighbours=4, gap=2)
    synchronise(method)
    torch.manual_seed(7 + dist.rank() * 2**40)
    mine, ids = dist.share(8), torch.arange(8)
    out = method(tuple(v[mine] for v in batch(8)), groups=(ids // 3)[mine], times=(ids * 5 % 8)[mine])
    out.loss.backward()
    grads = torch.cat([dist.mean(p.grad).flatten() for p in method.parameters() if p.grad is not None])
    if dist.rank() == 0:
        torch.save({"loss": dist.mean(out.loss), "grads": grads}, f"{sys.argv[1]}/{dist.size()}.pt")
    else:
        dist.mean(out.loss)
"""


def test_any_number_of_processes_mines_the_same_and_learns_the_same(tmp_path):
    (tmp_path / "each.py").write_text(TOGETHER)
    tests = __file__.rpartition("/")[0]
    teams = [start(count, [tmp_path / "each.py", tmp_path, tests], port=free_port()) for count in (1, 2)]
    assert [p.wait(90) for team in teams for p in team] == [0] * 3
    one, two = (torch.load(tmp_path / f"{n}.pt") for n in (1, 2))
    torch.testing.assert_close(two["loss"], one["loss"], rtol=0, atol=1e-10)
    torch.testing.assert_close(two["grads"], one["grads"], rtol=0, atol=1e-10)


def test_groups_and_times_come_from_arrays_beside_the_images(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    groups, times = np.arange(40) // 4, np.arange(40)[::-1].copy()
    np.savez(tmp_path / "clips.npz", x=x, groups=groups, times=times)
    session = run.prepare(Request(data=str(tmp_path / "clips.npz"), method="myow", encoder="small-w8-n2", batch_size=8, device="cpu"))
    assert {k: v.tolist() for k, v in session.rows().items()} == {"groups": groups.tolist(), "times": times.tolist()}
    views_, rows = next(iter(session.feed()(0, 1)))
    assert len(views_) == 4
    assert torch.equal(39 - rows["times"], rows["groups"] * 4 + (39 - rows["times"]) % 4)
    chosen = session.source.subset([3, 30])
    assert (chosen.groups.tolist(), chosen.times.tolist()) == ([0, 7], [36, 9])
    assert run.prepare(Request(data=str(tmp_path / "clips.npz"), encoder="small-w8-n2", batch_size=8, device="cpu")).rows() == {}
    np.savez(tmp_path / "other.npz", x=x, groups=groups)
    np.savez(tmp_path / "wrong.npz", x=x, times=times[:7])
    opened = {n: byol.data.open_source(str(tmp_path / f"{n}.npz")) for n in ("clips", "other", "wrong")}
    assert len({s.fingerprint() for s in opened.values()}) == 3
    assert opened["wrong"].times is None
    assert any("times is not used" in note for note in opened["wrong"].notes)


def test_the_recipe_holds_the_released_values():
    from byol import recipes

    facts = recipes.Facts(images=50_000, short_side=32, device="cpu", cores=2)
    plan = recipes.resolve(Request(data="x", recipe="myow-cifar10-r18", method="myow"), facts, myow.Options, views.Pipeline, views.names())
    s = plan.settings
    assert (s.batch_size * s.accumulate, s.epochs, s.lr, s.weight_decay, s.warmup_epochs) == (512, 800, 2.0, 5e-5, 30)
    defaults = {f.name: f.default for f in dataclasses.fields(myow.Options)}
    assert all(defaults[k] == v for k, v in plan.method.items())
    assert methods.rows_if_known(myow.MYOW) == ("groups", "times")
    assert dist.size() == 1
