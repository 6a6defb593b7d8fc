import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.nn.functional import normalize

from byol import geometry as geo


def cloud(n=20, seed=0, *, scale=1.0):
    return scale * torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def motion(seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(Rotation.random(rng=rng).as_matrix()), torch.tensor(rng.normal(size=3))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 30), noise=st.sampled_from([0.0, 0.1, 3.0]))
def test_procrustes_is_the_weighted_alignment_of_scipy(seed, n, noise):
    p, (R, t) = cloud(n, seed), motion(seed)
    q = geo.move(R, t, p) + noise * cloud(n, seed + 1)
    w = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.01
    found_R, found_t = geo.procrustes(p, q, w)
    share = (w / w.sum())[:, None]
    p0, q0 = p - (share * p).sum(0), q - (share * q).sum(0)
    theirs = torch.tensor(Rotation.align_vectors(q0.numpy(), p0.numpy(), weights=w.numpy())[0].as_matrix())

    def cost(R):
        return (w[:, None] * (p0 @ R.T - q0).square()).sum()

    # As good as theirs; the same one unless two fit alike.
    torch.testing.assert_close(cost(found_R), cost(theirs), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(torch.linalg.det(found_R), torch.tensor(1.0, dtype=torch.float64))
    if noise == 0.0 and n > 3:
        torch.testing.assert_close(found_R, R)
        torch.testing.assert_close(found_t, t)


def test_weights_are_normalised_and_zero_ones_do_not_count():
    p, (R, t) = cloud(), motion()
    q = geo.move(R, t, p)
    q[5:] += cloud(15, 7)
    w = torch.zeros(20)
    w[:5] = 1000
    torch.testing.assert_close(geo.procrustes(p.float(), q.float(), w)[0], R, atol=1e-5, rtol=0)
    torch.testing.assert_close(geo.procrustes(p, q, w), geo.procrustes(p, q, w / 1e5))


def test_a_mirrored_cloud_gets_a_rotation_and_no_reflection():
    p = cloud()
    R, _ = geo.procrustes(p, p * torch.tensor([-1.0, 1, 1]), torch.ones(20))
    torch.testing.assert_close(torch.linalg.det(R), torch.tensor(1.0, dtype=torch.float64))


def test_a_batch_of_clouds_is_each_cloud_on_its_own():
    p, q, w = (torch.stack([cloud(20, s + k) for s in range(4)]) for k in (0, 10, 20))
    R, t = geo.procrustes(p, q, w[..., 0].abs())
    for k in range(4):
        torch.testing.assert_close((R[k], t[k]), geo.procrustes(p[k], q[k], w[k, :, 0].abs()))


NOTHING = {
    "no points": (torch.zeros(0, 3), torch.zeros(0)),
    "one point": (torch.ones(1, 3), torch.ones(1)),
    "two points": (torch.tensor([[0.0, 0, 0], [1, 2, 3]]), torch.ones(2)),
    "no weight": (cloud().float(), torch.zeros(20)),
    "a line": (torch.linspace(0, 1, 9)[:, None] * torch.tensor([1.0, 2, 3]), torch.ones(9)),
    "one place": (torch.ones(5, 3), torch.ones(5)),
}


@pytest.mark.parametrize("case", NOTHING)
def test_points_that_do_not_say_a_rotation_give_the_identity_and_finite_gradients(case):
    p, w = (x.clone().requires_grad_() for x in NOTHING[case])
    q = (p.detach() + torch.tensor([1.0, 0, 0])).requires_grad_()
    R, t = geo.procrustes(p, q, w)
    torch.testing.assert_close(R, torch.eye(3, dtype=torch.float64))
    expected = torch.zeros(3) if float(w.detach().sum()) == 0 else torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(t.float(), expected, atol=1e-5, rtol=0)
    (geo.residuals(R, t, p.double(), q.double()).sum() + R.sum() + t.sum()).backward()
    assert all(x.grad.isfinite().all() for x in (p, q, w))


@pytest.mark.parametrize("spread", [(1.0, 0.7, 0.3), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
def test_gradients_are_those_of_finite_differences_even_where_singular_values_are_equal(spread):
    p = torch.cat([torch.diag(torch.tensor(spread)), -torch.diag(torch.tensor(spread))]).double()  # singular values: spread^2 / 3
    R, t = motion(3)
    q = geo.move(R, t, p)
    w = torch.ones(6, dtype=torch.float64)
    for x in (p, q, w):
        x.requires_grad_()
    assert torch.autograd.gradcheck(geo.procrustes, (p, q, w))


def test_the_gradient_of_a_reflected_fit_is_that_of_finite_differences():
    p, w = cloud().requires_grad_(), torch.rand(20, dtype=torch.float64).add(0.1).requires_grad_()
    q = (p.detach() * torch.tensor([-1.0, 1, 1]) + 0.1 * cloud(20, 3)).requires_grad_()
    assert torch.autograd.gradcheck(geo.procrustes, (p, q, w))


@pytest.mark.parametrize(("n", "m"), [(40, 30), (5, 50), (1, 9), (9, 1)])
def test_matches_are_nearest_neighbours_both_ways_with_the_ratio_weight(n, m):
    f0, f1 = normalize(torch.randn(n, 8, dtype=torch.float64), dim=1), normalize(torch.randn(m, 8, dtype=torch.float64), dim=1)
    i, j, w = geo.matches(f0, f1, keep=10)
    d = 1 - f0 @ f1.T
    expected = []
    for away, swap in ((d, False), (d.T, True)):
        rows = []
        for a, row in enumerate(away):
            order = sorted(range(len(row)), key=row.__getitem__)
            weight = float(1 - row[order[0]] / row[order[1]]) if len(row) > 1 else 0.0
            rows.append((-weight, a, order[0]))
        expected += [(b, a, -v) if swap else (a, b, -v) for v, a, b in sorted(rows)[:10]]
    assert len(i) == len(j) == len(w) == len(expected) == min(n, 10) + min(m, 10)
    torch.testing.assert_close(w, torch.tensor([v for *_, v in expected], dtype=torch.float64))
    if min(n, m) > 1:  # among equal weights any order is right
        assert [(int(a), int(b)) for a, b in zip(i, j, strict=True)] == [(a, b) for a, b, _ in expected]


def test_blocks_change_nothing(monkeypatch):
    # In float64: matrix products of other shapes round otherwise, and in float32 two neighbours may be too near to be told apart.
    g = torch.Generator().manual_seed(0)
    f0, f1 = (normalize(torch.randn(n, 8, dtype=torch.float64, generator=g), dim=1) for n in (70, 90))
    whole = geo.nearest(f0, f1, k=2)
    monkeypatch.setattr(geo, "_BLOCK", 300)
    assert torch.equal(geo.nearest(f0, f1, k=2), whole)


def test_features_that_are_all_the_same_match_with_weight_0_and_finite_gradients():
    f = normalize(torch.ones(6, 4), dim=1).requires_grad_()
    _, _, w = geo.matches(f, f.detach().clone(), keep=5)
    assert w.tolist() == [0.0] * 10
    w.sum().backward()
    assert f.grad.isfinite().all()
    i, j, w = geo.matches(torch.zeros(0, 4), torch.ones(3, 4), keep=5)
    assert len(i) == len(j) == len(w) == 0


def test_the_gradient_of_weights_is_that_of_finite_differences():
    f0, f1 = (normalize(torch.randn(n, 4, dtype=torch.float64), dim=1).requires_grad_() for n in (8, 9))
    assert torch.autograd.gradcheck(lambda a, b: geo.matches(a, b, keep=4)[2], (f0, f1))


def test_subsets_find_the_motion_among_wrong_matches_where_one_fit_does_not():
    p, (R, t) = cloud(100), motion()
    q = geo.move(R, t, p)
    q[:50] += cloud(50, 5, scale=2)
    u = torch.rand(100, 120, generator=torch.Generator().manual_seed(0))
    found, _ = geo.fit_by_subsets(p, q, torch.ones(100), subsets=100, share=0.05, u=u)
    once, _ = geo.procrustes(p, q, torch.ones(100))
    assert float(geo.rotation_error(found, R)) < 2 < float(geo.rotation_error(once, R))
    again = geo.fit_by_subsets(p, q, torch.ones(100), subsets=100, share=0.05, u=u)
    assert torch.equal(again[0], found)
    with pytest.raises(ValueError, match="give u"):
        geo.fit_by_subsets(p, q, torch.ones(100), subsets=5, share=0.05, u=u)


def test_subsets_of_no_match_give_the_identity():
    R, t = geo.fit_by_subsets(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), subsets=4, share=0.05, u=torch.rand(4, 0))
    assert torch.equal(R, torch.eye(3, dtype=torch.float64))
    assert t.tolist() == [0.0, 0.0, 0.0]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), exponent=st.floats(-7, 0.49))
def test_the_rotation_error_is_the_angle_from_a_millionth_of_a_degree_to_180(seed, exponent):
    angle = 10**exponent
    R, t = motion(seed)
    axis = geo.directions(torch.rand(2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    turned = R @ geo.rotation_about(axis, torch.tensor(angle, dtype=torch.float64))
    torch.testing.assert_close(geo.rotation_error(turned, R), torch.tensor(np.degrees(angle)), rtol=1e-6, atol=1e-12)
    theirs = torch.tensor(Rotation.from_rotvec(angle * axis.numpy()).as_matrix())
    torch.testing.assert_close(geo.rotation_about(axis, torch.tensor(angle, dtype=torch.float64)), theirs)
    assert float(geo.translation_error(t, t + 1)) == pytest.approx(3**0.5)


def test_directions_are_uniform_over_the_sphere():
    d = geo.directions(torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(d.norm(dim=1), torch.ones(20_000))
    torch.testing.assert_close(d.T @ d / 20_000, torch.eye(3) / 3, atol=0.01, rtol=0)
    assert d.mean(0).abs().max() < 0.02


def test_the_motion_between_two_cameras_takes_points_of_the_first_to_the_second():
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    for k in range(2):
        poses[k, :3, :3], poses[k, :3, 3] = motion(k)
    world = cloud()
    p, q = ((world - pose[:3, 3]) @ pose[:3, :3] for pose in poses)
    torch.testing.assert_close(geo.move(*geo.between(poses[0], poses[1]), p), q)
