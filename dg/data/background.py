"""The background of a picture without alpha: a smooth model of it, and which pixels belong to it.

Studio pictures and renders have a background that varies slowly: plain, a gradient, a vignette, a floor with a soft
shadow. It is fitted robustly to the border (a low-order polynomial per Lab channel), corrected locally where the
picture agrees with it, and flooded from the border; a shadow is the background times one number, without a hard edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage

from dg.data.robust_fit import basis, fit_frame, fit_robust
from dg.io.srgb import linear_from_srgb, srgb_from_linear

BORDER = 0.04  # width of the frame that the first fit sees, as a share of the shorter side
GRAIN_LEFT = (0.5, 0.2, 0.2)  # of the grain is left next to edges, where smoothing finds nothing alike to average
FIT_ROWS = 4000  # pixels that a fit sees, evenly strided
NOISE_FLOOR = (0.7, 0.5, 0.5)  # Lab; 8 bits and JPEG leave about this much in a plain area
BACKGROUND_SIGMAS = 4.0  # a pixel this close to the model has the background's colour
DIMMED = (0.18, 1.8)  # a shadow's or a pool of light's factor on the background's linear light; beyond it is an object
SHADOW_CHROMA = 4.0  # Lab distance between a shadow and the dimmed background
SLOPE = (3.0, 1.3)  # Lab per pixel at the working size, for darker and for lighter; a steeper step is an object's edge
RAMP = 0.7  # slope at a coarse scale over slope at a fine one: a wide ramp keeps its slope, an edge loses two thirds
STEEPEST = 8.0  # Lab per pixel of a dark ramp
SEEN_THROUGH = 0.15  # share of exactly background-coloured pixels that makes an enclosed patch a hole
CLIPPED = 98.5  # L from which a background is blown out: a white object is as white
GRAIN = 1.5  # standard deviation of L from pixel to pixel above which the picture is smoothed first
GAP_PX = 2  # the flood passes no gap narrower than twice this


@dataclass(frozen=True)
class Background:
    """A model of what lies behind the object, at the picture's own size."""

    lab: Float[ndarray, "H W 3"]  # the background's colour, float32 Lab (L in 0..100)
    sigma: Float[ndarray, "3"]  # noise per Lab channel
    residual: Float[ndarray, "H W 3"]  # picture minus background, Lab
    coloured: Bool[ndarray, "H W"]  # has the background's colour, wherever it lies
    shadow: Bool[ndarray, "H W"]  # is the background dimmed, and soft
    outside: Bool[ndarray, "H W"]  # background or shadow, connected to the border

    @property
    def distance(self) -> Float[ndarray, "H W"]:
        """How many sigmas each pixel is from the background's colour."""
        return np.linalg.norm(self.residual / self.sigma, axis=-1)


def to_lab(rgb: Float[ndarray, "H W 3"]) -> Float[ndarray, "H W 3"]:
    return cv2.cvtColor(np.ascontiguousarray(rgb, dtype=np.float32), cv2.COLOR_RGB2LAB)


def to_rgb(lab: Float[ndarray, "H W 3"]) -> Float[ndarray, "H W 3"]:
    return cv2.cvtColor(np.ascontiguousarray(lab, dtype=np.float32), cv2.COLOR_LAB2RGB).clip(0, 1)


def spread(
    values: Float[ndarray, "H W C"], known: Bool[ndarray, "H W"], sigma_px: float
) -> tuple[Float[ndarray, "H W C"], Float[ndarray, "H W"]]:
    """Normalised convolution: the Gaussian mean of the known pixels around each pixel, and the share of known ones."""
    weight = known.astype(np.float32)
    blur = lambda x: cv2.GaussianBlur(x, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)  # noqa: E731
    support = blur(weight)
    mean = blur(values * weight[..., None]).reshape(values.shape) / np.maximum(support, 1e-8)[..., None]
    return mean, support


def reached(passable: Bool[ndarray, "H W"], gap_px: int = GAP_PX) -> Bool[ndarray, "H W"]:
    """What can be reached from the border through `passable`, by a disc that fits through no gap below 2 gap_px + 1."""
    if gap_px > 0:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap_px + 1, 2 * gap_px + 1))
        padded = cv2.copyMakeBorder(passable.astype(np.uint8), *[gap_px] * 4, cv2.BORDER_REPLICATE)
        core = cv2.erode(padded, disc, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        core = core[gap_px:-gap_px, gap_px:-gap_px]
    else:
        core = passable.astype(np.uint8)
    count, labels = cv2.connectedComponents(core, connectivity=4)
    touching = np.zeros(count, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touching[edge] = True
    touching[0] = False
    found = touching[labels]
    if gap_px > 0:
        found = cv2.dilate(found.astype(np.uint8), disc).astype(bool) & passable
    return found


def grain_of(rgb: Float[ndarray, "H W 3"]) -> float:
    """Standard deviation of L from pixel to pixel, measured on the picture's frame by differences of neighbours."""
    light = to_lab(rgb)[..., 0]
    rim = max(2, round(BORDER * min(light.shape)))
    strips = (light[:rim], light[-rim:], light[:, :rim].T, light[:, -rim:].T)
    steps = np.concatenate([np.diff(strip, axis=1).ravel() for strip in strips])
    return 1.4826 * float(np.median(np.abs(steps))) / 2**0.5


def without_grain(rgb: Float[ndarray, "H W 3"], grain: float) -> Float[ndarray, "H W 3"]:
    """Film grain and sensor noise smoothed (non-local means), since tolerances grow with them; clean pictures pass."""
    if grain <= GRAIN:
        return rgb
    strength = min(1.2 * 2.55 * grain, 40.0)
    image = np.round(rgb * 255).astype(np.uint8)
    return cv2.fastNlMeansDenoisingColored(image, None, strength, 2 * strength, 5, 13).astype(np.float32) / 255


def seen_through(islands: Bool[ndarray, "H W"], exact: Bool[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    """Enclosed patches through which the background is seen: wide enough, and in part exactly its colour."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GAP_PX + 1, 2 * GAP_PX + 1))
    core = cv2.erode(islands.astype(np.uint8), disc)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=4)
    matching = np.bincount(labels.ravel(), weights=exact.ravel(), minlength=count)
    area = stats[:, cv2.CC_STAT_AREA]
    keep = (matching >= SEEN_THROUGH * area) & (area >= 2e-4 * islands.size)
    keep[0] = False
    return cv2.dilate(keep[labels].astype(np.uint8), disc).astype(bool) & islands


def blown_out(model: Float[ndarray, "H W 3"]) -> bool:
    """Whether the background is a clipped white, which a white part of the object equals exactly."""
    return bool(np.median(model[..., 0]) > CLIPPED)


def model_background(rgb: Float[ndarray, "H W 3"]) -> Background:
    """Fit the background of `rgb` (sRGB in [0, 1]) and find what belongs to it."""
    height, width = rgb.shape[:2]
    grain = grain_of(rgb)
    rgb = without_grain(rgb, grain)
    floor = np.array(NOISE_FLOOR) + (np.array(GRAIN_LEFT) * grain if grain > GRAIN else 0)
    lab = to_lab(rgb)
    A = basis(height, width)
    rim = max(2, round(BORDER * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[rim:-rim, rim:-rim] = False
    stride = max(1, int(frame.sum()) // FIT_ROWS)
    solution = fit_frame(A[frame][::stride], lab[frame][::stride])
    known = frame
    for _ in range(3):
        model = A @ solution
        sigma = noise(lab - model, known, floor)
        known = reached(np.linalg.norm((lab - model) / sigma, axis=-1) < BACKGROUND_SIGMAS)
        if known.sum() < 50:
            break
        stride = max(1, int(known.sum()) // FIT_ROWS)
        solution = fit_robust(A[known][::stride], lab[known][::stride])
    smooth = A @ solution
    result = classify(rgb, lab, smooth, noise(lab - smooth, known if known.sum() >= 50 else frame, floor))
    for divisor in (12, 24, 24):  # ever more of the picture is recognised, ever more closely followed
        if result.outside.sum() < 50:
            break
        model = corrected(lab, smooth, result.outside, max(height, width) / divisor)
        result = classify(rgb, lab, model, noise(lab - model, result.outside, floor))
    return result


def noise(
    residual: Float[ndarray, "H W 3"], known: Bool[ndarray, "H W"], floor: Float[ndarray, "3"]
) -> Float[ndarray, "3"]:
    """Robust standard deviation of each channel's residual, at least `floor`."""
    return np.maximum(1.4826 * np.median(np.abs(residual[known]), axis=0), floor).astype(np.float32)


def corrected(
    lab: Float[ndarray, "H W 3"], model: Float[ndarray, "H W 3"], known: Bool[ndarray, "H W"], sigma_px: float
) -> Float[ndarray, "H W 3"]:
    """Follow the picture where it is background; further than that from any background, keep the polynomial."""
    mean, support = spread(lab - model, known, sigma_px)
    return model + mean * (support / (support + 0.02))[..., None]


def classify(
    rgb: Float[ndarray, "H W 3"],
    lab: Float[ndarray, "H W 3"],
    model: Float[ndarray, "H W 3"],
    sigma: Float[ndarray, "3"],
) -> Background:
    residual = lab - model
    coloured = np.linalg.norm(residual / sigma, axis=-1) < BACKGROUND_SIGMAS
    shadow = dimmed(rgb, lab, model, sigma)
    passable = coloured | shadow
    outside = reached(passable)
    if not blown_out(model):
        strict = np.minimum(
            sigma, 2 * np.array(NOISE_FLOOR)
        )  # on a busy background much of an object is within 4 sigmas
        exact = np.linalg.norm(residual / strict, axis=-1) < BACKGROUND_SIGMAS
        outside |= seen_through(passable & ~outside, exact)
    return Background(model, sigma, residual, coloured, shadow, outside)


def dimmed(
    rgb: Float[ndarray, "H W 3"],
    lab: Float[ndarray, "H W 3"],
    model: Float[ndarray, "H W 3"],
    sigma: Float[ndarray, "3"],
) -> Bool[ndarray, "H W"]:
    """A shadow multiplies the background's light by one number, and is soft: its steps are little above the noise."""
    light, behind = linear_from_srgb(rgb), linear_from_srgb(to_rgb(model))
    factor = (light * behind).sum(-1) / np.maximum(np.square(behind).sum(-1), 1e-6)
    expected = to_lab(srgb_from_linear((behind * factor[..., None]).clip(0, 1)))
    chroma = np.linalg.norm((lab - expected)[..., 1:], axis=-1)
    fine, coarse = slope(lab, 1.0), slope(lab, 3.0)
    extra = 0.5 * float(np.linalg.norm(sigma - np.array(NOISE_FLOOR)))
    ramp = coarse > RAMP * fine
    soft = fine < np.where(factor < 1, np.where(ramp, STEEPEST, SLOPE[0]), SLOPE[1]) + extra
    near = chroma < np.maximum(SHADOW_CHROMA, 3 * float(np.linalg.norm(sigma[1:])))
    return near & soft & (factor > DIMMED[0]) & (factor < DIMMED[1])


def slope(lab: Float[ndarray, "H W 3"], sigma_px: float) -> Float[ndarray, "H W"]:
    """Lab per pixel, seen at a scale."""
    smooth = cv2.GaussianBlur(lab, (0, 0), sigma_px)
    gx, gy = (ndimage.correlate1d(smooth, [-0.5, 0, 0.5], axis=axis, mode="nearest") for axis in (1, 0))
    return np.sqrt(np.square(gx).sum(-1) + np.square(gy).sum(-1))
