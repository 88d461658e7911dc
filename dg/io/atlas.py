"""Several pictures in one: repeats tiled textures, and packs textures on shelves."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from PIL import Image

MAX_PX = 4096  # longest side of what is made here; larger content is scaled down
_GUTTER_PX = 8  # repeated border around each picture, so that mip levels up to 8 do not mix neighbours
_SLACK = 1e-4  # uv this little outside [0, 1] count as rounding


def tile(
    corner_uv: Float[np.ndarray, "F 3 2"], texture: Float[np.ndarray, "h w 3"]
) -> tuple[Float[np.ndarray, "F 3 2"], Float[np.ndarray, "h2 w2 3"]]:
    """Brings uv into [0, 1] for a texture that repeats (the default of glTF and OBJ).

    Faces are moved by whole tiles; the texture is repeated as often as the largest face then needs.
    """
    low = np.floor(corner_uv.min(1, keepdims=True) + _SLACK)
    moved = np.maximum(corner_uv - low, 0.0)
    reach = moved.reshape(-1, 2).max(0) if len(moved) else np.ones(2)
    repeats = np.maximum(np.ceil(reach - _SLACK), 1).astype(int)
    if (repeats == 1).all():
        return np.minimum(moved, 1.0), texture
    if (texture == texture[:1, :1]).all():
        return np.full_like(corner_uv, 0.5), texture
    limit = max(MAX_PX, *texture.shape[:2])
    # a texture cannot have more copies than texels; the pattern of what repeats that often is invisible anyway
    repeats = np.minimum(repeats, limit)
    h, w = (max(min(size, limit // n), 1) for size, n in zip(texture.shape[:2], repeats[::-1], strict=True))
    copies = np.tile(_resize(texture, h, w), (repeats[1], repeats[0], 1))
    needed = np.minimum(np.ceil(reach * [w, h]).astype(int) + 1, [w * repeats[0], h * repeats[1]])
    return np.clip(moved * [w, h] / needed, 0.0, 1.0), copies[: needed[1], : needed[0]]


def pack(
    textures: list[Float[np.ndarray, "h w 3"]],
) -> tuple[Float[np.ndarray, "H W 3"], list[tuple[np.ndarray, np.ndarray]]]:
    """One picture with all of them, and for each the (scale [2], offset [2]) that takes its uv there."""
    if len(textures) == 1:
        return textures[0], [(np.ones(2), np.zeros(2))]
    shrink = 1.0
    while True:
        sizes = [[max(round(s * shrink), 1) for s in t.shape[:2]] for t in textures]
        corners, height, width = _shelves([(h + 2 * _GUTTER_PX, w + 2 * _GUTTER_PX) for h, w in sizes])
        if max(height, width) <= MAX_PX or shrink < 1e-2:
            break
        shrink *= 0.9
    atlas = np.zeros((height, width, 3), np.float32)
    place = []
    for texture, (h, w), (y, x) in zip(textures, sizes, corners, strict=True):
        padded = np.pad(_resize(texture, h, w), ((_GUTTER_PX,) * 2, (_GUTTER_PX,) * 2, (0, 0)), mode="edge")
        atlas[y : y + padded.shape[0], x : x + padded.shape[1]] = padded
        whole = np.array([width, height])
        place.append((np.array([w, h]) / whole, np.array([x + _GUTTER_PX, y + _GUTTER_PX]) / whole))
    return atlas, place


def _shelves(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int, int]:
    """Rows of boxes, tallest first, in about a square: the (y, x) of each, and the height and width of all."""
    width = max(max(w for _, w in sizes), math.ceil(math.sqrt(sum(h * w for h, w in sizes)) * 1.05))
    corners: list[tuple[int, int]] = [(0, 0)] * len(sizes)
    x = y = shelf = right = 0
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i][0], -sizes[i][1], i)):
        h, w = sizes[i]
        if x + w > width:
            x, y, shelf = 0, y + shelf, 0
        corners[i] = (y, x)
        x, shelf, right = x + w, max(shelf, h), max(right, x + w)
    return corners, y + shelf, right


def _resize(texture: Float[np.ndarray, "h w 3"], height: int, width: int) -> Float[np.ndarray, "H W 3"]:
    if texture.shape[:2] == (height, width):
        return texture
    channels = (Image.fromarray(np.ascontiguousarray(c)) for c in texture.transpose(2, 0, 1))
    return np.stack([np.asarray(c.resize((width, height), Image.BOX)) for c in channels], -1)
