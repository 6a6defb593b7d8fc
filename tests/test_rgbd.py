"""RGB-D frames against loops in NumPy, Pillow and SciPy: what is read of each layout, and what becomes of bad files."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from rgbd_files import SIZE, colour, depth, plain, pose, save, scannet, seven_scenes, text, tum

from byol import encoders, modalities
from byol.data import doctor, intrinsics, load_memory, open_rgbd, open_source
from byol.data.rgbd_camera import area
from byol.data.rgbd_texts import associated, nearest


def back_projected(steps, focal, unit, side, far=10.0):
    """A loop over the pixels of the square."""
    height, width = steps.shape
    fx, fy, cx, cy = focal
    out = np.zeros((side, side, 3))
    for i in range(side):
        for j in range(side):
            v, u = int((i + 0.5) * height / side), int((j + 0.5) * width / side)
            z = steps[v, u] * unit
            if steps[v, u] not in (0, 65535) and z <= far:
                out[i, j] = (u - cx) * z / fx, (v - cy) * z / fy, z
    return out


def test_7_scenes_are_read_with_the_camera_that_is_documented_where_there_is_no_other(tmp_path):
    s = open_source(seven_scenes(tmp_path / "chess"))
    assert (s.modality, s.channels, s.dtype, s.kind, len(s)) == ("rgbd", 6, "float32", "folder", 8)
    assert list(s.names) == [f"seq-0{k}/00000{i}" for k in (1, 2) for i in range(4)]
    assert (s.groups.tolist(), s.times.tolist()) == ([0] * 4 + [1] * 4, [0, 1, 2, 3] * 2)
    np.testing.assert_allclose(s.poses, [pose(i % 4) for i in range(8)], atol=1e-12)
    assert s.notes[0] == "colour and depth in 2 sequences (layout: 7-Scenes), poses known"
    assert "the camera that 7-Scenes documents, fx 58.5, fy 58.5, cx 31.55, cy 23.55" in s.notes[1]
    with Image.open(tmp_path / "chess" / "seq-02" / "frame-000001.depth.png") as image:
        steps = np.array(image)
    x = s.read(5)
    assert (x.shape, x.dtype) == ((128, 128, 6), np.float32)
    np.testing.assert_allclose(x[..., 3:], back_projected(steps, (58.5, 58.5, 31.55, 23.55), 1e-3, 128), atol=1e-5)
    assert (x[..., 5] == 0).mean() > 0.1, "what is missing is exactly 0"


def test_one_sequence_alone_is_known_too_and_its_own_camera_comes_first(tmp_path):
    root = seven_scenes(tmp_path / "chess")
    text(root / "camera-intrinsics.txt", [[60.0, 0, 31], [0, 60, 24], [0, 0, 1]])
    text(root / "seq-02" / "intrinsics.txt", [[70.0, 0, 32], [0, 71, 22], [0, 0, 1]])
    assert intrinsics(open_source(root), 64)[[0, 7], 0, 0].tolist() == [60, 70]
    one = open_source(root / "seq-02")
    assert list(one.names) == [f"00000{i}" for i in range(4)]
    assert len(one.notes) == 1, "nothing was assumed"


def test_colours_are_means_over_areas_and_points_those_of_the_middle(tmp_path):
    s = open_rgbd("x", plain(tmp_path), side=16)
    x = s.read(2)
    means = colour(2).astype(np.float64).reshape(16, 3, 16, 4, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(x[..., :3], means, atol=1e-5)
    boxed = np.asarray(Image.fromarray(colour(2)).resize((16, 16), Image.Resampling.BOX)) / 255
    np.testing.assert_allclose(x[..., :3], boxed, atol=1.01 / 255)  # Pillow rounds twice
    near = np.asarray(Image.fromarray(depth(2)).resize((16, 16), Image.Resampling.NEAREST))
    np.testing.assert_allclose(x[..., 5], near / 1000, atol=1e-5)
    np.testing.assert_allclose(x[..., 3:], back_projected(depth(2), (50, 52, 30.5, 25), 1e-3, 16), atol=1e-5)


def test_areas_that_cut_pixels_weigh_them_by_what_they_have_of_them():
    x, side = colour(0, (10, 7)), 4
    fine = np.repeat(np.repeat(x, side, 0), side, 1).astype(np.float64)  # a pixel is side x side; a part 7 x 10 of these
    means = fine.reshape(side, 7, side, 10, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(area(x, (0, 0, 1, 1), side), means, atol=1e-6)
    np.testing.assert_allclose(area(x, (0.2, 0, 0.6, 1), 2)[:, 0], fine[:, 8:16].reshape(2, 14, 8, 3).mean((1, 2)) / 255, atol=1e-6)
    beyond = area(x, (-0.5, 0, 1, 1), 3)
    np.testing.assert_allclose(beyond[:, 0], area(x, (0, 0, 0.001, 1), 3)[:, 0], atol=1e-2)


def test_points_project_to_where_they_are_in_the_square(tmp_path):
    s = open_source(scannet(tmp_path))
    x, k = s.read(0), intrinsics(s, 128)[0]
    rows, columns = np.nonzero(x[..., 5])
    seen = x[rows, columns, 3:] @ k.T
    # Half a pixel of the picture of depth, which is larger than one of the square.
    assert np.abs(seen[:, 0] / seen[:, 2] - columns).max() <= 0.5 * 128 / SIZE[0] + 1e-3
    assert np.abs(seen[:, 1] / seen[:, 2] - rows).max() <= 0.5 * 128 / SIZE[1] + 1e-3


def test_pictures_of_tum_are_put_together_by_their_times(tmp_path):
    noise = np.random.default_rng(0)
    colours = np.arange(12) / 30 + 1305031102.0
    depths = np.sort(np.delete(colours, [3, 7]) + noise.uniform(-0.013, 0.013, 10))
    truth = np.arange(0.0, 0.3, 0.01) + colours[0]
    s = open_source(tum(tmp_path, colours, depths, truth))
    with_depth = {i: j for i, t in enumerate(colours) for j, d in enumerate(depths) if abs(t - d) < 0.0135}
    assert s.times.tolist() == sorted(with_depth)
    assert [skipped.reason for skipped in s.skipped] == ["no depth within 0.02 s"] * 2
    assert "the camera that TUM documents, fx 52.5" in s.notes[1]
    for row, i in enumerate(s.times):
        np.testing.assert_allclose(
            s.read(row)[..., 3:], back_projected(depth(with_depth[i], unit=1 / 5000), (52.5, 52.5, 31.5, 23.5), 1 / 5000, 128), atol=1e-5
        )
        near = np.abs(truth - colours[i]).argmin()
        if abs(truth[near] - colours[i]) < 0.02:
            np.testing.assert_allclose(s.poses[row], pose(near), atol=1e-6)
        else:
            assert np.isnan(s.poses[row]).all()
    assert 0 < np.isnan(s.poses[:, 0, 0]).sum() < len(s)


def test_times_belong_together_one_to_one_the_closest_first():
    noise = np.random.default_rng(1)
    for _ in range(50):
        first, second = (np.sort(noise.uniform(0, 0.4, n)).tolist() for n in (9, 11))
        gaps = sorted((abs(a - b), i, j) for i, a in enumerate(first) for j, b in enumerate(second) if abs(a - b) <= 0.02)
        expected = {}
        for _, i, j in gaps:
            if i not in expected and j not in expected.values():
                expected[i] = j
        assert associated(first, second) == expected
        alone = {i: int(np.abs(np.array(second) - a).argmin()) for i, a in enumerate(first)}
        assert nearest(first, second) == {i: j for i, j in alone.items() if abs(second[j] - first[i]) <= 0.02}
    assert associated([], [1.0]) == nearest([1.0], []) == {}


def test_colour_of_scannet_is_taken_where_the_depth_camera_saw_it(tmp_path):
    # Red grows with the direction to the right, green with that downwards: what a pixel of the square shows says where it looks.
    columns, rows = np.meshgrid(np.arange(160), np.arange(120))
    picture = np.stack([128 + 150 * (columns - 82) / 150, 128 + 150 * (rows - 57) / 152, 0 * rows], -1).round().astype(np.uint8)
    s = open_rgbd("x", scannet(tmp_path, of_colour=picture), side=16)
    x = s.read(0)
    assert s.headers.kinds[0].format == "jpeg + png"
    middle = (np.arange(16) + 0.5) / 16  # of what a pixel of the square is squeezed from
    right, down = (middle * 64 - 0.5 - 32.5) / 58, (middle * 48 - 0.5 - 23) / 57
    inside = slice(1, -1)  # beyond the edges of the colour there is none
    np.testing.assert_allclose(x[inside, inside, 0], np.tile((128 + 150 * right) / 255, (16, 1))[inside, inside], atol=2 / 255)
    np.testing.assert_allclose(x[inside, inside, 1], np.tile((128 + 150 * down)[:, None] / 255, (1, 16))[inside, inside], atol=2 / 255)
    assert np.isnan(s.poses[1]).all()
    assert np.isfinite(s.poses[[0, 2]]).all()
    assert s.notes == ("colour and depth in 1 sequence (layout: ScanNet), 1 of 3 poses not known",)


def test_a_camera_that_fits_only_the_colour_is_scaled_to_the_depth(tmp_path):
    root = plain(tmp_path, 1, intrinsics=False)
    save(root / "color" / "0000.png", colour(0, (640, 480)))
    text(root / "intrinsics.txt", [[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    s = open_source(root)
    np.testing.assert_allclose(intrinsics(s, 64)[0], [[50, 0, 31.5], [0, 50 * 64 / 48, 31.5], [0, 0, 1]])
    assert "intrinsics.txt is taken to be of the colour, 640x480" in s.notes[1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"its camera is not known; add intrinsics.txt with three lines, .* in pixels of its pictures of depth \(64x48\)"),
        ("1 2 3", "is no camera: it has 3 numbers"),
        ("nan 0 30\n0 50 20\n0 0 1", "is no camera: fx nan"),
        ("__import__('os')", "is no camera: it has 0 numbers"),
        ("500 0 320\n0 500 240\n0 0 1", r"the middle, 320 240, is outside its pictures of 64x48"),
    ],
)
def test_a_camera_that_is_none_is_one_sentence(tmp_path, content, sentence):
    root = plain(tmp_path, 1, intrinsics=False)
    if content is not None:
        (root / "intrinsics.txt").write_text(content)
    with pytest.raises(ValueError, match=sentence) as error:
        open_source(root)
    assert "\n" not in str(error.value)


def test_bad_frames_are_left_out_with_their_reason(tmp_path):
    root = plain(tmp_path, 9)
    whole = (root / "depth" / "0001.png").read_bytes()
    (root / "depth" / "0000.png").unlink()
    (root / "depth" / "0001.png").write_bytes(whole[: len(whole) // 2])
    save(root / "depth" / "0002.png", colour(0)[..., 0])
    (root / "color" / "0003.png").write_text("no picture")
    damaged = bytearray((root / "depth" / "0004.png").read_bytes())
    damaged[len(damaged) // 2] ^= 255  # by its header alone it looks whole
    (root / "depth" / "0004.png").write_bytes(bytes(damaged))
    save(root / "depth" / "0005.png", depth(5, (32, 24)))
    (root / "pose" / "0006.txt").unlink()
    (root / "pose" / "0007.txt").write_text("2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")  # no rotation
    memory, s = load_memory(open_source(root))
    assert list(s.names) == ["0006", "0007", "0008"]
    assert s.times.tolist() == [6, 7, 8]
    assert np.isnan(s.poses[:, 0, 0]).tolist() == [True, True, False]
    assert memory.shape == (3, 6, 128, 128)
    reasons = {one.name: one.reason for one in s.skipped}
    assert reasons.pop("0004").startswith("its depth: ")
    assert reasons == {
        "color/0000.png": "no depth of that name",
        "0001": f"its depth: truncated: ends after {len(whole) // 2:,} bytes",
        "0002": "its depth: uint8 grey, where 16-bit grey is needed",
        "0003": 'its colour: not a PNG (starts with "no")',
        "0005": "depth of 32x24 where the sequence has 64x48",
    }
    report = doctor(root)
    assert (report.frames, len(report.unreadable), report.poses) == (3, 6, 1)


def test_a_folder_without_a_usable_frame_is_one_sentence(tmp_path):
    root = plain(tmp_path / "a", 2)
    for name in os.listdir(root / "color"):
        (root / "color" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds 2 frames and none of them can be read \(first: 0000: its colour: 0 bytes\)"):
        open_source(root)
    lone = plain(tmp_path / "b", 2)
    for i in range(2):
        (lone / "color" / f"{i:04d}.png").rename(lone / "color" / f"x{i}.png")
    with pytest.raises(ValueError, match=r"holds no frame with colour and depth \(first: color/x0.png: no depth of that name\)"):
        open_source(lone)


def test_a_list_of_files_reaches_nothing_outside_its_folder(tmp_path):
    root = tum(tmp_path / "a", [1.0, 1.1], [1.0, 1.1], [1.0, 1.1])
    (root / "rgb.txt").write_text(f"1.0 ../secret.png\n1.05 /etc/passwd\n1.1 rgb/{1.1:.6f}.png\nnan rgb/x.png\n\xff\n")
    assert list(open_source(root).names) == ["0000"]


def test_images_that_are_called_colour_and_depth_stay_images(tmp_path):
    for kind in ("color", "depth"):
        save(tmp_path / kind / "1.png", colour(0))
    assert open_source(tmp_path).modality == "image"


def test_a_limit_keeps_the_first_of_each_sequence_and_a_part_the_frames_in_between(tmp_path):
    root = seven_scenes(tmp_path / "chess", frames=4)
    (root / "seq-01" / "frame-000003.color.png").unlink()
    assert list(open_source(root, limit=5).names) == [f"seq-01/00000{i}" for i in (0, 1, 2)] + [f"seq-02/00000{i}" for i in (0, 1)]
    train, test = open_source(f"{root}#:-2"), open_source(f"{root}#-2:")
    assert list(train.names) + list(test.names) == list(open_source(root).names)
    assert len(test) == len(test.poses) == len(test.times) == 2
    assert test.spec == f"{root}#-2:"
    assert test.notes[-1] == "numbers 5 to 6 of 7 frames, in their order"
    np.testing.assert_array_equal(test.read(1), open_source(root).read(6))
    assert train.fingerprint() != test.fingerprint()
    assert len(open_source(f"{root}#0:6", limit=2)) == 2
    with pytest.raises(ValueError, match="holds nothing: there are 7 frames, counted from 0"):
        open_source(f"{root}#7:")
    really = plain(tmp_path / "b#0:1", 2)
    assert len(open_source(really)) == 2, "a folder that is called so"


def test_the_report_says_how_much_depth_there_is_and_how_the_camera_moves(tmp_path):
    root = plain(tmp_path / "room", 25)
    save(root / "depth" / "0003.png", np.zeros((48, 64), np.uint16))
    for kind in ("color", "depth"):
        (root / kind / "0009.png").write_bytes((root / kind / "0008.png").read_bytes())
    report = doctor(root)
    assert (report.frames, report.sequences, report.poses, report.empty) == (25, 1, 25, ("0003",))
    shares = [(depth(8 if i == 9 else i) > 0).mean() * (i != 3) for i in range(25)]
    assert report.valid == pytest.approx(np.mean(shares), abs=0.01)
    assert report.depths == pytest.approx((0.54, 2.25, 3.96), abs=0.03)
    assert report.pairs == {10: 15, 20: 5}
    assert [(m.apart, m.pairs) for m in report.motions] == [(10, 15), (20, 5)]
    assert [m.degrees for m in report.motions] == pytest.approx([10, 20])
    assert [m.metres for m in report.motions] == pytest.approx([0.1, 0.2])
    assert report.duplicates.groups == 1
    assert max(map(len, report.lines())) <= 80
    assert report.verdict() == "Usable, but only 25 frames: more would help most."
    assert "no two frames of a sequence are 20 apart" in doctor(f"{root}#:9").verdict()
    json.dumps(report.to_json())


def test_a_frame_is_shown_as_colour_beside_depth(tmp_path):
    s = open_source(plain(tmp_path))
    modality = modalities.of("rgbd")
    raw = s.read(0)
    shown = modality.visible(raw, None)
    assert shown.shape == (256, 256, 3)
    np.testing.assert_array_equal(shown[64:192, :128], raw[..., :3])
    assert (shown[64:192, 128:][raw[..., 5] == 0] == 0).all()
    near, far = (shown[64:192, 128:][(raw[..., 5] > low) & (raw[..., 5] < high)].mean() for low, high in ((0.5, 0.8), (3, 4)))
    assert near > far > 0


def test_statistics_are_of_colours_where_there_is_depth_and_a_network_sees_metres(tmp_path):
    s = open_source(plain(tmp_path))
    modality = modalities.of("rgbd")
    stats = modality.measured(s)
    x = np.concatenate([s.read(i).reshape(-1, 6) for i in range(len(s))]).astype(np.float64)
    colours = x[x[:, 5] > 0, :3]
    np.testing.assert_allclose(stats.mean, colours.mean(0))
    np.testing.assert_allclose(stats.std, colours.std(0))
    seen = modality.own_input(s)
    raw = torch.from_numpy(s.read(1)).permute(2, 0, 1)[None]
    y = seen.normalise(seen.scale(raw))
    torch.testing.assert_close(y[:, 3:], raw[:, 3:], atol=3e-6, rtol=0)
    assert torch.equal(y[:, 3:] == 0, raw[:, 3:] == 0), "no depth is exactly 0"
    expected = (raw[0, :3].permute(1, 2, 0) - torch.tensor(stats.mean)) / torch.tensor(stats.std)
    torch.testing.assert_close(y[0, :3].permute(1, 2, 0).double(), expected.double(), atol=1e-4, rtol=0)


def test_what_an_encoder_sees_at_evaluation_never_mixes_a_hole_with_a_point(tmp_path):
    s = open_source(plain(tmp_path))
    raw = torch.from_numpy(s.read(1)).permute(2, 0, 1)[None]
    x = encoders.squeezed(raw, 32, 3)
    means = raw[0, :3].reshape(3, 32, 4, 32, 4).mean((2, 4))
    torch.testing.assert_close(x[0, :3], means)
    assert torch.equal(x[0, 3:], raw[0, 3:, 2::4, 2::4])
    seen = encoders.Input(channels=6, size=32, mean=(0.5,) * 6, std=(1.0,) * 6, low=-16, high=16, points=3)
    assert torch.equal(encoders.evaluation_views(raw, seen), x)
    assert encoders.Input.from_json(json.loads(json.dumps(seen.to_json()))) == seen
