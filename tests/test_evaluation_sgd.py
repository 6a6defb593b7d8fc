import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from byol.data import ids_at, open_source
from byol.encoders import Input, wrap
from byol.evaluation import LinearSgd, features
from byol.evaluation.linear_sgd import augmented, cached, train
from byol.evaluation.probe import Task

RNG = np.random.default_rng(0)
GREY = Input(channels=1, size=8, mean=(0.3,), std=(0.5,))


def encoder(input=GREY):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(input.channels, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    net(torch.randn(16, input.channels, 8, 8))
    return wrap(net.eval(), input=input)


def task(images, y, network, **changes):
    source = open_source((images, [str(v) for v in y]))
    x = torch.from_numpy(features(network, source).x)
    fields = {"train_x": x, "train_y": torch.as_tensor(y), "test_x": x, "classes": int(max(y)) + 1, "encoder": network, "train": source}
    return Task(**{**fields, "centred": False, "seed": 0, "precision": "fp32", "workers": 0, **changes})


def test_every_classifier_follows_torchs_nesterov_sgd():
    n, classes, steps, rates = 40, 4, 12, [0.5, 2.0, 0.1]
    x, y = torch.randn(n, 6, generator=torch.Generator().manual_seed(0)).double(), torch.arange(n) % classes
    used = (torch.rand(3, n, generator=torch.Generator().manual_seed(1)) < 0.8).double()
    ids = [ids_at(s, n=n, batch=16, seed=0) for s in range(steps)]
    weight, bias = train(((i, x[i]) for i in ids), y, used, torch.tensor(rates, dtype=torch.float64), classes=classes, steps=steps)
    for p, rate in enumerate(rates):
        linear = nn.Linear(6, classes).double()
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        optimizer = torch.optim.SGD(linear.parameters(), lr=rate, momentum=0.9, nesterov=True)
        for step, batch in enumerate(ids):
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            kept = batch[used[p, batch] > 0]
            optimizer.zero_grad()
            cross_entropy(linear(x[kept]), y[kept]).backward()
            optimizer.step()
        torch.testing.assert_close(weight[p], linear.weight.T.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(bias[p], linear.bias.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_plain_images_have_the_features_of_the_evaluation_view(channels, dtype):
    # A crop and a flip of an image of one colour change nothing, so every other step of the way must agree.
    colours = RNG.integers(0, 256 if dtype == "uint8" else 65536, (10, 1, 1, 1)).astype(dtype)
    images = np.broadcast_to(colours, (10, 12, 12, 1)).copy()
    network = encoder(Input(channels=channels, size=8, mean=(0.3,) * channels, std=(0.5,) * channels))
    given = task(images, np.arange(10) % 2, network)
    for ids, x in augmented(given, 5, 4):
        torch.testing.assert_close(x, given.train_x[ids], rtol=1e-3, atol=1e-3)


def test_crops_and_flips_are_new_every_epoch_and_labels_stay_with_them():
    images = np.zeros((6, 8, 8, 1), np.uint8)
    images[:, :, 4:] = 255
    images[3:] = 255 - images[3:]
    halves = wrap(nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()), input=replace(GREY, mean=(0.0,), std=(1.0,)))
    seen = [(ids, x) for ids, x in augmented(task(images, [0, 0, 0, 1, 1, 1], halves), 6, 40)]
    by_image = torch.stack([x[ids.argsort()] for ids, x in seen])  # (epochs, images, halves)
    assert len({tuple(row.tolist()) for row in by_image[:, 0]}) > 10, "the crops of an image repeat"
    right = (by_image[:, :, 1] > by_image[:, :, 0]).float()
    told = right[(by_image[:, :, 1] - by_image[:, :, 0]).abs() > 0.2]
    assert 0.35 < told.mean() < 0.65, "about half of the crops should be flipped"


def test_files_and_memory_give_the_same_features(monkeypatch):
    images = RNG.integers(0, 256, (9, 12, 10, 1), dtype=np.uint8)
    given = task(images, np.arange(9) % 3, encoder())
    memory = list(augmented(given, 4, 5))
    monkeypatch.setattr("byol.evaluation.crops.load_memory", lambda source: (None, source))
    for (ids, x), (others, y) in zip(memory, augmented(given, 4, 5), strict=True):
        assert torch.equal(ids, others)
        torch.testing.assert_close(x, y, rtol=0, atol=0.05)  # the host rounds crops to 8 bits


def test_batch_norm_statistics_are_not_updated():
    network = encoder().train()
    given = task(RNG.integers(0, 256, (9, 8, 8, 1), dtype=np.uint8), np.arange(9) % 3, network)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    list(augmented(given, 4, 3))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training


def separable(n=60, **changes):
    y = torch.arange(n) % 3
    x = torch.eye(3)[y] * 4 + torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    fields = {"train_x": x, "train_y": y, "test_x": x, "classes": 3, "encoder": None, "train": None, "centred": False, "seed": 0}
    return Task(**{**fields, "precision": "fp32", "workers": 0, **changes})


def test_the_rate_is_chosen_on_held_out_samples_and_the_classifier_saw_all():
    given = separable()
    found = LinearSgd(augment=False, epochs=20).predict(given)
    assert found.settings["base_lr_chosen"] == "6 held out"
    assert (found.settings["batch"], found.settings["steps"]) == (60, 20)
    assert (found.scores.argmax(1) == given.train_y).all()
    rate = found.settings["base_lr"]
    used = torch.ones(1, 60)
    weight, bias = train(cached(given, 60, 20), given.train_y, used, torch.tensor([rate * 60 / 256]), classes=3, steps=20)
    torch.testing.assert_close(found.scores, given.test_x @ weight[0] + bias[0])


def test_a_rate_that_diverges_is_not_chosen():
    found = LinearSgd(augment=False, epochs=20, base_lrs=(math.inf, 0.4)).predict(separable())
    assert found.settings["base_lr"] == 0.4
    assert bool(found.scores.isfinite().all())


def test_too_few_labels_take_the_rate_of_the_released_code():
    found = LinearSgd(augment=False, epochs=2).predict(separable(n=9)).settings
    assert found["base_lr"] == 0.2
    assert "fewer than 5 labels per class" in found["base_lr_chosen"]


def test_the_defaults_are_the_papers():
    ours = LinearSgd()
    assert (ours.epochs, ours.batch_size, set(ours.base_lrs), ours.augment) == (80, 1024, {0.4, 0.3, 0.2, 0.1, 0.05}, True)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"base_lrs": ()}, {"base_lrs": (0.0,)}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="give"):
        LinearSgd(**wrong)
