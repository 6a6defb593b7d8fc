"""Small data sets of images with masks, depth maps or boxes, made where a test wants them."""

import numpy as np
from PIL import Image


def scene(rng, size=(24, 32)):
    """An image of noise with a bright square on it: (H, W, 3) uint8, and the (H, W) mask of the square."""
    h, w = size
    image = rng.integers(0, 80, (h, w, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    top, left = int(rng.integers(0, h - 10)), int(rng.integers(0, w - 10))
    mask[top : top + 10, left : left + 10] = 1
    image[mask == 1] += 150
    return image, mask


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path) if mode is None else Image.fromarray(array).convert(mode).save(path)
    return path


def masked(root, n=12, *, size=(24, 32), void=11, seed=0):
    """images/ and masks/; the first row of each mask is void."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        image, mask = scene(rng, size)
        mask[0] = void
        save(root / "images" / f"{i:02}.png", image)
        save(root / "masks" / f"{i:02}.png", mask)
    return root


def measured(root, n=10, *, size=(24, 32), seed=0):
    """color/ and depth/: the square is at 1 m, the rest at 3 m, one row is not measured (0) and one is beyond (65535)."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        image, mask = scene(rng, size)
        depth = np.where(mask == 1, 1000, 3000).astype(np.uint16)
        depth[0], depth[1] = 0, 65535
        save(root / "color" / f"{i:02}.png", image)
        save(root / "depth" / f"{i:02}.png", depth)
    return root
