"""Clouds of points as PLY files, which every program for point clouds opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byol.files import atomic

_VERTEX = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


def write_ply(path: Path, points: NDArray[np.floating], colours: NDArray[np.floating]) -> None:
    """(n, 3) metres, (n, 3) colours in [0, 1] -> a binary little-endian PLY file, written whole or not at all."""
    if points.shape != colours.shape or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"a cloud has (n, 3) points and as many colours, not {points.shape} and {colours.shape}")
    vertices = np.empty(len(points), _VERTEX)
    for k, axis in enumerate("xyz"):
        vertices[axis] = points[:, k]
    for k, channel in enumerate(("red", "green", "blue")):
        vertices[channel] = np.rint(255 * colours[:, k].clip(0, 1))
    kinds = {"f": "float", "u": "uchar"}
    properties = [f"property {kinds[_VERTEX[name].kind]} {name}" for name in _VERTEX.names or ()]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with atomic(path) as temporary:
        temporary.write_bytes("\n".join(head).encode() + vertices.tobytes())
