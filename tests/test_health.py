import math

import numpy as np
import pytest
import torch

from byol import health


def projections(batch=64, dim=16, noise=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, dim, generator=g)
    return z, z + noise * torch.randn(batch, dim, generator=g)


def test_the_numbers_equal_their_definitions_in_numpy():
    z1, z2 = projections()
    m = health.measure((z1, z2))
    a, b = (x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True) for x in (z1, z2))
    assert m.spread == pytest.approx(a.std(axis=0).mean() * math.sqrt(16), abs=1e-5)
    assert m.positive_cosine == pytest.approx((a * b).sum(1).mean(), abs=1e-5)
    off = ~np.eye(64, dtype=bool)
    assert m.negative_cosine == pytest.approx(((a @ a.T)[off].mean() + (b @ b.T)[off].mean()) / 2, abs=1e-5)
    p = np.linalg.eigvalsh(np.cov(a.T))
    p = p / p.sum()
    assert m.rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


def test_isotropic_projections_are_ok():
    m = health.measure(projections())
    assert m.spread > 0.9
    assert health.verdict(m, step=500, warmup=10, lr=0.1) == ("OK", "")


def test_one_point_for_every_image_is_collapse():
    z = torch.ones(32, 8) + 1e-4 * torch.randn(32, 8)
    verdict, reason = health.verdict(health.measure((z, z)), step=500, warmup=10, lr=0.1)
    assert verdict == "COLLAPSED"
    assert "nearly the same projection" in reason


def test_one_line_for_every_image_is_collapse():
    z = torch.randn(64, 1) * torch.ones(1, 16)
    assert health.verdict(health.measure((z, z)), step=500, warmup=10, lr=0.1)[0] == "COLLAPSED"


def test_numbers_that_are_not_finite_are_collapse():
    z = torch.full((8, 4), math.nan)
    assert health.verdict(health.measure((z, z)), step=5, warmup=10, lr=0.1)[0] == "COLLAPSED"


def test_few_directions_are_a_warning_after_the_warm_up_only():
    z = torch.randn(64, 2) @ torch.diag(torch.tensor([1.0, 0.5])) @ torch.randn(2, 64)
    m = health.measure((z, z))
    assert health.verdict(m, step=5, warmup=10, lr=0.1)[0] == "OK"
    assert health.verdict(m, step=50, warmup=10, lr=0.1)[0] == "WARN"


def test_few_directions_are_no_fault_of_a_method_that_looks_for_them_and_one_point_is():
    line = torch.randn(64, 1) * torch.ones(1, 16)
    assert health.verdict(health.measure((line, line)), step=50, warmup=10, lr=0.1, directions=False) == ("OK", "")
    point = torch.ones(32, 8) + 1e-4 * torch.randn(32, 8)
    assert health.verdict(health.measure((point, point)), step=50, warmup=10, lr=0.1, directions=False)[0] == "COLLAPSED"


def test_left_out_updates_are_a_warning():
    m = health.measure(projections())
    assert health.verdict(m, step=50, warmup=10, lr=0.1, non_finite=2)[0] == "WARN"


def test_a_spread_that_falls_far_below_the_first_is_collapse_before_it_is_0():
    z = torch.ones(64, 16) + 0.2 * torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    m = health.measure((z, z))
    assert 0.1 < m.spread < 0.28
    assert health.verdict(m, step=100, warmup=500, lr=0.1, first_spread=0.82)[0] == "COLLAPSED"
    assert health.verdict(m, step=100, warmup=500, lr=0.1, first_spread=0.3)[0] == "OK"


def test_what_is_advised_is_what_the_method_has():
    bunched = health.Measurement(spread=0.2, rank=8.0, positive_cosine=0.9, negative_cosine=0.8, dim=16, batch=32)
    for options, said in (((), False), (("tau_base", "predictor"), True)):
        word, why = health.verdict(bunched, step=9, warmup=3, lr=0.1, options=options)
        assert word == "WARN"
        assert "a lower rate (lr is 0.1 now), a larger batch" in why
        assert ("tau_base" in why, "a predictor" in why, "batch norm" in why) == (said, said, False)
