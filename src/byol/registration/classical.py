"""Registration without learning, by Open3D: ICP from where the frames are, and RANSAC on FPFH features."""

from __future__ import annotations

import importlib
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from byol.registration.metrics import Alignment, Matches
from byol.registration.task import Frame

# As Open3D's own tutorial on global registration has them, for a voxel of 5 cm.
VOXEL: Final = 0.05  # metres
_NORMALS, _NORMAL_POINTS = 2 * VOXEL, 30
_FPFH, _FPFH_POINTS = 5 * VOXEL, 100
_REACH: Final = 1.5 * VOXEL  # a match of RANSAC is an inlier up to here
_RANSAC: Final = (100_000, 0.999)  # trials at most, and the confidence to stop at
ICP_REACH: Final = 0.1  # metres: points further from the other cloud pull at nothing
_ICP_STEPS: Final = 50


def icp(a: Frame, b: Frame, number: int) -> dict[str, Alignment]:
    """Point to plane, from no motion at all."""
    open3d = _open3d()

    way = open3d.pipelines.registration
    fixed = _cloud(b)
    found = way.registration_icp(
        _cloud(a),
        fixed,
        ICP_REACH,
        torch.eye(4).numpy(),
        way.TransformationEstimationPointToPlane(),
        way.ICPConvergenceCriteria(max_iteration=_ICP_STEPS),
    )
    return {"geometric": Alignment(*_motion(found.transformation))}


def fpfh(a: Frame, b: Frame, number: int) -> dict[str, Alignment]:
    """Features of the surface around each of the thinned points, matched, and the motion most of the matches agree on."""
    open3d = _open3d()

    way = open3d.pipelines.registration
    clouds = [_cloud(f).voxel_down_sample(VOXEL) for f in (a, b)]
    features = [way.compute_fpfh_feature(c, open3d.geometry.KDTreeSearchParamHybrid(radius=_FPFH, max_nn=_FPFH_POINTS)) for c in clouds]
    open3d.utility.random.seed(number)  # RANSAC draws from Open3D's own generator, which has no other owner here
    found = way.registration_ransac_based_on_feature_matching(
        *clouds,
        *features,
        True,
        _REACH,
        way.TransformationEstimationPointToPoint(False),
        3,
        [way.CorrespondenceCheckerBasedOnEdgeLength(0.9), way.CorrespondenceCheckerBasedOnDistance(_REACH)],
        way.RANSACConvergenceCriteria(*_RANSAC),
    )
    near, mutual = (_matched(clouds, way.correspondences_from_features(*features, both)) for both in (False, True))
    return {"geometric": Alignment(*_motion(found.transformation), mutual, near)}


def _open3d() -> Any:
    """The package, without its types: it need not be there."""
    return importlib.import_module("open3d")


def _cloud(frame: Frame) -> Any:
    open3d = _open3d()

    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(frame.points.double().numpy()))
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamHybrid(radius=_NORMALS, max_nn=_NORMAL_POINTS))
    cloud.orient_normals_towards_camera_location()
    return cloud


def _motion(found: Any) -> tuple[Tensor, Tensor]:
    T = torch.tensor(found, dtype=torch.float64)
    return T[:3, :3], T[:3, 3]


def _matched(clouds: list[Any], pairs: Any) -> Matches:
    rows = torch.from_numpy(np.asarray(pairs, np.int64)).view(-1, 2)
    p, q = (torch.from_numpy(np.asarray(c.points)).view(-1, 3)[rows[:, k]] for k, c in enumerate(clouds))
    return Matches(p, q)
