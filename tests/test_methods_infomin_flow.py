import numpy as np
import pytest
import test_training as single
import torch
from equations import weights
from PIL import Image
from reference import batch_norm
from scipy.spatial.transform import Rotation
from test_methods_cmc import Half
from test_methods_contract import StopAfter
from torch import nn

import byol
from byol import encoders, methods, run
from byol.ablation import cost
from byol.methods import infomin_flow

FLOW = methods.load("infomin_flow")
LABELS = torch.tensor([0, 1, -1, 2, 2, -1, 0, 1])


def build(**options):
    torch.manual_seed(0)
    return FLOW(single.flowing(Half(1), Half(2)), FLOW.Config(**{"dim": 5, "temperature": 0.2, **options})).double()


def colours(seed=1, size=8):
    return torch.randn(size, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flowed(w, x):
    """g, pixel by pixel: a rotation by a quaternion's cross products, then what a hidden layer of the first channels adds to the rest."""
    y = x.permute(0, 2, 3, 1)
    for i, kept in enumerate((1, 2, 1, 2)):
        part = {name: w[f"encoder.net.flow.{i}.{name}"] for name in ("turn", "into", "into_bias", "out")}
        s, *v = part["turn"] / part["turn"].norm()
        v = torch.stack(v)
        # v x (v x y) and v x y, as quaternions turn a vector.
        across = torch.linalg.cross(v.expand_as(y), y)
        y = y + 2 * s * across + 2 * torch.linalg.cross(v.expand_as(y), across)
        a, b = y[..., :kept], y[..., kept:]
        y = torch.cat([a, b + torch.tanh(torch.relu(a @ part["into"].T + part["into_bias"]) @ part["out"].T)], -1)
    return y.permute(0, 3, 1, 2)


def features(w, seen):
    made = []
    for name, x in zip(("first", "second"), (seen[:, :1], seen[:, 1:]), strict=True):
        prefix = f"encoder.net.{name}"
        h = nn.functional.conv2d(x, w[f"{prefix}.conv.weight"], stride=2)
        made.append(torch.relu(batch_norm(h, w[f"{prefix}.norm.weight"], w[f"{prefix}.norm.bias"])).mean((2, 3)))
    return made


def contrast(w, x):
    """The cross-entropies of finding each other, both ways, without any reversal."""
    made = []
    for name, y in zip(("first", "second"), features(w, flowed(w, x)), strict=True):
        z = y @ w[f"{name}_projector.0.weight"].T
        z = batch_norm(z, torch.ones(5, dtype=z.dtype), torch.zeros(5, dtype=z.dtype))
        made.append(z / z.norm(dim=1, keepdim=True))
    scores = made[0] @ made[1].T / 0.2
    return -sum(scores.log_softmax(d).diagonal().mean() for d in (0, 1))


def of_labels(w, x, labels):
    """The cross-entropies of both classifiers over the images whose label is known."""
    total, known = 0.0, labels >= 0
    for name, y in zip(("first", "second"), features(w, flowed(w, x)), strict=True):
        logits = y @ w[f"{name}_classifier.weight"].T + w[f"{name}_classifier.bias"]
        total = total - logits[known].log_softmax(1)[range(int(known.sum())), labels[known]].mean()
    return total


def gradients(loss, w):
    found = torch.autograd.grad(loss, list(w.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(w.items(), found, strict=True)}


def ours(method, loss):
    return gradients(loss, dict(method.named_parameters()))


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reverse", [1.0, 0.3, 0.0])
def test_the_gradient_of_the_flow_is_that_of_the_transcription_times_minus_reverse_and_all_others_are_as_without(reverse):
    method, x = build(reverse=reverse), colours()
    w = weights(method)
    out, expected = method((x,)), contrast(w, x)
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-10)
    found, plain = ours(method, out.loss), gradients(expected, w)
    for name, g in found.items():
        same(g, -reverse * plain[name] if ".flow." in name else plain[name])
    assert max(g.abs().max() for name, g in plain.items() if ".flow." in name) > 1e-3, "there is something to reverse"


def test_the_rotation_of_the_transcription_is_scipys():
    w = {name: p.detach() for name, p in build().named_parameters()}
    for i in range(4):
        w[f"encoder.net.flow.{i}.out"] = torch.zeros_like(w[f"encoder.net.flow.{i}.out"])
    x, y = colours(size=2), colours(size=2).permute(0, 2, 3, 1).numpy()
    for i in range(4):
        q = w[f"encoder.net.flow.{i}.turn"].numpy()
        y = y @ Rotation.from_quat([*q[1:], q[0]]).as_matrix().T
    np.testing.assert_allclose(flowed(w, x).permute(0, 2, 3, 1).numpy(), y, atol=1e-12)


def test_labels_teach_the_flow_and_the_classifiers_and_neither_network():
    method, x = build(label_weight=0.7, classes=3), colours()
    w = weights(method)
    out = method((x,), labels=LABELS)
    one, two = contrast(w, x), of_labels(w, x, LABELS)
    assert out.loss.item() == pytest.approx((one + 0.7 * two).item(), abs=1e-10)
    assert out.metrics["label_loss"].item() == pytest.approx(two.item(), abs=1e-10)
    found, of_one, of_two = ours(method, out.loss), gradients(one, w), gradients(two, w)
    for name, g in found.items():
        if ".flow." in name:
            same(g, 0.7 * of_two[name] - of_one[name])
        elif "classifier" in name:
            same(g, 0.7 * of_two[name])
        else:
            same(g, of_one[name])
    assert max(of_two[n].abs().max() for n in of_two if ".net.first" in n) > 1e-3, "there is something to keep from the networks"


def test_without_labels_the_loss_and_all_else_are_the_same_bit_for_bit():
    x = colours()
    outs, states = [], []
    for options, rows in (
        ({}, {}),
        ({"label_weight": 0.7, "classes": 3}, {}),
        ({"label_weight": 0.7, "classes": 3}, {"labels": LABELS * 0 - 1}),
    ):
        method = build(**options)
        outs.append(method((x,), **rows))
        outs[-1].loss.backward()
        states.append(method.encoder.state_dict() | {n: p.grad for n, p in method.encoder.named_parameters()})
    assert "label_loss" not in outs[0].metrics
    assert "label_loss" not in outs[1].metrics
    assert outs[2].metrics["label_loss"] == 0
    for out, state in zip(outs[1:], states[1:], strict=True):
        assert torch.equal(out.loss, outs[0].loss)
        assert all(torch.equal(state[key], value) for key, value in states[0].items())


def test_the_pass_of_the_labels_leaves_running_statistics_as_those_of_one_pass():
    x, told = colours(), build(label_weight=0.7, classes=3)
    method = build()
    method((x,))
    told((x,), labels=LABELS)
    for (name, a), b in zip(method.encoder.named_buffers(), told.encoder.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert told.encoder.net.first.norm.num_batches_tracked == 1


def test_what_is_logged_is_i_nce_and_how_far_the_inverse_is_from_the_image():
    method, x = build(), colours()
    out = method((x,))
    assert out.metrics["shared"].item() == pytest.approx(np.log(8) - out.loss.item() / 2, abs=1e-12)
    assert 0 < out.metrics["inverse_error"] < 1e-12
    assert build().float()((x.float(),)).metrics["inverse_error"] < 1e-5


def test_the_flow_lowers_what_the_networks_raise():
    """Adversaries: with the networks held, steps of the flow raise the loss; with the flow held, steps of the others lower it."""
    for taught, sign in ((".flow.", 1), ("", -1)):
        method, x = build(), colours(size=32)
        chosen = [p for n, p in method.named_parameters() if (".flow." in n) == bool(taught)]
        optimizer, losses = torch.optim.SGD(chosen, lr=0.05), []
        for _ in range(15):
            optimizer.zero_grad()
            loss = method((x,)).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sign * (losses[-1] - losses[0]) > 0.02, losses


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_weight": 1.0}, "label_weight is 1.0, and there are 0 classes of labels; give labelled data"),
        ({"reverse": -1.0}, "reverse is -1.0; give 0 or more"),
        ({"temperature": 0.0}, "temperature is 0.0; give a number above 0"),
        ({"dim": 0}, "hidden=0 and dim=0 are not possible"),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        infomin_flow.Options(**options)


def test_one_network_is_refused_in_a_sentence():
    for net, called in (
        (single.Net(), "Net"),
        (byol.encoders.load("small-w8-n2", input=single.flowing(Half(1), Half(2)).input), "small-w8-n2"),
    ):
        with pytest.raises(ValueError, match=f"trains two networks behind a flow, and {called} is none; give --encoder flow:NAME"):
            FLOW(net, FLOW.Config())


def test_labels_are_asked_for_by_label_weight_alone_and_cost_a_pass():
    told = FLOW.Config(label_weight=1.0, classes=3)
    assert methods.rows_if_known(FLOW) == ()
    assert methods.rows_if_known(FLOW, told) == ("labels",)
    assert methods.sees_labels(FLOW, told)
    assert not methods.sees_labels(FLOW)
    assert cost.passes("infomin_flow") == {"online": 1, "target": 0, "backward": 1}
    assert cost.passes("infomin_flow", label_weight=1.0) == {"online": 2, "target": 0, "backward": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two kinds of noise in colours, 48 images of 16 px, with labels and without."""
    noise, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    y = np.arange(48) % 2
    x = noise.integers(0, 120, (48, 16, 16, 3)).astype(np.uint8)
    x[y == 1, :, :, 0] += 100
    np.savez(folder / "x.npz", x=x, y=y)
    np.savez(folder / "unlabelled.npz", x=x)
    return folder


FEW = {"encoder": "small-w8-n2", "epochs": 2, "batch_size": 16, "image_size": 16, "precision": "fp32", "device": "cpu"}


@pytest.mark.parametrize("weight", [0, 1])
def test_a_run_goes_on_bit_for_bit_and_its_encoder_of_rgb_is_exported_and_evaluated(tmp_path, pictures, weight):
    asked = {"method": "infomin_flow", **FEW, "set": ("dim=8", f"label_weight={weight}", "log_steps=1")}
    data = str(pictures / "x.npz")
    assert byol.train(data, tmp_path / "whole", **asked).outcome.ended == "finished"
    assert byol.train(data, tmp_path / "cut", watcher=StopAfter(3), **asked).outcome.step == 3
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    whole, cut = (run.restored(tmp_path / of).state_dict() for of in ("whole", "cut"))
    assert all(torch.equal(cut[key], value) for key, value in whole.items())
    rows = single.losses(tmp_path / "whole")
    assert rows == single.losses(tmp_path / "cut")
    assert all(row["inverse_error"] < 1e-5 for row in rows)
    assert ("label_loss" in rows[0]) == bool(weight)
    plan = run.read_plan(tmp_path / "whole")
    assert plan.settings.encoder == "flow:small-w8-n2"
    assert run.sees_labels(plan) == bool(weight)
    kept, x = byol.load(tmp_path / "whole"), torch.randn(2, 3, 16, 16)
    byol.export(tmp_path / "whole", tmp_path / "out.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "out.pt2").module()(x), kept(x), rtol=1e-4, atol=1e-4)
    (found,) = byol.evaluate(tmp_path / "whole", data, protocols=("knn",), baselines=True, device="cpu")
    assert any(s.name.startswith("random") for s in found.scores)


def test_data_without_labels_are_trained_on_and_labels_that_are_asked_for_are_missed(tmp_path, pictures):
    asked, data = {"method": "infomin_flow", **FEW, "epochs": 1}, str(pictures / "unlabelled.npz")
    assert byol.train(data, tmp_path / "run", **asked, set=("dim=8",)).outcome.ended == "finished"
    with pytest.raises(ValueError, match=r"give labelled data, e\.g. folders by class, or label_weight=0$"):
        byol.train(data, tmp_path / "no", **asked, set=("label_weight=1",))


def test_labels_of_dated_pictures_are_labels_as_well(tmp_path):
    rng = np.random.default_rng(0)
    for subject in ("one", "two"):
        for day in ("2018-01-02", "2018-01-09", "2018-02-02", "2018-03-02"):
            path = tmp_path / "visits" / subject / f"{day}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    asked = {"method": "infomin_flow", **FEW, "epochs": 1, "batch_size": 4, "set": ("dim=8", "label_weight=1", "log_steps=1")}
    assert byol.train(tmp_path / "visits", tmp_path / "run", **asked).outcome.ended == "finished"
    assert "label_loss" in single.losses(tmp_path / "run")[0]


def test_what_is_compiled_is_what_a_method_calls():
    for name in ("flow:small-w8", "lab:small-w8"):
        encoder = encoders.load(name, input=encoders.Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.2,) * 3))
        assert list(run.called(encoder)) == list(encoder.net.networks())
    encoder = encoders.load("patches:small-w8", input=encoders.Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert list(run.called(encoder)) == [encoder.net.net]
    plain = torch.nn.Linear(2, 2)
    assert list(run.called(plain)) == [plain]
