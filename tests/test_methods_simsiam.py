import pytest
import torch
from equations import agree, build, cosine, layers, lightly, two_views, weights
from reference import encode
from test_methods_byol import TinyEncoder
from torch import nn

from byol import methods, recipes
from byol.config import Request
from byol.views import Pipeline, names

SimSiam = methods.load("simsiam")
SMALL = {"hidden": 10, "dim": 6, "bottleneck": 4}


def written_out(w, v1, v2, *, stop=True, kinds="LBRLBRLN"):
    """-1/2 (mean cos(p1, sg z2) + mean cos(p2, sg z1)), one image after the other."""
    z1, z2 = (layers(encode(v, w), w, "projector", kinds) for v in (v1, v2))
    p1, p2 = (layers(z, w, "predictor", "LBRL") for z in (z1, z2))
    if stop:
        z1, z2 = z1.detach(), z2.detach()
    total = sum(cosine(p1[i], z2[i]) + cosine(p2[i], z1[i]) for i in range(len(z1)))
    return -total / (2 * len(z1))


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(("count", "kinds"), [(3, "LBRLBRLN"), (2, "LBRLN")])
def test_loss_and_gradient_are_those_of_the_equations_to_1e_10(stop, count, kinds):
    method = build(SimSiam, **SMALL, projector_layers=count, stop_gradient=stop)
    w, views = weights(method), two_views()
    agree(method, method(views).loss, w, written_out(w, *views, stop=stop, kinds=kinds))


def test_the_loss_is_a_quarter_of_byols_shifted():
    method = build(SimSiam, **SMALL)
    out = method(two_views())
    byols = 2 * 2 - 2 * 2 * out.metrics["predictor_cosine"]  # 2 - 2 cos, both directions
    assert out.loss.item() == pytest.approx((byols.item() - 4) / 4, abs=1e-12)


def test_the_heads_are_the_papers():
    method = SimSiam(TinyEncoder())
    assert [type(p) for p in method.projector] == [*[nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2, nn.Linear, nn.BatchNorm1d]
    assert [m.out_features for m in method.projector if isinstance(m, nn.Linear)] == [2048] * 3
    assert not list(method.projector[-1].parameters()), "the last batch norm has no scale or shift"
    assert [type(p) for p in method.predictor] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [(m.in_features, m.out_features) for m in method.predictor if isinstance(m, nn.Linear)] == [(2048, 512), (512, 2048)]
    assert method.predictor[-1].bias is not None


def test_the_predictor_keeps_the_peak_rate_and_nothing_else_does():
    method = build(SimSiam, **SMALL)
    fixed = {id(p) for g in method.param_groups() if g.get("constant") for p in g["params"]}
    assert fixed == {id(p) for p in method.predictor.parameters()}
    scheduled = build(SimSiam, **SMALL, constant_predictor_rate=False)
    assert not any(g.get("constant") for g in scheduled.param_groups())


def test_what_collapses_in_the_paper_is_a_risk_with_what_mends_it():
    assert build(SimSiam, **SMALL).risks() == {}
    assert list(build(SimSiam, **SMALL, stop_gradient=False, predictor="none").risks().values()) == ["predictor=mlp", "stop_gradient=true"]


def test_the_recipe_of_imagenet_holds_the_released_values():
    facts = recipes.Facts(images=1_281_167, short_side=400, device="cuda", cores=8)
    plan = recipes.resolve(Request(data="x", recipe="simsiam-imagenet-r50-100", method="simsiam"), facts, SimSiam.Config, Pipeline, names())
    s = plan.settings
    assert (s.batch_size * s.accumulate, plan.peak_lr, s.weight_decay, s.momentum, plan.warmup_steps) == (256, 0.05, 1e-4, 0.9, 0)
    assert SimSiam.Config(**plan.method) == SimSiam.Config()
    assert {k: plan.views[k] for k in ("min_area", "saturation", "blur", "solarize")} == {
        "min_area": 0.2, "saturation": 0.4, "blur": 0.5, "solarize": 0.0,
    }  # fmt: skip


def test_options_that_cannot_be_are_refused_in_words():
    with pytest.raises(ValueError, match="bottleneck is 0; give 1 or more"):
        SimSiam.Config(bottleneck=0)


def test_loss_and_gradient_are_lightlys():
    criterion = lightly("loss").NegativeCosineSimilarity()
    method, views = build(SimSiam, **SMALL), two_views()
    z = [method.projector(method.encoder(v)) for v in views]
    p = [method.predictor(x) for x in z]
    theirs = (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach())) / 2
    loss = method(views).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    parameters = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
