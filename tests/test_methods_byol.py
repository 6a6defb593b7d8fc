import copy

import pytest
import reference
import torch
from torch import nn

from byol import methods, optim

BYOL = methods.load("byol")
STEPS, WARMUP, PEAK, DECAY, TAU = 15, 3, 20.0, 1e-2, 0.9


class TinyEncoder(nn.Module):
    dim = 6

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean((2, 3))

    def reset_parameters(self):
        self.conv.reset_parameters()
        self.norm.reset_parameters()


def build(**config):
    torch.manual_seed(0)
    return BYOL(TinyEncoder(), BYOL.Config(**({"hidden": 10, "dim": 4, "tau_base": TAU} | config))).double()


def batches(accumulate=1):
    g = torch.Generator().manual_seed(1)
    return [
        [tuple(torch.randn(8, 2, 9, 9, dtype=torch.float64, generator=g) for _ in "vw") for _ in range(accumulate)] for _ in range(STEPS)
    ]


def train(method, data):
    """The loop as a user would write it from the parts."""
    optimizer = optim.LARS(optim.param_groups(method), lr=0.0, weight_decay=DECAY)
    losses = []
    for k, passes in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = optim.learning_rate(k, peak=PEAK, warmup=WARMUP, total=STEPS)
        optimizer.zero_grad()
        total = sum(method(views).loss / len(passes) for views in passes)
        total.backward()
        optimizer.step()
        method.after_step(k / STEPS)
        losses.append(total.item())
    return losses


def split(method):
    """The online and the target parameters under the same names."""
    w = {n: p.detach().clone() for n, p in method.named_parameters()}
    online = {n: p for n, p in w.items() if not n.startswith("target_")}
    target = {n.removeprefix("target_"): p for n, p in w.items() if n.startswith("target_")}
    return online, target


@pytest.mark.parametrize("accumulate", [1, 3])
def test_fifteen_updates_equal_the_reference_to_1e_9(accumulate):
    method, data = build(), batches(accumulate)
    online, target = split(method)
    expected_online, expected_target, expected_losses = reference.trajectory(
        online, target, data, steps=STEPS, warmup=WARMUP, peak=PEAK, weight_decay=DECAY, tau_base=TAU, accumulate=accumulate
    )
    losses = train(method, data)
    online_after, target_after = split(method)
    assert losses == pytest.approx(expected_losses, abs=1e-9)
    for n, p in expected_online.items():
        torch.testing.assert_close(online_after[n], p, rtol=0, atol=1e-9, msg=lambda m, n=n: f"{n}: {m}")
    for n, p in expected_target.items():
        torch.testing.assert_close(target_after[n], p, rtol=0, atol=1e-9, msg=lambda m, n=n: f"target {n}: {m}")
    moved = max((online_after[n] - online[n]).abs().max() for n in online)
    assert moved > 1e-3, "the trajectory must move, or the comparison shows nothing"


def test_the_loss_is_the_sum_of_both_directions():
    method = build()
    v, w = batches()[0][0]
    online, target = split(method)
    assert method((v, w)).loss.item() == pytest.approx(reference.loss_of(online, target, v, w).item(), abs=1e-12)


def test_the_target_gets_no_gradient():
    method = build()
    method(batches()[0][0]).loss.backward()
    target = [p for n, p in method.named_parameters() if n.startswith("target_")]
    assert target
    assert all(p.grad is None and not p.requires_grad for p in target)
    assert all(p.grad is not None for n, p in method.named_parameters() if not n.startswith("target_"))


def test_the_target_runs_in_train_mode_on_its_own_batch_statistics():
    method = build()
    v, w = batches()[0][0]
    mean_v, mean_w = (method.target_encoder.conv(x).mean((0, 2, 3)).detach() for x in (v, w))
    method((v, w))
    # Two passes, one per view: the running mean after each is 0.9 of before plus 0.1 of that view's own mean.
    torch.testing.assert_close(method.target_encoder.norm.running_mean, 0.9 * (0.1 * mean_v) + 0.1 * mean_w)


def test_batch_norm_sees_one_view_at_a_time():
    method = build()
    v, w = batches()[0][0]
    method((v, w + 5))
    assert method.encoder.norm.num_batches_tracked.item() == 2
    means = [method.encoder.conv(x).mean((0, 2, 3)).detach() for x in (v, w + 5)]
    torch.testing.assert_close(method.encoder.norm.running_mean, 0.09 * means[0] + 0.1 * means[1])


def test_the_moving_average_touches_parameters_and_never_buffers():
    method = build()
    method(batches()[0][0])
    with torch.no_grad():
        method.encoder.norm.running_mean += 7
    before = {n: b.clone() for n, b in method.named_buffers()}
    method.after_step(0.5)
    for n, b in method.named_buffers():
        assert torch.equal(b, before[n]), n


def test_after_step_mixes_with_the_tau_of_that_progress():
    method = build()
    online, target = split(method)
    method.after_step(7 / 15)
    tau = optim.target_momentum(7 / 15, TAU)
    for n, p in split(method)[1].items():
        torch.testing.assert_close(p, tau * target[n] + (1 - tau) * online[n], rtol=0, atol=1e-14)


def test_online_and_target_start_from_different_weights_unless_a_copy_is_asked_for():
    online, target = split(build())
    assert not torch.equal(online["encoder.conv.weight"], target["encoder.conv.weight"])
    assert not torch.equal(online["projector.0.weight"], target["projector.0.weight"])
    online, target = split(build(target_init="copy"))
    assert all(torch.equal(online[n], p) for n, p in target.items())


def test_an_encoder_that_cannot_be_redrawn_is_copied_whole():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(8, 5))
    pretrained = copy.deepcopy(encoder)
    wrapped = nn.Module()
    wrapped.net, wrapped.dim, wrapped.forward = encoder, 5, encoder.forward
    method = BYOL(wrapped, BYOL.Config(hidden=8, dim=4))
    assert torch.equal(method.target_encoder.net[1].weight, pretrained[1].weight)
    assert torch.equal(method.target_projector[0].weight, method.projector[0].weight)


def test_the_heads_are_the_papers():
    method = BYOL(TinyEncoder())
    for head, inputs in ((method.projector, 6), (method.predictor, 256)):
        assert [type(part) for part in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert (head[0].in_features, head[0].out_features, head[3].out_features) == (inputs, 4096, 256)
        assert head[0].bias is not None
        assert head[3].bias is None
        assert (head[1].momentum, head[1].eps) == (0.1, 1e-5)


def test_own_heads_and_any_width_are_taken():
    method = BYOL(TinyEncoder(), projector=nn.Linear(6, 3), predictor=nn.Linear(3, 3, bias=False))
    out = method(tuple(torch.randn(4, 2, 9, 9) for _ in "vw"))
    assert [tuple(z.shape) for z in out.projections] == [(4, 3), (4, 3)]


def test_an_encoder_without_dim_is_refused_in_words():
    with pytest.raises(ValueError, match=r"set \.dim"):
        BYOL(nn.Linear(3, 3))


def test_an_unknown_method_names_its_neighbour():
    with pytest.raises(ValueError, match="did you mean byol"):
        methods.load("boyl")


def test_projector_and_predictor_can_learn_at_rates_of_their_own():
    """With gradients of all ones and plain SGD, a parameter moves by the rate times its part's factor."""
    method = build(projector_rate=0.5, predictor_rate=10.0)
    optimizer = optim.make("sgd", method.param_groups(), lr=1.0, weight_decay=0.0, momentum=0.0, trust_coefficient=1e-3)
    for group in optimizer.param_groups:  # as the loop does
        group["lr"] = 0.1 * group.get("lr_scale", 1.0)
    before = {name: p.detach().clone() for name, p in method.named_parameters() if p.requires_grad}
    for p in method.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    expected = {"encoder": 0.1, "projector": 0.05, "predictor": 1.0}
    for name, p in method.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(before[name] - p, torch.full_like(p, expected[name.split(".")[0]]))
    assert len(before) == sum(len(g["params"]) for g in optimizer.param_groups)


def test_options_known_to_collapse_are_named_with_what_mends_them():
    assert build().risks() == {}
    assert list(build(predictor="none", tau_base=0.0).risks().values()) == ["predictor=mlp", "tau_base=0.99"]


def test_the_projection_can_be_normalised_without_scale_or_shift():
    method = build(projection_norm="batch")
    assert isinstance(method.projector[-1], nn.BatchNorm1d)
    assert not list(method.projector[-1].parameters())
    z = method(batches()[0][0]).projections[0]
    torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-9, rtol=0)


def test_an_encoder_in_evaluation_mode_is_trained_and_an_empty_predictor_is_kept():
    method = BYOL(TinyEncoder().eval(), BYOL.Config(hidden=10, dim=4), predictor=nn.Sequential())
    assert all(m.training for m in method.modules())
    assert len(method.predictor) == 0
