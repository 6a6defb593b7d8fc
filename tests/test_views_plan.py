"""Plans as wholes: the paper's numbers, independence of samples, how often and in which order, what is said and refused."""

import pickle

import numpy as np
import pytest
import torch

from byol import views
from byol.encoders import Input
from byol.views import chain, draws, plan
from byol.views.palette import palette

INPUT = Input(channels=3, size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def crops_of(batch, size=32, channels=3, count=2):
    return torch.randint(0, 256, (count, batch, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", ["paper", "torchvision"])
def test_t_and_t_prime_carry_the_papers_numbers(name):
    t, t_prime = views.load(name, size=224).pipelines
    for p in (t, t_prime):
        assert (p.min_area, p.max_area, p.aspect, p.flip) == (0.08, 1.0, (3 / 4, 4 / 3), 0.5)
        assert (p.jitter, p.brightness, p.contrast, p.saturation, p.hue, p.gray) == (0.8, 0.4, 0.4, 0.2, 0.1, 0.2)
        assert (p.sigma, p.kernel) == ((0.1, 2.0), None)
    assert (t.blur, t.solarize) == (1.0, 0.0)
    assert (t_prime.blur, t_prime.solarize) == (0.1, 0.2)


def test_small_has_no_blur_and_crop_has_nothing_but_crop_and_flip():
    assert [(p.blur, p.solarize, p.jitter) for p in views.load("small", size=32).pipelines] == [(0, 0, 0.8), (0, 0.2, 0.8)]
    assert [(p.flip, p.jitter, p.gray, p.blur, p.solarize) for p in views.load("crop", size=32).pipelines] == [(0.5, 0, 0, 0, 0)] * 2


@pytest.mark.parametrize(("name", "channels"), [("paper", 3), ("torchvision", 3), ("paper", 1), ("torchvision", 5)])
def test_changing_one_sample_leaves_the_others_bitwise_unchanged(name, channels):
    p = views.load(name, size=40, channels=channels)
    given = Input(channels=channels, size=40, mean=(0.5,) * channels, std=(0.2,) * channels)
    crops, ids = crops_of(12, 40, channels), torch.arange(12)
    before = torch.stack(p.device(crops, ids, 0, 0, given))
    crops[:, 5] = 255 - crops[:, 5]
    after = torch.stack(p.device(crops, ids, 0, 0, given))
    others = torch.arange(12) != 5
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, 5], after[:, 5])


@pytest.mark.parametrize("name", ["paper", "torchvision"])
def test_a_batch_of_one_equals_its_row_in_a_batch_of_many_parts(name, monkeypatch):
    p, crops, ids = views.load(name, size=32), crops_of(40), torch.arange(100, 140)
    raw = crops[0]
    monkeypatch.setattr(plan, "_CACHE_FLOATS", 7 * 3 * 32 * 32)  # parts of seven samples, and a rest
    many, cut = torch.stack(p.device(crops, ids, 1, 2, INPUT)), p.crop(raw, ids, 1, 2)
    for i in (0, 6, 7, 39):
        one = torch.stack(p.device(crops[:, i : i + 1], ids[i : i + 1], 1, 2, INPUT))
        torch.testing.assert_close(one[:, 0], many[:, i], atol=1e-5, rtol=0)  # 1e-6 of the value range
        torch.testing.assert_close(p.crop(raw[i : i + 1], ids[i : i + 1], 1, 2)[:, 0], cut[:, i], atol=1e-3, rtol=0)  # of 255


def test_one_image_many_times_gives_as_many_views():
    p = views.load("small", size=32)
    x = crops_of(1)[:, :1].expand(2, 30, 3, 32, 32)
    images = p.images(x, torch.arange(30), 0, 0, INPUT)
    cut = p.crop(x[0], torch.arange(30), 0, 0)
    for different in (images, cut):
        rows = different.flatten(0, 1).flatten(1)
        assert len({row.numpy().tobytes() for row in rows}) >= 50  # a few draw neither flip nor jitter nor gray


def test_seed_epoch_and_view_each_change_what_is_drawn():
    p, x, ids = views.load("small", size=32), crops_of(8), torch.arange(8)
    first = p.images(x, ids, 0, 0, INPUT)
    assert torch.equal(first, p.images(x, ids, 0, 0, INPUT))
    assert not torch.equal(first, p.images(x, ids, 1, 0, INPUT))
    assert not torch.equal(first, p.images(x, ids, 0, 1, INPUT))
    same = x[:1].expand_as(x)
    assert not torch.equal(*p.images(same, ids, 0, 0, INPUT))


def test_device_is_images_normalised():
    p, x, ids = views.load("paper", size=32), crops_of(5), torch.arange(5)
    images = p.images(x, ids, 0, 0, INPUT)
    assert images.min() >= 0
    assert images.max() <= 1
    for ours, image in zip(p.device(x, ids, 0, 0, INPUT), images, strict=True):
        torch.testing.assert_close(ours, (image - torch.tensor(INPUT.mean)[:, None, None]) / torch.tensor(INPUT.std)[:, None, None])
        assert ours.dtype == torch.float32
        assert not ours.requires_grad


N = 6000
OFF = {"flip": 0.0, "jitter": 0.0, "gray": 0.0, "blur": 0.0, "solarize": 0.0}


@pytest.mark.parametrize(
    ("op", "probability"), [("flip", 0.5), ("jitter", 0.8), ("gray", 0.2), ("blur", 0.1), ("solarize", 0.2), ("blur", True), ("gray", 0)]
)
def test_each_op_changes_as_many_samples_as_its_probability_says(op, probability):
    p = views.load("paper", size=8, kernel=3, sigma=(1.0, 2.0), **(OFF | {op: probability}))
    x = torch.linspace(0, 255, 3 * 64).view(3, 8, 8).expand(2, N, 3, 8, 8)
    images = p.images(x, torch.arange(N), 3, 0, INPUT)
    for view in images:
        changed = (view - INPUT.scale(x[0])).abs().amax((1, 2, 3)) > 1e-6
        assert abs(float(changed.double().mean()) - probability) <= 4.5 * (probability * (1 - probability) / N) ** 0.5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_op_that_all_samples_draw_leaves_images_that_later_ops_can_change(channels):
    # The gray image stands in every channel at once; written into, it must be copied first.
    given = Input(channels=channels, size=24, mean=(0.5,) * channels, std=(0.2,) * channels)
    x, ids = crops_of(40, 24, channels), torch.arange(40)
    gray = views.load("paper", size=24, channels=channels, **(OFF | {"gray": 1.0})).images(x, ids, 0, 0, given)
    both = views.load("paper", size=24, channels=channels, **(OFF | {"gray": 1.0, "solarize": 0.5})).images(x, ids, 0, 0, given)
    expected = torch.minimum(gray, 1 - gray)
    turned = (both != gray).flatten(2).any(2)
    assert 20 < turned.sum() < 60
    torch.testing.assert_close(both[turned], expected[turned])


@pytest.mark.parametrize(("name", "channels"), [("paper", 3), ("torchvision", 3), ("small", 1)])
def test_views_of_images_in_memory_are_their_crops_and_then_the_ops(name, channels):
    plan, x, ids = views.load(name, size=24, channels=channels), crops_of(50, 40, channels)[0], torch.arange(50)
    given = Input(channels=channels, size=24, mean=(0.5,) * channels, std=(0.2,) * channels)
    for ours, theirs in zip(plan.memory(x, ids, 1, 2, given), plan.device(plan.crop(x, ids, 1, 2), ids, 1, 2, given), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_images_in_memory_are_blurred_as_far_as_crops_are():
    plan, x, ids = views.load("paper", size=160, kernel=23, sigma=(2.0, 3.0), compiled=False), crops_of(2, 160)[0], torch.arange(2)
    for ours, theirs in zip(plan.memory(x, ids, 1, 2, INPUT), plan.device(plan.crop(x, ids, 1, 2), ids, 1, 2, INPUT), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("compiled", [False, None])
def test_a_flat_image_of_one_channel_stays_flat_though_its_crop_is_rounded(compiled):
    plan, ids = views.load("paper", size=32, channels=1, gray=1.0, blur=0.0, compiled=compiled), torch.arange(40)
    given = Input(channels=1, size=32, mean=(0.0,), std=(1.0,))
    for view in plan.memory(torch.full((40, 1, 48, 48), 201, dtype=torch.uint8), ids, 0, 0, given):
        assert float((view.amax((1, 2, 3)) - view.amin((1, 2, 3))).max()) < 1e-5


@pytest.mark.parametrize("channels", [3, 1])
def test_the_crops_given_stay_as_they_are_though_ops_work_in_place(channels):
    plan, ids = views.load("torchvision", size=24, channels=channels), torch.arange(60)
    x = crops_of(60, 24, channels).float()
    before = x.clone()
    plan.device(x, ids, 0, 0, Input(channels=channels, size=24, mean=(0.5,) * channels, std=(0.2,) * channels))
    assert torch.equal(x, before)


def test_views_can_be_learned_from_and_not_only_looked_at():
    x, ids = crops_of(4, 24), torch.arange(4)
    weight = torch.ones(3, 3, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(views.load("paper", size=24).device(x, ids, 0, 0, INPUT)[0], weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("by_reach", [True, False])
def test_no_two_ops_of_a_round_touch_the_same_sample(by_reach):
    p = views.load("paper", size=224).pipelines[0]
    u = draws.for_device(0, 0, 0, torch.arange(N), None)
    for groups in chain.rounds_of(p, palette("paper", "rgb", 3, p), 23, "zero", u, by_reach=by_reach):
        rows = np.concatenate([rows for rows, _ in groups])
        assert len(np.unique(rows)) == len(rows)


def test_the_four_jitters_come_in_all_24_orders_equally_often():
    p = views.load("paper", size=32).pipelines[0]
    colours = palette("paper", "rgb", 3, p)
    u = draws.for_device(0, 0, 0, torch.arange(N), None)
    order = {i: [] for i in range(N)}
    numbers = {id(drawn.op): number for number, drawn in colours.jitters.items()}
    for rows, drawn in (group for groups in chain.rounds_of(p, colours, 1, "zero", u, by_reach=True) for group in groups):
        for row in rows.tolist() if id(drawn.op) in numbers else []:
            order[row].append(numbers[id(drawn.op)])
    found = [tuple(o) for o in order.values() if o]
    assert all(sorted(o) == [0, 1, 2, 3] for o in found)
    counts = {o: found.count(o) for o in set(found)}
    assert len(counts) == 24
    expected = len(found) / 24
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < 49.7  # chi squared, 23 degrees, p 0.001


@pytest.mark.parametrize("op", ["flip", "jitter", "gray", "blur", "solarize"])
def test_switching_one_op_off_never_shifts_the_numbers_of_another(op):
    x, ids = crops_of(60, 24), torch.arange(60)
    on, off = views.load("paper", size=24), views.load("paper", size=24, **{op: 0.0})
    column = {"flip": draws.FLIP, "jitter": draws.JITTER, "gray": draws.GRAY, "blur": draws.BLUR, "solarize": draws.SOLARIZE}[op]
    for v in range(2):
        u = draws.for_device(0, 0, v, ids, None)
        untouched = ~draws.chosen(u[:, column.start].numpy(), getattr(on.pipelines[v], op))
        ours, theirs = (p.images(x, ids, 0, 0, INPUT)[v] for p in (on, off))
        assert torch.equal(ours[untouched], theirs[untouched])


def test_no_column_is_read_by_two_ops():
    of_one = [draws.FLIP, draws.JITTER, draws.ORDER, draws.BRIGHTNESS, draws.CONTRAST, draws.SATURATION, draws.HUE, draws.GRAY]
    of_one += [draws.BLUR, draws.SIGMA, draws.SOLARIZE, draws.TOP, draws.LEFT, draws.AREA, draws.ASPECT]
    of_one += [draws.each_channel(op, 7) for op in range(3)]
    columns = [c for s in of_one for c in range(s.start, s.stop, s.step or 1)]
    assert len(columns) == len(set(columns))
    assert all(len(range(*draws.each_channel(op, 7).indices(36 + 21))) == 7 for op in range(3))


@pytest.mark.parametrize(("name", "channels"), [("paper", 3), ("torchvision", 3), ("paper", 1), ("torchvision", 4)])
def test_no_value_is_ever_read_back_from_the_device(name, channels):
    # Tensors of the meta device hold no values: whatever waits for one raises there.
    p = views.load(name, size=48, channels=channels)
    given = Input(channels=channels, size=48, mean=(0.5,) * channels, std=(0.2,) * channels)
    raw = torch.empty(16, channels, 64, 64, dtype=torch.uint8, device="meta")
    crops = p.crop(raw, torch.arange(16), 0, 0)
    out = p.device(crops, torch.arange(16), 0, 0, given)
    assert [(view.device.type, view.shape) for view in out] == [("meta", (16, channels, 48, 48))] * 2


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_views_may_be_made(count):
    base = views.load("paper", size=24)
    p = views.ViewPlan(name="mine", dialect="paper", size=24, channels=3, color="rgb", pipelines=base.pipelines[:1] * count)
    cut = p.crop(crops_of(4, 30)[0], torch.arange(4), 0, 0)
    assert len(p.device(cut, torch.arange(4), 0, 0, INPUT)) == count
    assert p.describe()


def test_a_plan_travels_to_a_worker_process():
    p = views.load("paper", size=24, blur=0.5)
    assert pickle.loads(pickle.dumps(p)) == p


def test_describe_says_what_happens_and_what_replaces_the_colour_ops():
    text = " ".join(line.strip() for line in views.load("paper", size=128).describe())
    for words in ("paper: 2 views of 128x128 px", "brightness added", "blur 100 % (13x13", "blur 10 %", "no solarize", "solarize 20 %"):
        assert words in text
    assert "brightness multiplied" in " ".join(views.load("torchvision", size=64).describe())
    assert "gamma" in " ".join(views.load("paper", size=64, channels=1).describe())
    assert "mean over channels" in " ".join(s.strip() for s in views.load("paper", size=64, channels=13).describe())
    assert "both views" in " ".join(views.load("crop", size=64).describe())
    assert "one pixel at this size" in " ".join(s.strip() for s in views.load("paper", size=8).describe())
    for name in views.names():
        for channels in (1, 3, 13):
            assert max(map(len, views.load(name, size=224, channels=channels).describe())) <= 72


def test_changes_reach_every_pipeline_and_booleans_are_probabilities():
    p = views.load("paper", size=64, min_area=0.2, jitter=False, blur=True, aspect=(1.0, 1.0), kernel=5.0)
    assert [(q.min_area, q.jitter, q.blur, q.aspect, q.kernel) for q in p.pipelines] == [(0.2, 0.0, 1.0, (1.0, 1.0), 5)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "papre"}, "no view plan 'papre' .did you mean paper"),
        ({"brightnes": 0.1}, "no setting 'brightnes' .did you mean brightness"),
        ({"blur": 1.5}, "blur 1.5 is not a probability"),
        ({"hue": 0.6}, "hue 0.6 is not a strength in turns"),
        ({"min_area": 0.0}, "min_area 0.0 and max_area 1.0"),
        ({"aspect": (2.0, 1.0)}, "aspect 2.0, 1.0 is no range"),
        ({"sigma": 1.0}, "sigma 1.0 is no pair"),
        ({"kernel": 4}, "kernel 4 has no middle tap"),
        ({"kernel": 2.5}, "kernel 2.5 is not a whole number"),
        ({"gray": (0.1, 0.2)}, "gray .* is not a number"),
        ({"flip": float("nan")}, "flip nan is not a probability"),
        ({"size": 8, "kernel": 17}, "17 taps is too wide for 8 px"),
        ({"size": 0}, "views of 0 px"),
        ({"channels": 4, "color": "rgb"}, "rgb need 3 channels, not 4"),
        ({"color": "hsv"}, "color 'hsv' is not known"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        views.load(**({"name": "paper", "size": 32} | arguments))
    assert "\n" not in str(raised.value)


def test_images_and_ids_that_do_not_fit_the_plan_are_refused():
    p = views.load("paper", size=32)
    with pytest.raises(ValueError, match="3 channels; these images have 1"):
        p.crop(torch.zeros(2, 1, 32, 32), torch.arange(2), 0, 0)
    with pytest.raises(ValueError, match="2 images came with 3 ids"):
        p.crop(torch.zeros(2, 3, 32, 32), torch.arange(3), 0, 0)
    with pytest.raises(ValueError, match="makes 2 views; the crops hold 1"):
        p.device(torch.zeros(1, 2, 3, 32, 32), torch.arange(2), 0, 0, INPUT)
