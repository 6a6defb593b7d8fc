"""Views of different sizes: whole ones, and small ones of small parts, which a method asks for."""

import numpy as np
import pytest
import torch

from byol import views
from byol.encoders import Input
from byol.views import crop
from byol.views.changes import Take

INPUT = Input(channels=3, size=28, mean=(0.5,) * 3, std=(0.2,) * 3)
TAKES = [Take(0), Take(1), *(Take(i % 2, local=True) for i in range(6))]
IDS = torch.arange(5)


def plan(name="small", size=28, compiled=False, **changes):
    return views.load(name, size=size, takes=TAKES, compiled=compiled, **changes)


def pictures(count=5, height=40, width=36):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "small"), [(224, 96), (96, 42), (64, 28), (32, 14), (28, 12), (8, 4)])
def test_local_views_are_smaller_as_96_is_beside_224(size, small):
    assert plan(size=size).sides == [size] * 2 + [small] * 6


def test_local_views_are_of_parts_from_5_percent_up_to_where_the_others_begin():
    whole, other, *local = plan("torchvision", size=224, min_area=0.14).pipelines
    assert (whole.min_area, other.min_area, whole.max_area) == (0.14, 0.14, 1.0)
    assert {(p.min_area, p.max_area, p.solarize) for p in local} == {(0.05, 0.14, 0.0)}
    assert [p.blur for p in (whole, other, *local)] == [1.0, 0.1, *(0.5, 0.1) * 3], "at most half of the time"
    assert [p.blur for p in plan(blur=0.0, **{"view4.blur": 1.0}).pipelines] == [0, 0, 0, 1, 0, 0, 0, 0]
    drawn = plan(min_area=0.2).boxes(torch.tensor([[224, 224]] * 500), torch.arange(500), 0, 0)[:, 2:, 2:].double()
    areas = drawn.prod(-1) / 224**2
    assert 0.04 < areas.min() < 0.06
    assert 0.19 < areas.max() < 0.21


def test_small_crops_share_sheets_and_lie_over_nothing_else():
    p = plan(size=224)
    assert [place.sheet for place in p.places] == [0, 1, 2, 2, 2, 2, 3, 3], "four of 96 px in one of 224"
    taken = torch.zeros(4, 224, 224, dtype=torch.int64)
    for place in p.places:
        taken[place.sheet, place.rows, place.columns] += 1
    assert taken.max() == 1
    assert taken.sum() == 2 * 224**2 + 6 * 96**2
    assert p.host(list(pictures()), IDS, 0, 0).shape == (4, 5, 3, 224, 224)


@pytest.mark.parametrize("compiled", [False, *([True] if views.has_numba() else [])])
def test_views_of_files_and_of_images_in_memory_are_the_same_ones(compiled):
    p, raw = plan(compiled=compiled), pictures()
    files = p.device(p.host(list(raw), IDS, 3, 1), IDS, 3, 1, INPUT)
    memory = p.memory(torch.from_numpy(raw).permute(0, 3, 1, 2), IDS, 3, 1, INPUT)
    assert [tuple(v.shape) for v in memory] == [(5, 3, 28, 28)] * 2 + [(5, 3, 12, 12)] * 6
    for a, b in zip(files, memory, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().mean() < 0.02  # crops of files are rounded to 8 bits


def test_a_local_view_is_cut_where_its_box_says_and_no_neighbour_on_its_sheet_reaches_into_it():
    p = plan(jitter=0.0, gray=0.0, solarize=0.0, flip=0.0)
    raw = torch.from_numpy(pictures()).permute(0, 3, 1, 2)
    boxes = p.boxes(torch.tensor([[40, 36]] * 5), IDS, 3, 1)
    made = p.memory(raw, IDS, 3, 1, INPUT)
    packed = p.device(p.crop(raw, IDS, 3, 1), IDS, 3, 1, INPUT)
    for number in range(2, 8):
        alone = INPUT.normalise(INPUT.scale(crop.resize_batch(raw, boxes[:, number], 12)), torch.empty(5, 3, 12, 12))
        torch.testing.assert_close(made[number], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(packed[number], alone, rtol=0, atol=1e-5)


def test_without_local_views_everything_is_as_it_was():
    usual, taken = (
        views.load("small", size=28, compiled=False),
        views.load("small", size=28, takes=[(0, False), (1, False)], compiled=False),
    )
    raw = list(pictures())
    assert torch.equal(usual.host(raw, IDS, 0, 0), taken.host(raw, IDS, 0, 0))
    whole = plan().device(plan().host(raw, IDS, 0, 0), IDS, 0, 0, INPUT)
    for a, b in zip(usual.device(usual.host(raw, IDS, 0, 0), IDS, 0, 0, INPUT), whole, strict=False):
        assert torch.equal(a, b), "whole views do not depend on how many local ones there are"


def test_an_image_is_decoded_no_smaller_than_its_views_need():
    p = plan(size=32)
    boxes = torch.zeros(1, 8, 4, dtype=torch.int64)
    boxes[:, :2, 2:], boxes[:, 2:, 2:] = 128, 30
    assert p.shrinks(boxes) == [2], "30 px for 14 px of a local view, though 128 px for 32 would bear 4"
    boxes[:, 2:, 2:] = 60
    assert p.shrinks(boxes) == [4]


def test_views_are_said_in_words_and_shown_at_one_size():
    p = plan("torchvision", size=224)
    words = " ".join(p.describe())
    assert "8 views of 224x224 px" in words
    assert "view 3: 96x96 px; crop 5 % to 8 % of the area" in words
    small = plan()
    assert small.images(small.host(list(pictures()), IDS, 0, 0), IDS, 0, 0, INPUT).shape == (8, 5, 3, 28, 28)
    assert "views 3 to 8: 12x12 px" in " ".join(small.describe())


def test_a_view_larger_than_the_plan_or_of_no_size_is_refused_in_words():
    with pytest.raises(ValueError, match="a view of 64 px is larger than the 32 px of the views small; give pixels=32"):
        views.load("small", size=32, pixels=64)
    with pytest.raises(ValueError, match="pixels 0 is no size of a view; give 1 or more, or none for that of the plan"):
        views.load("small", size=32, pixels=0)
    with pytest.raises(ValueError, match="too wide for 14 px"):
        plan(size=32, kernel=29)


def test_files_reach_a_method_with_local_views_as_images_in_memory_do(tmp_path):
    from PIL import Image

    from byol import config, run

    for i, image in enumerate(pictures(8)):
        Image.fromarray(image[: 40 - i % 2]).save(tmp_path / f"{i}.png")  # two sizes: read as they are needed
    asked = config.Request(data=str(tmp_path), method="swav", image_size=28, batch_size=4, device="cpu", set=("local_views=3",))
    session = run.prepare(asked)
    assert session.memory is None
    (seen, _), *_ = list(session.feed()(0, 1))
    assert [tuple(v.shape) for v in seen] == [(4, 3, 28, 28)] * 2 + [(4, 3, 12, 12)] * 3
