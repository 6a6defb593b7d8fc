"""Volumes as cubes, against SciPy and closed forms; bad files; runs on dated volumes."""

import gzip
import os
import signal
import struct

import nibabel
import numpy as np
import pytest
import torch
from test_dist import free_port
from together import start

import byol
from byol import modalities
from byol.data import Skipped, Unreadable, doctor, open_source
from byol.data.volumes import SIDE, cube, is_volumes
from byol.encoders import Input

DATES = ("2010-01-05", "20110205", "2013-03-01T10-30")


def grid(shape, spacing):
    """(3, X, Y, Z) millimetres from the centre."""
    return np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"))


def sphere(shape, spacing, radius):
    return (np.sqrt((grid(shape, spacing) ** 2).sum(0)) < radius).astype(np.float32)


def saved(path, values, affine=None, spacing=(1, 1, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0]) if affine is None else affine), path)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Four subjects with a ball that grows, on three dates each."""
    root, noise = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    for s in range(4):
        for k, day in enumerate(DATES):
            saved(
                root / f"s{s}" / f"{day}.nii.gz",
                9 * sphere((20, 16, 12), (1, 1, 1.5), 3 + s / 2 + k) + noise.random((20, 16, 12)),
                spacing=(1, 1, 1.5),
            )
    return root


@pytest.mark.parametrize(
    ("shape", "spacing"), [((80, 64, 48), (1, 1.25, 1.5)), ((40, 90, 30), (2, 1, 3)), ((200, 160, 180), (0.4, 0.5, 0.5))]
)
def test_a_sphere_stays_a_sphere_in_the_middle_whatever_the_voxels(shape, spacing):
    extent = np.array(shape) * spacing
    step, radius = extent.max() / SIDE, 0.3 * extent.min()
    found = cube(sphere(shape, spacing, radius), spacing)
    near = np.abs(np.sqrt((grid((SIDE,) * 3, (step,) * 3) ** 2).sum(0)) - radius)
    inside = np.sqrt((grid((SIDE,) * 3, (step,) * 3) ** 2).sum(0)) < radius
    clear = near > 1.8 * max(*spacing, step)  # a filter reaches a wider voxel along each axis
    np.testing.assert_allclose(found[clear], inside[clear], atol=1e-5)
    assert found.sum() == pytest.approx(4 / 3 * np.pi * (radius / step) ** 3, rel=0.03)
    centre = [(found * x).sum() / found.sum() for x in np.indices(found.shape)]
    np.testing.assert_allclose(centre, (SIDE - 1) / 2, atol=0.05)


def test_where_voxels_are_not_larger_values_are_scipys_trilinear_ones():
    from scipy.ndimage import map_coordinates

    shape, spacing = (30, 24, 20), (1.0, 1.25, 1.5)
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    step = 30 / SIDE
    at = grid((SIDE,) * 3, (step,) * 3)
    places = [at[a] / spacing[a] + (shape[a] - 1) / 2 for a in range(3)]
    wanted = map_coordinates(volume.astype(np.float64), places, order=1, mode="nearest")
    inside = np.all([np.abs(at[a]) <= shape[a] * spacing[a] / 2 for a in range(3)], axis=0)
    low, high = np.percentile(wanted[inside], [1, 99])
    wanted = np.where(inside, ((wanted - low) / (high - low)).clip(0, 1), 0).transpose(1, 0, 2)[::-1]
    np.testing.assert_allclose(cube(volume, spacing), wanted, atol=2e-5)


def test_a_scan_is_turned_to_one_orientation(tmp_path):
    values = np.random.default_rng(0).random((12, 10, 8)).astype(np.float32)
    upright = saved(tmp_path / "a" / "2010-01-01.nii", values, spacing=(1, 2, 3))
    # The same voxels stored from the left and from above, with the axes in another order.
    affine = np.array([[0, -1.0, 0, 0], [0, 0, 2.0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
    turned = saved(tmp_path / "b" / "2010-01-01.nii", np.ascontiguousarray(values.transpose(2, 0, 1)[::-1, ::-1]), affine)
    s = open_source(tmp_path)
    np.testing.assert_allclose(s.read(0), s.read(1), atol=1e-6)
    assert s.read(0).shape == (SIDE,) * 3
    one = np.zeros((9, 9, 9), np.float32)
    one[7, 4, 1] = 1  # far to the right, in the middle, and low
    saved(upright, one)
    saved(turned, one)
    row, column, piece = np.argwhere(open_source(tmp_path).read(0) == 1).mean(0)
    assert (column > 45, abs(row - 31.5) < 5, piece < 15) == (True, True, True)
    one[:] = 0
    one[4, 8, 4] = 1  # in front: above in a picture
    saved(upright, one)
    assert np.argwhere(open_source(tmp_path).read(0) == 1).mean(0)[0] < 8


def test_volumes_of_subjects_and_dates_are_found_and_told(scans):
    s = open_source(scans)
    assert (s.modality, len(s), s.channels, s.dtype, s.classes) == ("volume", 12, SIDE, "float32", ["s0", "s1", "s2", "s3"])
    assert s.times.tolist() == [0, 396, 1151] * 4
    assert s.groups.tolist() == [g for g in range(4) for _ in range(3)]
    first = s.read(0)
    assert (first.dtype, first.min(), first.max()) == (np.float32, 0, 1)
    report = doctor(s)
    text = "\n".join(report.lines())
    assert "12 of 20 x 16 x 12 of 1 x 1 x 1.5 mm" in text
    assert (report.visits.subjects, report.visits.gaps, report.verdict()) == (
        4,
        (396, 396, 755),
        "Usable, but only 12 volumes: more would help most.",
    )
    assert all(len(line) <= 80 for line in report.lines())


def test_lists_sessions_series_of_volumes_and_npy_cubes_are_volumes(tmp_path):
    for i in range(2):
        for day in ("20100105", "20110205"):
            name = f"sub-{i}_ses-{day}_T1w"
            saved(tmp_path / "bids" / f"sub-{i}" / f"ses-{day}" / "anat" / f"{name}.nii.gz", np.random.default_rng(i).random((9, 8, 7, 3)))
            (tmp_path / "bids" / f"sub-{i}" / f"ses-{day}" / "anat" / f"{name}.json").write_text("{}")
            (tmp_path / "npy" / f"s{i}").mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "npy" / f"s{i}" / f"{day}.npy", np.random.default_rng(i).random((20, 24, 18)))
    bids = open_source(tmp_path / "bids")
    assert (bids.modality, len(bids), bids.times.tolist(), bids.ignored) == ("volume", 4, [0, 396] * 2, 4)
    assert "the first volume of each of 4 files that hold several" in bids.notes
    alone = saved(tmp_path / "alone" / "2010-01-01.nii", np.random.default_rng(0).random((9, 8, 7, 3))[..., 0])
    np.testing.assert_allclose(cube(np.asarray(nibabel.load(alone).dataobj), (1, 1, 1)), bids.read(0), atol=1e-6)
    npy = open_source(tmp_path / "npy")
    assert (npy.modality, npy.times.tolist(), npy.groups.tolist()) == ("volume", [0, 396] * 2, [0, 0, 1, 1])
    names = [f"bids/{n}" for n in bids.names]
    (tmp_path / "l.csv").write_text("path,subject,age\n" + "".join(f"{n},p{i // 2},{60 + i % 2}\n" for i, n in enumerate(names)))
    listed = open_source(tmp_path / "l.csv")
    assert (listed.modality, listed.times.tolist(), listed.classes) == ("volume", [21915, 22280] * 2, ["p0", "p1"])
    np.testing.assert_array_equal(listed.read(2), bids.read(2))


def test_arrays_with_channels_stay_images(tmp_path):
    for name, shape in (
        ("a/2010-01-01", (20, 20, 3)),
        ("a/2010-01-02", (20, 20, 3)),
        ("b/2010-01-01", (20, 20, 3)),
        ("b/2010-01-02", (20, 20, 3)),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.uint8))
    assert not is_volumes(tmp_path)
    cubes = tmp_path / "cubes"
    cubes.mkdir()
    np.save(cubes / "0.npy", np.random.default_rng(0).random((20, 20, 20)))  # without subjects and dates
    assert open_source(cubes).modality == "image"


def header(values, **changes):
    """The bytes of a file whose header says something else."""
    data = bytearray(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())
    for place, form, value in changes.values():
        struct.pack_into(form, data, place, *value)
    return bytes(data)


GOOD = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
HUGE = (40, "<8h", (3, 32767, 32767, 32767, 1, 1, 1, 1))
BAD = {
    "cut.nii.gz": (gzip.compress(header(GOOD))[:-200], "truncated"),
    "cut.nii": (header(GOOD)[:-30], "truncated: 802 of 832 bytes"),
    "huge.nii": (header(GOOD, dim=HUGE), "are the most that are read"),
    "huge.nii.gz": (gzip.compress(header(GOOD, dim=HUGE)), "are the most that are read"),
    "bomb.nii.gz": (gzip.compress(header(GOOD, at=(108, "<f", (1e12,)))), "its voxels begin after 1e+12 bytes"),
    "nan.nii": (header(np.where(GOOD > 0.9, np.nan, GOOD)), "voxels are NaN or infinite"),
    "flat.nii": (header(0 * GOOD + 3), "all voxels are alike"),
    "two.nii": (header(GOOD[:, :, 0]), "a volume has three axes"),
    "zero.nii": (b"", "0 bytes"),
    "text.nii": (b"hello" * 200, "no NIfTI file"),
    "plain.nii.gz": (b"hello" * 200, "damaged"),
    "wide.nii": (header(GOOD, zooms=(76, "<4f", (1, np.nan, 1, 1))), "its voxels are nan x 1.0 x 1.0 mm large"),
    "rgb.nii": (header(GOOD, kind=(70, "<hh", (128, 24))), "are no voxels"),
    "kind.nii": (header(GOOD, kind=(70, "<hh", (999, 7))), "damaged"),
    "where.nii": (header(GOOD, affine=(280, "<12f", (np.nan,) * 12)), "no orientation that there is"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_left_out_with_its_reason(tmp_path, name):
    content, reason = BAD[name]
    for i in range(3):
        saved(tmp_path / f"good{i}.nii", GOOD + i)
    (tmp_path / name).write_bytes(content)
    report = doctor(tmp_path)
    assert report.images == 3
    assert [s.name for s in report.unreadable] == [name]
    assert reason in report.unreadable[0].reason


def test_only_bad_files_or_no_nibabel_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"hello" * 200)
    with pytest.raises(ValueError, match=r"none of them can be read as a volume \(first: a.nii: no NIfTI file\)"):
        open_source(tmp_path)
    monkeypatch.setattr("byol.data.volumes.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"holds NIfTI volumes, which nibabel reads; run `pip install 'byol\[nifti\]'`"):
        open_source(tmp_path)


def test_a_file_that_is_exchanged_later_is_unreadable(tmp_path):
    path = saved(tmp_path / "a.nii", GOOD)
    s = open_source(tmp_path)
    path.write_bytes(header(GOOD, dim=HUGE))
    with pytest.raises(Unreadable, match="are the most that are read"):
        s.read(0)
    assert s.without({0: "gone"}).skipped == [Skipped("a.nii", "gone")]


def test_one_mean_and_deviation_for_all_slices(scans):
    s = open_source(scans)
    found = modalities.of("volume").measured(s)
    x = np.stack([s.read(i) for i in range(len(s))]).astype(np.float64)
    assert len(set(found.mean)) == len(set(found.std)) == 1
    np.testing.assert_allclose([found.mean[0], found.std[0]], [x.mean(), x.std()], rtol=1e-5)


def test_views_and_pictures_of_volumes(scans):
    s, volumes = open_source(scans), modalities.of("volume")
    assert volumes.names() == ["visits", "crop"]
    plan = volumes.plan("visits", s, SIDE, takes=None, compiled=False, changes={"flip": 0.5})
    ids = torch.arange(12)
    x = torch.from_numpy(np.stack([s.read(i).transpose(2, 0, 1) for i in range(12)]))
    seen = volumes.input_of(plan, s, SIDE, volumes.measured(s))
    assert isinstance(seen, Input)
    views = plan.from_memory(x, ids, 0, 0, seen)
    normal = seen.normalise(x)
    flipped = [
        view[b].equal(normal[i].flip(-1)) for view, of in zip(views, plan.partners(ids, 0, 0), strict=True) for b, i in enumerate(of)
    ]
    assert flipped[:12] == flipped[12:]
    assert {True, False} == set(flipped)
    raws = [s.read(i) for i in range(12)]
    assert volumes.seen(plan, s, raws, ids, 0, 0, seen).shape == (2, 12, 1, 2 * SIDE, 2 * SIDE)
    picture = volumes.visible(raws[0], seen)
    np.testing.assert_array_equal(picture[:SIDE, :SIDE, 0], raws[0][:, :, SIDE // 2])
    np.testing.assert_array_equal(picture[:SIDE, SIDE:, 0], raws[0][SIDE // 2].T[::-1])
    np.testing.assert_array_equal(picture[SIDE:, :SIDE, 0], raws[0][:, SIDE // 2].T[::-1])
    with pytest.raises(ValueError, match="jitter changes colours, and the 64 channels of a volume are its slices"):
        volumes.plan("crop", s, SIDE, takes=None, compiled=False, changes={"jitter": 0.5})


def test_a_resumed_run_on_visits_ends_in_the_weights_of_one_that_was_not_stopped(scans, tmp_path):
    class Stop:
        def step(self, done):
            if done == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        def log(self, record): ...
        def note(self, text): ...

    asked = {
        "method": "byol",
        "encoder": "small-w8",
        "epochs": 2,
        "batch_size": 6,
        "precision": "fp32",
        "set": ("hidden=8", "dim=4", "apart=365,0"),
    }
    byol.train(scans, tmp_path / "whole", **asked)
    assert byol.train(scans, tmp_path / "cut", **asked, watcher=Stop()).outcome.step == 2
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    whole, cut = (byol.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    again = (tmp_path / "whole" / "plan.json").read_text()
    assert "365 days or more apart; 12 of 12 have one" in again.replace('",\n  "  ', " ")


def test_two_processes_end_where_one_does(scans, tmp_path):
    words = ["--method", "autoencoder", "--encoder", "small-w8", "--epochs", "1", "--batch-size", "6", "--precision", "fp32"]
    words += ["--set", "views=visits", "--set", "hidden=8"]
    both = ["-m", "byol", "train", scans, "--out", tmp_path / "two", *words]
    assert [p.wait(240) for p in start(2, both, port=free_port())] == [0, 0]
    settings = {"method": "autoencoder", "encoder": "small-w8", "epochs": 1, "batch_size": 6, "precision": "fp32"}
    byol.train(scans, tmp_path / "one", **settings, set=("views=visits", "hidden=8"))
    one, two = (byol.load(tmp_path / name).state_dict() for name in ("one", "two"))
    for key, value in one.items():  # sums in another order, in float32
        torch.testing.assert_close(two[key].double(), value.double(), rtol=1e-3, atol=1e-3)


def test_volumes_without_dates_train_on_crops(tmp_path):
    for i in range(4):
        saved(tmp_path / "v" / f"{i}.nii.gz", np.random.default_rng(i).random((9, 8, 7)))
    from byol.config import Request
    from byol.run import prepare

    session = prepare(Request(data=str(tmp_path / "v"), batch_size=2))
    assert session.plan.settings.views == "crop"
    with pytest.raises(ValueError, match="the views visits need to know whose volumes are"):
        prepare(Request(data=str(tmp_path / "v"), batch_size=2, set=("views=visits",)))
    with pytest.raises(ValueError, match="image_size=32 is for images"):
        prepare(Request(data=str(tmp_path / "v"), batch_size=2, image_size=32))
