"""Pictures against pictures. Pure functions, one number per view, values clamped to [0, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.camera import spherical
from dg.types import Cameras

PSNR_CEILING_DB = 100.0
_RIM = 5  # half a window
_HALF = 0.4995  # just below one half, which 8 bits turn into 128 / 255


def psnr(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"]) -> Float[Tensor, V]:
    """Peak signal-to-noise ratio per view in dB over the whole picture, peak 1; equal pictures get 100."""
    return _decibels((a.clamp(0, 1) - b.clamp(0, 1)).square().flatten(1).mean(1))


def psnr_over(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"], where: Bool[Tensor, "V H W"]) -> float | None:
    """PSNR in dB over the pixels `where`, pooled over all views; None where there is no such pixel."""
    if not where.any():
        return None
    return float(_decibels((a.clamp(0, 1) - b.clamp(0, 1))[where].square().mean()))


def _decibels(mse: Tensor) -> Tensor:
    return (-10 * mse.clamp_min(1e-30).log10()).clamp_max(PSNR_CEILING_DB)


def ssim(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"]) -> Float[Tensor, V]:
    """Structural similarity per view (Wang et al. 2004): Gaussian window of 11, sigma 1.5, mean over pixels, channels.

    Equals skimage's `structural_similarity` with gaussian_weights=True, sigma=1.5, use_sample_covariance=False and
    data_range=1. Pixels whose window leaves the picture are left out, as there.

    Raises:
        ValueError: a side below 11 pixels: no window fits.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(a.shape[1:3]) < 11:
        raise ValueError(f"pictures of {a.shape[1]} x {a.shape[2]} are too small for SSIM; it needs 11 pixels a side")
    a, b = (x.float().clamp(0, 1).movedim(-1, 1).contiguous() for x in (a, b))
    _, everywhere = structural_similarity_index_measure(
        a, b, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    found = everywhere[..., _RIM:-_RIM, _RIM:-_RIM].flatten(1).mean(1)  # torchmetrics' own mean takes in the rim
    return torch.where((a == b).flatten(1).all(1), 1.0, found)  # where rounding leaves 1 - 1e-6


def silhouette_iou(a: Float[Tensor, "V H W 1"], b: Float[Tensor, "V H W 1"]) -> Float[Tensor, V]:
    """Intersection over union per view of the pixels that are at least half covered; 1 where both are empty."""
    a, b = (x.flatten(1) > _HALF for x in (a, b))
    union = (a | b).sum(1)
    return torch.where(union > 0, (a & b).sum(1) / union.clamp_min(1), 1.0)


def saturation(rgb: Float[Tensor, "V H W 3"], alpha: Float[Tensor, "V H W 1"]) -> float:
    """Mean HSV saturation, 1 - min / max of the channels, over the fully covered pixels of all views; black has 0.

    Half covered pixels hold the background's colour. Only where no pixel is fully covered do they count.
    """
    covered = alpha[..., 0] > 0.999
    if not covered.any():
        covered = alpha[..., 0] > 0.5
    if not covered.any():
        return 0.0
    colours = rgb[covered].clamp(0, 1)
    high = colours.amax(-1)
    return float(((high - colours.amin(-1)) / high.clamp_min(1e-6)).mean())


def facing(cameras: Cameras) -> tuple[Bool[Tensor, V], Bool[Tensor, V]]:
    """(front, back): cameras whose azimuth is less than 90 degrees from the front's, from the back's; 90 is neither."""
    azimuth = spherical(cameras)[1]
    off = (azimuth + 180).remainder(360).sub(180).abs()
    slack = 1e-2  # rounding must not bring a side view in
    return off < 90 - slack, off > 90 + slack
