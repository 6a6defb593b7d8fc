import numpy as np
import torch

from byol.losses import regression_loss


def test_the_loss_is_two_minus_twice_the_cosine_of_equation_2():
    g = np.random.default_rng(0)
    p, z = g.normal(size=(7, 5)), g.normal(size=(7, 5))
    expected = np.mean([np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) for a, b in zip(p, z, strict=True)])
    assert abs(regression_loss(torch.tensor(p), torch.tensor(z)).item() - expected) < 1e-12


def test_its_gradient_equals_the_derivative_worked_out_by_hand():
    g = torch.Generator().manual_seed(0)
    p = torch.randn(4, 6, dtype=torch.float64, generator=g, requires_grad=True)
    z = torch.randn(4, 6, dtype=torch.float64, generator=g)
    regression_loss(p, z).backward()
    for row, target, grad in zip(p.detach(), z, p.grad, strict=True):
        n, t = row / row.norm(), target / target.norm()
        by_hand = -2 * (t - (n @ t) * n) / row.norm() / len(p)
        torch.testing.assert_close(grad, by_hand, rtol=1e-12, atol=1e-12)


def test_no_gradient_reaches_the_target():
    p, z = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    regression_loss(p, z).backward()
    assert z.grad is None
    assert p.grad is not None


def test_a_zero_vector_gives_a_finite_loss_and_gradient():
    p = torch.zeros(2, 3, requires_grad=True)
    loss = regression_loss(p, torch.ones(2, 3))
    loss.backward()
    assert loss.item() == 2
    assert p.grad.isfinite().all()


def test_the_loss_lies_between_0_for_equal_and_4_for_opposite_directions():
    x = torch.randn(5, 8, dtype=torch.float64)
    assert abs(regression_loss(3 * x, x).item()) < 1e-12
    assert abs(regression_loss(-x, 2 * x).item() - 4) < 1e-12
