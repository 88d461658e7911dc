"""EWA splatting: how one 3D Gaussian becomes an ellipse in a picture, and what it weighs in a pixel.

The definition that every rasteriser follows (`dg.raster.dense` spells it out):

- a Gaussian with view depth z <= NEAR_SPLAT is not drawn (the real limit of Inria's rasteriser; gsplat's is 0.01);
- 2D covariance = J R C R^T J^T + BLUR_PX2 * I with the Jacobian J of the projection at the mean, whose x/z and y/z are
  clamped a little outside the picture, so that Gaussians beside the frustum do not explode;
- alpha = min(ALPHA_MAX, opacity * exp(-d^T conic d / 2)), and contributions below ALPHA_MIN do not exist: the exact
  footprint is the ellipse d^T conic d <= 2 ln(opacity / ALPHA_MIN);
- front to back by view depth; a pixel stops before the Gaussian that would bring its transmittance to T_MIN or below.

Formulas: Zwicker et al., EWA Splatting (2002); Kerbl et al. (2023); gsplat 1.5.3's conventions as facts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from dg.core.gaussians import rgb_from_sh
from dg.core.transfer import constant
from dg.types import Cameras, Gaussians

NEAR_SPLAT = 0.2
BLUR_PX2 = 0.3
ALPHA_MAX = 0.999
ALPHA_MIN = 1 / 255
T_MIN = 1e-4
FOV_MARGIN = 0.3  # of tan(fov / 2), beyond the picture's edge: 1.3 tan(fov / 2) where the principal point is central
QUAT_EPS = 1e-12


@dataclass(frozen=True)
class Projected:
    """N Gaussians seen in V views. Where depth <= NEAR_SPLAT, the rest is as if at the limit: finite, no more."""

    means_px: Float[Tensor, "V N 2"]  # x right, y down, pixel centres at +0.5
    covs_px2: Float[Tensor, "V N 3"]  # xx, xy, yy, blurred
    conics: Float[Tensor, "V N 3"]  # xx, xy, yy of the inverse covariance
    depths: Float[Tensor, "V N"]


def rotation_from_quat(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """w x y z, need not be normalised; the zero quaternion gives the identity."""
    w, x, y, z = normalize(quats, dim=-1, eps=QUAT_EPS).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def covariance(quats: Float[Tensor, "N 4"], scales: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 3"]:
    """R diag(scales^2) R^T, world units squared."""
    m = rotation_from_quat(quats) * scales[:, None, :]
    return m @ m.transpose(1, 2)


def jacobian(view: Float[Tensor, "V N 3"], cameras: Cameras) -> Float[Tensor, "V N 2 3"]:
    """Of pixel coordinates with respect to view coordinates, at clamped x/z and y/z; z must be positive."""
    f = torch.stack([cameras.K[:, 0, 0], cameras.K[:, 1, 1]], -1)[:, None]
    c = torch.stack([cameras.K[:, 0, 2], cameras.K[:, 1, 2]], -1)[:, None]
    size = constant((cameras.width, cameras.height), view)
    margin = FOV_MARGIN * 0.5 * size / f
    z = view[..., 2:]
    slope = torch.minimum(torch.maximum(view[..., :2] / z, -c / f - margin), (size - c) / f + margin)
    return torch.cat([torch.diag_embed((f / z).expand_as(slope)), (-f * slope / z)[..., None]], -1)


def _seen(means: Float[Tensor, "N 3"], cameras: Cameras, w2c: Float[Tensor, "V 4 4"]) -> tuple[Tensor, Tensor, Tensor]:
    """Positions in view space, no nearer than the limit; homogeneous positions in the picture; true view depths."""
    view = means @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]
    safe = torch.cat([view[..., :2], view[..., 2:].clamp_min(NEAR_SPLAT)], -1)
    return safe, safe @ cameras.K.transpose(1, 2), view[..., 2]


def image_positions(
    means: Float[Tensor, "N 3"], cameras: Cameras
) -> tuple[Float[Tensor, "V N 2"], Float[Tensor, "V N"]]:
    """`means_px` and `depths` of `project`, alone."""
    cameras = Cameras(cameras.c2w.to(means), cameras.K.to(means), cameras.width, cameras.height)
    _, image, depths = _seen(means, cameras, cameras.w2c)
    return image[..., :2] / image[..., 2:], depths


def project(gaussians: Gaussians, cameras: Cameras) -> Projected:
    """EWA projection; differentiable in means, quats, scales and cameras. Computes in the Gaussians' dtype."""
    cameras = Cameras(cameras.c2w.to(gaussians.means), cameras.K.to(gaussians.means), cameras.width, cameras.height)
    w2c = cameras.w2c
    safe, image, depths = _seen(gaussians.means, cameras, w2c)
    jw = jacobian(safe, cameras) @ w2c[:, None, :3, :3]
    cov = jw @ covariance(gaussians.quats, gaussians.scales) @ jw.transpose(-1, -2)
    xx, xy, yy = cov[..., 0, 0] + BLUR_PX2, cov[..., 0, 1], cov[..., 1, 1] + BLUR_PX2
    det = xx * yy - xy * xy
    return Projected(
        means_px=image[..., :2] / image[..., 2:],
        covs_px2=torch.stack([xx, xy, yy], -1),
        conics=torch.stack([yy, -xy, xx], -1) / det[..., None],
        depths=depths,
    )


def footprint(opacities: Tensor) -> Tensor:
    """The squared Mahalanobis distance at which alpha falls below ALPHA_MIN; 0 where it is nowhere reached."""
    return 2 * (opacities / ALPHA_MIN).clamp_min(1).log()


def radii_px(projected: Projected, opacities: Float[Tensor, "N"], width: int, height: int) -> Float[Tensor, "V N"]:
    """Largest half-axis of the footprint; 0 where it is culled, invisible, or its bounding box misses the picture."""
    with torch.no_grad():
        axes, xy = projected.covs_px2[..., ::2], projected.covs_px2[..., 1]  # both axes in one operation: half as many
        reach = footprint(opacities)
        half = (reach[:, None] * axes).sqrt()
        size = constant((width, height), half)
        inside = ((projected.means_px + half > 0) & (projected.means_px - half < size)).all(-1)
        spread = ((axes[..., 0] - axes[..., 1]) / 2).square() + xy.square()
        largest = axes.sum(-1) / 2 + spread.sqrt()
        visible = inside & (projected.depths > NEAR_SPLAT) & (opacities >= ALPHA_MIN)
        return torch.where(visible, (reach * largest).sqrt(), 0)


def colors(gaussians: Gaussians, cameras: Cameras) -> Float[Tensor, "V N 3"]:
    """What each Gaussian looks like from each camera; V = 1 when the colours do not depend on the view (K = 1)."""
    if gaussians.sh.shape[1] == 1:
        return rgb_from_sh(gaussians.sh, None)
    rays = gaussians.means[None] - cameras.position.to(gaussians.means)[:, None]
    return rgb_from_sh(gaussians.sh, normalize(rays, dim=-1, eps=QUAT_EPS))
