"""The edge of a cut-out: how much of each pixel there is object, and of which colour.

A pixel at the edge is a mixture, I = a F + (1 - a) B. With the colours on both sides known from close by, `a` is the
position of I between them (the projection onto F - B), and what remains of I without B is the object's own colour, so
that no rim of the old background shows on a new one.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage

from dg.data.background import spread

REACH_PX = 2.5  # half the width of the edge at the working size
CONTRAST = 0.06  # |F - B| (sRGB in [0, 1]) at which colour and position decide equally


def nearby(rgb: Float[ndarray, "H W 3"], known: Bool[ndarray, "H W"], sigma_px: float) -> Float[ndarray, "H W 3"]:
    """The mean colour of the known pixels close by; where there are none, the colour of the nearest one."""
    if not known.any():
        return np.zeros_like(rgb)
    mean, support = spread(rgb, known, sigma_px)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.where((support > 1e-3)[..., None], mean, rgb[tuple(nearest)])


def signed_distance(mask: Bool[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Pixels to the mask's edge, positive inside."""
    m = mask.astype(np.uint8)
    inside = cv2.distanceTransform(m, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - m, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def soft_alpha(
    rgb: Float[ndarray, "H W 3"], mask: Bool[ndarray, "H W"], reach_px: float, noise: float = 0.0
) -> Float[ndarray, "H W"]:
    """Alpha of a hard mask: 1 and 0 away from its edge, the mixture within `reach_px` of it.

    `noise`: the background's standard deviation (sRGB in [0, 1]); colour decides less where it says less. Background is
    here what lies next to the edge, so a floor shadow counts as background.
    """
    sdf = signed_distance(mask)
    position = np.clip(0.5 + sdf / 2, 0, 1)  # one pixel of softness on each side
    front = nearby(rgb, sdf > reach_px, 1.5 * reach_px)
    behind = nearby(rgb, sdf < -reach_px, 1.5 * reach_px)
    across = front - behind
    contrast = np.square(across).sum(-1)
    mixture = np.clip(((rgb - behind) * across).sum(-1) / np.maximum(contrast, 1e-6), 0, 1)
    trust = contrast / (contrast + CONTRAST**2 + 9 * noise**2)
    guess = cv2.GaussianBlur(trust * mixture + (1 - trust) * position, (0, 0), 0.3 * reach_px)
    alpha = trust * mixture + (1 - trust) * guess
    alpha = np.where(sdf > reach_px, 1.0, np.where(sdf < -reach_px, 0.0, alpha)).astype(np.float32)
    return np.where(alpha < 0.02, 0.0, np.where(alpha > 0.98, 1.0, alpha)).astype(np.float32)


def foreground_colours(
    rgb: Float[ndarray, "H W 3"], alpha: Float[ndarray, "H W"], sigma_px: float = 2.0
) -> Float[ndarray, "H W 3"]:
    """The object's own colour everywhere alpha is above 0, with the background's share taken out.

    Opaque pixels keep their colour. At the edge the mixture is solved with the local background; the smaller alpha, the
    less that solution says and the more the nearest opaque colour counts.
    """
    if not (alpha > 0.98).any():
        return rgb
    front = nearby(rgb, alpha > 0.98, sigma_px)
    behind = nearby(rgb, alpha < 0.02, sigma_px) if (alpha < 0.02).any() else rgb
    a = alpha[..., None]
    solved = np.clip((rgb - (1 - a) * behind) / np.maximum(a, 0.1), 0, 1)
    trust = np.square(a)
    return np.where(a > 0.98, rgb, trust * solved + (1 - trust) * front).astype(np.float32)
