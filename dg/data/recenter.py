"""Where an object goes in its square picture, and the one resampling that puts it there.

Placement is DreamGaussian's process.py (as facts), with its off-by-ones mended: the box includes its last row and
column (the original drops both), and sizes are rounded instead of truncated (which made 203 of 204 for some heights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, UInt8
from numpy import ndarray

ALPHA_THRESHOLD = 4 / 255  # alpha up to this is dust: it neither frames the object nor counts as one
STRIP_VALUES = 8_000_000  # floats held at once while resampling a large picture


@dataclass(frozen=True)
class Box:
    """Rows [top, bottom) and columns [left, right), in pixels; may be fractional and may reach outside the picture."""

    top: float
    bottom: float
    left: float
    right: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def width(self) -> float:
        return self.right - self.left


def bounding_box(alpha: ndarray, threshold: float = ALPHA_THRESHOLD) -> Box:
    """The smallest box around everything with alpha above `threshold` (0..1), last row and column included.

    Args:
        alpha: [H W], uint8 or float in [0, 1].
    Raises:
        ValueError: nothing is above the threshold.
    """
    limit = threshold * 255 if alpha.dtype == np.uint8 else threshold
    mask = alpha > limit + 1e-6
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        raise ValueError("nothing in the picture is opaque")
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def placement(height: float, width: float, size: int, border: float = 0.2) -> tuple[int, int, int, int]:
    """Where a box of height x width goes in a picture of size x size: (height, width, top, left) in whole pixels.

    The longer side becomes int(size * (1 - border)); the box is centred.
    """
    check_frame(size, border)
    desired = max(1, int(size * (1 - border) + 1e-6))
    scale = desired / max(height, width)
    h, w = (min(desired, max(1, math.floor(x * scale + 0.5))) for x in (height, width))
    return h, w, (size - h) // 2, (size - w) // 2


def check_frame(size: int, border: float) -> None:
    if size < 1:
        raise ValueError(f"size={size}: the picture's side must be at least 1 pixel")
    if not 0 <= border < 1:
        raise ValueError(f"border={border}: the share of the picture left free must lie in [0, 1); usual is 0.2")


def recentred(
    rgba: UInt8[ndarray, "H W 4"], size: int, border: float = 0.2, threshold: float = ALPHA_THRESHOLD
) -> Float[ndarray, "S S 4"]:
    """The object alone, its longer side filling 1 - border of the picture. Premultiplied, in [0, 1].

    Raises:
        ValueError: nothing in `rgba` is opaque.
    """
    box = bounding_box(rgba[..., 3], threshold)
    h, w, top, left = placement(box.height, box.width, size, border)
    out = np.zeros((size, size, 4), np.float32)
    out[top : top + h, left : left + w] = resampled(rgba, box, h, w)
    return out


def squared(rgba: UInt8[ndarray, "H W 4"], size: int) -> Float[ndarray, "S S 4"]:
    """The whole picture in place and in proportion, padded with transparency to a square. Premultiplied, in [0, 1]."""
    height, width = rgba.shape[:2]
    side = max(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    return resampled(rgba, Box(top, top + side, left, left + side), size, size)


def resampled(rgba: UInt8[ndarray, "H W 4"], box: Box, height: int, width: int) -> Float[ndarray, "h w 4"]:
    """What of a picture lies in a box, at another size, in one step: exact area means where it shrinks, else linear.

    The means are of premultiplied colours, so that colours hidden under alpha 0 have no part in them. What lies outside
    the picture is transparent. Returns premultiplied values in [0, 1], float32. Large pictures go through in strips.
    """
    H, W = rgba.shape[:2]
    down, across = weights(box.top, box.bottom, H, height), weights(box.left, box.right, W, width)
    strip = max(1, STRIP_VALUES // (4 * H))
    rows = np.empty((height, W, 4), np.float32)
    for start in range(0, W, strip):
        part = rgba[:, start : start + strip].astype(np.float32) / 255
        part[..., :3] *= part[..., 3:]
        rows[:, start : start + strip] = (down @ part.reshape(H, -1)).reshape(height, -1, 4)
    out = across @ np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(W, -1)
    return np.ascontiguousarray(out.reshape(width, height, 4).transpose(1, 0, 2)).clip(0, 1)


def weights(start: float, stop: float, length: int, n: int) -> scipy.sparse.csr_matrix:
    """The matrix [n, length] that resamples [start, stop) of a row of pixels to n pixels.

    Each output pixel is the mean of what it covers; where that is less than one input pixel, it interpolates linearly
    between the centres of its neighbours. A pixel that lies partly outside the row counts by its part inside.
    """
    step = (stop - start) / n
    edges = start + step * np.arange(n + 1)
    covered = np.clip(np.minimum(edges[1:], length) - np.maximum(edges[:-1], 0), 0, None) / step
    if step >= 1:
        first = np.floor(edges[:-1]).astype(int)
        taps = first[:, None] + np.arange(math.ceil(step) + 1)
        share = np.minimum(taps + 1, edges[1:, None]) - np.maximum(taps, edges[:-1, None])
        share = np.where((taps >= 0) & (taps < length), share.clip(0, None), 0)
    else:
        centre = (edges[:-1] + edges[1:]) / 2 - 0.5
        first = np.floor(centre).astype(int)
        taps = first[:, None] + np.arange(2)
        share = np.stack([1 - (centre - first), centre - first], 1)
    total = share.sum(1, keepdims=True)
    share = share * np.where(total > 0, covered[:, None] / np.maximum(total, 1e-12), 0)
    rows = np.repeat(np.arange(n), taps.shape[1])
    columns = taps.clip(0, length - 1).ravel()
    return scipy.sparse.csr_matrix((share.ravel(), (rows, columns)), shape=(n, length), dtype=np.float32)
