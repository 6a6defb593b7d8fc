from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from test_evaluation_sgd import encoder, task

from byol import rng
from byol.data.source import Official
from byol.evaluation import EvarLinear, SoundLinear, describe, evaluate, load, mean_length, names, sound
from byol.evaluation.metrics import interval, measured

TINY = SoundLinear(epochs=4, batch_size=8, patience=2, repeats=1)


def clusters(n=60, classes=3, features=5, noise=1.0, seed=0):
    """(n, D) float64 features around a centre for each class, and (n,) classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, features, generator=g).double()
    return centres[y] + noise * torch.randn(n, features, generator=g).double() + 3, y


def by_hand(x, y, val, weight, bias, *, lr, epochs, batch, patience, seed):
    """Adam, softmax regression and early stopping, from their equations; -> weights, the best epoch, the last epoch."""
    w = np.concatenate([weight, bias[:, None]], 1)
    first, second, step = np.zeros_like(w), np.zeros_like(w), 0
    learn = np.flatnonzero(~val)
    best, kept = (-1.0, 0), w
    for epoch in range(1, epochs + 1):
        order = learn[rng.permutation(seed, epoch, len(learn)).numpy()]
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            z = np.concatenate([x[rows], np.ones((len(rows), 1))], 1)
            p = np.exp(z @ w.T)
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(rows)), y[rows]] -= 1
            grad, step = p.T @ z / len(rows), step + 1
            first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
            w = w - lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        right = ((x[val] @ w[:, :-1].T + w[:, -1]).argmax(1) == y[val]).mean()
        if right >= best[0]:
            best, kept = (right, epoch), w
        elif epoch == best[1] + patience:
            return kept, best[1], epoch
    return kept, best[1], epochs


@pytest.mark.parametrize("lr", [0.003, 0.1])
def test_a_training_is_adam_on_the_cross_entropy_until_the_patience_is_over(lr):
    x, y = clusters(noise=2.0)
    val = torch.arange(60) % 4 == 1
    protocol = SoundLinear(lr=lr, epochs=30, batch_size=16, patience=4)
    x = torch.from_numpy(StandardScaler().fit_transform(x))
    first = sound._drawn_layer(x, 3, 7)
    w, b = (p.detach().numpy() for p in first.parameters())
    theirs, best, last = by_hand(x.numpy(), y.numpy(), val.numpy(), w, b, lr=lr, epochs=30, batch=16, patience=4, seed=7)
    ours = sound.train(x, y, val, "", classes=3, protocol=protocol, seed=7)
    assert (ours.epoch, ours.stopped) == (best, last)
    torch.testing.assert_close(ours.weight, torch.from_numpy(theirs[:, :-1]), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.bias, torch.from_numpy(theirs[:, -1]), rtol=0, atol=1e-10)


def test_features_are_standardised_as_scikit_learn_does():
    x, _ = clusters()
    x[:, 2] = 0.1
    test = clusters(seed=1)[0]
    scaler = StandardScaler().fit(x.numpy())
    (ours,) = sound.standardised(x, test)
    torch.testing.assert_close(ours, torch.from_numpy(scaler.transform(test.numpy())), rtol=0, atol=1e-12)


def wrong_at_first(x):
    """The first seed whose layer says the opposite of what is to be learnt from one feature."""
    for seed in range(100):
        layer = sound._drawn_layer(x, 2, seed)
        (slope,), offset = (layer.weight[1] - layer.weight[0]).tolist(), float((layer.bias[1] - layer.bias[0]).detach())
        if slope < -0.5 and abs(offset) < 0.2:
            return seed
    raise AssertionError("no such seed")


def test_training_stops_where_validation_gets_worse_and_keeps_the_best_epoch():
    # What is learnt is the opposite of what is validated by: the more it learns, the worse it gets.
    x = torch.linspace(-1, 1, 60).double()[:, None]
    val = torch.arange(60) % 3 == 0
    turned = torch.where(val, x[:, 0] < 0, x[:, 0] >= 0).long()
    protocol = SoundLinear(lr=0.02, epochs=100, batch_size=8, patience=6)
    seed = wrong_at_first(x)
    found = sound.train(x, turned, val, "", classes=2, protocol=protocol, seed=seed)
    assert found.epoch >= 1
    assert found.stopped == found.epoch + 6 < 100
    until_then = sound.train(x, turned, val, "", classes=2, protocol=replace(protocol, epochs=found.epoch), seed=seed)
    assert torch.equal(found.weight, until_then.weight)
    assert (found.scores(x[val]).argmax(1) == turned[val]).double().mean() > 0.8


def test_of_equally_good_epochs_the_last_is_kept_and_ends_no_training():
    x, y = clusters(noise=0.01)
    found = sound.train(x - x.mean(0), y, torch.arange(60) < 9, "", classes=3, protocol=SoundLinear(lr=0.1, epochs=12, patience=2), seed=0)
    assert (found.epoch, found.stopped) == (12, 12)


def test_without_validation_the_last_epoch_counts():
    x, y = clusters(n=8, classes=2)
    _, (found,) = sound.trained(x, y, None, x, classes=2, protocol=TINY, seed=0)
    assert (found.epoch, found.validation) == (4, "none: fewer than 5 labels per class")


def test_repeats_differ_by_their_seed_alone():
    x, y = clusters()
    together, _ = sound.trained(x, y, None, x, classes=3, protocol=replace(TINY, repeats=3), seed=5)
    alone = [sound.trained(x, y, None, x, classes=3, protocol=TINY, seed=seed)[0][0] for seed in (5, 6, 7)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together[0], together[1])


def test_the_first_weights_are_torchs():
    layer = sound._drawn_layer(torch.zeros(1, 400), 300, 0)
    bound = 400**-0.5
    for parameter in layer.parameters():
        assert bound * 0.98 < float(parameter.detach().abs().max()) <= bound
    assert abs(float(layer.weight.detach().std()) - bound / 3**0.5) < 1e-3


def test_validation_clips_are_not_learnt_from_and_do_not_move_the_statistics():
    x, y = clusters()
    val = torch.arange(60) >= 45
    changed = torch.where(val[:, None], x * 100, x)
    scores, _ = sound.trained(x, y, val, x[:5], classes=3, protocol=replace(TINY, epochs=1), seed=0)
    others, _ = sound.trained(changed, y, val, x[:5], classes=3, protocol=replace(TINY, epochs=1), seed=0)
    assert torch.equal(scores, others)


def several(n=60, classes=3):
    """(n, D) features and (n, C) of 1, 0 and now and then -1: each class is there where one feature is large."""
    x, _ = clusters(n, classes)
    y = (x[:, :classes] > x[:, :classes].median(0).values).long()
    y[::7, 0] = -1
    return x, y


def test_several_classes_a_clip_are_learnt_by_a_sigmoid_each_and_the_epoch_is_the_best_by_map():
    x, y = several()
    val = torch.arange(60) % 4 == 1
    y[val] = y[val].clamp(min=0)  # scikit-learn knows no -1
    protocol = SoundLinear(lr=0.05, epochs=12, batch_size=16, patience=3)
    ours = sound.train(x, y, val, "", classes=3, protocol=protocol, seed=2)
    linear = sound._drawn_layer(x, 3, 2)
    optimizer, loss = torch.optim.Adam(linear.parameters(), lr=0.05), torch.nn.BCEWithLogitsLoss(reduction="none")
    learn, best, kept = (~val).nonzero()[:, 0], (-1.0, 0), None
    for epoch in range(1, 13):
        for rows in learn[rng.permutation(2, epoch, len(learn))].split(16):
            optimizer.zero_grad()
            counted = (y[rows] >= 0).double()
            ((loss(linear(x[rows]), y[rows].clamp(min=0).double()) * counted).sum() / counted.sum()).backward()
            optimizer.step()
        score = average_precision_score(y[val].numpy(), linear(x[val]).detach().numpy(), average="macro")
        if score >= best[0]:
            best, kept = (score, epoch), linear.weight.detach().clone()
        elif epoch - best[1] >= 3:
            break
    assert (ours.epoch, ours.stopped) == (best[1], epoch)
    torch.testing.assert_close(ours.weight, kept, rtol=0, atol=1e-10)


def test_several_classes_a_clip_are_validated_by_a_drawn_tenth_where_the_data_say_nothing():
    x, y = several()
    scores, (found,) = sound.trained(x, y, None, x, classes=3, protocol=TINY, seed=0)
    assert (scores.shape, found.validation) == ((1, 60, 3), "6 held out, drawn")


def given():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    images[::2, :4] //= 4
    return task(images, np.arange(40) % 2, encoder())


def test_the_datas_own_validation_is_used_where_there_is_one():
    t = given()
    found = SoundLinear(epochs=2, repeats=2).predict(t)
    assert (found.scores.shape, found.settings["validation"]) == ((2, 40, 2), "4 held out, drawn")
    official = Official(metric="top-1", val=np.arange(40) < 10)
    own = SoundLinear(epochs=2, repeats=2).predict(replace(t, train=replace(t.train, official=official)))
    assert own.settings["validation"] == "the data's own"
    assert not torch.equal(own.scores, found.scores)


def test_evar_takes_the_rate_of_the_data_set_and_says_it():
    t = given()
    assert EvarLinear(epochs=1).predict(t).settings["lr"] == 3e-4
    spec = replace(t, train=replace(t.train, spec="/data/US8K/audio"))
    found = EvarLinear(epochs=2).predict(spec)
    assert found.settings["lr"] == 3e-5
    same = SoundLinear(lr=3e-5, epochs=2, batch_size=256, patience=20, repeats=3).predict(spec)
    assert torch.equal(found.scores, same.scores)
    assert EvarLinear(lr=0.5, epochs=1).predict(spec).settings["lr"] == 0.5


@pytest.mark.parametrize(
    ("data", "rate"),
    [
        ("esc-50", 1e-3),
        ("/x/UrbanSound8K", 3e-5),
        ("speech_commands", 3e-5),
        ("gtzan/", 1e-3),
        ("fsd50k", 3e-4),
        ("crema-d", 3e-4),
    ],
)
def test_the_rates_are_evars(data, rate):
    assert sound.rate_of(data) == rate


def test_the_score_is_the_mean_of_the_repeats():
    scores, y = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 4
    for metric in ("top-1", "mean per class"):
        each = [measured(metric, s, y) for s in scores]
        assert measured(metric, scores, y) == pytest.approx(sum(each) / 3)
        assert len(set(each)) > 1
    low, high = interval("mean per class", scores, y)
    assert low < measured("mean per class", scores, y) < high


def test_the_protocols_are_found_by_name_and_print_what_they_are():
    assert {"sound-linear", "evar-linear"} <= set(names())
    assert load("sound-linear:repeats=2").name == "sound-linear-repeats-2"
    assert load("evar-linear:lr=none") == EvarLinear()
    assert describe("sound-linear") == "sound linear (Adam 0.001, standardised, 200 epochs at most, patience 10, mean of 10)"
    assert "lr by data set" in describe("evar-linear")
    t = given()
    (result,) = evaluate([("pixels", None), ("run", t.encoder)], t.train, protocols=["sound-linear:repeats=2,epochs=2"])
    assert "mean of 2)" in " ".join(" ".join(result.lines()).split())
    assert result.scores[0].settings["validation"].endswith("drawn")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sound-linear:epochs=0", "0 epochs"),
        ("sound-linear:lr=0", "learning rate is 0"),
        ("evar-linear:held_out=1", "held-out share is 1"),
        ("evar-linear:repeats=0", "0 repeats"),
        ("sound-linear:lr=-1", "learning rate is -1"),
    ],
)
def test_settings_that_are_not_possible_are_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(text)


def test_the_length_of_a_task_is_the_mean_of_its_clips():
    assert mean_length([3, 5, 5]) == 4
    assert mean_length([0]) == 1
    with pytest.raises(ValueError, match="no clips"):
        mean_length([])
