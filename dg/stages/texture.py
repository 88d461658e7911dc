"""Stage 2: the UV texture, refined against the prior's own denoising of its renders. The geometry stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dg.core.camera import spherical
from dg.core.picture import over
from dg.core.rng import generator
from dg.core.transfer import upload_cameras
from dg.meshraster.mips import mip_levels
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours, render_mesh
from dg.priors.protocol import Prior
from dg.stages.readings import Guard, Readings
from dg.stages.report import report
from dg.stages.views import OrbitSampler
from dg.types import Cameras, Mesh, Reference

MIN_SSAA = 0.125


@dataclass(frozen=True)
class RefineOptions:
    """Attributes:
    loss: what a novel view is held to (`dg.losses.refine`).
    lr: Adam's, on the texture's logits (the release's texture_lr).
    size: side of the novel views.
    reference_size: side at which the known view is compared.
    reference_weight: of the known view's loss.
    max_ssaa: the render's scale is drawn as clip(2 U, 0.125, max_ssaa): small scales spread a step over the coarse mip
        levels, large ones sharpen. 2 in the release.
    min_viewcos: pixels of the known view seen more obliquely than this are not used.
    legacy_logit_mip: mip levels average logits instead of colours, as in the release: black texels bleed.
    """

    loss: Callable[..., tuple[Tensor, dict[str, float]]]
    lr: float = 0.2
    size: int = 512
    reference_size: int = 256
    reference_weight: float = 1.0
    max_ssaa: float = 2.0
    min_viewcos: float = 0.5
    legacy_logit_mip: bool = False


def ceil8(size: float) -> int:
    """The next multiple of 8 (supersampled sizes; 512 * 0.3 -> 160)."""
    return max(8, math.ceil(size / 8) * 8)


def draw_ssaa(draw: torch.Generator, max_ssaa: float) -> float:
    """clip(2 U, 0.125, max): exactly 0.125 with a probability of 6.25 %."""
    return min(max(2 * float(torch.rand((), generator=draw)), MIN_SSAA), max_ssaa)


def rescale(picture: Float[Tensor, "V H W C"], height: int, width: int) -> Float[Tensor, "V h w C"]:
    """To the asked size, bilinear; enlarged with aligned corners as in the release."""
    if picture.shape[1:3] == (height, width):
        return picture
    channels_first = picture.permute(0, 3, 1, 2)
    enlarge = picture.shape[1] < height
    small = F.interpolate(channels_first, (height, width), mode="bilinear", align_corners=enlarge)
    return small.permute(0, 2, 3, 1)


class TextureStage(L.LightningModule):
    """One optimisation of a mesh's texture. Every draw comes from (seed, purpose, step), as in stage 1."""

    def __init__(
        self,
        *,
        mesh: Mesh,
        reference: Reference | None,
        prompt: str | None,
        prior: Prior,
        mesh_raster: MeshRasterizer,
        camera: OrbitSampler,
        options: RefineOptions,
        iters: int,
        seed: int,
        elevation_deg: float = 0.0,
    ) -> None:
        super().__init__()
        if mesh.texture is None or mesh.uv is None:
            raise ValueError("stage texture needs a mesh with uv coordinates and a texture")
        self.automatic_optimization = False
        self._mesh, self.reference, self.prompt, self.prior = mesh, reference, prompt, prior
        self.mesh_raster, self.camera, self.options = mesh_raster, camera, options
        self.iters, self.seed, self.step = iters, seed, 0
        self.logged: dict[str, float] = {}
        self._watch(Readings(self.device))
        self._reference: tuple[Cameras, Tensor] | None = None
        self.reference_elevation_deg = elevation_deg
        if reference is not None:
            self.reference_elevation_deg = float(spherical(reference.cameras)[0][0])
        self.logits = nn.Parameter(mesh.texture.clamp(1e-6, 1 - 1e-6).logit())

    def mesh(self) -> Mesh:
        """The mesh with the current texture, detached."""
        return replace(self._mesh, texture=self.logits.detach().sigmoid())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        group = {"name": "texture", "params": [self.logits], "lr": self.options.lr}
        return torch.optim.Adam([group], fused=self.logits.device.type == "cuda")

    def on_fit_start(self) -> None:
        if self.readings.device != self.device:
            self._watch(Readings(self.device))

    def _watch(self, readings: Readings) -> None:
        self.readings, self.guard = readings, Guard(readings, _not_finite)

    def on_train_end(self) -> None:
        self.readings.settle()

    def training_step(self, batch: Any, batch_index: int) -> None:
        self.step = int(batch)
        frac = self.step / self.iters
        optimizer = self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        levels = self._levels()
        known = self._known_view_loss(levels)
        novel, logs = self._novel_view_loss(frac, levels)
        total = known + novel
        self.manual_backward(total)
        self.guard.look(self.step, total, {"the texture's logits": self.logits}, optimizer.optimizer)
        optimizer.step()
        logs |= {"loss/known": known.detach(), "loss/novel": novel.detach(), "loss/total": total.detach()}
        logs |= {"weight/known": self.options.reference_weight, "resolution": self.options.size}
        self.logged = report(self, self.step, logs, "refine")

    def _levels(self) -> list[Tensor]:
        """The texture and its mip levels, made once a step for both renders (with `legacy_logit_mip` of logits)."""
        return mip_levels(self.logits if self.options.legacy_logit_mip else self.logits.sigmoid())

    def _render(
        self, cameras: Cameras, background: Tensor, ssaa: float, levels: list[Tensor], *, facing: bool
    ) -> tuple[Tensor, Any]:
        """Colours at the cameras' size, drawn at `ssaa` times of it; and, if `facing`, where the surface faces them."""
        large = cameras.resized(ceil8(cameras.height * ssaa), ceil8(cameras.width * ssaa))
        legacy = self.options.legacy_logit_mip
        behind = torch.zeros_like(background) if legacy else background
        look = {"texture": levels[0], "mips": levels}
        if facing:
            drawn = render_mesh(self._mesh, large, self.mesh_raster, behind, **look)
            rgb, alpha = drawn.rgb, drawn.alpha
            faces_us = (alpha > 0) & (drawn.viewcos > self.options.min_viewcos)
        else:
            rgb, alpha = render_colours(self._mesh, large, self.mesh_raster, behind, **look)
            faces_us = None
        if legacy:
            rgb = alpha * rgb.sigmoid() + (1 - alpha) * background[:, None, None]
        return rescale(rgb, cameras.height, cameras.width).clamp(0, 1), faces_us

    def _known_view_loss(self, levels: list[Tensor]) -> Tensor:
        if self.reference is None or not self.options.reference_weight:
            return torch.zeros((), device=self.device)
        size = self.options.reference_size
        ssaa = draw_ssaa(generator(self.seed, "refine/known-ssaa", self.step), self.options.max_ssaa)
        cameras, target = self._known(size)
        white = torch.ones(len(cameras), 3, device=self.device)
        rgb, faces_us = self._render(cameras, white, ssaa, levels, facing=True)
        valid = rescale(faces_us.float(), size, size) > 0.99
        valid = valid & (target[..., 3:] > 0.99)  # where the picture itself is background, it says nothing
        return self.options.reference_weight * ((rgb - target[..., :3]) * valid).square().mean()

    def _known(self, size: int) -> tuple[Cameras, Float[Tensor, "R h w 4"]]:
        """The reference's cameras, and the picture on white with its alpha; made once."""
        if self._reference is None:
            rgba = self.reference.rgba.to(self.device)
            on_white = torch.cat([over(rgba), rgba[..., 3:]], -1)
            small = F.interpolate(on_white.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)
            cameras = self.reference.cameras.resized(size, size).to(self.device)
            self._reference = cameras, small.permute(0, 2, 3, 1)
        return self._reference

    def _novel_view_loss(self, frac: float, levels: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        draw = generator(self.seed, "refine/views", self.step)
        size, per_sample = self.options.size, self.prior.views_per_sample
        cameras = self.camera.sample(draw, self.reference_elevation_deg, size, per_sample)
        cameras = upload_cameras(cameras, self.device)
        background = torch.ones(len(cameras), 3, device=self.device)
        ssaa = draw_ssaa(draw, self.options.max_ssaa)
        # before the rasteriser, which waits for a GPU: what is launched there costs nothing
        condition = self.prior.condition(self.reference, self.prompt, cameras, background)
        rgb, _ = self._render(cameras, background, ssaa, levels, facing=False)
        noise = generator(self.seed, "refine/noise", self.step)
        loss, logs = self.options.loss(rgb.permute(0, 3, 1, 2), self.prior, condition, noise, frac)
        return loss, logs | {"ssaa": ssaa}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning keeps the logits and Adam; the draws need nothing but the step."""
        self.readings.settle()
        checkpoint["texture_stage"] = {"step": self.step}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.step = checkpoint["texture_stage"]["step"]


def _not_finite(step: int, bad: list[str]) -> str:
    named = f"the gradient of {', '.join(bad)}" if bad else "the loss"
    return (
        f"stage texture, step {step}: {named} is not finite; the state before the step is kept. "
        "Lower refine.lr or the loss weights (refine.*)"
    )
