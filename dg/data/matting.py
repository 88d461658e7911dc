"""Removing the background of a picture without alpha, offline.

`rembg` is used where it is installed and its weights are already on this machine. Otherwise: a model of the background
(`dg.data.background`), GrabCut on the difference to it, the main pieces, filled holes, and a soft edge (`dg.data.edges`).
The method is made for pictures of one object before a plain, graded or shadowed background; a picture with alpha is better.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy import ndimage

from dg.data.background import Background, model_background, reached
from dg.data.edges import REACH_PX, signed_distance, soft_alpha

log = logging.getLogger("dg")

WORK_PX = 512  # the longest side at which object and background are told apart
OBJECT_SIGMAS = 10.0  # a pixel this far from the background's colour is certainly not background
SMALL_PIECE = 0.02  # of the largest piece's area; smaller ones are dirt
NOTHING = 0.0008  # of the picture's area
EVERYTHING = 0.97


def trimap(background: Background) -> UInt8[ndarray, "H W"]:
    """GrabCut's four classes from the background model."""
    outside, distance = background.outside, background.distance
    px = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    labels = np.where(outside, cv2.GC_PR_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    labels[~outside & background.coloured] = cv2.GC_PR_BGD
    sure = cv2.erode(outside.astype(np.uint8), px, iterations=2, borderType=cv2.BORDER_REPLICATE) > 0
    labels[sure] = cv2.GC_BGD
    strong = (distance > OBJECT_SIGMAS) & ~outside & ~background.shadow
    labels[cv2.erode(strong.astype(np.uint8), px, iterations=2) > 0] = cv2.GC_FGD
    return labels


def grabcut(background: Background, labels: UInt8[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    """GrabCut (Rother et al. 2004) on the difference to the background, where gradients and vignettes have become flat."""
    if not np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).any() or not np.isin(labels, (cv2.GC_BGD, cv2.GC_PR_BGD)).any():
        return labels == cv2.GC_FGD
    flat = np.tanh(background.residual / (24 * background.sigma))
    flat = np.round(127.5 + 127.5 * flat).astype(np.uint8)
    cv2.setRNGSeed(0)  # its k-means draws from OpenCV's generator
    out = labels.copy()
    cv2.grabCut(flat, out, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return np.isin(out, (cv2.GC_FGD, cv2.GC_PR_FGD))


def main_pieces(mask: Bool[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 1:
        return mask
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = area >= max(SMALL_PIECE * area.max(), 4)
    return keep[labels]


def fill_holes(mask: Bool[ndarray, "H W"], background: Background) -> Bool[ndarray, "H W"]:
    """Close the holes through which no background is seen."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    seen = background.coloured | background.shadow
    filled = mask.copy()
    for i in range(1, count):
        x, y, w, h, area = stats[i]
        if x == 0 or y == 0 or x + w == mask.shape[1] or y + h == mask.shape[0]:
            continue
        hole = labels[y : y + h, x : x + w] == i
        share = seen[y : y + h, x : x + w][hole].mean()
        if area < 12 or share < 0.5:
            filled[y : y + h, x : x + w][hole] = True
    return filled


def segment(rgb: Float[ndarray, "H W 3"]) -> tuple[Bool[ndarray, "H W"], Background]:
    """A hard mask of the object, at the picture's own size."""
    background = model_background(rgb)
    mask = grabcut(background, trimap(background))
    mask = fill_holes(mask, background)
    return main_pieces(mask), background
