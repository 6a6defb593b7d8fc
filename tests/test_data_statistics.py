import numpy as np
import pytest
from data_files import pixels, write

from byol.data import open_source, statistics


def test_mean_and_std_equal_numpy_in_float64():
    x = np.stack([pixels(20, 30, seed=s) for s in range(7)])
    ours = statistics(open_source(x))
    scaled = x.astype(np.float64) / 255
    np.testing.assert_allclose(ours.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(ours.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)
    assert (ours.low, ours.high, ours.height, ours.width, ours.count) == (0, 255, 20, 30, 7)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_depths_are_scaled_by_the_observed_range(dtype):
    x = np.stack([pixels(20, 30, 2, seed=s, dtype=dtype) for s in range(5)])
    ours = statistics(open_source(x))
    assert (ours.low, ours.high) == (x.min(), x.max())
    scaled = (x.astype(np.float64) - x.min()) / (float(x.max()) - float(x.min()))
    np.testing.assert_allclose(ours.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(ours.std, scaled.std(axis=(0, 1, 2)), rtol=1e-9)


def test_large_offsets_do_not_cost_precision():
    x = (1e4 + np.random.default_rng(0).random((3, 16, 16))).astype(np.float32)
    scaled = (x.astype(np.float64) - x.min()) / (float(x.max()) - float(x.min()))
    np.testing.assert_allclose(statistics(open_source(x)).std, [scaled.std()], rtol=1e-9)


def test_every_image_counts_the_same_whatever_its_size(tmp_path):
    write(tmp_path / "large.png", np.full((40, 40), 200, np.uint8))
    write(tmp_path / "small.png", np.full((2, 4), 100, np.uint8))
    ours = statistics(open_source(tmp_path))
    np.testing.assert_allclose(ours.mean, [150 / 255])
    np.testing.assert_allclose(ours.std, [50 / 255])
    assert (ours.height, ours.width) == (21, 22)


def test_a_sample_is_drawn_by_the_seed_and_not_from_the_front():
    x = np.zeros((200, 2, 2), np.uint8)
    x[:] = np.arange(200)[:, None, None]
    source = open_source(x)
    means = [statistics(source, sample=20, seed=s).mean[0] * 255 for s in (0, 0, 1)]
    assert means[0] == means[1] != means[2]
    assert all(abs(m - 99.5) < 45 for m in means)
    assert statistics(source, sample=20).count == 20


def test_unreadable_images_are_passed_over():
    x = np.ones((4, 2, 2), np.float32)
    x[2] = np.nan
    x[3] = 3
    ours = statistics(open_source(x))
    assert (ours.count, ours.low, ours.high) == (3, 1, 3)
    np.testing.assert_allclose(ours.mean, [1 / 3])
    with pytest.raises(ValueError, match="none of 1 images"):
        statistics(open_source(x[2:3]))


def test_constant_data_can_still_be_divided_by_its_std():
    for x in (np.full((2, 3, 3), 7, np.uint8), np.full((2, 3, 3), 7, np.float32)):
        ours = statistics(open_source(x))
        assert ours.std == (1.0,)
        assert ours.high > ours.low


def test_the_statistics_of_a_sample_can_take_the_range_of_the_whole():
    x = np.stack([pixels(20, 30, seed=s, dtype=np.float32) for s in range(5)])
    ours = statistics(open_source(x)).with_range(-3.0, 9.0)
    scaled = (x.astype(np.float64) + 3) / 12
    np.testing.assert_allclose(ours.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(ours.std, scaled.std(axis=(0, 1, 2)), rtol=1e-6)
