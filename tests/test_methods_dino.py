import math

import pytest
import torch
from equations import agree, build, layers, lightly, two_views, weights
from reference import batch_norm, encode
from torch import nn

from byol import methods
from byol.methods import View

DINO = methods.load("dino")
SMALL = {"hidden": 10, "bottleneck": 4, "dim": 7, "local_views": 2, "frozen": 0.0}


def four_views(size=8):
    g = torch.Generator().manual_seed(5)
    return (*two_views(size=size), *(torch.randn(size, 2, 5, 5, dtype=torch.float64, generator=g) for _ in "ab"))


def spread_out(method):
    """Weights as after some training, of both networks apart: those at the start are so small that all outputs are nearly one."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in method.parameters():
            p.add_(torch.randn_like(p) * 0.5)
        method.center.normal_(0, 0.1)
    return method


def outputs(w, view, prefix="", norm=False):
    x = encode(view, w, f"{prefix}encoder")
    for place in (0, 3):
        x = layers(x, w, f"{prefix}head.layers", "-" * place + "L")
        if norm:
            x = batch_norm(x, w[f"{prefix}head.layers.{place + 1}.weight"], w[f"{prefix}head.layers.{place + 1}.bias"])
        x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
    x = layers(x, w, f"{prefix}head.layers", "------L")
    last = w[f"{prefix}head.last.weight"]
    return (x / x.norm(dim=1, keepdim=True)) @ (last / last.norm(dim=1, keepdim=True)).T


def written_out(w, views, center, temperature=0.04, norm=False):
    """The mean over i in {1, 2}, v != i and images of -sum over k of softmax((t_i - c) / T)_k log softmax(s_v / 0.1)_k."""
    total, pairs = 0.0, 0
    for i in (0, 1):
        t = torch.exp((outputs(w, views[i], "target_", norm).detach() - center) / temperature)
        t = t / t.sum(1, keepdim=True)
        for v in range(len(views)):
            if v != i:
                s = torch.exp(outputs(w, views[v], norm=norm) / 0.1)
                total, pairs = total - (t * torch.log(s / s.sum(1, keepdim=True))).sum() / len(t), pairs + 1
    return total / pairs


@pytest.mark.parametrize(("local", "norm"), [(0, "none"), (2, "none"), (2, "batch")])
def test_loss_and_gradient_are_the_equation_written_out_to_1e_10(local, norm):
    method = spread_out(build(DINO, **SMALL | {"local_views": local, "head_norm": norm}))
    w, views, center = weights(method), four_views()[: 2 + local], method.center.clone()
    agree(method, method(views).loss, w, written_out(w, views, center, norm=norm == "batch"))


def test_loss_gradient_and_centre_are_lightlys():
    method, views = spread_out(build(DINO, **SMALL)), four_views()
    criterion = lightly("loss").DINOLoss(output_dim=7, center_momentum=0.9).double()
    criterion.center = method.center.clone()[None, None]
    student = [method.head.outputs(method.head(method.encoder(v))) for v in views]
    with torch.no_grad():
        teacher = [method.target_head.outputs(method.target_head(method.target_encoder(v))) for v in views[:2]]
    theirs, loss = criterion(teacher, student, teacher_temp=0.04), method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-7)  # its temperature is a float32
    parameters = [p for p in method.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    torch.testing.assert_close(method.center, criterion.center[0, 0], rtol=0, atol=1e-10)


def test_the_centre_is_the_moving_mean_of_the_teacher_over_whole_views_and_counts_from_the_next_pass_on():
    method, views = spread_out(build(DINO, **SMALL)), four_views()
    w, before = weights(method), method.center.clone()
    loss = method(views).loss
    mean = torch.cat([outputs(w, v, "target_") for v in views[:2]]).mean(0)
    torch.testing.assert_close(method.center, 0.9 * before + 0.1 * mean, rtol=0, atol=1e-12)
    assert loss.item() == pytest.approx(written_out(w, views, before).item(), abs=1e-10)


def test_the_teacher_sees_the_whole_views_alone_and_begins_as_the_student():
    method, seen = build(DINO, **SMALL), []
    method.target_encoder.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[-1]))
    method(four_views())
    assert seen == [9, 9]
    for network, follower in ((method.encoder, method.target_encoder), (method.head, method.target_head)):
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), follower.parameters(), strict=True))


def test_the_teacher_follows_by_tau_from_its_base_to_one():
    method = spread_out(build(DINO, **SMALL, tau_base=0.9))
    pairs = list(zip(method.head.parameters(), method.target_head.parameters(), strict=True))
    for progress, tau in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        expected = [tau * t + (1 - tau) * s for s, t in pairs]
        method.after_step(progress)
        assert method.schedule(progress)["tau"] == pytest.approx(tau)
        for (_, t), e in zip(pairs, expected, strict=True):
            torch.testing.assert_close(t, e, rtol=0, atol=1e-12)


def test_the_temperature_of_the_teacher_goes_from_its_start_to_its_end():
    method = build(DINO, **SMALL, teacher_temperature=0.07, teacher_temperature_start=0.04, teacher_warmup=0.5)
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        method.after_step(progress)
        found.append(method._temperature().item())
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_the_last_layer_stays_for_its_share_of_the_run():
    method = build(DINO, **SMALL | {"frozen": 0.5})
    for progress, moves in ((0.4, False), (0.5, True)):
        method.after_step(progress)
        method.zero_grad()
        method(four_views()).loss.backward()
        assert bool((method.head.last.weight.grad != 0).any()) is moves
        assert all((p.grad != 0).any() for p in method.encoder.parameters() if p.ndim > 1)


def test_either_collapse_shows_in_the_entropy_of_the_teacher():
    method, views = build(DINO, **SMALL), four_views()
    with torch.no_grad():
        for p in method.target_head.last.parameters():
            p.copy_(p[:1].expand_as(p))  # all outputs alike
    metrics = method(views).metrics
    assert metrics["teacher_entropy"].item() == pytest.approx(1.0, abs=1e-9)
    method.center.zero_()
    method.center[0] = -100.0  # one output always
    assert method(views).metrics["teacher_entropy"].item() == pytest.approx(0.0, abs=1e-9)


def test_the_divergence_is_that_of_the_teacher_from_the_student():
    method, views = spread_out(build(DINO, **SMALL)), four_views()
    w, center = weights(method), method.center.clone()
    t = ((outputs(w, views[0], "target_") - center) / 0.04).softmax(1)
    s = (outputs(w, views[1]) / 0.1).log_softmax(1)
    expected = nn.functional.kl_div(s, t, reduction="batchmean")
    assert method(views).metrics["teacher_student_kl"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_views_follow_from_the_options():
    assert methods.views_of(DINO) == (View(0), View(1), *(View(0, local=True),) * 8)
    assert methods.views_of(DINO, DINO.Config(local_views=0)) == methods.BOTH


def test_what_ends_in_collapse_is_a_risk_and_bad_options_are_refused_in_words():
    assert not build(DINO, **SMALL).risks()
    risky = build(DINO, **SMALL, center_momentum=1.0, teacher_temperature=0.1, tau_base=0.0).risks()
    assert list(risky.values()) == ["center_momentum=0.9", "teacher_temperature=0.04", "tau_base=0.996"]
    with pytest.raises(ValueError, match="dim is 1, and a softmax takes a choice; give 2 or more"):
        DINO.Config(dim=1)
    with pytest.raises(ValueError, match="frozen is 2; give a number from 0 to 1"):
        DINO.Config(frozen=2)
