"""Gaussian parameters: raw values and activations, spherical harmonics, initialisation.

Raw parameters are what the optimiser and a 3DGS ply hold: log scales, logit opacities, SH coefficients, unnormalised
quaternions (w x y z). Numbers of the starting ball: DreamGaussian's gs_renderer.py, as facts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from dg.types import Gaussians, Reference

BALL_RADIUS = 0.5  # the release's starting ball, world units
RECENTRED_LENGTH = 1.46  # how long the release's recentred objects are at radius 2 and a field of view of 49.1 degrees

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
_SH_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
_SH_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


@dataclass(frozen=True)
class RawGaussians:
    """What is optimised and saved. The field names are those of the optimiser's parameter groups."""

    means: Float[Tensor, "N 3"]
    sh_dc: Float[Tensor, "N 1 3"]
    sh_rest: Float[Tensor, "N R 3"]  # R = (degree + 1)^2 - 1, may be 0
    opacity_logits: Float[Tensor, "N 1"]
    log_scales: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]

    def __len__(self) -> int:
        return self.means.shape[0]

    def as_dict(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def activate(raw: RawGaussians) -> Gaussians:
    return Gaussians(
        means=raw.means,
        quats=raw.quats,
        scales=raw.log_scales.exp(),
        opacities=raw.opacity_logits.sigmoid()[:, 0],
        sh=torch.cat([raw.sh_dc, raw.sh_rest], 1),
    )


def deactivate(gaussians: Gaussians, eps: float = 1e-6) -> RawGaussians:
    """The inverse of `activate`; opacities are clamped to [eps, 1 - eps] first."""
    return RawGaussians(
        means=gaussians.means,
        sh_dc=gaussians.sh[:, :1],
        sh_rest=gaussians.sh[:, 1:],
        opacity_logits=gaussians.opacities.clamp(eps, 1 - eps).logit()[:, None],
        log_scales=gaussians.scales.log(),
        quats=gaussians.quats,
    )


def dc_from_rgb(rgb: Tensor) -> Tensor:
    return (rgb - 0.5) / SH_C0


def rgb_from_sh(sh: Float[Tensor, "N K 3"], directions: Float[Tensor, "V N 3"] | None) -> Float[Tensor, "V N 3"]:
    """Colours seen along `directions` (from the camera to the Gaussian, unit length), clamped at 0 from below.

    With K = 1 the colour does not depend on the view and the result has V = 1; `directions` may then be None.
    Real spherical harmonics up to degree 3 with 3DGS's signs and order.
    """
    degree = math.isqrt(sh.shape[1]) - 1
    if (degree + 1) ** 2 != sh.shape[1] or degree > 3:
        raise ValueError(f"{sh.shape[1]} SH coefficients are not (degree + 1)^2 for a degree of 0 to 3")
    if degree == 0:
        return (SH_C0 * sh[None, :, 0] + 0.5).clamp_min(0)
    return (torch.einsum("vnk,nkc->vnc", sh_basis(directions, degree), sh) + 0.5).clamp_min(0)


def sh_basis(d: Float[Tensor, "V N 3"], degree: int) -> Float[Tensor, "V N K"]:
    x, y, z = d.unbind(-1)
    basis = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        basis += [-SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    if degree >= 2:
        a, b, c, e, f = _SH_C2
        basis += [a * x * y, b * y * z, c * (2 * z * z - x * x - y * y), e * x * z, f * (x * x - y * y)]
    if degree >= 3:
        a, b, c, e, f, g, h = _SH_C3
        xx, yy, zz = x * x, y * y, z * z
        basis += [
            a * y * (3 * xx - yy),
            b * x * y * z,
            c * y * (4 * zz - xx - yy),
            e * z * (2 * zz - 3 * xx - 3 * yy),
            f * x * (4 * zz - xx - yy),
            g * z * (xx - yy),
            h * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, -1)


def knn_mean_squared_distance(points: Float[Tensor, "N 3"], k: int = 3) -> Float[Tensor, N]:
    """Mean of the squared distances to the k nearest other points, at least 1e-7 (3DGS's initial scale squared)."""
    if len(points) <= 1:
        return torch.full((len(points),), 1e-7, dtype=points.dtype)
    xyz = points.detach().double().cpu().numpy()
    distances, _ = cKDTree(xyz).query(xyz, k=min(k + 1, len(xyz)))
    return torch.from_numpy((distances[:, 1:] ** 2).mean(1)).to(points).clamp_min(1e-7)


def from_points(
    points: Float[Tensor, "N 3"], rgb: Float[Tensor, "N 3"], *, opacity: float = 0.1, sh_degree: int = 0
) -> RawGaussians:
    """Isotropic Gaussians as large as their neighbours are far."""
    n = len(points)
    log_scale = knn_mean_squared_distance(points).sqrt().log()
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1
    return RawGaussians(
        means=points.float().clone(),
        sh_dc=dc_from_rgb(rgb.float())[:, None].clone(),
        sh_rest=torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3),
        opacity_logits=torch.full((n, 1), math.log(opacity / (1 - opacity))),
        log_scales=log_scale[:, None].repeat(1, 3),
        quats=quats,
    )


def framed_radius(reference: Reference) -> float:
    """A ball's radius that suits the size of the object in the picture.

    The release's 0.5 belongs to a recentred object, which fills 0.8 of the frame and is 1.46 world units long at radius
    2: the ball's radius is 0.34 of the silhouette's longer side.
    """
    solid = reference.rgba[0, ..., 3] > 0.5
    if not solid.any():
        return BALL_RADIUS
    rows, columns = solid.any(1).nonzero()[:, 0], solid.any(0).nonzero()[:, 0]
    longest_px = int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1
    camera = reference.cameras
    longest = longest_px * camera.height / solid.shape[0] / float(camera.K[0, 1, 1]) * float(camera.position[0].norm())
    return BALL_RADIUS * longest / RECENTRED_LENGTH


def ball(
    generator: torch.Generator,
    reference: Reference | None = None,
    *,
    num_points: int = 5000,
    radius: float | None = None,
    opacity: float = 0.1,
    sh_degree: int = 0,
) -> RawGaussians:
    """Points of uniform density in a ball, nearly grey (DreamGaussian draws U[0, 1) / 255 as SH coefficients).

    Args:
        radius: world units; None fits the ball to the reference (`framed_radius`), 0.5 without one.
    """
    if radius is None:
        radius = BALL_RADIUS if reference is None else framed_radius(reference)
    u = torch.rand(num_points, 3, generator=generator)
    phi, cos_theta = 2 * math.pi * u[:, 0], 2 * u[:, 1] - 1
    r, sin_theta = radius * u[:, 2] ** (1 / 3), (1 - cos_theta**2).clamp_min(0).sqrt()
    points = torch.stack([r * sin_theta * phi.cos(), r * sin_theta * phi.sin(), r * cos_theta], -1)
    grey = 0.5 + SH_C0 * torch.rand(num_points, 3, generator=generator) / 255
    return from_points(points, grey, opacity=opacity, sh_degree=sh_degree)
