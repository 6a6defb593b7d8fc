"""The bank, noise-contrastive estimation and InstDisc: against the formulas written out, and the traps of banks."""

import dataclasses
import math

import numpy as np
import pytest
import test_training as single
import torch
from equations import agree, build, two_views, weights
from reference import encode
from torch import nn

import byol
from byol import checkpoint, methods, optim, recipes, run, training, views
from byol.config import Request
from byol.methods import _bank
from byol.methods._bank import Bank, BankOptions, nce
from byol.methods.cmc import in_batch

InstDisc = methods.load("instdisc")
SMALL = {"dim": 5, "samples": 20, "negatives": 7}
INDEX = torch.tensor([3, 1, 4, 15, 9, 2, 6, 5])


def unit(x):
    return x / (x * x).sum().sqrt()


def head(w, view, prefix="projector"):
    z = encode(view, w) @ w[f"{prefix}.0.weight"].T + w[f"{prefix}.0.bias"]
    return [unit(row) for row in z]


def drawn(bank, index, seed):
    torch.manual_seed(seed)
    return bank.columns(index)


def nce_written_out(scores, z, samples):
    """J of one image: `scores` v m / T of its own row and then of the K drawn ones."""
    k = len(scores) - 1
    noise, p = k / samples, [torch.exp(s) / z for s in scores]
    loss = -torch.log(p[0] / (p[0] + noise + 1e-7))
    return loss - sum(torch.log(noise / (q + noise + 1e-7)) for q in p[1:])


def called(method, view, seed=0, index=INDEX):
    torch.manual_seed(seed)
    return method((view,), index=index)


def test_loss_and_gradient_are_nce_written_out_to_1e_10_with_z_of_the_first_batch():
    method = build(InstDisc, **SMALL)
    w, (view, other), rows = weights(method), two_views(), method.bank.rows.clone()
    columns = drawn(method.bank, INDEX, 0)
    assert torch.equal(columns[:, 0], INDEX)
    scores = [[(v * rows[j]).sum() / 0.07 for j in columns[i]] for i, v in enumerate(head(w, view))]
    z = (20 * torch.stack([torch.exp(s) for row in scores for s in row]).mean()).detach()
    agree(method, called(method, view).loss, w, sum(nce_written_out(row, z, 20) for row in scores) / 8)
    assert method.bank.normaliser.item() == pytest.approx(z.item(), rel=1e-12)
    # The second batch has the same Z.
    columns = drawn(method.bank, INDEX, 1)
    scores = [[(v * rows[j]).sum() / 0.07 for j in columns[i]] for i, v in enumerate(head(w, other))]
    agree(method, called(method, other, seed=1).loss, w, sum(nce_written_out(row, z, 20) for row in scores) / 8)
    assert method.bank.normaliser.item() == pytest.approx(z.item(), rel=1e-12)


def test_without_negatives_it_is_the_cross_entropy_over_all_rows():
    method = build(InstDisc, **SMALL | {"negatives": 0})
    w, (view, _) = weights(method), two_views()
    logits = torch.stack(head(w, view)) @ method.bank.rows.T / 0.07
    agree(method, called(method, view).loss, w, nn.functional.cross_entropy(logits, INDEX))
    assert method.bank.normaliser.item() == -1


def test_as_a_softmax_it_is_the_cross_entropy_over_the_row_and_the_negatives():
    method = build(InstDisc, **SMALL, loss="softmax")
    w, (view, _) = weights(method), two_views()
    columns, v = drawn(method.bank, INDEX, 0), torch.stack(head(w, view))
    logits = (method.bank.rows[columns] * v[:, None]).sum(2) / 0.07
    agree(method, called(method, view).loss, w, nn.functional.cross_entropy(logits, torch.zeros(8, dtype=torch.int64)))


def test_the_proximal_term_is_the_squared_distance_to_the_own_row():
    method, near = build(InstDisc, **SMALL | {"negatives": 0}), build(InstDisc, **SMALL | {"negatives": 0}, prox=0.3)
    view, _ = two_views()
    v = torch.stack(head(weights(method), view))
    gap = called(near, view).loss - called(method, view).loss
    assert gap.item() == pytest.approx(0.3 * ((v - method.bank.rows[INDEX]) ** 2).sum(1).mean().item(), abs=1e-12)


def test_the_loss_of_equal_probabilities_is_known_for_any_number_of_samples():
    k = 4096
    for n in (1000, 50_000, 1_281_167):
        loss = nce(torch.full((3, 1 + k), 1 / n, dtype=torch.float64), n).item()
        assert loss == pytest.approx(math.log(1 + k) + k * math.log(1 + 1 / k), abs=1.1e-7 * n)  # the epsilon, K times
    assert round(math.log(1 + k) + k * math.log(1 + 1 / k), 3) == 9.318


@pytest.mark.parametrize("unit_rows", [True, False])
def test_z_of_a_random_bank_is_what_the_dimension_says(unit_rows):
    torch.manual_seed(0)
    bank = Bank(BankOptions(samples=20_000), unit=unit_rows)
    v = nn.functional.normalize(torch.randn(64, 128))
    bank.loss(bank.scores(v, torch.randint(20_000, (64, 4097))))
    assert bank.normaliser.item() / 20_000 == pytest.approx(math.exp(1 / (2 * 0.07**2 * 128)), rel=0.03)  # 2.22
    assert bank.rows.norm(dim=1).mean().item() == pytest.approx(1, abs=0.01)


def test_gathered_scores_are_those_of_all_products(monkeypatch):
    bank = Bank(BankOptions(samples=50, dim=6), unit=True).double()
    v, columns = torch.randn(4, 6, dtype=torch.float64), torch.randint(50, (4, 9))
    whole = bank.scores(v, columns)
    monkeypatch.setattr(_bank, "CHEAP", 0)
    torch.testing.assert_close(bank.scores(v, columns), whole, rtol=0, atol=1e-12)


def sgd(method, lr=0.1):
    return optim.make("sgd", method.param_groups(), lr=lr, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3)


@pytest.mark.parametrize("cheap", [0, 16])
def test_scores_are_made_in_float32_whatever_the_networks_are_in(monkeypatch, cheap):
    monkeypatch.setattr(_bank, "CHEAP", cheap)
    bank, index = build(InstDisc, **SMALL).float().bank, INDEX
    v = nn.functional.normalize(torch.randn(8, bank.rows.shape[1], generator=torch.Generator().manual_seed(0)))
    columns = torch.randint(len(bank.rows), (8, 3), generator=torch.Generator().manual_seed(0))
    exact = (bank.scores(v), bank.scores(v, columns), bank.contrast(v, index, None).loss, in_batch(v, v.flip(1), 0.1)[0])
    with training.autocast("cpu", "bf16"):
        rounded = (bank.scores(v), bank.scores(v, columns), bank.contrast(v, index, None).loss, in_batch(v, v.flip(1), 0.1)[0])
    for a, b in zip(exact, rounded, strict=True):
        assert torch.equal(a, b)


def test_a_step_writes_the_rows_of_the_batch_and_no_others_after_the_optimiser():
    method = build(InstDisc, **SMALL)
    view, _ = two_views()
    before, v = method.bank.rows.clone(), torch.stack(head(weights(method), view)).detach()
    optimizer = sgd(method)
    called(method, view).loss.backward()
    optimizer.step()
    assert torch.equal(method.bank.rows, before), "not before after_step"
    method.after_step(0.0)
    others = [i for i in range(20) if i not in INDEX.tolist()]
    assert torch.equal(method.bank.rows[others], before[others])
    for i, v_i in zip(INDEX, v, strict=True):
        torch.testing.assert_close(method.bank.rows[i], unit(before[i] / 2 + v_i / 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(method.bank.rows[INDEX].norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_several_passes_of_an_update_are_all_written_and_of_a_sample_twice_in_one_the_last_counts():
    method = build(InstDisc, **SMALL)
    first, second = two_views()
    before, w = method.bank.rows.clone(), weights(method)
    twice = torch.tensor([0, 1, 2, 3, 1, 4, 5, 1])
    for view, index in ((first, INDEX), (second, twice)):
        called(method, view, index=index).loss.backward()
    method.after_step(0.0)
    expected = before.clone()
    for view, index in ((first, INDEX), (second, twice)):
        rows = dict(zip(index.tolist(), head(w, view), strict=True))  # the last one of each
        for i, v in rows.items():
            expected[i] = unit(expected[i] / 2 + v.detach() / 2)
    torch.testing.assert_close(method.bank.rows, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_that_is_left_out_leaves_no_trace_in_the_bank(tmp_path, accumulate):
    """Beside a run whose feed has another batch in that place, which is left out as well: what was in it must not matter."""
    kept = []
    for at in (0.0, 5.0):
        plan = single.make_plan(method="instdisc", optimizer="sgd", lr=0.5, epochs=1, accumulate=accumulate, log_steps=1)
        method, optimizer = single.build(plan)
        feed = single.feed_for(plan)

        def broken(start, stop, at=at, accumulate=accumulate, feed=feed):
            for step, (seen, rows) in zip(range(start, stop), feed(start, stop), strict=True):
                if step // accumulate != 1:
                    yield seen, rows
                else:
                    last = step % accumulate == accumulate - 1
                    yield tuple(torch.full_like(v, math.nan) if last else v + at for v in seen), rows

        folder = tmp_path / f"{at}"
        folder.mkdir()
        training.fit(folder, plan, method, optimizer, broken)
        assert single.losses(folder)[-1]["left_out"] == 1
        kept.append(method.state_dict())
    assert all(torch.equal(kept[0][key], value) for key, value in kept[1].items())
    assert all(value.isfinite().all() for value in kept[0].values())


def test_rows_that_the_update_left_out_would_have_written_stay(tmp_path):
    plan = single.make_plan(method="instdisc", optimizer="sgd", lr=0.5, epochs=1, log_steps=1)
    method, optimizer = single.build(plan)
    before = method.bank.rows.clone()
    (seen, rows), *others = single.feed_for(plan)(0, plan.steps)
    batches = iter([(tuple(v * math.nan for v in seen), rows), *others])
    training.fit(tmp_path, plan, method, optimizer, lambda start, stop: batches)
    assert torch.equal(method.bank.rows[rows["index"]], before[rows["index"]])
    rest = [i for i in range(64) if i not in rows["index"].tolist()]
    assert (method.bank.rows[rest] != before[rest]).any(1).all()


def test_z_and_rows_survive_a_checkpoint(tmp_path):
    method, again = build(InstDisc, **SMALL), build(InstDisc, **SMALL)
    view, other = two_views()
    called(method, view).loss.backward()
    method.after_step(0.0)
    checkpoint.save(tmp_path / "last.safetensors", step=1, method=method, optimizer=sgd(method))
    checkpoint.restore(tmp_path / "last.safetensors", method=again, optimizer=sgd(again))
    z = method.bank.normaliser.clone()
    assert torch.equal(called(again, other, seed=1).loss, called(method, other, seed=1).loss)
    assert z > 0
    assert torch.equal(again.bank.normaliser, z)


def test_negatives_are_drawn_alike_for_any_number_of_processes(monkeypatch):
    method = build(InstDisc, **SMALL)
    whole = drawn(method.bank, INDEX, 4)
    monkeypatch.setattr(_bank.dist, "rank", lambda: 1)
    assert torch.equal(drawn(method.bank, INDEX[4:], 4), whole[4:])


@pytest.mark.parametrize("options", [{"negatives": 10, "temperature": 1.0, "lr": 0.03}, {"negatives": 0, "temperature": 0.2, "lr": 0.1}])
def test_the_loss_falls_on_64_fixed_images(options):
    torch.manual_seed(0)
    lr = options["lr"]
    method = InstDisc(single.Net(), InstDisc.Config(samples=64, dim=8, **{k: v for k, v in options.items() if k != "lr"}))
    optimizer, x, losses = sgd(method, lr), single.images(), []
    for step in range(60):
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss = method((x,), index=torch.arange(64)).loss
        loss.backward()
        optimizer.step()
        method.after_step(step / 60)
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "samples is 0, and the bank has a row for each sample"),
        ({"samples": 9, "temperature": 0.0}, "temperature is 0.0"),
        ({"samples": 9, "bank_momentum": 1.5}, "bank_momentum is 1.5"),
        ({"samples": 9, "negatives": -1}, "negatives=-1"),
        ({"samples": 9, "prox": -1.0}, "prox is -1.0"),
        ({"samples": 9, "loss": "x"}, "loss is 'x'"),
    ],
)
def test_options_out_of_range_are_refused_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        InstDisc.Config(**options)


FEW = ("dim=8", "log_steps=1")


def asked(data, **changes):
    few = {"method": "instdisc", "encoder": "small-w8-n2", "epochs": 1, "batch_size": 16, "precision": "fp32", "device": "cpu", "set": FEW}
    return Request(data=str(data), **few | changes)


def test_a_run_gives_the_bank_a_row_for_each_sample_that_it_takes_and_each_row_is_written_by_its_own(tmp_path):
    session = run.prepare(asked("digits", limit=50, image_size=8))
    assert session.plan.method["samples"] == 50
    assert session.method().bank.rows.shape == (50, 8)
    seen = [rows["index"] for _, rows in session.feed()(0, 3)]
    assert len(torch.cat(seen).unique()) == 48
    for views_of, rows in session.feed()(0, 1):
        assert views_of[0].shape[0] == len(rows["index"]) == 16


def test_fewer_samples_than_there_are_are_refused_and_the_index_is_of_what_is_left(tmp_path):
    with pytest.raises(ValueError, match="samples=10, and there are 50 images; leave it out"):
        run.prepare(asked("digits", limit=50, image_size=8, set=(*FEW, "samples=10")))
    assert run.prepare(asked("digits", limit=50, image_size=8, set=(*FEW, "samples=60"))).plan.method["samples"] == 60


def test_a_file_that_breaks_while_training_is_replaced_and_the_row_of_the_replacement_is_written(tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(32):
        Image.fromarray(noise.integers(0, 255, (20 + i % 3, 24, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i:02}.png")
    session = run.prepare(asked(tmp_path / "photos", image_size=16))
    assert session.memory is None
    broken = sorted((tmp_path / "photos").iterdir())[7]
    broken.write_bytes(broken.read_bytes()[:60])
    seen = torch.cat([rows["index"] for _, rows in session.feed()(0, 2)]).tolist()
    assert 7 not in seen
    assert seen.count(8) == 2


def test_bins_of_a_recording_have_rows_of_their_own(tmp_path):
    noise = np.random.default_rng(0)
    np.savez(tmp_path / "r.npz", x=noise.poisson(3, (48, 6)).astype(np.float32), trial_lengths=np.full(6, 8))
    session = run.prepare(Request(data=str(tmp_path / "r.npz"), method="instdisc", epochs=1, batch_size=16, device="cpu", set=("dim=8",)))
    assert session.plan.method["samples"] == 48
    method = session.method()
    for seen, rows in session.feed()(0, 1):
        before = method.bank.rows.clone()
        method(seen, **rows)
        method.after_step(0.0)
    assert torch.equal((method.bank.rows != before).any(1).nonzero()[:, 0], rows["index"].sort().values)


@pytest.mark.parametrize("name", ["instdisc", "local_aggregation", "pirl", "cmc"])
def test_a_run_tells_its_method_what_it_asks_to_be_told(name):
    cls = methods.load(name)
    facts = recipes.Facts(images=1797, short_side=32, device="cpu", cores=2)
    plan = recipes.resolve(Request(data="x", method=name, epochs=3), facts, cls.Config, views.Pipeline, views.names())
    assert plan.method["samples"] == 1797
    told = {"epochs": 3, "steps": plan.steps}
    known = {f.name for f in dataclasses.fields(cls.Config)}
    assert all(plan.method[k] == v for k, v in told.items() if k in known)
    assert plan.reasons["samples"] == "of the data"
    assert "index" in byol.methods.rows_of(cls)
