"""Novel views sampled from a prior against the truth, beside three answers that need no prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core import camera, rng
from dg.data.objects import picture
from dg.eval import images
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_mesh
from dg.priors.protocol import Prior
from dg.priors.sampling import sample
from dg.priors.silhouette import SilhouettePrior
from dg.types import Cameras, Mesh, Reference

SIZE = 64
STEPS = 20
LEVEL, ABOVE = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0), (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)

Views = Float[Tensor, "V h w 4"]  # colour composited on white, and alpha


@dataclass(frozen=True)
class Figures:
    """Means over an object's views."""

    psnr_db: float
    ssim: float
    silhouette_iou: float


def cameras() -> Cameras:
    """Twelve: six level ones, six from 20 degrees above. The input's own is not among them."""
    elevations = torch.tensor([0.0] * len(LEVEL) + [-20.0] * len(ABOVE))
    return camera.orbit(elevations, torch.tensor([*LEVEL, *ABOVE]), 2.0, height=SIZE)


def reference(mesh: Mesh) -> Reference:
    """The level front view, 256 pixels, as the object stands."""
    return Reference(picture(mesh, 256)[None], camera.orbit(0.0, 0.0, 2.0, height=256))


def truth(mesh: Mesh, rasterizer: MeshRasterizer) -> Views:
    made = render_mesh(mesh, cameras(), rasterizer, torch.ones(3), ssaa=4)
    return torch.cat([made.rgb, made.alpha], -1).clamp(0, 1)


def compare(made: Views, true: Views) -> Figures:
    return Figures(
        float(images.psnr(made[..., :3], true[..., :3]).mean()),
        float(images.ssim(made[..., :3], true[..., :3]).mean()),
        float(images.silhouette_iou(made[..., 3:], true[..., 3:]).mean()),
    )


def samples(prior: Prior, seen: Reference, draws: int, device: torch.device) -> Float[Tensor, "D V h w 4"]:
    """`draws` samples of all views.

    The prior answers with colours on a given background. What differs between its answers on white and on black, from
    the same noise, is the transparency.
    """
    views = cameras().to(device)
    seen = Reference(seen.rgba.to(device), seen.cameras.to(device))
    sides = {}
    for name, value in (("white", 1.0), ("black", 0.0)):
        condition = prior.condition(seen, None, views, torch.full((len(views), 3), value, device=device))
        made = []
        for k in range(draws):
            noise = torch.randn(len(views), 3, SIZE, SIZE, generator=rng.generator(0, "held-out views", k)).to(device)
            made.append(prior.decode(sample(prior, condition, noise, steps=STEPS)).clamp(0, 1).cpu())
        sides[name] = torch.stack(made).movedim(2, -1)
    alpha = 1 - (sides["white"] - sides["black"]).mean(-1, keepdim=True)
    return torch.cat([sides["white"], alpha.clamp(0, 1)], -1)


def without_prior(seen: Reference, others: Sequence[Views], rasterizer: MeshRasterizer) -> dict[str, Views]:
    """The input copied to every view, its silhouette inflated and rendered, and the mean picture of other objects."""
    views = cameras()
    rgba = seen.rgba.movedim(-1, 1)
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    small = torch.nn.functional.avg_pool2d(rgba, rgba.shape[-1] // SIZE)[0].movedim(0, -1)
    copied = torch.cat([small[..., :3] + 1 - small[..., 3:], small[..., 3:]], -1)
    solid = SilhouettePrior(rasterizer=rasterizer, image_size=SIZE).solid(seen)
    return {
        "input copied": copied.expand(len(views), -1, -1, -1),
        "silhouette inflated": truth(solid, rasterizer),
        "mean picture": torch.stack(list(others)).mean(0),
    }
