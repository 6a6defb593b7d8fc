"""BYOC against a plain transcription of its losses, and what it does with frames that say little."""

import numpy as np
import pytest
import torch
from rgbd_frames import encoder, frames, moved
from scipy.spatial.transform import Rotation
from torch import nn

from byol import dist, geometry, health, methods, optim
from byol.methods import byoc

BYOC = methods.load("byoc")


def build(name="byoc-w16-v200", **options):
    torch.manual_seed(0)
    return BYOC(encoder(name=name), BYOC.Config(**options))


def pairs(n=4, size=8, seed=3):
    x = frames(n, size, seed=seed)
    y, R, t = moved(x)
    return x, y, R, t


def matched(f, g, keep):
    """Nearest neighbours both ways, one at a time: (i, j, w)."""
    d = 1 - f @ g.T
    found = []
    for away, swap in ((d, False), (d.T, True)):
        rows = []
        for a, row in enumerate(away):
            first, second = row.detach().argsort()[:2]
            # No weight to a row that is exactly as near to two.
            rows.append((1 - row[first] / row[second] if row[second] > 1e-12 else 0 * row[first], a, int(first)))
        rows.sort(key=lambda r: -float(r[0].detach()))
        found += [(w, b, a) if swap else (w, a, b) for w, a, b in rows[:keep]]
    return [a for _, a, _ in found], [b for *_, b in found], torch.stack([w for w, *_ in found])


def fitted(p, q, w):
    """Umeyama's formulas in torch's own differentiable SVD."""
    w = (w / w.sum())[:, None]
    a, b = (w * p).sum(0), (w * q).sum(0)
    U, _, Vt = torch.linalg.svd(((p - a) * w).T @ (q - b))
    D = torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det((Vt.T @ U.T).detach())))], dtype=p.dtype))
    R = Vt.T @ D @ U.T
    return R, b - R @ a


def transcribed(method, x, y, keep):
    """The three losses of one pair, without any turning, from the text of the paper."""
    net, predictor = method.encoder.net, method.predictor
    sides = []
    for frame, visual in ((x, net.visual(x[None])[0]), (y, net.visual(y[None])[0])):
        seen, points = set(), []
        for v in range(frame.shape[1]):
            for u in range(frame.shape[2]):
                cell = tuple(np.floor(frame[3:, v, u].numpy() / net.shape.voxel).astype(int))
                if frame[5, v, u] > 0 and cell not in seen:
                    seen.add(cell)
                    points.append((v, u))
        at = tuple(torch.tensor(points).T)
        sides.append((frame[3:][:, *at].T, visual[:, *at].T))
    (p, f), (q, g) = sides
    (a,), (b,) = net.geometric([p]), net.geometric([q])

    def distances(i, j, w):
        R, t = fitted(p[i], q[j], w)
        return (p[i] @ R.T + t - q[j]).norm(dim=1)

    i, j, w = matched(f, g, keep)
    l_vis = (w * distances(i, j, w)).sum() / w.sum()
    gi, gj, gw = matched(a, b, keep)
    l_geo = distances(gi, gj, gw).mean()
    cos = nn.functional.cosine_similarity
    l_v2g = 4 - (2 + cos(a[i].detach(), predictor(b[j])) + cos(predictor(a[i]), b[j].detach())).mean()
    return l_vis, l_geo, l_v2g


def test_losses_and_all_gradients_are_those_of_a_plain_transcription():
    keep, weights = 12, {"visual": 0.7, "geometric": 1.3, "transfer": 0.4}
    method = build(rotate=0.0, shift=0.0, keep=keep, **weights).double()
    x, y, *_ = pairs(1)
    x, y = x.double(), y.double()
    y[:, :3] += torch.randn(y[:, :3].shape, generator=torch.Generator().manual_seed(0))  # so that some visual matches are wrong
    net, seen = method.encoder.net, []
    visual = net.visual

    def watched(view):
        seen.append(visual(view))
        seen[-1].retain_grad()
        return seen[-1]

    net.visual = watched
    out = method((x, y))
    out.loss.backward()
    ours = {n: p.grad.clone() for n, p in method.named_parameters()}
    method.zero_grad()
    losses = dict(zip(weights, transcribed(method, x[0], y[0], keep), strict=True))
    for name, value in losses.items():
        torch.testing.assert_close(out.metrics[f"loss_{name}"], value.detach(), rtol=1e-6, atol=1e-9)
    theirs = sum(weights[name] * value for name, value in losses.items())
    theirs.backward()
    torch.testing.assert_close(out.loss, theirs)
    for name, p in method.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
    for mine, other in zip(seen[:2], seen[2:], strict=True):
        # Along the sphere: what would make a feature longer is not said by a cosine.
        a, b = (f.grad - (f.grad * f.detach()).sum(1, keepdim=True) * f.detach() for f in (mine, other))
        assert float(a.abs().max()) > 1e-4
        torch.testing.assert_close(a, b)


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs_and_each_view_has_its_own_batch_norm():
    method = build(rotate=0.0, shift=0.0).eval().double()
    x, y = (view.double() for view in pairs()[:2])
    whole = method((x, y))
    each = [method((x[k : k + 1], y[k : k + 1])).loss for k in range(4)]
    torch.testing.assert_close(whole.loss, torch.stack(each).mean())
    assert {p.shape for p in whole.projections} == {(4 * 32, 32)}


def test_a_cloud_is_turned_and_moved_before_its_geometric_features_and_matched_where_it_was():
    method, seen = build(), []
    given = method.encoder.net.geometric
    method.encoder.net.geometric = lambda points: seen.append(points) or given(points)
    x, y, *_ = pairs()
    torch.manual_seed(1)
    method((x, y))
    first, second = seen
    for frame, points in zip(x, first, strict=True):
        where = frame[3:].flatten(1).T
        assert all((where == p).all(1).any() for p in points), "the first cloud stays"
    angles = []
    for frame, points in zip(y, second, strict=True):
        where = frame[3:].flatten(1).T[frame[5].flatten() > 0]
        R, t = method._motions(_draws(method, len(x), 1))
        found = [geometry.move(R[k], t[k], where) for k in range(len(x))]
        k = min(range(len(x)), key=lambda k: float((found[k][0] - points[0]).norm()))
        assert all(((found[k] - p).norm(dim=1) < 1e-5).any() for p in points)
        angle = float(geometry.rotation_error(R[k], torch.eye(3)))
        assert 0 < angle <= np.degrees(1.4) + 1e-3
        assert 0 < float(t[k].norm()) <= 0.5
        angles.append(angle)
    assert len(set(angles)) == 4, "each pair its own"


def _draws(method, share, seed):
    torch.manual_seed(seed)
    return method._draws(share, 64, torch.zeros(()))


def test_a_turn_of_the_cloud_does_not_change_the_pose_that_is_found():
    x, y, R, t = pairs(1, 16)
    for rotate in (0.0, 0.7):
        method = build("byoc-w16-v10", rotate=rotate, shift=0.5 * (rotate > 0))  # each pixel a cell of its own
        found = []
        fit = geometry.procrustes
        try:
            geometry.procrustes = lambda *a, fit=fit, found=found: found.append(fit(*a)) or found[-1]
            method((x, y))
        finally:
            geometry.procrustes = fit
        # Colours are the same in both frames, so that visual matches are right: the first fit is the motion of the camera.
        torch.testing.assert_close(found[0][0].detach(), R[0].double(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found[0][1].detach(), t[0].double(), atol=1e-4, rtol=0)


def test_without_turning_the_second_cloud_is_as_it_is():
    c = byoc.cloud(frames(1)[0], encoder().net, torch.eye(3), torch.zeros(3))
    assert torch.equal(c.points, c.moved)
    method = build(rotate=0.0, shift=0.0)
    R, t = method._motions(_draws(method, 5, 0))
    torch.testing.assert_close(R, torch.eye(3).expand(5, 3, 3))
    assert not t.any()


def test_half_angles_are_uniform_as_in_the_quaternion_of_the_paper():
    method = build()
    R, t = method._motions(torch.rand(4000, 6, generator=torch.Generator().manual_seed(0)))
    turns = Rotation.from_matrix(R.double().numpy()).magnitude() / 2
    assert np.abs(np.quantile(turns, [0.25, 0.5, 0.75]) - 0.7 * np.array([0.25, 0.5, 0.75])).max() < 0.02
    assert np.abs(np.quantile(t.norm(dim=1).numpy(), [0.25, 0.5, 0.75]) - 0.5 * np.array([0.25, 0.5, 0.75])).max() < 0.02


def test_a_part_of_the_cells_is_drawn_anew_at_each_step():
    method = build(points=20)
    x, y, *_ = pairs()
    c = byoc.cloud(x[0], method.encoder.net)
    assert len(c.points) > 20
    sides = [
        method._side(c, torch.rand(64, 32), torch.rand(len(c.points), 32), _draws(method, 4, seed), 0, k)
        for seed, k in ((0, 0), (1, 0), (0, 1))
    ]
    assert [len(s.points) for s in sides] == [20] * 3
    assert not torch.equal(sides[0].points, sides[1].points)
    assert not torch.equal(sides[0].points, sides[2].points)
    assert method((x, y)).loss.isfinite()


EMPTY = {
    "the first has no point": lambda x, y: (x * 0, y),
    "neither has any": lambda x, y: (x * 0, y * 0),
    "one pair has none": lambda x, y: (x * torch.tensor([0.0, 1, 1, 1])[:, None, None, None], y),
    "a single point": lambda x, y: (x * (torch.arange(64).view(8, 8) == 27), y),
    "two points": lambda x, y: (x * (torch.arange(64).view(8, 8) // 2 == 13), y),
    "all colours the same": lambda x, y: (torch.cat([0 * x[:, :3], x[:, 3:]], 1), torch.cat([0 * y[:, :3], y[:, 3:]], 1)),
    "nothing in common": lambda x, y: (x, torch.cat([torch.randn_like(y[:, :3]), 3 * y[:, 3:].flip(2, 3)], 1)),
    "a line": lambda x, y: (x * (torch.arange(64).view(8, 8) % 8 == 4), y * (torch.arange(64).view(8, 8) % 8 == 4)),
}


@pytest.mark.parametrize("case", EMPTY)
def test_frames_that_say_little_have_a_finite_loss_and_finite_gradients(case):
    method = build()
    x, y, *_ = pairs()
    out = method(EMPTY[case](x, y))
    out.loss.backward()
    assert out.loss.isfinite()
    assert all(v.isfinite() for v in out.metrics.values())
    assert all(p.isfinite().all() for p in out.projections)
    # Also where nothing is matched there is a gradient, of 0: every process must have one of every parameter.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_health_sees_geometric_features_that_are_all_the_same():
    method = build()
    x, y, *_ = pairs(size=16)
    assert health.measure(method((x, y)).projections).spread > 0.25
    with torch.no_grad():
        last = method.encoder.net.cloud.header[-1].linear
        last.weight.zero_()
        last.bias.fill_(1.0)
    m = health.measure(method((x, y)).projections)
    assert health.verdict(m, step=100, warmup=1, lr=0.1)[0] == "COLLAPSED"


def test_a_few_updates_bring_matched_points_together():
    method = build(points=0)
    x, y, *_ = pairs(4, 16)
    noisy = torch.cat([y[:, :3] + 0.7 * torch.randn_like(y[:, :3]), y[:, 3:]], 1)  # so that not all matches are right at once
    optimizer = optim.make("adam", method.param_groups(), lr=3e-3, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3, eps=1e-4)
    losses = []
    for step in range(30):
        torch.manual_seed(step)
        out = method((x, noisy))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        losses.append({k: float(v) for k, v in out.metrics.items()})
    for key in ("loss_visual", "loss_transfer"):
        assert np.mean([row[key] for row in losses[-5:]]) < 0.9 * np.mean([row[key] for row in losses[:5]]), key


def test_a_process_draws_what_the_only_one_would_for_its_pairs(monkeypatch):
    method = build(points=5)
    whole = _draws(method, 4, 7)
    monkeypatch.setattr(dist, "size", lambda: 2)
    monkeypatch.setattr(dist, "from_first_tensors", lambda tensors: None)
    for rank in (0, 1):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        torch.testing.assert_close(_draws(method, 2, 7), whole[2 * rank : 2 * rank + 2])


@pytest.mark.parametrize("options", [{"keep": 2}, {"points": -1}, {"rotate": -0.1}, {"shift": 3.0}, {"transfer": float("nan")}])
def test_options_that_cannot_be_get_one_sentence(options):
    with pytest.raises(ValueError, match="; give ") as told:
        BYOC.Config(**options)
    assert "\n" not in str(told.value)


def test_another_encoder_gets_one_sentence():
    net = nn.Conv2d(6, 6, 3)
    net.dim = 6
    with pytest.raises(ValueError, match="byoc needs an encoder of RGB-D frames, and Conv2d is none; give --encoder byoc or byoc-w16"):
        BYOC(net)
