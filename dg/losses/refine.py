"""Stage 2's loss on a novel view: the texture against what the prior makes of its render, or score distillation.

All are callables (rgb, prior, condition, draw, frac) -> (loss, logs): the stage does not know which one it runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.diffusion import ddim_timesteps, guide, sdedit, sdedit_start
from dg.core.distill import Distillation
from dg.core.transfer import upload
from dg.eval.lpips import distance, needed
from dg.priors.protocol import Prior
from dg.types import Condition


@dataclass(frozen=True)
class SDEdit(ABC):
    """The render against itself denoised from an intermediate timestep (DreamGaussian, section 3.4).

    Attributes:
        weight: of the loss.
        t_start_ratio, t_end_ratio: share of the denoising steps that are run, from the first refinement step to the
            last. The release runs 1 - strength with strength 0.8 -> 0.95, for 32x32 latents; it belongs to the prior.
        num_steps: DDIM steps of the whole process.
        guidance_scale: of the denoising.
        compare_at_prior_size: a prior whose pictures are smaller than the render is compared at its own size, so that
            enlarging its blur never overwrites what the texture already shows. False is the release.
        to_clean: denoise to the end. The release stops with 3 % of the noise left, which latents hide and pixels show
            as grain.
    """

    weight: float = 1.0
    t_start_ratio: float = 0.2
    t_end_ratio: float = 0.05
    num_steps: int = 50
    guidance_scale: float = 5.0
    compare_at_prior_size: bool = True
    to_clean: bool = True

    @abstractmethod
    def difference(self, shown: Float[Tensor, "B 3 h w"], refined: Float[Tensor, "B 3 h w"]) -> Tensor:
        """How far the render is from its target, which has no gradient."""

    def __call__(
        self,
        rgb: Float[Tensor, "B 3 H W"],
        prior: Prior,
        condition: Condition,
        draw: torch.Generator,
        frac: float,
    ) -> tuple[Tensor, dict[str, float]]:
        ratio = self.t_start_ratio + (self.t_end_ratio - self.t_start_ratio) * frac
        with torch.no_grad():
            z = prior.encode(rgb)
            noise = upload(torch.randn(z.shape, generator=draw), z.device).to(z)

            def predict(z_t: Tensor, t: int) -> Tensor:
                prediction = prior.predict(z_t, torch.full((len(z_t),), t, device=z_t.device), condition)
                return guide(prediction.cond, prediction.uncond, self.guidance_scale)

            alpha_bar = prior.alpha_bar.to(z.device)
            refined = prior.decode(
                sdedit(
                    predict, z, noise, alpha_bar, num_steps=self.num_steps, t_start_ratio=ratio, to_clean=self.to_clean
                )
            )
        size = rgb.shape[-2:]
        if self.compare_at_prior_size and refined.shape[-1] < size[-1]:
            shown = F.interpolate(rgb, refined.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        else:
            shown = rgb
            refined = F.interpolate(refined, size, mode="bilinear", align_corners=False)
        t = ddim_timesteps(self.num_steps, len(alpha_bar))[sdedit_start(self.num_steps, ratio)]
        logs = {"t_start_ratio": ratio, "t": t, "weight/novel": self.weight}
        return self.weight * self.difference(shown, refined), logs


@dataclass(frozen=True)
class SDEditMSE(SDEdit):
    """By the mean squared error, as in the release."""

    def difference(self, shown: Float[Tensor, "B 3 h w"], refined: Float[Tensor, "B 3 h w"]) -> Tensor:
        return (shown - refined).square().mean()


@dataclass(frozen=True)
class SDEditLPIPS(SDEdit):
    """By LPIPS (Zhang et al. 2018, arXiv 1801.03924), which forgives what moves by a pixel and sees what is blurred.

    Attributes:
        net: the backbone, see `dg.losses.lpips.LpipsLoss`.
        mse_weight: of the mean squared error beside it: features alone leave a drift of the colours to themselves.

    Raises:
        FileNotFoundError: the backbone's weights are not there; nothing is downloaded.
    """

    net: Literal["alex", "vgg"] = "vgg"
    mse_weight: float = 0.0

    def __post_init__(self) -> None:
        needed(self.net)

    def difference(self, shown: Float[Tensor, "B 3 h w"], refined: Float[Tensor, "B 3 h w"]) -> Tensor:
        perceptual = distance(*(x.permute(0, 2, 3, 1) for x in (shown, refined)), self.net).mean()
        return perceptual + self.mse_weight * (shown - refined).square().mean() if self.mse_weight else perceptual


@dataclass(frozen=True)
class TextureSDS:
    """Score distillation on the texture (the paper's ablation): noisy gradients land on the mip level that was drawn.

    Attributes:
        distill: its weight, guidance and w(t).
        t_min, t_max: t falls linearly between them over the run, as in stage 1.
        scale: of the whole loss, to bring it to the size of a mean squared error.
    """

    distill: Distillation
    t_min: float = 0.02
    t_max: float = 0.98
    scale: float = 1e-4

    def __call__(
        self, rgb: Float[Tensor, "B 3 H W"], prior: Prior, condition: Condition, draw: torch.Generator, frac: float
    ) -> tuple[Tensor, dict[str, float]]:
        z = prior.encode(rgb)
        steps = len(prior.alpha_bar)
        t = round((self.t_max - (self.t_max - self.t_min) * frac) * steps)
        eps = upload(torch.randn(z.shape, generator=draw), z.device).to(z)
        loss = self.distill.loss(
            lambda z_t, t_: prior.predict(z_t, t_, condition),
            z,
            torch.full((len(z),), t, device=z.device),
            eps,
            prior.alpha_bar.to(z.device),
        )
        return self.scale * loss, {"t": t, "weight/novel": self.scale}
