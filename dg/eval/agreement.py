"""How well a result agrees with its input and with itself, measured at the end of a run without any ground truth.

None of these figures says that the object is right. They say how much of it the picture showed, and how far the prior,
asked about one side after another, contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.camera import orbit, project
from dg.core.diffusion import add_noise, per_sample, x0_from_eps
from dg.core.rng import generator
from dg.eval.images import psnr
from dg.eval.shape import sample_surface
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours, render_mesh
from dg.priors.protocol import Prior
from dg.types import Cameras, Mesh, Reference

# Groups of four at quarter turns, as the multi-view priors want them; none is the front, which the picture holds still.
AZIMUTHS = tuple(22.5 + 45.0 * j + 90.0 * k for j in range(2) for k in range(4))
POINTS = 8192  # on the surface, evenly by area: shares are good to half a percent
MIN_COS = 0.3  # a point seen more obliquely takes its colour from too few pixels to be compared
DEPTH_PX = 256
DEPTH_SLACK = 0.01  # of the longest side: what lies less far behind the visible surface belongs to it
_CHUNK = 4  # views per prediction


def seen_from(
    mesh: Mesh,
    points: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    cameras: Cameras,
    raster: MeshRasterizer,
    min_cos: float = 0.0,
) -> Bool[Tensor, "V N"]:
    """Which points of the surface each view sees: inside the picture, turned towards it, and with nothing before them.

    Args:
        min_cos: least cosine between the normal and the ray to the eye.
    """
    views = cameras.resized(DEPTH_PX, DEPTH_PX)
    depth = render_mesh(mesh, views, raster, torch.ones(3, device=points.device)).depth[..., 0]
    # the deepest of the neighbours: a slanted surface changes its depth within a pixel
    depth = F.max_pool2d(depth[:, None], 3, stride=1, padding=1)[:, 0]
    pixel, z = project(points, views)
    nearest, within = _at_pixel(depth, pixel)
    cos = (F.normalize(views.position[:, None] - points, dim=-1) * normals).sum(-1)
    longest = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
    slope = (1 - cos.square()).clamp_min(0).sqrt() / cos.clamp_min(0.1)  # no steeper: that would see through things
    reach = DEPTH_SLACK * longest + slope * z / views.K[:, 0, 0, None]  # at a rim depth falls within half a pixel
    return within & (cos > min_cos) & (z > 0) & (z <= nearest + reach)


def _at_pixel(values: Float[Tensor, "V H W"], pixel: Float[Tensor, "V N 2"]) -> tuple[Tensor, Tensor]:
    """The values [V N] at those pixels, and where they lie inside the picture."""
    height, width = values.shape[1:]
    column, row = pixel.floor().long().unbind(-1)
    within = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    flat = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return values.flatten(1).gather(1, flat), within


def surface_points(mesh: Mesh, count: int = POINTS) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Points spread evenly by area, with their faces' normals, on the mesh's device."""
    samples = sample_surface(Mesh(mesh.vertices.cpu(), mesh.faces.cpu()), count)
    point, normal = (torch.from_numpy(x).to(mesh.vertices) for x in (samples.points, samples.normals))
    return point, normal


def invented_share(mesh: Mesh, reference: Cameras, raster: MeshRasterizer) -> float:
    """Share of the surface's area, in [0, 1], that no view of the reference sees: whatever is there is a guess."""
    points, normals = surface_points(mesh)
    return 1 - float(seen_from(mesh, points, normals, reference, raster).any(0).float().mean())


def colours_at(pictures: Float[Tensor, "V H W 3"], pixel: Float[Tensor, "V N 2"]) -> Float[Tensor, "V N 3"]:
    """Bilinear look-up at pixel coordinates (centres at +0.5)."""
    size = pixel.new_tensor([pictures.shape[2], pictures.shape[1]])
    grid = (2 * pixel / size - 1)[:, None]
    found = F.grid_sample(
        pictures.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[:, :, 0].permute(0, 2, 1)


def spread(colours: Float[Tensor, "V N 3"], seen: Bool[Tensor, "V N"]) -> float | None:
    """Mean absolute deviation of a surface point's colours from their mean over the views that see it, in [0, 1/2].

    Mean over channels, views and the points that at least two views see; None where there is no such point. A thing
    that is red in one view and blue in the other has 1/3: two of three channels lie 1/2 from their mean.
    """
    weight = seen.float()[..., None]
    count = weight.sum(0)
    several = count[:, 0] >= 2
    if not several.any():
        return None
    mean = (weight * colours).sum(0) / count.clamp_min(1)
    deviation = (weight * (colours - mean).abs()).sum(0) / count.clamp_min(1)
    return float(deviation[several].mean())


@torch.no_grad()
def opinion(
    prior: Prior,
    reference: Reference | None,
    prompt: str | None,
    cameras: Cameras,
    rgb: Float[Tensor, "V 3 H W"],
    seed: int = 0,
) -> Float[Tensor, "V 3 H W"]:
    """What the prior would rather see: its one-step x_0, without guidance, of renders noised to half of its schedule.

    Args:
        rgb: renders on white in [0, 1].
    """
    made = []
    step = max(_CHUNK // prior.views_per_sample, 1) * prior.views_per_sample
    alpha_bar = prior.alpha_bar.to(rgb.device)
    for first in range(0, len(rgb), step):
        views, pictures = cameras[first : first + step], rgb[first : first + step]
        condition = prior.condition(reference, prompt, views, torch.ones(len(views), 3, device=rgb.device))
        z = prior.encode(pictures)
        t = torch.full((len(z),), len(alpha_bar) // 2, device=rgb.device)
        a = per_sample(alpha_bar[t], z)
        noise = torch.randn(z.shape, generator=generator(seed, "agreement", first)).to(z)
        z_t = add_noise(z, noise, a)
        made.append(prior.decode(x0_from_eps(z_t, prior.predict(z_t, t, condition).cond, a)).float())
    pictures = torch.cat(made).clamp(0, 1)
    return F.interpolate(pictures, rgb.shape[-2:], mode="bilinear", antialias=True, align_corners=False)


@torch.no_grad()
def views_agree(
    mesh: Mesh,
    prior: Prior,
    reference: Reference | None,
    prompt: str | None,
    raster: MeshRasterizer,
    *,
    elevation_deg: float = 0.0,
    radius: float = 2.0,
    fovy_deg: float = 49.1,
    seed: int = 0,
) -> dict[str, float | None]:
    """prior_psnr, spread and spread_floor (see `docs/agreement.md`) over eight views around the mesh."""
    size, device = prior.image_size, mesh.vertices.device
    views = orbit(elevation_deg, list(AZIMUTHS), radius, fovy_deg=fovy_deg, height=size).to(device)
    rgb, alpha = render_colours(mesh, views, raster, torch.ones(3, device=device), ssaa=4 if size <= 128 else 2)
    rgb = rgb.clamp(0, 1)
    wished = opinion(prior, reference, prompt, views, rgb.permute(0, 3, 1, 2), seed).permute(0, 2, 3, 1)
    points, normals = surface_points(mesh)
    pixel, _ = project(points, views)
    inside = -F.max_pool2d(-(alpha[..., 0] > 0.999).float()[:, None], 3, stride=1, padding=1)[:, 0]
    clear, within = _at_pixel(inside, pixel)  # whose neighbours hold nothing of the background
    seen = seen_from(mesh, points, normals, views, raster, MIN_COS) & within & (clear > 0.5)
    return {
        "prior_psnr": float(psnr(wished, rgb).mean()),
        "spread": spread(colours_at(wished, pixel), seen),
        "spread_floor": spread(colours_at(rgb, pixel), seen),
    }


def in_words(results: Mapping[str, object]) -> list[str]:
    """The figures of metrics.json as sentences; those that are missing are left out. No verdict: the reader judges."""
    lines = []
    psnr_ref, iou_ref = results.get("mesh/psnr_ref"), results.get("mesh/iou_ref")
    if psnr_ref is not None and iou_ref is not None:
        lines.append(f"front against the picture: {psnr_ref:.1f} dB, outline IoU {iou_ref:.2f}")
    invented = results.get("agreement/invented")
    if invented is not None:
        lines.append(f"{100 * invented:.0f} % of the surface is not in the picture: there, form and colour are a guess")
    deviation, floor = results.get("agreement/spread"), results.get("agreement/spread_floor")
    if deviation is not None and floor is not None:
        text = f"the prior's views of it agree within {deviation:.3f} of full scale ({floor:.3f} at best)"
        lines.append(f"{text} and lie {results['agreement/prior_psnr']:.1f} dB from the result")
    return lines
