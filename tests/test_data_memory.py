import numpy as np
import pytest
from data_files import damaged, folder, pixels, write

from byol.data import load_memory, open_source


def test_images_of_one_size_become_one_array_channels_first(tmp_path):
    source = open_source(folder(tmp_path, [f"{i:03d}.png" for i in range(130)]))
    array, same = load_memory(source)
    assert same is source
    np.testing.assert_array_equal(array, np.stack([pixels(seed=i).transpose(2, 0, 1) for i in range(130)]))
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous


def test_damaged_images_move_to_skipped_and_rows_stay_with_names(tmp_path):
    folder(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "b.png").write_bytes(damaged())
    array, source = load_memory(open_source(tmp_path))
    assert source.names == ["a.png", "c.png"]
    assert [s.name for s in source.skipped] == ["b.png"]
    for row, i in zip(array, range(2), strict=True):
        np.testing.assert_array_equal(row, source.read(i).transpose(2, 0, 1))


def test_other_sizes_or_too_many_bytes_give_no_array(tmp_path):
    folder(tmp_path, ["a.png", "b.png"])
    source = open_source(tmp_path)
    size = 2 * 12 * 16 * 3
    assert load_memory(source, max_bytes=size)[0] is not None
    assert load_memory(source, max_bytes=size - 1) == (None, source)
    write(tmp_path / "c.png", pixels(16, 12))
    assert load_memory(open_source(tmp_path))[0] is None


def test_16_bit_and_float_arrays_keep_their_depth():
    for dtype in (np.uint16, np.float32):
        x = np.stack([pixels(6, 8, 1, seed=s, dtype=dtype) for s in range(3)])
        array, _ = load_memory(open_source(x))
        assert array.dtype == dtype
        np.testing.assert_array_equal(array[:, 0], x)


def test_when_nothing_decodes_it_is_one_sentence():
    with pytest.raises(ValueError, match="2 images and none of them can be decoded"):
        load_memory(open_source(np.full((2, 4, 4), np.nan, np.float32)))


def test_progress_ends_at_the_number_of_images():
    calls = []
    load_memory(open_source(np.zeros((70, 2, 2), np.uint8)), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 70), (70, 70)]
