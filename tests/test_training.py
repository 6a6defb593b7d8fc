import dataclasses
import json
import math

import pytest
import torch
from rgbd_frames import encoder, frames, moved
from torch import nn

from byol import checkpoint, config, encoders, methods, optim, recipes, training
from byol.data import ids_at

BYOL = methods.load("byol")


def make_plan(images=64, **changes):
    settings = config.Settings(**{
        "method": "byol", "encoder": "small", "image_size": 8, "views": "small", "epochs": 3, "batch_size": 8, "accumulate": 1,
        "optimizer": "lars", "lr": 4.0, "weight_decay": 1e-4, "momentum": 0.9, "trust_coefficient": 0.01, "warmup_epochs": 0.5,
        "precision": "fp32", "channels_last": True,
            "device": "cpu", "seed": 0, "workers": 0, "pretrained": False, "on_collapse": "warn", "log_steps": 2,
        "checkpoint_minutes": 100.0,
    } | changes)  # fmt: skip
    plan = config.Plan(
        settings=settings, method={}, views={}, reasons={}, images=images, steps_per_epoch=1, steps=1, warmup_steps=0, peak_lr=0.0
    )
    return recipes.derived(plan)


class Net(nn.Module):
    """A small encoder with dropout, so that its random numbers are put to the test as well."""

    dim = 6

    def __init__(self, channels=1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x):
        return self.net(x).flatten(1)

    def halves(self, x):
        """For a method that takes an encoder of two."""
        return self(x).chunk(2, 1)


def images(n=64, channels=1):
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, channels, 8, 8, generator=g)


def kind_of(method):
    return recipes.kind_of(method.__module__.rpartition(".")[2])


def samples(method, n=64):
    """Of the kind of data that the method is for."""
    return frames(n) if kind_of(method) == "rgbd" else images(n, channels_of(method))


def channels_of(method):
    """Of an image: a flow is one of three."""
    return 3 if methods.encoder_kind(method) == "flow" else 1


def net_for(method):
    """A small encoder of them."""
    if kind_of(method) == "rgbd":
        return encoder()
    if methods.encoder_kind(method) == "flow":
        return flowing(Net(1), Net(2))
    return in_patches(Net()) if methods.encoder_kind(method) == "patches" else Net()


def in_patches(net):
    """3 x 3 patches of 4 px."""
    seen = encoders.Input(channels=1, size=8, mean=(0.5,), std=(0.25,))
    return encoders.wrap(encoders.Patches(net, encoders.Cut(4, 2), seen), input=seen)


def flowing(first, second):
    """Both behind a flow whose couplings add something from the first step on."""
    net = encoders.Flow(first, second)
    for layer in net.flow:
        nn.init.normal_(layer.out, std=0.2)
    return encoders.wrap(net, input=encoders.Input(channels=3, size=8, mean=(0.5,) * 3, std=(0.25,) * 3))


def feed_for(plan):
    x = samples(methods.load(plan.settings.method), plan.images)

    def feed(start, stop):
        for step in range(start, stop):
            ids = ids_at(step, n=len(x), batch=plan.settings.batch_size, seed=plan.settings.seed)
            yield called_with(methods.load(plan.settings.method), x[ids], ids)

    return feed


def called_with(method, x, ids, options=None):
    """Views and rows as the method takes them, with these options."""
    if kind_of(method) == "rgbd":
        return (x, moved(x)[0]), {}
    views = tuple(x + 0.3 * k * x.flip(-1) for k in range(len(methods.views_of(method))))
    # Labels also where they are of use alone; who asks for groups and times asks for those of recordings.
    rows = (*methods.rows_of(method), *({"labels"} & set(methods.rows_if_known(method, options))))
    return views, {name: ids if name == "index" else ids % 3 for name in rows}


def small(method, **options):
    """The method's options, with few units."""
    # Of batches of 8, a queue of 20 is filled from its end on into its beginning.
    few = {"hidden": 16, "dim": 8, "bottleneck": 4, "classes": 3, "queue": 20, "channels": 1, "size": 8, "samples": 64, "negatives": 10}
    few |= {"prototypes": 5, "background": 12, "clusters": 5, "labelings": 2, "iterations": 3, "epochs": 2, "steps": 8}
    return method.Config(**{k: v for k, v in few.items() if k in {f.name for f in dataclasses.fields(method.Config)}} | options)


def build(plan):
    torch.manual_seed(0)
    s, cls = plan.settings, methods.load(plan.settings.method)
    method = cls(net_for(cls), small(cls, **({"tau_base": 0.9} if cls is BYOL else {})))
    optimizer = optim.make(
        s.optimizer, method.param_groups(), lr=0.0, weight_decay=s.weight_decay, momentum=s.momentum, trust_coefficient=s.trust_coefficient
    )
    return method, optimizer


def run(folder, plan, *, stop_after=None, start_from=None):
    """Train in a folder, from its checkpoint if there is one; stop after so many updates."""
    folder.mkdir(exist_ok=True)
    method, optimizer = build(plan)
    last = folder / "last.safetensors"
    start = checkpoint.restore(last, method=method, optimizer=optimizer) if last.exists() else 0
    done = iter(range(start + 1, plan.steps + 1))
    outcome = training.fit(folder, plan, method, optimizer, feed_for(plan), start=start, interrupted=lambda: next(done) == stop_after)
    return method, optimizer, outcome


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adam", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_at_any_step_is_bit_exact(tmp_path, optimizer, accumulate):
    plan = make_plan(optimizer=optimizer, lr=0.05 if "adam" in optimizer else 4.0, accumulate=accumulate)
    whole, whole_optimizer, _ = run(tmp_path / "whole", plan)
    for stop in range(1, plan.steps, 3):
        folder = tmp_path / f"stopped-{stop}"
        _, _, outcome = run(folder, plan, stop_after=stop)
        assert (outcome.ended, outcome.step) == ("interrupted", stop)
        method, again, outcome = run(folder, plan)
        assert (outcome.ended, outcome.step) == ("finished", plan.steps)
        for name, value in whole.state_dict().items():
            assert torch.equal(method.state_dict()[name], value), name
        for p, q in zip(whole.parameters(), method.parameters(), strict=True):
            for key, value in whole_optimizer.state.get(p, {}).items():
                assert torch.equal(again.state[q][key], value), key
        assert losses(folder) == losses(tmp_path / "whole")


def losses(folder):
    """What the log says, times and rates aside."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def test_channels_last_weights_resume_bit_exactly(tmp_path):
    plan = make_plan()
    method, optimizer = build(plan)
    method.to(memory_format=torch.channels_last)
    training.fit(tmp_path, plan, method, optimizer, feed_for(plan))
    again, other = build(plan)
    again.to(memory_format=torch.channels_last)
    assert checkpoint.restore(tmp_path / "last.safetensors", method=again, optimizer=other) == plan.steps
    for p, q in zip(method.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.stride() == q.stride()
        if p in optimizer.state:
            assert optimizer.state[p]["momentum_buffer"].stride() == other.state[q]["momentum_buffer"].stride()


def test_the_target_moves_last_and_once_per_update_under_accumulation(tmp_path):
    plan = make_plan(accumulate=2)
    method, optimizer = build(plan)
    calls = []
    step, after = optimizer.step, method.after_step
    optimizer.step = lambda: (calls.append("step"), step())
    method.after_step = lambda progress: (calls.append(progress), after(progress))
    training.fit(tmp_path, plan, method, optimizer, feed_for(plan))
    assert calls == [c for k in range(plan.steps) for c in ("step", k / plan.steps)]


def test_step_k_uses_lr_k_and_tau_k_counted_from_0(tmp_path):
    plan = make_plan(log_steps=1)
    run(tmp_path, plan)
    rows = losses(tmp_path)
    assert len(rows) == plan.steps == 24
    assert plan.warmup_steps == 4
    assert plan.peak_lr == 4.0 * 8 / 256
    for k, row in enumerate(rows):
        cosine = 0.5 * (1 + math.cos(math.pi * (k - 4) / 20))
        assert row["lr"] == pytest.approx(plan.peak_lr * (k / 4 if k < 4 else cosine))
        assert row["tau"] == pytest.approx(1 - 0.1 * (math.cos(math.pi * k / 24) + 1) / 2)
    assert rows[0]["lr"] == 0


def test_a_constant_group_keeps_the_peak_rate_times_its_own_factor(tmp_path):
    plan = make_plan(optimizer="sgd", lr=0.8, log_steps=1, epochs=1)
    method, _ = build(plan)
    groups = [
        *optim.param_groups(method.encoder),
        *[optim.Group(**g, lr_scale=0.5) for g in optim.param_groups(method.projector)],
        *[optim.Group(**g, constant=True, lr_scale=3.0) for g in optim.param_groups(method.predictor)],
    ]
    optimizer = optim.make("sgd", groups, lr=0.0, weight_decay=0.0, momentum=0.0, trust_coefficient=1e-3)
    rates = []
    step = optimizer.step
    optimizer.step = lambda: (rates.append([g["lr"] for g in optimizer.param_groups]), step())
    training.fit(tmp_path, plan, method, optimizer, feed_for(plan))
    peak, scheduled = 0.8 * 8 / 256, [row["lr"] for row in losses(tmp_path)]
    assert len(scheduled) == len(rates) == 8
    assert len(set(scheduled)) > 5
    for rate, found in zip(scheduled, rates, strict=True):
        assert found == pytest.approx([rate] * 2 + [0.5 * rate] * 2 + [3 * peak] * 2)


def test_accumulated_passes_give_the_gradient_of_their_mean(tmp_path):
    plan = make_plan(accumulate=4, epochs=1, warmup_epochs=0.0, optimizer="sgd", weight_decay=0.0)
    method, optimizer = build(plan)
    method.encoder.net[3].p = 0.0
    method.target_encoder.net[3].p = 0.0
    seen = []
    optimizer.step = lambda: seen.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
    method.after_step = lambda progress: None
    training.fit(tmp_path, plan, method, optimizer, feed_for(plan))
    again, _ = build(plan)
    again.encoder.net[3].p = 0.0
    again.target_encoder.net[3].p = 0.0
    loss = sum(again(views).loss for views, _ in feed_for(plan)(0, 4)) / 4
    expected = torch.autograd.grad(loss, [p for p in again.parameters() if p.requires_grad])
    for ours, theirs in zip(seen[0], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_an_update_with_a_gradient_that_is_not_finite_is_left_out_and_reported(tmp_path):
    plan = make_plan(optimizer="sgd", weight_decay=0.0, momentum=0.0, log_steps=1, epochs=1)
    method, optimizer = build(plan)
    forward = method.forward
    count = iter(range(100))

    def sometimes_broken(views):
        out = forward(views)
        return dataclasses.replace(out, loss=out.loss * math.nan) if next(count) == 3 else out

    method.forward = sometimes_broken
    training.fit(tmp_path, plan, method, optimizer, feed_for(plan))
    assert all(p.isfinite().all() for p in method.parameters())
    rows = losses(tmp_path)
    assert [row["verdict"] for row in rows].index("WARN") == 3
    assert "not finite" in rows[3]["reason"]
    assert rows[4]["verdict"] == "OK"


def test_a_pass_that_is_not_finite_leaves_no_trace_in_the_statistics_of_batch_norm(tmp_path):
    plan = make_plan(optimizer="sgd", log_steps=1, epochs=1)
    method, optimizer = build(plan)
    batches = feed_for(plan)

    def broken(start, stop):
        for step, (views, rows) in enumerate(batches(start, stop)):
            yield (tuple(v * math.inf for v in views) if step == 3 else views), rows

    training.fit(tmp_path, plan, method, optimizer, broken)
    assert all(b.isfinite().all() for b in method.buffers())
    assert all(p.isfinite().all() for p in method.parameters())


def test_tied_weights_are_one_parameter_and_come_back(tmp_path):
    class Tied(nn.Module):
        dim = 4

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    method = BYOL(Tied(), BYOL.Config(hidden=4, dim=4))
    groups = method.param_groups()
    assert sum(len(g["params"]) for g in groups) == len({id(p) for g in groups for p in g["params"]})
    optimizer = optim.make("sgd", groups, lr=0.1, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3)
    checkpoint.save(tmp_path / "last.safetensors", step=3, method=method, optimizer=optimizer)
    assert checkpoint.restore(tmp_path / "last.safetensors", method=method, optimizer=optimizer) == 3


def test_training_leaves_the_global_generator_as_it_was(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    plan = make_plan(epochs=1)
    method, optimizer = build(plan)
    torch.manual_seed(11)
    training.fit(tmp_path, plan, method, optimizer, feed_for(plan))
    assert torch.equal(torch.rand(3), expected)


def test_lines_logged_after_the_checkpoint_are_dropped_and_a_torn_line_too(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 5}\n{"step": 9}\n{"ste')
    training.trim_log(log, 5)
    assert log.read_text() == '{"step": 1}\n{"step": 5}\n'


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, damage):
    plan = make_plan(epochs=1)
    run(tmp_path, plan)
    last = tmp_path / "last.safetensors"
    whole = last.read_bytes()
    if damage == "foreign":
        method = BYOL(Net(), BYOL.Config(hidden=16, dim=9))
        optimizer = optim.LARS(method.param_groups(), lr=0.1)
    else:
        last.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage])
        method, optimizer = build(plan)
    with pytest.raises(ValueError, match=r"last\.safetensors (cannot be read|belongs to another)"):
        checkpoint.restore(last, method=method, optimizer=optimizer)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    plan = make_plan(epochs=1)
    method, optimizer, _ = run(tmp_path, plan)
    before = (tmp_path / "last.safetensors").read_bytes()

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path / "last.safetensors", step=99, method=method, optimizer=optimizer)
    assert (tmp_path / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "mend"),
    [({"predictor": "none"}, "predictor=mlp"), ({"tau_base": 0.0, "head_norm": "none"}, "tau_base=0.99")],
)
def test_a_run_that_must_collapse_is_stopped_within_200_updates_and_a_healthy_one_is_not(tmp_path, config, mend):
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().images).float()[:, None] / 16 - 0.3
    plan = make_plan(images=len(x), batch_size=64, epochs=8, optimizer="sgd", lr=1.0, log_steps=10, on_collapse="stop", warmup_epochs=1.0)

    def feed(start, stop):
        for step in range(start, stop):
            ids = ids_at(step, n=len(x), batch=64, seed=0)
            g = torch.Generator().manual_seed(step)
            yield tuple(x[ids] + 0.2 * torch.randn(64, 1, 8, 8, generator=g) for _ in "vw"), {}

    outcomes = {}
    for name, options in (("healthy", {}), ("doomed", config)):
        torch.manual_seed(0)
        net = Net()
        method = BYOL(net, BYOL.Config(**{"hidden": 64, "dim": 16, "tau_base": 0.95} | options))
        optimizer = optim.make("sgd", method.param_groups(), lr=0.0, weight_decay=1e-4, momentum=0.9, trust_coefficient=1e-3)
        (tmp_path / name).mkdir()
        outcomes[name] = training.fit(tmp_path / name, plan, method, optimizer, feed)
    assert outcomes["healthy"].ended == "finished"
    assert outcomes["doomed"].ended == "collapsed"
    assert outcomes["doomed"].step <= 200
    assert "rank" in outcomes["doomed"].record["reason"]
    assert outcomes["doomed"].mend == mend
    assert mend in outcomes["doomed"].record["reason"]


def test_no_part_of_an_update_reads_a_number_back_from_the_device(tmp_path):
    # Tensors of the device "meta" have no values: whatever asks for one fails, where a GPU would be waited for.
    plan = make_plan(device="meta", log_steps=1000)
    method, _ = build(make_plan())
    method.to("meta")
    views = tuple(torch.empty(8, 1, 8, 8, device="meta") for _ in range(2))
    for name in ("lars", "sgd", "adam", "adamw"):
        optimizer = optim.make(name, method.param_groups(), lr=0.1, weight_decay=1e-4, momentum=0.9, trust_coefficient=0.01)
        loop = training.Loop(tmp_path, plan, method, optimizer, None, 0)
        loop.update(1, iter([(views, {})]))
        loop.update(2, iter([(views, {})]))
    with pytest.raises(RuntimeError, match="meta"):
        loop.update(0, iter([(views, {})]))  # the first step is logged, and a line of the log is where numbers are read
