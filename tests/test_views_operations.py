"""RandAugment's operations beside torchvision's on the same 8-bit images, at magnitudes from end to end."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from byol import views
from byol.encoders import Input
from byol.views import draws, operations

INPUT = Input(channels=3, size=24, mean=(0.0,) * 3, std=(1.0,) * 3)
LINEAR = {"interpolation": InterpolationMode.BILINEAR}  # without a fill: torchvision's darkens what it mixes with
S = 24


def photo(seed=0):
    """Smooth, so that rounding of a histogram shows, and coloured."""
    raw = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(raw, (S, S), mode="bicubic").clamp(0, 1)).round().to(torch.uint8)


def affine(x, angle=0.0, translate=(0, 0), shear=(0.0, 0.0)):
    return F.affine(x, angle, list(translate), 1.0, list(shear), center=[0, 0], **LINEAR)


# What each is with torchvision: of 8-bit images, or of those in [0, 1] where pixels move; `level` from 0 to 1.
EIGHT_BITS = {
    "autocontrast": lambda x, level: F.autocontrast(x),
    "equalize": lambda x, level: F.equalize(x),
    "invert": lambda x, level: F.invert(x),
    "posterize": lambda x, level: F.posterize(x, int(4 * level)),
    "solarize": lambda x, level: F.solarize(x, int(256 * level)),
    "solarize_add": lambda x, level: torch.where(x < 128, (x.int() + int(110 * level)).clamp(max=255).to(torch.uint8), x),
    "colour": lambda x, level: F.adjust_saturation(x, 0.1 + 1.8 * level),
    "contrast": lambda x, level: F.adjust_contrast(x, 0.1 + 1.8 * level),
    "brightness": lambda x, level: F.adjust_brightness(x, 0.1 + 1.8 * level),
    "sharpness": lambda x, level: F.adjust_sharpness(x, 0.1 + 1.8 * level),
}
EXACT = ("equalize", "invert", "posterize", "solarize", "solarize_add")
MOVED = {
    "rotate": lambda x, by: F.rotate(x - 0.5, 30 * by, **LINEAR) + 0.5,
    "shear_x": lambda x, by: affine(x - 0.5, shear=(np.degrees(np.arctan(0.3 * by)), 0)) + 0.5,
    "shear_y": lambda x, by: affine(x - 0.5, shear=(0, np.degrees(np.arctan(0.3 * by)))) + 0.5,
}


def made(name, x, level, sign):
    return operations.NAMED[name](x, torch.full((len(x), 1, 1, 1), level), torch.full((len(x),), sign)).clamp(0, 1)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 0.85, 0.999])
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_what_changes_colours_has_torchvisions_values_to_two_levels_of_255(name, level):
    x = photo()
    ours = 255 * made(name, x / 255, level, 1.0)
    theirs = EIGHT_BITS[name](x, level).float()
    assert (ours - theirs).abs().max() <= (1e-3 if name in EXACT else 2.01)  # torchvision rounds down on the way, too


@pytest.mark.parametrize("by", [-1.0, -0.4, 0.25, 1.0])
@pytest.mark.parametrize("name", MOVED)
def test_what_moves_has_torchvisions_values(name, by):
    x = photo() / 255
    torch.testing.assert_close(made(name, x, abs(by), np.sign(by)), MOVED[name](x, by), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("name", "axis"), [("translate_x", -1), ("translate_y", -2)])
def test_a_translation_by_whole_pixels_moves_these_and_brings_in_grey(name, axis):
    x = photo() / 255
    pixels = 3
    there = made(name, x, pixels / S / (100 / 224), 1.0)
    kept = x.narrow(axis, pixels, S - pixels)
    torch.testing.assert_close(there.narrow(axis, 0, S - pixels), kept, rtol=0, atol=1e-4)
    assert (there.narrow(axis, S - pixels, pixels) - 0.5).abs().max() < 1e-4
    assert torch.equal(made(name, x, 0.0, 1.0).mul(255).round(), photo().float())


def test_an_image_of_one_value_stays_where_there_is_no_contrast_to_stretch():
    x = torch.full((2, 3, 8, 8), 0.25098039)
    for name in ("autocontrast", "equalize"):
        torch.testing.assert_close(made(name, x, 1.0, 1.0), x, rtol=0, atol=1e-6)


def test_magnitudes_are_normal_about_the_one_asked_for_cut_at_both_ends_and_go_either_way():
    u = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    seen = {}

    def note(x, level, sign):
        seen.update(level=10 * level.flatten(), sign=sign)
        return x

    x = torch.zeros(len(u), 1, 1, 1)
    operations.drawn(x, u, op=note, magnitude=6.0, spread=0.5)
    assert seen["level"].mean().item() == pytest.approx(6.0, abs=0.02)
    assert seen["level"].std().item() == pytest.approx(0.5, abs=0.02)
    assert seen["sign"].mean().item() == pytest.approx(0.0, abs=0.03)
    operations.drawn(x, u, op=note, magnitude=10.0, spread=0.5)
    assert seen["level"].max() == 10
    assert (seen["level"] == 10).float().mean().item() == pytest.approx(0.5, abs=0.02)
    operations.drawn(x, u, op=note, magnitude=4.0, spread=0.0)
    assert (seen["level"] == 4).all()


def test_each_of_fifteen_operations_comes_to_one_sample_in_thirty():
    u = np.random.default_rng(0).random((30_000, 11 + 2 * operations.COLUMNS), np.float32)
    for groups in operations.rounds_of(2, 10.0, 0.5, u):
        assert len(groups) == 15
        assert all(abs(len(rows) / len(u) - 1 / 30) < 0.005 for rows, _ in groups)
        assert len(np.unique(np.concatenate([rows for rows, _ in groups]))) == sum(len(rows) for rows, _ in groups)


def plan(**changes):
    return views.load("torchvision", size=S, compiled=False, **changes)


def seen(plan, ids, seed=0):
    raw = torch.cat([photo(int(i)) for i in ids])
    return plan.memory(raw, ids, seed, 0, INPUT)


def test_without_operations_views_are_those_of_moco_bit_for_bit_whatever_the_magnitude():
    ids = torch.arange(12)
    numbers = {"min_area": 0.2, "saturation": 0.4, "blur": 0.5, "solarize": 0.0}
    ours = seen(plan(**numbers, operations=0, magnitude=0.0), ids)
    assert all(torch.equal(a, b) for a, b in zip(ours, seen(plan(**numbers), ids), strict=True))


def test_operations_of_a_sample_are_a_function_of_its_id_alone_and_shift_no_other_draw():
    ids = torch.arange(40)
    p = plan(operations=2)
    every, part = seen(p, ids), seen(p, ids[17:20])
    for a, b in zip(every, part, strict=True):
        torch.testing.assert_close(a[17:20], b, rtol=0, atol=1e-6)
    assert torch.equal(draws.for_device(0, 0, 0, ids, None, 10)[:, :11], draws.for_device(0, 0, 0, ids, None))
    still = plan()
    changed = [(a - b).abs().amax((1, 2, 3)) > 1e-3 for a, b in zip(every, seen(still, ids), strict=True)]
    assert 0.5 < torch.cat(changed).float().mean() < 0.95, "two operations, each half of the time: three samples in four"


def test_a_gray_view_stays_gray_after_operations_and_a_mild_one_has_none():
    for view in seen(plan(operations=3, gray=1.0, solarize=0.0), torch.arange(20)):
        assert (view - view[:, :1]).abs().max() < 1e-5
    assert [p.operations for p in plan(operations=2, takes=[(0, False), (0, True)]).pipelines] == [2, 0]


def test_the_way_by_crops_is_the_way_in_memory_and_channels_that_are_not_rgb_work_too():
    ids, p = torch.arange(6), views.load("torchvision", size=S, channels=2, operations=4, compiled=False)
    raw = torch.cat([photo(int(i)) for i in ids])[:, :2]
    two = Input(channels=2, size=S, mean=(0.0,) * 2, std=(1.0,) * 2)
    crops = p.crop(raw, ids, 0, 0)
    for a, b in zip(p.device(crops, ids, 0, 0, two), p.memory(raw, ids, 0, 0, two), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
        assert a.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"operations": -1}, "operations -1 of spread 0.5 are not possible; give 0 to 9"),
        ({"magnitude": 11.0}, "magnitude 11.0 is not a magnitude"),
    ],
)
def test_impossible_numbers_are_refused_in_a_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        plan(**changes)


def test_the_plan_says_its_operations():
    assert "2 of RandAugment's operations, magnitude 10 +- 0.5" in " ".join(plan(operations=2).describe()).replace("\n ", "")
