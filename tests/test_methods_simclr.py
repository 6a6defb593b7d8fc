import math

import pytest
import torch
from equations import agree, build, cosine, layers, lightly, two_views, weights
from reference import encode
from test_methods_byol import TinyEncoder
from torch import nn

from byol import methods

SimCLR = methods.load("simclr")
SMALL = {"hidden": 10, "dim": 6}


def written_out(w, v1, v2, temperature):
    """The mean over the 2B views of -log( exp(s with its other view) / sum over all others of exp(s) ), one after the other."""
    z = torch.cat([layers(encode(v, w), w, "projector", "LBRLB") for v in (v1, v2)])
    n = len(v1)
    total = 0.0
    for i in range(2 * n):
        s = {j: torch.exp(cosine(z[i], z[j]) / temperature) for j in range(2 * n) if j != i}
        total = total - torch.log(s[(i + n) % (2 * n)] / sum(s.values()))
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_gradient_are_nt_xent_written_out_to_1e_10(temperature):
    method = build(SimCLR, **SMALL, temperature=temperature)
    w, views = weights(method), two_views(size=5)
    agree(method, method(views).loss, w, written_out(w, *views, temperature))


def test_projections_that_are_all_one_have_the_loss_of_a_guess():
    method = build(SimCLR, **SMALL)
    v, _ = two_views()
    with torch.no_grad():
        method.projector[-1].weight.zero_()
        method.projector[-1].bias.fill_(1.0)
    assert method((v, v)).loss.item() == pytest.approx(math.log(15), abs=1e-9)


def test_the_head_is_the_released_one():
    method = SimCLR(TinyEncoder())
    assert [type(p) for p in method.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert [m.out_features for m in method.projector if isinstance(m, nn.Linear)] == [2048, 128]
    last = method.projector[-1]
    assert last.weight.requires_grad
    assert not last.bias.requires_grad, "the last batch norm does not shift"
    assert (last.bias == 0).all()
    assert method.config.temperature == 0.1


def test_negatives_take_gradients():
    """Of the loss of one pair alone, the other images move too."""
    method = build(SimCLR, **SMALL)
    v, w = (x.requires_grad_() for x in two_views())
    method((v, w)).loss.backward()
    assert all(x.grad.abs().amax((1, 2, 3)).min() > 0 for x in (v, w))


def test_options_that_cannot_be_are_refused_in_words():
    with pytest.raises(ValueError, match="temperature is 0; give a number above 0"):
        SimCLR.Config(temperature=0)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_gradient_are_lightlys(temperature):
    criterion = lightly("loss").NTXentLoss(temperature=temperature)
    method, views = build(SimCLR, **SMALL, temperature=temperature), two_views()
    theirs = criterion(*(method.projector(method.encoder(v)) for v in views))
    loss = method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    parameters = [p for p in method.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
