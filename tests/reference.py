"""BYOL written a second time, from the equations alone: parameters in dictionaries, no code of the package.

An update is the released code's: both views through both networks, the loss of both directions, LARS, then tau and the target.
"""

import math

import torch
import torch.nn.functional as F


def batch_norm(x, scale, offset):
    axes = [d for d in range(x.ndim) if d != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale.view(shape) + offset.view(shape)


def head(x, w, prefix):
    h = x @ w[f"{prefix}.0.weight"].T + w[f"{prefix}.0.bias"]
    h = torch.relu(batch_norm(h, w[f"{prefix}.1.weight"], w[f"{prefix}.1.bias"]))
    return h @ w[f"{prefix}.3.weight"].T


def encode(x, w, prefix="encoder"):
    """The small encoder of the tests: convolution, batch norm, ReLU, mean over the image."""
    h = F.conv2d(x, w[f"{prefix}.conv.weight"], stride=2)
    return torch.relu(batch_norm(h, w[f"{prefix}.norm.weight"], w[f"{prefix}.norm.bias"])).mean((2, 3))


def loss_of(online, target, v1, v2):
    def cosine(a, b):
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))

    p1, p2 = (head(head(encode(v, online), online, "projector"), online, "predictor") for v in (v1, v2))
    with torch.no_grad():
        t1, t2 = (head(encode(v, target), target, "projector") for v in (v1, v2))
    return ((2 - 2 * cosine(p1, t2)) + (2 - 2 * cosine(p2, t1))).mean()


def excluded(name):
    return name.endswith("bias") or ".norm." in name or ".1." in name


def trajectory(online, target, batches, *, steps, warmup, peak, weight_decay, tau_base, accumulate=1):
    """(online, target, losses) after `steps` updates; `batches[k]` is a list of `accumulate` pairs of views."""
    online = {k: v.clone() for k, v in online.items()}
    target = {k: v.clone() for k, v in target.items()}
    moments = {k: torch.zeros_like(v) for k, v in online.items()}
    losses = []
    for k in range(steps):
        w = {n: v.clone().requires_grad_() for n, v in online.items()}
        loss = sum(loss_of(w, target, v1, v2) for v1, v2 in batches[k]) / accumulate
        gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))
        lr = peak * k / warmup if k < warmup else peak * (1 + math.cos(math.pi * (k - warmup) / (steps - warmup))) / 2
        for n, p in online.items():
            g = gradients[n]
            if not excluded(n):
                g = g + weight_decay * p
                g = g * (1e-3 * p.norm() / g.norm())
            moments[n] = 0.9 * moments[n] + g
            online[n] = p - lr * moments[n]
        tau = 1 - (1 - tau_base) * (math.cos(math.pi * k / steps) + 1) / 2
        target = {n: tau * v + (1 - tau) * online[n] for n, v in target.items()}
        losses.append(loss.item())
    return online, target, losses
