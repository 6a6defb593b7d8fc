import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from byol import encoders
from byol.data import open_source
from byol.encoders import Input, wrap
from byol.evaluation import FineTune, LinearSgd, Semi, evaluate, features, load, splits
from byol.evaluation.crops import crops, spatial
from byol.evaluation.linear_sgd import train
from byol.evaluation.probe import Task
from byol.evaluation.semi import on_list
from byol.evaluation.tuning import Trial, norm_decay, short_side_at_test, tune

GREY = Input(channels=1, size=8, mean=(0.3,), std=(0.4,))


def encoder(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return wrap(net.eval().to(dtype), input=GREY)


def striped(n=60, classes=3, noise=40, seed=0):
    """Images whose class is the row of a bright line in noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, noise, (n, 8, 8)).astype(np.uint8)
    x[np.arange(n), 2 * y % 8] += min(150, 255 - noise)
    return open_source((x, [f"class {v}" for v in y]))


def task(source, test, network, **changes):
    x = torch.from_numpy(features(network, source).x)
    fields = {"train_x": x, "train_y": torch.from_numpy(source.labels), "test_x": x, "classes": len(source.classes), "encoder": network}
    fields |= {"train": source, "test": replace(test, labels=None), "centred": False, "seed": 0, "precision": "fp32", "workers": 0}
    return Task(**{**fields, **changes})


def batches(steps, n=12, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    x = torch.rand(n, 1, 8, 8, generator=g, dtype=dtype)
    return [(ids, x[ids]) for ids in (torch.randperm(n, generator=g)[:8] for _ in range(steps))]


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_every_update_is_torchs_nesterov_sgd_on_encoder_and_classifier(decay):
    network, y, steps, lr = encoder(dtype=torch.float64), torch.arange(12) % 3, 5, 0.05
    seen = batches(steps)
    ours = tune(network, iter(seen), y, classes=3, trial=Trial(lr=lr, weight_decay=decay, steps=steps), updates=steps)
    theirs, head = copy.deepcopy(network.net).train(), nn.Linear(24, 3).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    parameters = [*theirs.parameters(), *head.parameters()]
    # The listed weight decay is divided by the learning rate.
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=decay / lr, foreach=False, fused=False)
    for step, (ids, x) in enumerate(seen):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        cross_entropy(head(theirs((x - 0.3) / 0.4)), y[ids]).backward()
        optimizer.step()
    torch.testing.assert_close(ours.head.weight, head.weight, rtol=0, atol=1e-11)
    for (name, a), b in zip(ours.encoder.net.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_a_decay_takes_its_share_off_the_weights_whatever_the_rate():
    # Without a gradient (all labels the same class of one) only the decay moves a weight: by the listed share at the first update.
    for lr in (0.1, 0.01):
        start = encoder(dtype=torch.float64)
        found = tune(
            start, iter(batches(1)), torch.zeros(12, dtype=torch.int64), classes=1, trial=Trial(lr=lr, weight_decay=1e-3), updates=1
        )
        # Nesterov's first step is (1 + 0.9) times the gradient.
        torch.testing.assert_close(found.encoder.net[0].weight, start.net[0].weight * (1 - 1.9e-3), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("steps", "decay"), [(1, 0.9), (100, 0.9), (200, 0.95), (1000, 0.99)])
def test_the_statistics_of_batch_norm_decay_by_the_papers_rule(steps, decay):
    assert norm_decay(steps) == pytest.approx(decay)
    network, seen = encoder(dtype=torch.float64), batches(1)
    found = tune(network, iter(seen), torch.arange(12) % 3, classes=3, trial=Trial(lr=0.1), updates=1, norm_decay=norm_decay(steps))
    mean = network.net[0]((seen[0][1] - 0.3) / 0.4).mean((0, 2, 3))
    torch.testing.assert_close(found.encoder.net[1].running_mean, (1 - decay) * mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("size", "short"), [(224, 256), (112, 128), (32, 37), (8, 9)])
def test_the_short_side_at_test_is_256_for_224(size, short):
    assert short_side_at_test(replace(GREY, size=size)) == short
    assert short_side_at_test(replace(GREY, size=8, resize=12)) == 12


def test_the_encoder_given_is_unchanged_and_in_its_mode():
    network = encoder().train().requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    source = striped()
    for protocol in (Semi(lrs=(0.1,), epochs=(2,)), FineTune(steps=3, lrs=(0.1,), weight_decays=(1e-3,))):
        protocol.predict(task(source, striped(n=9, seed=1), network))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network.input == GREY
    assert network.net[1].momentum == 0.1


SMALL = {"semi": "semi:lrs=0.1/0.01,epochs=3/6", "finetune": "finetune:steps=6,lrs=0.1/0.01,weight_decays=0.001/0"}


@pytest.mark.parametrize("protocol", SMALL.values(), ids=SMALL)
def test_the_same_seed_gives_the_same_scores_and_leaves_torchs_generator_alone(protocol):
    network = wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5)), input=GREY)
    given = task(striped(), striped(n=9, seed=1), network)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = load(protocol).predict(given)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    other = load(protocol).predict(given)
    assert torch.equal(one.scores, other.scores)
    assert one.settings == other.settings
    assert not torch.equal(load(protocol).predict(replace(given, seed=1)).scores, one.scores)


@pytest.mark.parametrize("protocol", SMALL.values(), ids=SMALL)
def test_the_sweep_never_sees_a_test_label_and_its_choice_does_not_depend_on_them(protocol):
    source, test = striped(), striped(n=30, noise=100, seed=1)
    turned = replace(test, labels=(test.labels + 1) % 3)
    (one,), (other,) = (evaluate([("run", encoder())], source, t, protocols=[protocol]) for t in (test, turned))
    assert one.scores[0].settings == other.scores[0].settings
    assert one.scores[0].top1 != other.scores[0].top1
    seen = []

    class Spy(Semi):
        def predict(self, given):
            seen.append(given)
            return super().predict(given)

    evaluate([("run", encoder())], source, protocols=[Spy(lrs=(0.1,), epochs=(1,))])
    held = {source.names[i] for i in splits.stratified(source.labels, 0.2, seed=0)[1]}
    assert seen[0].test.labels is None
    assert set(seen[0].test.names) == held
    assert not held & set(seen[0].train.names)


def test_the_setting_is_the_one_that_is_best_on_what_is_held_out_and_it_is_trained_again_on_all():
    source, test, network = striped(n=90), striped(n=9, seed=1), encoder()
    given = task(source, test, network)
    found = Semi(lrs=(1e-6, 0.1), epochs=(20,)).predict(given)
    kept, out = splits.held_out(source.labels, 0.2, seed=0)
    right = []
    for lr in (1e-6, 0.1):
        part = source.subset(kept)
        seen = crops(part, spatial(part, GREY), GREY, batch=len(kept), seed=0, device=torch.device("cpu"), workers=0)
        tuned = tune(network, seen(20), given.train_y[kept], classes=3, trial=Trial(lr=lr, epochs=20), updates=20)
        right.append(int((tuned.logits(source.subset(out), "fp32").argmax(1) == given.train_y[out]).sum()))
    assert right[0] != right[1]
    assert found.settings["lr"] == (1e-6, 0.1)[right[1] > right[0]]
    assert found.settings["chosen"] == f"{len(out)} held out, then trained on all"
    everything = crops(source, spatial(source, GREY), GREY, batch=90, seed=0, device=torch.device("cpu"), workers=0)
    again = tune(network, everything(20), given.train_y, classes=3, trial=Trial(lr=found.settings["lr"], epochs=20), updates=20)
    torch.testing.assert_close(found.scores, again.logits(given.test, "fp32"))


def test_a_rate_that_diverges_is_not_chosen():
    found = Semi(lrs=(1e30, 0.1), epochs=(4,)).predict(task(striped(), striped(n=9, seed=1), encoder()))
    assert found.settings["lr"] == 0.1
    assert bool(found.scores.isfinite().all())


def test_too_few_labels_take_the_middle_of_the_sweep_and_say_so():
    found = Semi(batch_size=1).predict(task(striped(n=9), striped(n=9, seed=1), wrap(nn.Flatten(), input=GREY))).settings
    assert (found["lr"], found["epochs"]) == (0.02, 50)
    assert "fewer than 5 labels per class" in found["chosen"]


def test_names_on_a_list_are_the_labelled_images(tmp_path):
    source = striped()
    whole = replace(source, names=type(source.names).of([f"c{v}/{i:02}.png" for i, v in enumerate(source.labels)]))
    path = tmp_path / "1percent.txt"
    path.write_text("03.png\nc1/07.png\n\n  elsewhere.png  \n")
    rows, named = on_list(whole, path)
    assert (rows.tolist(), named) == ([3, 7], 3)
    path.write_text("\n".join(whole.names[i] for i in range(0, 60, 2)))
    (result,) = evaluate([("run", encoder())], whole, striped(n=30, seed=1), protocols=[f"semi:lrs=0.1,epochs=1,list={path}"])
    assert (result.scores[0].n_labels, result.scores[0].labels) == (30, 0.5)
    assert result.protocol == "semi-lrs-0.1-epochs-1-list-1percent"
    assert result.scores[0].settings["on_the_list"] == "30 labelled training images of 30 names"


def test_a_list_that_cannot_be_used_is_one_sentence(tmp_path):
    path = tmp_path / "list.txt"
    with pytest.raises(ValueError, match=r"there is no file .*list.txt; give a text file"):
        on_list(striped(), path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cannot be read as a list of names"):
        on_list(striped(), path)
    path.write_text("nothing.png\n")
    with pytest.raises(ValueError, match=r"none of the 1 names in .* is among the labelled training images"):
        on_list(striped(), path)


def test_settings_come_from_words_and_what_is_not_the_papers_is_said():
    found = load("finetune:steps=500,lrs=0.001/0.1,weight_decays=0/1e-4")
    assert found == FineTune(steps=500, lrs=(0.001, 0.1), weight_decays=(0, 1e-4))
    assert "not the paper's: steps=500, lrs=0.001/0.1, weight_decays=0/0.0001" in found.describe()
    assert found.name == "finetune-steps-500-lrs-0.001+0.1-weight-decays-0+0.0001"
    assert "not the paper's" not in FineTune().describe() + Semi().describe()
    assert load("semi").describe().endswith("the supervised row)")


def test_the_defaults_are_the_papers():
    semi, transfer = Semi(), FineTune()
    assert (set(semi.lrs), set(semi.epochs), semi.batch_size) == ({0.01, 0.02, 0.05, 0.1, 0.005}, {30, 50}, 1024)
    assert (transfer.steps, transfer.batch_size) == (20_000, 256)
    np.testing.assert_allclose(transfer.lrs, np.logspace(-4, -1, 7))
    np.testing.assert_allclose(transfer.weight_decays, [*np.logspace(-6, -3, 7), 0])


@pytest.mark.parametrize(
    "wrong",
    [
        *("semi:lrs=0", "semi:epochs=0.5", "semi:held_out=1", "semi:batch_size=0", "semi:lrs=none", "semi:epoch=3", "semi:held_out=none"),
        *("finetune:steps=0", "finetune:lrs=-1", "finetune:weight_decays=-1", "finetune:held_out=0", "finetune:steps=1/2"),
        *("linear-sgd:views=nothing", "linear-sgd:views=paper,augment=false", "linear-sgd:tclip=-1"),
    ],
)
def test_impossible_settings_are_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"give|there are|leave"):
        load(wrong)


def test_a_pretrained_encoder_beats_a_random_one_on_few_labels():
    # Pre-trained here with the labels of other digits: what counts is that fine-tuning starts from the weights it is given.
    x, y = (load_digits().images * 15).astype(np.uint8), load_digits().target
    known = open_source((x[:1000], [str(v) for v in y[:1000]]))
    input = Input(channels=1, size=8, mean=(0.3,), std=(0.4,))
    fresh = encoders.load("small-w16", input=input)
    seen = crops(known, spatial(known, input, flip=0, min_area=0.6), input, batch=100, seed=0, device=torch.device("cpu"), workers=0)
    trained = tune(fresh, seen(60), torch.from_numpy(known.labels), classes=10, trial=Trial(lr=0.1, steps=60), updates=60).encoder
    trained.input = input
    few, test = (open_source((x[part], [str(v) for v in y[part]])) for part in (slice(1000, 1100), slice(1100, None)))
    subjects = [("random", fresh), ("run", trained)]
    (result,) = evaluate(subjects, few, test, protocols=["semi:lrs=0.05,epochs=20,flip=0,min_area=0.6"])
    random, run = (s.top1 for s in result.scores)
    assert run > random + 0.05, (random, run)


def test_tclip_and_penalty_follow_autograd():
    n, classes, steps, rate = 20, 4, 6, 30.0
    x, y = 3 * torch.randn(n, 5, generator=torch.Generator().manual_seed(0)).double(), torch.arange(n) % classes
    seen = [(ids := torch.arange(n).roll(3 * s)[:10], x[ids]) for s in range(steps)]
    used, rates = torch.ones(1, n).double(), torch.tensor([rate]).double()
    weight, bias = train(iter(seen), y, used, rates, classes=classes, steps=steps, tclip=2.0, penalty=0.3)
    linear = nn.Linear(5, classes).double()
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), lr=rate, momentum=0.9, nesterov=True)
    for step, (ids, rows) in enumerate(seen):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        logits = 2 * torch.tanh(linear(rows) / 2)
        optimizer.zero_grad()
        (cross_entropy(logits, y[ids]) + 0.3 * logits.square().mean()).backward()
        optimizer.step()
    torch.testing.assert_close(weight[0], linear.weight.T.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(bias[0], linear.bias.detach(), rtol=1e-9, atol=1e-9)


def test_views_of_the_run_are_those_that_the_encoder_was_trained_with():
    source = striped()
    given = task(source, source, encoder())
    with pytest.raises(ValueError, match="does not say what views it was trained with"):
        LinearSgd(epochs=1, views="run").predict(given)
    known = replace(given, views={"name": "small", "changes": {"flip": 0.0, "solarize": 1.0}})
    ours = LinearSgd(epochs=1, views="run")._plan(known)
    assert (ours.name, ours.pipelines[0].flip, ours.pipelines[0].solarize) == ("small", 0, 1)
    assert not torch.equal(LinearSgd(epochs=2, views="run").predict(known).scores, LinearSgd(epochs=2).predict(given).scores)
    network = encoder()
    network.provenance["views"] = {"name": "small", "changes": {"flip": 0.0}}
    # The baselines see what the run saw.
    (result,) = evaluate(
        [("pixels", None), ("random x", encoder(1)), ("run", network)], source, protocols=["linear-sgd:epochs=1,views=run"]
    )
    assert "the views of pre-training" in result.description
    assert len(result.scores) == 3
