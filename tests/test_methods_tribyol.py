"""TriBYOL against its loss written out, and what keeps its two targets apart."""

import copy

import pytest
import torch
from test_methods_byol import TinyEncoder
from torch.nn.functional import cosine_similarity

from byol import methods

METHOD = methods.load("tribyol")


def build(**options):
    torch.manual_seed(0)
    return METHOD(TinyEncoder(), METHOD.Config(**({"hidden": 10, "dim": 4, "tau_base": 0.9} | options))).double()


def views(seed=1, b=8):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, 2, 9, 9, dtype=torch.float64, generator=g) for _ in range(3))


def distance(p, z):
    """2 - 2 cos, one image after the other."""
    return sum(2 - 2 * cosine_similarity(p[i], z[i].detach(), 0) for i in range(len(p))) / len(p)


def written_out(m, x, symmetric):
    z = [m.predictor(m.projector(m.encoder(v))) for v in x]
    one = [m.target_projector(m.target_encoder(v)) for v in x]
    two = [m.second_target_projector(m.second_target_encoder(v)) for v in x]
    if not symmetric:
        return distance(z[0], one[1]) + distance(z[0], two[2])
    return (distance(z[0], one[1]) + distance(z[1], one[0])) / 2 + (distance(z[0], two[2]) + distance(z[2], two[0])) / 2


@pytest.mark.parametrize("symmetric", [True, False])
def test_loss_and_gradient_are_those_of_the_sum_written_out(symmetric):
    method = build(symmetric=symmetric)
    other = copy.deepcopy(method)
    expected = written_out(other, views(), symmetric)
    expected.backward()
    out = method(views())
    out.loss.backward()
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-10)
    for (name, p), q in zip(method.named_parameters(), other.named_parameters(), strict=True):
        assert (p.grad is None) == ("target" in name)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q[1].grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert method.encoder.conv.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_passes_reported_are_those_made(symmetric):
    method = build(symmetric=symmetric)
    calls = dict.fromkeys(("encoder", "target_encoder", "second_target_encoder"), 0)
    for name in calls:
        getattr(method, name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    out = method(views())
    told = method.diagnostics()
    assert told["online_passes"] == calls["encoder"]
    assert told["target_passes"] == calls["target_encoder"] + calls["second_target_encoder"]
    assert [p.shape for p in out.projections] == [(8, 4)] * 3
    assert not any(p.requires_grad for p in out.projections)


def names(method, start):
    return {n.removeprefix(start): p.detach().clone() for n, p in method.named_parameters() if n.startswith(start)}


def after(method, updates):
    """Both targets after so many updates in each of which the online network moves."""
    for k in range(updates):
        with torch.no_grad():
            for n, p in method.named_parameters():
                if "target" not in n:
                    p.add_(0.1 * (k + 1))
        method.after_step(k / 10)
    return names(method, "target_"), names(method, "second_target_")


def test_in_turns_each_target_moves_in_every_other_update_and_the_turn_is_kept_in_the_weights():
    method = build(tau_schedule="constant", target_init="copy")
    start, _ = names(method, "target_"), None
    first, second = after(method, 1)
    online = names(method, "")
    for n in start:
        torch.testing.assert_close(first[n], 0.9 * start[n] + 0.1 * online[n])
        assert torch.equal(second[n], start[n])
    again = build()
    again.load_state_dict(method.state_dict())
    third, fourth = after(again, 1)
    for n in start:
        assert torch.equal(third[n], first[n])
        torch.testing.assert_close(fourth[n], 0.9 * start[n] + 0.1 * names(again, "")[n])


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        ({"target_init": "copy", "updates": "both"}, False),
        ({"target_init": "fresh", "updates": "both"}, True),
        ({"target_init": "copy", "updates": "alternate"}, True),
        ({"target_init": "copy", "updates": "both", "second_tau_base": 0.5}, True),
    ],
)
def test_targets_that_begin_equal_and_follow_alike_stay_one_network(options, apart):
    method = build(**options)
    first, second = after(method, 4)
    assert any(not torch.equal(first[n], second[n]) for n in first) is apart
    assert bool(method.diagnostics()["targets_distance"] > 1e-4) is apart


def test_the_moving_average_touches_parameters_and_never_buffers():
    method = build()
    method(views())
    before = {n: b.clone() for n, b in method.named_buffers() if n != "updates_done"}
    method.after_step(0.3)
    assert all(torch.equal(b, before[n]) for n, b in method.named_buffers() if n != "updates_done")


def test_tau_is_constant_or_reaches_one():
    assert build(tau_schedule="constant", second_tau_base=0.8).schedule(1.0) == {"tau": 0.9, "second_tau": 0.8}
    assert build(tau_schedule="cosine").schedule(1.0) == {"tau": 1.0}
    assert build(tau_schedule="cosine").schedule(0.0) == {"tau": pytest.approx(0.9)}


def test_the_weights_name_both_targets():
    keys = build().state_dict()
    for part in ("encoder", "projector"):
        for start in ("", "target_", "second_target_"):
            assert any(k.startswith(f"{start}{part}.") for k in keys)


def test_a_target_that_is_the_online_network_is_a_risk():
    assert build().risks() == {}
    assert build(second_tau_base=0.0).risks() == {"a target is the online network itself (tau_base 0)": "tau_base=0.99"}


@pytest.mark.parametrize("options", [{"tau_base": 1.5}, {"second_tau_base": -0.1}, {"dim": 0}, {"predictor_rate": -1.0}])
def test_options_that_cannot_be_are_named_with_their_value(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"{name} is {value}; give"):
        METHOD.Config(**options)
