"""From a user's picture file to the reference that is turned into 3D."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy import ndimage

from dg.core.camera import FOVY_DEG, orbit
from dg.data.decode import read_picture
from dg.data.matting import MEND, cut_out
from dg.data.recenter import ALPHA_THRESHOLD, Box, check_frame, recentred, resampled, squared
from dg.types import Reference

log = logging.getLogger("dg")

MATTING_PX = 1024  # longest side at which a background is removed, unless the result is to be larger


def load_reference(
    path: str | Path,
    *,
    recenter: bool = True,
    elevation_deg: float = 0.0,
    azimuth_deg: float = 0.0,
    radius: float = 2.0,
    fovy_deg: float = FOVY_DEG,
    size: int = 512,
    border: float = 0.2,
) -> Reference:
    """One picture as the reference view: size x size, straight alpha, sRGB in [0, 1], and the camera that sees it.

    A picture without alpha gets its background removed (`dg.data.matting`). There is one resize, of premultiplied
    colours, straight from the file to `size`. Under alpha 0 lies the colour of the nearest visible pixel, never what
    the file hid there, so that a later interpolation of straight values makes no dark or light rim.

    Args:
        path: PNG, JPEG, WebP, or whatever else Pillow reads; greys, palettes, 16 bits, CMYK, EXIF-rotated included.
        recenter: scale and centre the object to fill 1 - border of the frame; else keep the picture's framing (padded
            to a square), which is right for a true view from `radius` and `fovy_deg`.
        elevation_deg: the camera's elevation, negative = looking down from above.
        azimuth_deg: the camera's azimuth; 0 looks at the front, 90 at the side that +x sees.
        radius: the camera's distance, world units.
        fovy_deg: the camera's vertical field of view.
        size: side of the result, pixels.
        border: share of the frame left free by recentring.
    Raises:
        FileNotFoundError, ValueError: one line that names the file, what was found, and the mend.
    """
    check_frame(size, border)
    if not (math.isfinite(elevation_deg) and -90 <= elevation_deg <= 90):
        raise ValueError(f"elevation={elevation_deg}: must lie in [-90, 90] degrees (negative looks down from above)")
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius={radius}: must be positive")
    if not 0 < fovy_deg < 180:
        raise ValueError(f"fovy={fovy_deg}: must lie in (0, 180) degrees")
    rgba = straight(framed(path, recenter=recenter, size=size, border=border))
    cameras = orbit(elevation_deg, azimuth_deg, radius, fovy_deg=fovy_deg, height=size)
    return Reference(torch.from_numpy(rgba)[None], cameras, Path(path))


def together(references: Sequence[Reference]) -> Reference:
    """Several references of one size as one; its source is the first one's."""
    cameras = [reference.cameras for reference in references]
    joined = replace(cameras[0], c2w=torch.cat([c.c2w for c in cameras]), K=torch.cat([c.K for c in cameras]))
    return Reference(torch.cat([reference.rgba for reference in references]), joined, references[0].source)


def framed(
    path: str | Path,
    *,
    recenter: bool = True,
    size: int = 512,
    border: float = 0.2,
    threshold: float = ALPHA_THRESHOLD,
) -> Float[ndarray, "S S 4"]:
    """The object of a picture file in its square frame, premultiplied, in [0, 1]. Errors as `load_reference`."""
    rgba = load_rgba(path, max(MATTING_PX, 3 * size))
    if rgba[..., 3].max() <= threshold * 255 + 1e-6:
        raise ValueError(
            f"{path}: is fully transparent (alpha at most {int(rgba[..., 3].max())} of 255); "
            "export it again with a visible object"
        )
    return recentred(rgba, size, border, threshold) if recenter else squared(rgba, size)


def load_rgba(path: str | Path, matting_px: int = MATTING_PX) -> UInt8[ndarray, "H W 4"]:
    """A picture file with straight alpha: its own, or one made by removing the background at `matting_px` at most.

    Raises:
        FileNotFoundError, ValueError: as `load_reference`.
    """
    picture = read_picture(path, enough_px=2 * matting_px)
    if picture.shape[2] == 4:
        return picture
    rgb = reduced(picture, matting_px)
    try:
        rgba, how = cut_out(rgb)
    except ValueError as error:
        raise ValueError(f"{path}: has no alpha and {error}") from None
    level = logging.INFO if how.startswith("rembg") else logging.WARNING
    log.log(level, "%s: no alpha: background removed by %s; %s", path, how, MEND)
    return rgba


def reduced(rgb: UInt8[ndarray, "H W 3"], longest_px: int) -> UInt8[ndarray, "H W 3"]:
    """The picture with its longest side at most `longest_px`, by area means."""
    height, width = rgb.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return rgb
    opaque = np.full((height, width, 1), 255, np.uint8)
    h, w = (max(1, round(x * scale)) for x in (height, width))
    small = resampled(np.concatenate([rgb, opaque], -1), Box(0, height, 0, width), h, w)
    return np.round(small[..., :3] * 255).astype(np.uint8)


def straight(premultiplied: Float[ndarray, "H W 4"]) -> Float[ndarray, "H W 4"]:
    """Straight alpha; where alpha is 0, the colour of the nearest pixel that has one."""
    alpha = premultiplied[..., 3]
    seen = alpha > 1e-3
    out = premultiplied.copy()
    out[..., :3] = np.clip(premultiplied[..., :3] / np.maximum(alpha, 1e-3)[..., None], 0, 1)
    out[..., 3] = np.where(seen, alpha, 0)
    if seen.any() and not seen.all():
        nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
        out[..., :3] = out[..., :3][tuple(nearest)]
    return out
