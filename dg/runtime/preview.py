"""What a person looks at after a run: views/, overview.png, turntable.mp4. Made from the files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import orbit
from dg.core.picture import over
from dg.eval.metrics import psnr, silhouette_iou
from dg.eval.overview import Row, overview
from dg.io.images import write_png
from dg.io.video import write_mp4
from dg.meshraster.mips import mip_levels
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours
from dg.raster.protocol import Rasterizer
from dg.runtime.logging import log
from dg.runtime.run import Run
from dg.types import Cameras, Gaussians, Mesh, Reference

SIDES = {"front": 0.0, "right": 90.0, "back": 180.0, "left": 270.0}


@dataclass(frozen=True)
class PreviewOptions:
    """Attributes:
    size: side of every picture in pixels.
    azimuths: how many views go into views/; 0 leaves them and the overview out.
    turntable_frames: of one turn; 0 leaves the video out.
    log_every: steps between the renders that W&B and TensorBoard get while a stage runs; 0: none.
    guidance_every: steps between the pictures of what the prior says (`dg.runtime.guidance`); 0: none.
    """

    size: int = 256
    azimuths: int = 8
    turntable_frames: int = 36
    turntable_fps: int = 12
    log_every: int = 100
    guidance_every: int = 0

    def __post_init__(self) -> None:
        counts = (self.azimuths, self.turntable_frames, self.log_every, self.guidance_every)
        if self.size < 16 or min(counts) < 0 or self.turntable_fps < 1:
            raise ValueError("size must be at least 16, turntable_fps at least 1, and no count negative")


@dataclass(frozen=True)
class Subject:
    """What there is to look at, and from where."""

    gaussians: Gaussians | None
    mesh: Mesh | None
    reference: Reference | None
    raster: Rasterizer
    mesh_raster: MeshRasterizer
    radius: float
    fovy_deg: float
    elevation_deg: float
    device: torch.device

    @staticmethod
    def of(run: Run, gaussians: Gaussians | None, mesh: Mesh | None) -> Subject:
        return Subject(
            gaussians=gaussians,
            mesh=mesh,
            reference=run.reference,
            raster=run.raster,
            mesh_raster=run.mesh_raster,
            radius=run.camera.radius,
            fovy_deg=run.camera.fovy_deg,
            elevation_deg=run.elevation_deg,
            device=run.device,
        )

    def cameras(self, azimuths_deg: list[float], size: int) -> Cameras:
        views = orbit(self.elevation_deg, azimuths_deg, self.radius, fovy_deg=self.fovy_deg, height=size)
        return views.to(self.device)

    @torch.no_grad()
    def splats(self, cameras: Cameras) -> Float[Tensor, "V H W 4"]:
        """On white, with alpha."""
        assert self.gaussians is not None
        render = self.raster(self.gaussians, cameras, torch.ones(3, device=self.device))
        return torch.cat([render.rgb, render.alpha], -1).clamp(0, 1).cpu()

    @torch.no_grad()
    def surface(self, cameras: Cameras) -> Float[Tensor, "V H W 4"]:
        """On white, with alpha, antialiased."""
        assert self.mesh is not None
        white = torch.ones(3, device=self.device)
        each = (
            render_colours(self.mesh, cameras[[v]], self.mesh_raster, white, ssaa=2, mips=self._mips)
            for v in range(len(cameras))
        )
        return torch.cat([torch.cat(picture, -1) for picture in each]).clamp(0, 1).cpu()

    @cached_property
    def _mips(self) -> list[Tensor] | None:
        return None if self.mesh is None or self.mesh.texture is None else mip_levels(self.mesh.texture)

    @property
    def kinds(self) -> dict[str, object]:
        found = {"splats": self.splats if self.gaussians is not None else None}
        found |= {"mesh": self.surface if self.mesh is not None else None}
        return {name: render for name, render in found.items() if render is not None}


def reference_scores(subject: Subject) -> dict[str, float]:
    """How well splats and mesh agree with the picture they were made from: PSNR on white, IoU of the silhouettes."""
    if subject.reference is None:
        return {}
    rgba = subject.reference.rgba.cpu()
    target = over(rgba)
    scores: dict[str, float] = {}
    for kind, render in subject.kinds.items():
        picture = render(subject.reference.cameras.to(subject.device))
        scores[f"{kind}/psnr_ref"] = float(psnr(picture[..., :3], target).mean())
        scores[f"{kind}/iou_ref"] = float(silhouette_iou(picture[..., 3:], rgba[..., 3:]).mean())
    return scores


Pictures = dict[str, dict[float, Float[Tensor, "H W 4"]]]  # by kind and azimuth; on white, with alpha


def around(subject: Subject, options: PreviewOptions) -> Pictures:
    """Every picture of views/ and of the overview, each rendered once."""
    azimuths = sorted({360.0 * i / options.azimuths for i in range(options.azimuths)} | set(SIDES.values()))
    cameras = subject.cameras(azimuths, options.size)
    return {kind: dict(zip(azimuths, render(cameras), strict=True)) for kind, render in subject.kinds.items()}


def write_views(folder: Path, pictures: Pictures, azimuths: int) -> None:
    """views/{splats,mesh}_AZIMUTH.png, with alpha."""
    for kind, by_azimuth in pictures.items():
        for azimuth in (360.0 * i / azimuths for i in range(azimuths)):
            picture = by_azimuth[azimuth]
            alpha = picture[..., 3:]
            colour = ((picture[..., :3] - (1 - alpha)) / alpha.clamp_min(1e-4)).clamp(0, 1)  # take the white out again
            write_png(folder / "views" / f"{kind}_{azimuth:03.0f}.png", torch.cat([colour, alpha], -1))


def write_overview(
    folder: Path, subject: Subject, pictures: Pictures, tile: int, title: str, scores: dict[str, float]
) -> None:
    rows = []
    for kind, by_azimuth in pictures.items():
        count = len(subject.gaussians) if kind == "splats" else len(subject.mesh.faces)
        fact = f"{count:,} {'Gaussians' if kind == 'splats' else 'faces'}"
        if f"{kind}/psnr_ref" in scores:
            fact += f" · reference: {scores[f'{kind}/psnr_ref']:.1f} dB, IoU {scores[f'{kind}/iou_ref']:.2f}"
        rows.append(Row(kind, fact, [by_azimuth[azimuth][..., :3] for azimuth in SIDES.values()]))
    source = None
    if subject.reference is not None:
        source = over(subject.reference.rgba[0].cpu())
    write_png(folder / "overview.png", overview(title, list(SIDES), rows, source, tile))


def write_turntable(folder: Path, subject: Subject, options: PreviewOptions) -> None:
    """Splats and mesh side by side, one turn."""

    def frames() -> Iterator[Tensor]:
        for i in range(options.turntable_frames):
            camera = subject.cameras([360.0 * i / options.turntable_frames], options.size)
            yield torch.cat([render(camera)[0, ..., :3] for render in subject.kinds.values()], 1)

    try:
        write_mp4(folder / "turntable.mp4", frames(), options.turntable_fps)
    except (OSError, RuntimeError) as error:
        log.warning("no turntable.mp4: %s", " ".join(str(error).split())[:200])


def write_all(folder: Path, subject: Subject, options: PreviewOptions, title: str) -> dict[str, float]:
    """Everything that `options` asks for; returns the scores against the reference."""
    if not subject.kinds:
        return {}
    scores = reference_scores(subject)
    if options.azimuths:
        pictures = around(subject, options)
        write_views(folder, pictures, options.azimuths)
        write_overview(folder, subject, pictures, options.size, title, scores)
    if options.turntable_frames:
        write_turntable(folder, subject, options)
    return scores
