import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from byol import methods, optim


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))


def lars_in_numpy(p, m, g, *, lr, wd, exclude, eta=1e-3, momentum=0.9):
    """The released code's order: decay, trust ratio, momentum, rate."""
    if not exclude:
        g = g + wd * p
        p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(g)
        g = g * (eta * p_norm / g_norm if p_norm > 0 and g_norm > 0 else 1.0)
    m = momentum * m + g
    return p - lr * m, m


def test_lars_equals_the_reference_over_5_steps_with_excluded_parameters():
    net = small_net().double()
    names = [n for n, _ in net.named_parameters()]
    excluded = {"0.bias", "1.weight", "1.bias", "3.bias", "4.weight", "4.bias"}
    ours = optim.LARS(optim.param_groups(net), lr=0.0, weight_decay=0.1)
    values = {n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    moments = {n: np.zeros_like(v) for n, v in values.items()}
    noise = np.random.default_rng(0)
    for k in range(5):
        for group in ours.param_groups:
            group["lr"] = 0.3 + 0.1 * k
        for n, p in net.named_parameters():
            g = noise.normal(size=p.shape)
            p.grad = torch.tensor(g)
            values[n], moments[n] = lars_in_numpy(values[n], moments[n], g, lr=0.3 + 0.1 * k, wd=0.1, exclude=n in excluded)
        ours.step()
    for n, p in zip(names, net.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), values[n], rtol=1e-12, atol=1e-12, err_msg=n)


@pytest.mark.parametrize(("weight", "grad"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_trust_ratio_is_1_where_a_norm_is_0(weight, grad):
    p = nn.Parameter(torch.full((3,), weight, dtype=torch.float64))
    p.grad = torch.full((3,), grad, dtype=torch.float64)
    optim.LARS([p], lr=0.5).step()
    assert torch.equal(p.detach(), torch.full((3,), weight - 0.5 * grad, dtype=torch.float64))


def test_the_gradient_that_lars_read_is_left_as_it_was():
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.full((3,), 2.0)
    optim.LARS([p], lr=0.5, weight_decay=0.1).step()
    assert torch.equal(p.grad, torch.full((3,), 2.0))


def test_biases_and_every_normalisation_parameter_are_excluded_and_nothing_else():
    net = small_net()
    groups = {g["exclude"]: {id(p) for p in g["params"]} for g in optim.param_groups(net)}
    assert groups[False] == {id(net[0].weight), id(net[3].weight), id(net[5].weight)}
    assert groups[True] == {id(p) for p in net.parameters()} - groups[False]


def test_parameters_without_gradient_are_in_no_group():
    net = small_net()
    net[0].requires_grad_(False)
    listed = {id(p) for g in optim.param_groups(net) for p in g["params"]}
    assert not listed & {id(p) for p in net[0].parameters()}


def test_adam_is_torchs_with_its_eps_and_the_decay_in_the_gradient():
    net, theirs = small_net().double(), small_net().double()
    theirs.load_state_dict(net.state_dict())
    ours = optim.make("adam", optim.param_groups(net), lr=0.01, weight_decay=0.1, momentum=0.9, trust_coefficient=1e-3, eps=1e-4)
    decay = [{"params": [p], "weight_decay": 0.0 if p.ndim == 1 else 0.1} for p in theirs.parameters()]
    other = torch.optim.Adam(decay, lr=0.01, eps=1e-4)
    for _ in range(3):
        for p, q in zip(net.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, dtype=p.dtype)
            q.grad = p.grad.clone()
        ours.step()
        other.step()
    for p, q in zip(net.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", ["lars", "sgd", "adam", "adamw"])
def test_no_optimizer_decays_an_excluded_parameter(name):
    net = nn.Linear(3, 3).double()
    optimizer = optim.make(name, optim.param_groups(net), lr=0.1, weight_decay=0.5, momentum=0.9, trust_coefficient=1e-3)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(net.bias, before["bias"])
    assert not torch.equal(net.weight, before["weight"])


def test_the_rate_rises_from_0_over_the_warm_up_and_falls_along_half_a_cosine():
    rates = [optim.learning_rate(k, peak=2.0, warmup=10, total=110) for k in range(110)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(2.0)
    for k in range(10, 110):
        assert rates[k] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * (k - 10) / 100)))
    assert max(rates) == rates[10]


def test_a_constant_rate_stays_at_its_peak_after_the_warm_up_and_a_constant_tau_where_it_began():
    rates = [optim.learning_rate(k, peak=2.0, warmup=4, total=20, schedule="constant") for k in range(20)]
    assert rates == [0.0, 0.5, 1.0, 1.5, *[2.0] * 16]
    assert {optim.target_momentum(k / 20, 0.99, "constant") for k in range(21)} == {0.99}


@pytest.mark.parametrize("name", methods.names())
def test_every_method_with_a_moving_average_can_have_a_constant_tau(name):
    cls = methods.load(name)
    if "tau_base" in (known := {f.name for f in dataclasses.fields(cls.Config)}):
        options = {"tau_base": 0.9, "tau_schedule": "constant", "hidden": 8, "dim": 4}
        net = small_net()
        net.dim = 2
        method = cls(net, cls.Config(**options))
        assert [method.schedule(progress)["tau"] for progress in (0.0, 0.5, 1.0)] == [0.9] * 3
    assert ("tau_base" in known) == ("tau_schedule" in known)


@pytest.mark.parametrize("base", [0.0, 0.9, 0.996, 1.0])
def test_tau_follows_the_cosine_at_every_step(base):
    for k in range(50):
        assert optim.target_momentum(k / 50, base) == pytest.approx(1 - (1 - base) * (math.cos(math.pi * k / 50) + 1) / 2, abs=1e-15)
    assert optim.target_momentum(0.0, base) == pytest.approx(base)
    assert optim.target_momentum(1.0, base) == 1


def test_a_closure_runs_with_gradients_and_its_loss_comes_back():
    p = nn.Parameter(torch.ones(2))
    optimizer = optim.LARS([{"params": [p], "exclude": True}], lr=0.1)

    def closure():
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.8))


def test_impossible_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="momentum in"):
        optim.LARS([nn.Parameter(torch.ones(1))], lr=0.1, momentum=1.0)
    with pytest.raises(ValueError, match="lars, sgd, adam or adamw"):
        optim.make("adagrad", [], lr=0.1, weight_decay=0, momentum=0.9, trust_coefficient=1e-3)


def test_lightlys_cifar_recipe_takes_lightlys_steps_though_its_loss_is_a_quarter_of_ours():
    from torch.nn.functional import cosine_similarity

    from byol import recipes
    from byol.losses import regression_loss

    ours = recipes.load("cifar10-r18-sgd").choose(recipes.Facts(images=50_000, short_side=32, device="cpu", cores=2)).values
    g = torch.Generator().manual_seed(0)
    x, z = (torch.randn(8, 5, dtype=torch.float64, generator=g) for _ in "xz")
    start = torch.randn(5, 5, dtype=torch.float64, generator=g)
    ends = []
    for lr, decay, loss in (
        (0.06, 5e-4, lambda p: -0.5 * 2 * cosine_similarity(p, z).mean()),  # lightly at batch 128, both directions alike
        (ours["lr"] * 128 / 256, ours["weight_decay"], lambda p: 2 * regression_loss(p, z)),
    ):
        w = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([w], lr=lr, momentum=0.9, weight_decay=decay)
        for _ in range(5):
            optimizer.zero_grad()
            loss(x @ w).backward()
            optimizer.step()
        ends.append(w.detach())
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)
