"""Small RGB-D sequences in the layouts that there are, for tests."""

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

SIZE = (64, 48)  # width, height


def colour(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def depth(seed, size=SIZE, *, unit=1e-3):
    """Steps of 0.5 to 4 m, a tenth of them missing."""
    noise = np.random.default_rng([seed, 1])
    steps = (noise.uniform(0.5, 4, (size[1], size[0])) / unit).astype(np.uint16)
    steps[noise.uniform(size=steps.shape) < 0.1] = 0
    return steps


def pose(number):
    """A camera that turns by a degree and moves by a centimetre a frame."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", number, degrees=True).as_matrix()
    matrix[:3, 3] = [0.01 * number, 0.5, -1]
    return matrix


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def text(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, numbers)


def plain(root, frames=4, *, first=0, intrinsics=True, size=SIZE):
    """color/, depth/, pose/, intrinsics.txt."""
    for i in range(first, first + frames):
        save(root / "color" / f"{i:04d}.png", colour(i, size))
        save(root / "depth" / f"{i:04d}.png", depth(i, size))
        text(root / "pose" / f"{i:04d}.txt", pose(i))
    if intrinsics:
        text(root / "intrinsics.txt", [[50.0, 0, 30.5], [0, 52, 25], [0, 0, 1]])
    return root


def seven_scenes(root, frames=4, sequences=2):
    for s in range(1, sequences + 1):
        for i in range(frames):
            at = root / f"seq-{s:02d}" / f"frame-{i:06d}"
            save(at.with_suffix(".color.png"), colour(100 * s + i))
            steps = depth(100 * s + i)
            steps[5, 5:20] = 65535
            save(at.with_suffix(".depth.png"), steps)
            text(at.with_suffix(".pose.txt"), pose(i))
    return root


def tum(root, colours, depths, poses):
    """Times of pictures of colour and of depth in seconds, and of poses."""
    for name, times, make in (("rgb", colours, colour), ("depth", depths, lambda i: depth(i, unit=1 / 5000))):
        for i, t in enumerate(times):
            save(root / name / f"{t:.6f}.png", make(i))
        (root / f"{name}.txt").write_text("# timestamp filename\n" + "".join(f"{t:.6f} {name}/{t:.6f}.png\n" for t in times))
    lines = ["# timestamp tx ty tz qx qy qz qw\n"]
    for i, t in enumerate(poses):
        numbers = [*pose(i)[:3, 3], *Rotation.from_matrix(pose(i)[:3, :3]).as_quat()]
        lines.append(f"{t:.6f} " + " ".join(f"{v:.9f}" for v in numbers) + "\n")
    (root / "groundtruth.txt").write_text("".join(lines))
    return root


def scannet(root, frames=3, *, of_colour=None, size=(160, 120)):
    """color/N.jpg larger than depth/N.png, with a camera each; the pose of frame 1 was lost."""
    for i in range(frames):
        (root / "color").mkdir(parents=True, exist_ok=True)
        picture = colour(i, size) if of_colour is None else of_colour
        Image.fromarray(picture).save(root / "color" / f"{i}.jpg", quality=98, subsampling=0)
        save(root / "depth" / f"{i}.png", depth(i))
        text(root / "pose" / f"{i}.txt", np.full((4, 4), -np.inf) if i == 1 else pose(i))
    whole = np.eye(4)
    whole[:2, :3] = [[58, 0, 32.5], [0, 57, 23]]
    text(root / "intrinsic" / "intrinsic_depth.txt", whole)
    whole[:2, :3] = [[150, 0, 82], [0, 152, 57]]
    text(root / "intrinsic" / "intrinsic_color.txt", whole)
    return root
