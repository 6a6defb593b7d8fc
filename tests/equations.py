"""What the parity tests of several methods share: float64 weights by name, views, and heads written out from the equations."""

import warnings

import pytest
import torch
from reference import batch_norm
from sklearn.datasets import load_digits
from test_methods_byol import TinyEncoder
from torch import nn


def build(cls, **options):
    torch.manual_seed(0)
    return cls(TinyEncoder(), cls.Config(**options)).double()


def two_views(seed=1, size=8):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, 2, 9, 9, dtype=torch.float64, generator=g) for _ in "vw")


def weights(method):
    """Every parameter by its name, free to take a gradient of its own."""
    return {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in method.named_parameters()}


def layers(x, w, prefix, kinds):
    """A head: `kinds` says what stands at each place, L linear, B batch norm, N batch norm without scale and shift, R ReLU, - nothing."""
    for place, kind in enumerate(kinds):
        name = f"{prefix}.{place}"
        if kind == "L":
            x = x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros((), dtype=x.dtype))
        elif kind == "R":
            x = x * (x > 0)
        elif kind == "B":
            x = batch_norm(x, w[f"{name}.weight"], w[f"{name}.bias"])
        elif kind == "N":
            x = batch_norm(x, torch.ones(x.shape[1], dtype=x.dtype), torch.zeros(x.shape[1], dtype=x.dtype))
    return x


def cosine(a, b):
    """(D,), (D,) -> ()"""
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def agree(method, loss, w, transcribed, bound=1e-10):
    """Both losses and the gradients of both are the same; what has none in one has none in the other."""
    assert loss.item() == pytest.approx(transcribed.item(), abs=bound)
    learning = {name: p for name, p in method.named_parameters() if p.requires_grad}
    ours = torch.autograd.grad(loss, list(learning.values()))
    theirs = torch.autograd.grad(transcribed, [w[name] for name in learning])
    for name, a, b in zip(learning, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=bound, msg=lambda m, name=name: f"{name}: {m}")
    assert max(g.abs().max() for g in ours) > 1e-3, "gradients must be there, or the comparison shows nothing"


def overfits(cls, steps=250, **options):
    """The mean squared error of 16 digits, in standard deviations, after so many updates with them alone."""
    torch.manual_seed(0)
    x = digits(16)
    encoder = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 64))
    encoder.dim = 64
    method = cls(encoder, cls.Config(hidden=64, channels=1, size=8, **options))
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.zero_grad()
        out = method((x,))
        out.loss.backward()
        optimizer.step()
        method.after_step(step / steps)
    return (out.metrics.get("mse", out.loss)).item()


def digits(n):
    """(n, 1, 8, 8): normalised as views are."""
    x = torch.from_numpy(load_digits().images[:n]).float()[:, None]
    return (x - x.mean()) / x.std()


def lightly(module):
    """A module of lightly, or the test is skipped; its own warnings on import are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"lightly.{module}", exc_type=ImportError)
