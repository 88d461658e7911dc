"""Removing the background of a picture without alpha, offline.

`rembg` is used where it is installed and its weights are already on this machine. Otherwise: a model of the background
(`dg.data.background`), GrabCut on the difference to it, the main pieces, filled holes, a soft edge (`dg.data.edges`).
Made for one object before a plain, graded or shadowed background; a picture with alpha is always better.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy import ndimage

from dg.data.background import BACKGROUND_SIGMAS, Background, grain_of, model_background, to_rgb
from dg.data.edges import REACH_PX, foreground_colours, soft_alpha

log = logging.getLogger("dg")

WORK_PX = 512  # the longest side at which object and background are told apart
SMALLEST_PX = 16  # a shorter side than this shows no background to learn from
OBJECT_SIGMAS = 10.0  # a pixel this far from the background's colour is certainly not background
SMOOTH_PX = 1.0  # at the working size: takes the steps out of the outline and keeps what is two pixels thin
SHELL_PX = 5  # half the width, at the working size, up to which a weak difference may be a rim of JPEG's
SMALL_PIECE = 0.01  # of the largest piece's area; smaller ones are dirt
JOIN = 0.08  # of the longest side: radius of the disc that bridges gaps in a white object's outline
ONE_PIECE = 0.9  # of the visible area in one piece: then it is the object, and its gaps are gaps
JOIN_GAIN = 1.2  # joined parts are believed when their area grows by this
LIGHT = 93.0  # L of a background before which a white object has no outline
NOTHING = 0.0008  # of the picture's area
EVERYTHING = 0.97
CUT = 0.08  # of the border's length that an object may cover unremarked
REMBG_MODEL = "u2net"  # the one that DreamGaussian's process.py uses
MEND = "pass a picture with alpha for a better edge"


def remove_background(rgb: UInt8[ndarray, "H W 3"]) -> tuple[Float[ndarray, "H W"], str]:
    """Alpha in [0, 1] (float32) of the object in an sRGB picture, and the name of the method.

    Logs a warning where the result is doubtful: an object cut by the border, a white one on white, no background seen.

    Raises:
        ValueError: nothing stands out from the background, or the picture is too small to tell.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < SMALLEST_PX:
        raise ValueError(f"{width}x{height} pixels are too few to find an object in; pass a picture with alpha")
    alpha = alpha_by_rembg(rgb) if rembg_weights() is not None else None
    how = f"rembg ({REMBG_MODEL})" if alpha is not None else "GrabCut"
    if alpha is None:
        alpha = alpha_by_grabcut(rgb)
    judge(alpha)
    return alpha, how


def cut_out(rgb: UInt8[ndarray, "H W 3"]) -> tuple[UInt8[ndarray, "H W 4"], str]:
    """As `remove_background`, with the background's share taken out of the colours at the edge. Straight alpha."""
    alpha, how = remove_background(rgb)
    scale = max(1.0, max(rgb.shape[:2]) / WORK_PX)
    colours = foreground_colours(rgb.astype(np.float32) / 255, alpha, 2.0 * scale)
    rgba = np.concatenate([np.where(alpha[..., None] > 0, colours, 0), alpha[..., None]], -1)
    return np.round(rgba * 255).astype(np.uint8), how


def judge(alpha: Float[ndarray, "H W"]) -> None:
    """An error or a warning where an alpha cannot be right."""
    mask = alpha > 0.5
    share = float(mask.mean())
    if share < NOTHING:
        raise ValueError("no object stands out from its background; pass a picture with alpha, or with more contrast")
    if share > EVERYTHING:
        log.warning("no background found: the whole picture counts as the object; pass a picture with alpha")
        return
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    if border.mean() > CUT:
        log.warning(
            "the object covers %.0f %% of the picture's border: it is cut off, or its background was not recognised; "
            "pass a picture that shows all of it, or one with alpha",
            100 * border.mean(),
        )


def rembg_weights() -> Path | None:
    """The weights in rembg's own folder, or None where it is not installed or would download them."""
    if importlib.util.find_spec("rembg") is None:
        return None
    home = os.environ.get("U2NET_HOME") or os.path.join(os.environ.get("XDG_DATA_HOME", "~"), ".u2net")
    weights = Path(home).expanduser() / f"{REMBG_MODEL}.onnx"
    return weights if weights.is_file() and weights.stat().st_size > 0 else None


@functools.lru_cache(maxsize=1)
def rembg_session(weights: Path) -> object:
    """One session for all pictures. Weights that fail rembg's checksum would be downloaded anew: no check is made."""
    os.environ.setdefault("MODEL_CHECKSUM_DISABLED", "1")
    import rembg

    log.info("background removal: rembg with %s", weights)
    return rembg.new_session(REMBG_MODEL)


def alpha_by_rembg(rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "H W"] | None:
    """None, with a warning, where rembg is there but does not work: no onnxruntime, damaged weights."""
    weights = rembg_weights()
    if weights is None:
        raise ValueError(f"rembg or its weights ({REMBG_MODEL}.onnx in U2NET_HOME) are not on this machine")
    from PIL import Image

    try:
        session = rembg_session(weights)
        import rembg

        mask = rembg.remove(Image.fromarray(rgb), session=session, only_mask=True)
    except (Exception, SystemExit) as error:  # without onnxruntime it leaves the process
        reason = "onnxruntime is missing" if isinstance(error, SystemExit) else " ".join(str(error).split())[:150]
        log.warning("rembg with %s cannot be used (%s): GrabCut instead", weights, reason)
        return None
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255


def alpha_by_grabcut(rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "H W"]:
    height, width = rgb.shape[:2]
    full = rgb.astype(np.float32) / 255
    scale = max(1.0, max(height, width) / WORK_PX)
    small = full
    if scale > 1:
        size = max(SMALLEST_PX, round(width / scale)), max(SMALLEST_PX, round(height / scale))
        small = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
    mask, _ = segment(small)
    share = mask.astype(np.float32)
    if scale > 1:
        share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.GaussianBlur(share, (0, 0), SMOOTH_PX * scale) > 0.5
    if not mask.any() or mask.all():
        return mask.astype(np.float32)
    return soft_alpha(full, mask, REACH_PX * scale, grain_of(full) / 100)


def segment(rgb: Float[ndarray, "H W 3"]) -> tuple[Bool[ndarray, "H W"], Background]:
    """A hard mask of the object, at the picture's own size, and the background that it was told from."""
    background = model_background(rgb)
    mask = grabcut(background, trimap(background))
    mask = fill_holes(mask, background)
    if np.median(background.lab[..., 0]) > LIGHT:
        mask = joined(mask, background)
    return main_pieces(mask), background


def trimap(background: Background) -> UInt8[ndarray, "H W"]:
    """GrabCut's four classes from the background model."""
    outside, distance = background.outside, background.distance
    px = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    labels = np.where(outside, cv2.GC_PR_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    rim = shell(~outside & (distance < OBJECT_SIGMAS))
    labels[(~outside & background.coloured) | rim] = cv2.GC_PR_BGD
    sure = cv2.erode(outside.astype(np.uint8), px, iterations=2, borderType=cv2.BORDER_REPLICATE) > 0
    labels[sure] = cv2.GC_BGD
    strong = (distance > OBJECT_SIGMAS) & ~outside & ~background.shadow
    labels[cv2.erode(strong.astype(np.uint8), px, iterations=2) > 0] = cv2.GC_FGD
    return labels


def shell(weak: Bool[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    """Where a weak difference is only a rim: JPEG's ringing and bled colour. Wide areas are objects."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * SHELL_PX + 1, 2 * SHELL_PX + 1))
    return weak & ~(cv2.morphologyEx(weak.astype(np.uint8), cv2.MORPH_OPEN, disc) > 0)


def grabcut(background: Background, labels: UInt8[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    """GrabCut (Rother et al. 2004) on the difference to the background, in which gradients and vignettes are flat."""
    front = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if front.sum() < 10 or (~front).sum() < 10:  # its colour models need pixels
        return front
    flat = np.tanh(background.residual / (24 * background.sigma))
    flat = np.round(127.5 + 127.5 * flat).astype(np.uint8)
    cv2.setRNGSeed(0)  # its k-means draws from OpenCV's generator
    out = labels.copy()
    cv2.grabCut(flat, out, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return np.isin(out, (cv2.GC_FGD, cv2.GC_PR_FGD))


def main_pieces(mask: Bool[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    """Without the pieces that are small beside the largest one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 1:
        return mask
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = area >= max(SMALL_PIECE * area.max(), 4)
    return keep[labels]


def fill_holes(mask: Bool[ndarray, "H W"], background: Background) -> Bool[ndarray, "H W"]:
    """Close the holes through which no background is seen, and specks."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    seen = background.coloured | background.shadow
    filled = mask.copy()
    for i in range(1, count):
        x, y, w, h, area = stats[i]
        if x == 0 or y == 0 or x + w == mask.shape[1] or y + h == mask.shape[0]:
            continue
        hole = labels[y : y + h, x : x + w] == i
        if area < 12 or seen[y : y + h, x : x + w][hole].mean() < 0.5:
            filled[y : y + h, x : x + w][hole] = True
    return filled


def joined(mask: Bool[ndarray, "H W"], background: Background) -> Bool[ndarray, "H W"]:
    """What the visible parts of a white object on white enclose, its outline being mostly invisible.

    Nothing can be seen between the parts, so the gaps are closed with a disc and filled. That rounds corners and closes
    true gaps, so it is done only where the object lies in pieces and gains much, and it is said.
    """
    parts = main_pieces((background.distance > 1.5 * BACKGROUND_SIGMAS) & ~background.shadow | mask)
    areas = cv2.connectedComponentsWithStats(parts.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    if len(areas) < 3 or areas.max() > ONE_PIECE * areas.sum():
        return mask
    r = max(3, round(JOIN * max(mask.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))
    padded = cv2.copyMakeBorder(parts.astype(np.uint8), r, r, r, r, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[r:-r, r:-r] > 0
    closed = ndimage.binary_fill_holes(closed)
    if not mask.any() or closed.sum() <= JOIN_GAIN * mask.sum():
        return mask
    colour = to_rgb(np.median(background.lab.reshape(-1, 3), axis=0).reshape(1, 1, 3))[0, 0]
    log.warning(
        "light object on a light background (%s): parts of its outline are invisible and were guessed; %s",
        "#" + "".join(f"{round(255 * float(c)):02x}" for c in colour),
        MEND,
    )
    return closed
