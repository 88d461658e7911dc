"""The density of a set of Gaussians: d(p) = sum_i opacity_i exp(-1/2 (p - x_i)^T Sigma_i^-1 (p - x_i)).

Source: DreamGaussian (arXiv 2309.16653, section 3.3, "block-wise density query"), as facts. `density_at` is the
definition; `density_grid` samples it on a lattice, where a Gaussian is only evaluated inside the ellipsoid on which it
reaches `min_density`. The inverse covariance is applied as |S^-1 R^T (p - x)|^2, so no exponent is made positive by
rounding (the release has to set the terms of such exponents to 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.density_legacy import LEGACY_BLOCKS, LEGACY_GROWTH, LEGACY_SPAN, sample_legacy
from dg.core.density_torch import sample_blocks
from dg.core.slabs import batched, compiled, in_slabs
from dg.core.splat import rotation_from_quat
from dg.types import Gaussians

MIN_OPACITY = 0.005  # the release ignores fainter Gaussians
MIN_DENSITY = 1e-3  # a Gaussian is evaluated where it alone reaches this: within 3.7 sigma at opacity 1
_BLOCK = 8  # lattice points per side of a work item


@dataclass(frozen=True)
class Grid:
    """A scalar field on a cubic lattice; point (i, j, k) lies at origin + spacing * (i, j, k), in world units."""

    values: Float[Tensor, "R R R"]  # x, y, z ("ij") order
    origin: Float[Tensor, 3]
    spacing: float

    def points(self) -> Float[Tensor, "R R R 3"]:
        steps = (torch.arange(n, device=self.origin.device) for n in self.values.shape)
        index = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
        return self.origin + self.spacing * index.to(self.origin)


def inverse_factors(gaussians: Gaussians) -> Float[Tensor, "N 3 3"]:
    """W = S^-1 R^T, so that the squared Mahalanobis distance is |W (p - x)|^2. Scales below 1e-8 count as 1e-8."""
    return rotation_from_quat(gaussians.quats).transpose(1, 2) / gaussians.scales.clamp_min(1e-8)[:, :, None]


def density_at(points: Float[Tensor, "P 3"], gaussians: Gaussians, chunk: int = 1024) -> Float[Tensor, " P"]:
    """The definition, for every point and every Gaussian; differentiable; `chunk` Gaussians at a time."""
    factors = inverse_factors(gaussians)
    out = torch.zeros(len(points), dtype=points.dtype, device=points.device)
    for start in range(0, len(gaussians), chunk):
        part = slice(start, start + chunk)
        delta = points[:, None] - gaussians.means[None, part]
        exponent = -0.5 * torch.einsum("nij,pnj->pni", factors[part], delta).square().sum(-1)
        out = out + (gaussians.opacities[part] * exponent.exp()).sum(1)
    return out


def density_grid(
    gaussians: Gaussians,
    resolution: int = 128,
    *,
    culling: str = "exact",
    min_opacity: float = MIN_OPACITY,
    min_density: float = MIN_DENSITY,
    support: float = 0.05,
    margin: int = 4,
    blur: float = 0.5,
) -> Grid:
    """Samples the density on resolution^3 points, where the Gaussians are (legacy culling: always on the CPU).

    Deterministic: each point adds the Gaussians in their order.

    Args:
        culling: "exact" skips a Gaussian where it alone stays below `min_density`; the box is the part of space where
            the density exceeds `support` (found on a coarse lattice), and `margin` lattice points around it.
            "legacy" is the release's: the centres' box fills 0.9 of the lattice, and blocks see the Gaussians whose
            centres lie inside the block grown by 0.1875.
        blur: so many lattice spacings are added (in quadrature) to every standard deviation, so that no Gaussian slips
            between the points; its peak stays. Not with legacy culling. 0 is the exact density.

    Raises:
        ValueError: if no Gaussian is at least `min_opacity` opaque and finite, or `culling` is unknown.
    """
    if culling not in ("exact", "legacy"):
        raise ValueError(f"culling is 'exact' or 'legacy', not {culling!r}")
    means, factors, opacities = _kept(gaussians, min_opacity)
    lo, hi = means.min(0), means.max(0)
    if culling == "legacy":
        extent = max(float((hi - lo).max()), 1e-6)
        side = 2 * extent / LEGACY_SPAN
        origin, spacing = (lo + hi) / 2 - side / 2, side / (resolution - 1)
        growth = LEGACY_GROWTH * side / LEGACY_BLOCKS
        values = np.zeros((resolution,) * 3, np.float32)
        block = max(resolution // LEGACY_BLOCKS, 1)
        blocks = -((-resolution // block) ** 3)
        in_slabs(sample_legacy, blocks, means, factors, opacities, origin, spacing, block, growth, values)
        return Grid(torch.from_numpy(values), torch.from_numpy(origin).float(), float(spacing))
    device = gaussians.means.device
    half = _half_extents(factors, opacities, min_density)
    coarse_origin, coarse_spacing, coarse = _sample(
        means, factors, opacities, half, min_density, (means - half).min(0), (means + half).max(0), 48, 2, device
    )
    coarse = coarse.cpu().numpy()
    index = np.argwhere(coarse > min(support, 0.5 * float(coarse.max())))
    if len(
        index
    ):  # a coarse cell around each point that is dense; thin parts between coarse points are near their centres
        opaque = opacities > support
        near = means[opaque] if opaque.any() else means
        lo = np.minimum(coarse_origin + coarse_spacing * (index.min(0) - 1), near.min(0))
        hi = np.maximum(coarse_origin + coarse_spacing * (index.max(0) + 1), near.max(0))
    else:
        lo, hi = (means - half).min(0), (means + half).max(0)
    if blur > 0:
        factors = _thickened(factors, blur * _spacing(lo, hi, resolution, margin))
        half = _half_extents(factors, opacities, min_density)
    origin, spacing, values = _sample(means, factors, opacities, half, min_density, lo, hi, resolution, margin, device)
    return Grid(values, torch.from_numpy(origin).float().to(device), float(spacing))


def _kept(gaussians: Gaussians, min_opacity: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float64 means, inverse factors and opacities of the Gaussians that count."""
    fields = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities[:, None])
    finite = torch.cat([f.detach().cpu() for f in fields], 1).isfinite().all(1)
    keep = finite & (gaussians.opacities.detach().cpu() > min_opacity)
    if not keep.any():
        n = len(gaussians)
        raise ValueError(f"none of the {n} Gaussians is finite and more opaque than {min_opacity}: nothing to mesh")
    part = Gaussians(*(f.detach().cpu().double()[keep] for f in (*fields, gaussians.sh)))
    return part.means.numpy(), inverse_factors(part).numpy(), part.opacities[:, 0].numpy()


def _half_extents(factors: np.ndarray, opacities: np.ndarray, min_density: float) -> np.ndarray:
    """Half sides of the axis-parallel box around the ellipsoid {opacity exp(-q / 2) >= min_density}; [N 3]."""
    q = 2 * np.log(np.maximum(opacities / min_density, 1))
    covariance_diagonal = np.square(np.linalg.inv(factors)).sum(2)  # W^-1 = R S, Sigma = R S S R^T
    return np.sqrt(q[:, None] * covariance_diagonal)


def _sample(means, factors, opacities, half, min_density, lo, hi, resolution, margin, device):
    """A lattice over the cube around [lo, hi] with `margin` points to spare on each side: (origin, spacing, values)."""
    spacing = _spacing(lo, hi, resolution, margin)
    origin = (lo + hi) / 2 - spacing * (resolution - 1) / 2
    q = 2 * np.log(np.maximum(opacities / min_density, 1))
    start, members = _blocks_of((means - half - origin) / spacing, (means + half - origin) / spacing, resolution)
    if batched(device):
        field = (means, factors, opacities, q, origin, spacing, start, members)
        return origin, spacing, sample_blocks(*field, resolution, _BLOCK, device)
    values = np.zeros((resolution,) * 3, np.float32)
    in_slabs(_sample_blocks, len(start) - 1, means, factors, opacities, q, origin, spacing, start, members, values)
    return origin, spacing, torch.from_numpy(values)


def _spacing(lo: np.ndarray, hi: np.ndarray, resolution: int, margin: int) -> float:
    extent = max(float((hi - lo).max()), 1e-6)
    return extent / (resolution - 1 - 2 * min(margin, (resolution - 2) // 2))


def _thickened(factors: np.ndarray, sigma: float) -> np.ndarray:
    """Adds sigma^2 to the variance along each principal axis; the peak stays the opacity."""
    inverse_scale = np.linalg.norm(factors, axis=2, keepdims=True)
    return factors / np.sqrt(1 + np.square(sigma * inverse_scale))


@compiled
def _blocks_of(lo, hi, resolution):
    """Compressed rows: the Gaussians (ascending) whose boxes (in lattice units) touch each block of _BLOCK^3 points."""
    per_axis = (resolution + _BLOCK - 1) // _BLOCK
    count = np.zeros(per_axis**3 + 1, np.int64)
    start, cursor, members = count, count, np.zeros(0, np.int32)
    for fill in range(2):
        for g in range(len(lo)):
            a = np.empty(3, np.int64)
            b = np.empty(3, np.int64)
            for d in range(3):
                first, last = max(np.ceil(lo[g, d]), 0.0), min(np.floor(hi[g, d]), resolution - 1.0)
                a[d] = int(first) // _BLOCK
                b[d] = int(last) // _BLOCK if last >= first else -1
            for i in range(a[0], b[0] + 1):
                for j in range(a[1], b[1] + 1):
                    for k in range(a[2], b[2] + 1):
                        block = (i * per_axis + j) * per_axis + k
                        if fill:
                            members[cursor[block]] = g
                            cursor[block] += 1
                        else:
                            count[block + 1] += 1
        if not fill:
            start = np.cumsum(count)
            cursor = start[:-1].copy()
            members = np.empty(start[-1], np.int32)
    return start, members


@compiled
def _sample_blocks(first_block, last_block, means, factors, opacities, q_max, origin, spacing, start, members, values):
    resolution = values.shape[0]
    per_axis = (resolution + _BLOCK - 1) // _BLOCK
    for block in range(first_block, last_block):
        if start[block] == start[block + 1]:
            continue
        i0 = block // (per_axis * per_axis) * _BLOCK
        j0 = block // per_axis % per_axis * _BLOCK
        k0 = block % per_axis * _BLOCK
        ni, nj, nk = min(_BLOCK, resolution - i0), min(_BLOCK, resolution - j0), min(_BLOCK, resolution - k0)
        total = np.zeros((_BLOCK, _BLOCK, _BLOCK))
        for m in range(start[block], start[block + 1]):
            g = members[m]
            # Along z the exponent is a z^2 + 2 b z + c; only the stretch where it is <= q_max is evaluated.
            f0, f1, f2 = factors[g, 0, 2], factors[g, 1, 2], factors[g, 2, 2]
            a = f0 * f0 + f1 * f1 + f2 * f2
            for i in range(ni):
                x = origin[0] + spacing * (i0 + i) - means[g, 0]
                for j in range(nj):
                    y = origin[1] + spacing * (j0 + j) - means[g, 1]
                    u0 = factors[g, 0, 0] * x + factors[g, 0, 1] * y
                    u1 = factors[g, 1, 0] * x + factors[g, 1, 1] * y
                    u2 = factors[g, 2, 0] * x + factors[g, 2, 1] * y
                    b = u0 * f0 + u1 * f1 + u2 * f2
                    c = u0 * u0 + u1 * u1 + u2 * u2
                    inside = b * b - a * (c - q_max[g])
                    if inside < 0:
                        continue
                    root = np.sqrt(inside)
                    offset = (means[g, 2] - origin[2]) / spacing - k0
                    first = max(int(np.ceil((-b - root) / a / spacing + offset)), 0)
                    last = min(int(np.floor((-b + root) / a / spacing + offset)), nk - 1)
                    for k in range(first, last + 1):
                        z = origin[2] + spacing * (k0 + k) - means[g, 2]
                        total[i, j, k] += opacities[g] * np.exp(-0.5 * max(z * (a * z + 2 * b) + c, 0.0))
        for i in range(ni):
            for j in range(nj):
                for k in range(nk):
                    values[i0 + i, j0 + j, k0 + k] = total[i, j, k]
