import numpy as np
import pytest
import torch
from PIL import Image

from byol import contact_sheet, run
from byol.config import Request
from byol.encoders import Input


def session_of(spec, **asked):
    asked = {"encoder": "small-w16", "epochs": 1, "batch_size": 4, "image_size": 16, "precision": "fp32", "device": "cpu"} | asked
    return run.prepare(Request(data=str(spec), **asked))


def tiles(path, side):
    """(rows, columns, side, side, 3): the tiles of a sheet, at the size at which they were drawn."""
    with Image.open(path) as image:
        sheet = np.asarray(image)
    factor = -(-contact_sheet.TILE // side)
    tile, gap, label = side * factor, contact_sheet.GAP, contact_sheet.LABEL
    rows = (len(sheet) - gap) // (label + tile + gap)
    columns = (sheet.shape[1] - gap) // (tile + gap)
    tops = [gap + r * (label + tile + gap) + label for r in range(rows)]
    lefts = [gap + c * (tile + gap) for c in range(columns)]
    return np.stack([[sheet[t : t + tile : factor, x : x + tile : factor] for x in lefts] for t in tops])


def test_the_picture_shows_the_views_that_training_sees(tmp_path):
    session = session_of("digits", seed=3)
    found = tiles(contact_sheet.write(session, tmp_path / "views.png"), 16)
    ids = torch.tensor(np.linspace(0, 1796, 8).astype(int))
    crops = session.views.crop(torch.from_numpy(session.memory[ids]), ids, 3, 0)
    views = session.views.images(crops, ids, 3, 0, session.input)
    assert found.shape == (3, 8, 16, 16, 3)
    for row, view in zip(found[1:], views, strict=True):
        grey = view.expand(-1, 3, -1, -1).permute(0, 2, 3, 1) * 255
        # The host rounds crops to whole values, and ops like a stretch of the contrast enlarge that.
        assert np.abs(row - grey.numpy()).mean() < 1.0


def test_the_first_row_is_the_image_as_it_is(tmp_path):
    from sklearn.datasets import load_digits

    found = tiles(contact_sheet.write(session_of("digits"), tmp_path / "views.png"), 16)
    first = Image.fromarray(np.round(load_digits().images[0] * 255 / 16).astype(np.uint8)).convert("RGB")
    np.testing.assert_array_equal(found[0, 0], np.asarray(first.resize((16, 16), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_no_number_of_channels_and_no_depth_breaks_the_picture(channels, dtype, tmp_path):
    x = np.random.default_rng(0).uniform(0, 200, (12, 20, 24, channels)).astype(dtype)
    np.savez(tmp_path / "x.npz", x=x)
    found = tiles(contact_sheet.write(session_of(tmp_path / "x.npz"), tmp_path / "views.png"), 16)
    assert found.shape == (3, 8, 16, 16, 3)
    assert found[0].std() > 10
    assert (found[..., 0] == found[..., 1]).all() == (channels < 3)


def test_a_wide_image_is_shown_whole_on_grey():
    encoder_input = Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    shown = contact_sheet.whole(np.full((8, 32, 3), 255, np.uint8), encoder_input, encoder_input.size)
    assert (shown[6:10] == 255).all()
    assert (shown[:6] == 128).all()
    assert (shown[10:] == 128).all()


def test_images_that_cannot_be_read_give_their_place_to_others(tmp_path):
    for i in range(6):
        Image.fromarray(np.full((16 + i, 16, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(whole[: len(whole) // 2])
    session = session_of(tmp_path)
    ids, images = contact_sheet.samples(session.source)
    assert len(images) == len(ids) == len(set(ids)) > 0
    assert tiles(contact_sheet.write(session, tmp_path / "views.png"), 16).shape[1] == len(ids)
