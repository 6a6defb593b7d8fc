import subprocess
import sys

import numpy as np
import pytest
import torch
from data_files import damaged, folder, pixels
from torch.utils.data import DataLoader

from byol import rng, views
from byol.data import HostBatches, Skipped, ids_at, open_source, steps_per_epoch


class Corner:
    """A plan of two views: a 4x4 crop at a place that depends on the sample's own random numbers."""

    def boxes(self, sizes, ids, seed, epoch):
        u = [rng.uniforms(seed, epoch, rng.STREAM_VIEWS + view, ids, 2) for view in range(2)]
        return torch.stack([torch.cat([(v * 8).long(), torch.full((len(ids), 2), 4)], 1) for v in u], 1)

    def shrinks(self, boxes):
        return [1] * len(boxes)

    def cut(self, image, boxes, size):
        return torch.stack([torch.from_numpy(image[y : y + h, x : x + w].copy()) for y, x, h, w in boxes.tolist()]).permute(0, 3, 1, 2)


def test_each_epoch_holds_each_sample_once_in_a_new_order():
    n, batch = 60, 10
    epochs = [torch.cat([ids_at(step, n=n, batch=batch, seed=3) for step in range(e * 6, e * 6 + 6)]) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(n))
    assert len({tuple(e.tolist()) for e in epochs}) == 3
    assert epochs[0].tolist() != list(range(n))


def test_ids_are_a_function_of_seed_and_step_alone():
    forward = [ids_at(step, n=50, batch=8, seed=1) for step in range(20)]
    backward = [ids_at(step, n=50, batch=8, seed=1) for step in reversed(range(20))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert a.dtype == torch.int64
        assert torch.equal(a, b)
    assert not torch.equal(forward[0], ids_at(0, n=50, batch=8, seed=2))


def test_writing_into_the_ids_does_not_change_the_order():
    first = ids_at(0, n=50, batch=8, seed=1)
    kept = first.clone()
    first.zero_()
    assert torch.equal(ids_at(0, n=50, batch=8, seed=1), kept)


def test_the_last_partial_batch_is_dropped():
    assert steps_per_epoch(50, 8) == 6
    assert all(len(ids_at(step, n=50, batch=8, seed=0)) == 8 for step in range(14))
    seen = torch.cat([ids_at(step, n=50, batch=8, seed=0) for step in range(6)])
    assert len(set(seen.tolist())) == 48


def test_a_batch_larger_than_the_data_is_one_sentence():
    with pytest.raises(ValueError, match="31 images are fewer than one batch of 64; pass --batch-size 31 or fewer"):
        steps_per_epoch(31, 64)
    with pytest.raises(ValueError, match="batch of 0"):
        steps_per_epoch(31, 0)


@pytest.fixture
def source(tmp_path):
    return open_source(folder(tmp_path, [f"{i:02d}.png" for i in range(20)]))


def collect(source, workers, start=0, stop=12):
    batches = HostBatches(source, Corner(), n=len(source), batch=6, seed=5)
    loader = DataLoader(batches, batch_size=None, sampler=range(start, stop), num_workers=workers)
    return [(b.ids, b.crops, b.bad) for b in loader]


def test_0_and_2_workers_give_the_same_batches(source):
    for (ids, crops, _), (other_ids, other_crops, _) in zip(collect(source, 0), collect(source, 2), strict=True):
        assert torch.equal(ids, other_ids)
        assert torch.equal(crops, other_crops)


def test_a_later_start_gives_the_same_batches(source):
    for whole, part in zip(collect(source, 0)[7:], collect(source, 0, start=7), strict=True):
        assert torch.equal(whole[1], part[1])


def test_crops_are_of_the_samples_that_the_ids_name(source):
    ids, crops, bad = collect(source, 0, 3, 4)[0]
    assert torch.equal(ids, ids_at(3, n=20, batch=6, seed=5))
    assert crops.shape == (2, 6, 3, 4, 4)
    assert bad == []
    wanted = torch.stack(
        [Corner().cut(pixels(seed=int(i)), b, None) for i, b in zip(ids, Corner().boxes(None, ids, 5, 1), strict=True)], 1
    )  # step 3 of 3 per epoch: epoch 1
    assert torch.equal(crops, wanted)


def test_a_damaged_file_is_replaced_by_the_next_readable_one_and_reported(tmp_path, source):
    for name in ("07.png", "08.png", "19.png"):
        (tmp_path / name).write_bytes(damaged())
    reported = set()
    for step in range(3):
        batch = HostBatches(source, Corner(), n=20, batch=6, seed=5)[step]
        wanted = ids_at(step, n=20, batch=6, seed=5).tolist()
        assert batch.ids.tolist() == [{7: 9, 8: 9, 19: 0}.get(i, i) for i in wanted]
        assert torch.equal(batch.crops, HostBatches(source, Corner(), n=20, batch=6, seed=5)[step].crops)
        reported |= {s.name for s in batch.bad}
        assert all(isinstance(s, Skipped) and s.reason for s in batch.bad)
    assert {"07.png", "08.png"} <= reported <= {"07.png", "08.png", "19.png"}


def test_when_every_file_is_gone_it_is_one_sentence(tmp_path, source):
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"none of the 20 images .* can be decoded any more \(first: missing\)"):
        HostBatches(source, Corner(), n=20, batch=6, seed=5)[0]


def test_more_samples_than_the_source_has_is_one_sentence(source):
    with pytest.raises(ValueError, match="20 images, not 21"):
        HostBatches(source, Corner(), n=21, batch=6, seed=5)


def test_importing_data_imports_no_torch():
    code = "import sys, byol.data; byol.data.open_source; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_array_sources_work_in_workers_too():
    x = np.stack([pixels(seed=s) for s in range(12)])
    alone, together = (collect(open_source(x), workers, 0, 4) for workers in (0, 2))
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a[1], b[1])


def photos(root, *, count=3, form="JPEG", suffix=".jpg"):
    """Sharp photos of 854x1280, where crops of 96 px are at least twice as large."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    root.mkdir()
    for i in range(count):
        photo = load_sample_images().images[i % 2]
        wide = np.concatenate([photo, photo[:, ::-1]], 1)
        Image.fromarray(np.concatenate([wide, wide[::-1]])).save(root / f"{i}{suffix}", form, **({"quality": 92} if form == "JPEG" else {}))
    return open_source(root)


def test_large_jpegs_are_decoded_smaller_and_give_the_same_crops(tmp_path):
    source, plan = photos(tmp_path / "photos"), views.load("torchvision", size=96)
    seen = []

    class Watched(type(source.reader)):
        def read(self, index, shrink=1):
            seen.append(shrink)
            return super().read(index, shrink)

    object.__setattr__(source, "reader", Watched(source.reader.blobs, 3, "uint8"))
    for step in range(4):
        batch = HostBatches(source, plan, n=3, batch=3, seed=0)[step]
        whole = plan.host([source.read(int(i)) for i in batch.ids], batch.ids, 0, step)
        # A box is rounded to the pixels of the smaller copy, so edges move by up to half of its pixels: a third of a shift by one.
        assert (batch.crops.float() - whole.float()).abs().mean() < 4
    assert {2, 4} <= set(seen)


@pytest.mark.parametrize(("shrink", "most"), [(2, 0.5), (4, 1.0), (8, 2.0)])
def test_the_same_box_of_a_smaller_decode_is_nearly_the_same_picture(tmp_path, shrink, most):
    from byol.views import crop

    source = photos(tmp_path / "photos")
    box = tuple(side // shrink for side in (64, 128, 640, 768))
    for i in range(3):
        small, whole = source.read(i, shrink), source.read(i)
        assert small.shape[:2] == tuple(-(-side // shrink) for side in whole.shape[:2])
        ours, theirs = crop.resize_one(small, box, 64), crop.resize_one(whole, tuple(side * shrink for side in box), 64)
        assert (ours.float() - theirs.float()).abs().mean() < most  # of 255 levels


def test_what_cannot_be_decoded_smaller_comes_whole(tmp_path):
    source, plan = photos(tmp_path / "photos", form="PNG", suffix=".png"), views.load("torchvision", size=96)
    batch = HostBatches(source, plan, n=3, batch=3, seed=0)[0]
    assert torch.equal(batch.crops, plan.host([source.read(int(i)) for i in batch.ids], batch.ids, 0, 0))


def test_a_photo_that_was_exchanged_for_a_smaller_one_after_the_look_is_cropped_by_its_own_size(tmp_path):
    from PIL import Image

    source, plan = photos(tmp_path / "photos", count=2), views.load("torchvision", size=96)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photos" / "0.jpg")
    batch = HostBatches(source, plan, n=2, batch=2, seed=0)[0]
    row = batch.ids.tolist().index(0)
    assert (batch.crops[:, row, 0].float() > 200).all()
