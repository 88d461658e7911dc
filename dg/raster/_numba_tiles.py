"""Which Gaussians touch which tile, front to back: a depth sort, then a counting sort into tiles.

Deterministic whatever the number of threads: the depth-sorted list of a view is cut into a fixed number of sections,
each counts its entries per tile, a prefix sum gives every section its places, and each fills them in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dg.core.splat import ALPHA_MIN
from dg.raster._threads import compiled, run, take

TILE_W, TILE_H = 16, 8
SECTIONS = 4
# A packed Gaussian: mean, exponent / 8, opacity, colour, depth; then the footprint: its largest squared Mahalanobis
# distance, half-width and half-height. One cache line.
FEATURES = 16
# exp(x) is computed as exp(x / 8)^8, so the packed conics are divided by 8.
X, Y, XX, XY, YY, OPACITY, RED, GREEN, BLUE, DEPTH, REACH, HALF_X, HALF_Y = range(13)


@dataclass(frozen=True)
class Tiles:
    """Per view v: visible[v] Gaussians in depth order; per tile t (views in turn): entries first[t] to first[t + 1]."""

    order: np.ndarray  # int32 [V N] index of the k-th Gaussian by depth
    visible: np.ndarray  # int64 [V]
    packed: np.ndarray  # float32 [V N FEATURES], by depth
    first: np.ndarray  # int64 [V * tiles + 1]
    gaussian: np.ndarray  # int32 [E] place by depth of an entry's Gaussian
    rows: np.ndarray  # uint8 [E 2] rows of the tile that the footprint touches, half-open
    slot: np.ndarray  # int32 [E] place of the entry among its Gaussian's
    slots: np.ndarray  # int64 [V N + 1] first slot of each Gaussian by depth
    across: int
    down: int


@compiled()
def _sort(counter, items, depths, radii, order, visible):
    """Radix sort of the visible Gaussians' depths, which are positive floats: their bits sort as integers. Stable."""
    while True:
        v = take(counter)
        if v >= items:
            return
        n = len(depths[v])
        keys, spare = np.empty(n, np.uint32), np.empty(n, np.uint32)
        spare_order = np.empty(n, np.int32)
        bits = depths[v].view(np.uint32)
        m = 0
        for i in range(n):
            if radii[v, i] > 0:
                keys[m] = bits[i]
                order[v, m] = i
                m += 1
        visible[v] = m
        ids = order[v]
        for shift in (0, 11, 22):
            places = np.zeros(2049, np.int64)
            for i in range(m):
                places[((keys[i] >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
            for i in range(2048):
                places[i + 1] += places[i]
            for i in range(m):
                digit = (keys[i] >> np.uint32(shift)) & np.uint32(2047)
                spare[places[digit]] = keys[i]
                spare_order[places[digit]] = ids[i]
                places[digit] += 1
            keys, spare = spare, keys
            ids[:m] = spare_order[:m]


@compiled()
def _pack(g, o, px, conic, opacity, rgb, depth):
    xx, xy, yy = float(conic[0]), float(conic[1]), float(conic[2])
    reach = 2 * math.log(max(opacity / ALPHA_MIN, 1.0))
    det = max(xx * yy - xy * xy, 1e-30)
    g[X], g[Y] = px[0], px[1]
    g[XX], g[XY], g[YY] = -xx / 16, -xy / 8, -yy / 16
    g[OPACITY], g[RED], g[GREEN], g[BLUE], g[DEPTH] = opacity, rgb[0], rgb[1], rgb[2], depth
    g[REACH] = reach
    g[HALF_X], g[HALF_Y] = min(math.sqrt(reach * yy / det), 1e9), min(math.sqrt(reach * xx / det), 1e9)
    return o


@compiled()
def _row_span(g, left, right):
    """Rows of the picture whose centres may lie in the footprint between the columns' centres left and right."""
    x0 = max(left - g[X], -g[HALF_X])
    x1 = min(right - g[X], g[HALF_X])
    if x0 > x1:
        return 0.0, -1.0
    xx, xy, yy = -16.0 * g[XX], -8.0 * g[XY], -16.0 * g[YY]
    half_y = float(g[HALF_Y])
    reach = float(g[REACH])
    det = xx * yy - xy * xy
    tilt = -xy / xx * half_y  # where along x the ellipse is highest
    high = min(max(tilt, x0), x1)
    low = min(max(-tilt, x0), x1)
    top = (-xy * high + math.sqrt(max(reach * yy - det * high * high, 0.0))) / yy
    bottom = (-xy * low - math.sqrt(max(reach * yy - det * low * low, 0.0))) / yy
    return g[Y] + max(bottom, -half_y) - 1e-3, g[Y] + min(top, half_y) + 1e-3


@compiled()
def _walk(g, across, height, width, counts, fill, first, gaussian, rows, slot, k, slot0):
    """Visits the tiles of one Gaussian: counts them, or (fill) writes its entries at the tiles' next places."""
    tx0 = int(max(math.floor((g[X] - g[HALF_X] - 0.5) / TILE_W), 0.0))
    tx1 = int(min(math.floor((g[X] + g[HALF_X] - 0.5) / TILE_W), float(across - 1)))
    made = 0
    for tx in range(tx0, tx1 + 1):
        y0, y1 = _row_span(g, tx * TILE_W + 0.5, min((tx + 1) * TILE_W, width) - 0.5)
        r0 = int(max(math.ceil(y0 - 0.5), 0.0))
        r1 = int(min(math.floor(y1 - 0.5), height - 1.0)) + 1
        if r0 >= r1:
            continue
        for ty in range(r0 // TILE_H, (r1 - 1) // TILE_H + 1):
            t = ty * across + tx
            if fill:
                e = first[t] + counts[t]
                gaussian[e], slot[e] = k, slot0 + made
                rows[e, 0], rows[e, 1] = max(r0 - ty * TILE_H, 0), min(r1 - ty * TILE_H, TILE_H)
            counts[t] += 1
            made += 1
    return made


@compiled()
def _count(
    counter, items, order, visible, px, conics, opacities, colors, depths, width, height, across, packed, counts, made
):
    while True:
        item = take(counter)
        if item >= items:
            return
        v, section = item // SECTIONS, item % SECTIONS
        nothing, nothing_i, nothing_b = np.empty(0, np.int64), np.empty(0, np.int32), np.empty((0, 2), np.uint8)
        c = v if len(colors) > 1 else 0
        for k in range(visible[v] * section // SECTIONS, visible[v] * (section + 1) // SECTIONS):
            o = order[v, k]
            g = packed[v, k]
            _pack(g, o, px[v, o], conics[v, o], opacities[o], colors[c, o], depths[v, o])
            made[v, k] = _walk(
                g, across, height, width, counts[v, section], False, nothing, nothing_i, nothing_b, nothing_i, k, 0
            )


@compiled()
def _prefix(counts, made, visible, first, starts, slots):
    """Places of every tile, of every section in it, and of every Gaussian's slots."""
    total = 0
    views, sections, tiles = counts.shape
    for v in range(views):
        for t in range(tiles):
            first[v * tiles + t] = total
            for s in range(sections):
                starts[v, s, t] = total
                total += counts[v, s, t]
    first[views * tiles] = total
    total = 0
    n = made.shape[1]
    for v in range(views):
        for k in range(n):
            slots[v * n + k] = total
            if k < visible[v]:
                total += made[v, k]
    slots[views * n] = total
    counts[:] = 0


@compiled()
def _fill(counter, items, visible, packed, width, height, across, counts, starts, slots, gaussian, rows, slot):
    while True:
        item = take(counter)
        if item >= items:
            return
        v, section = item // SECTIONS, item % SECTIONS
        n = packed.shape[1]
        for k in range(visible[v] * section // SECTIONS, visible[v] * (section + 1) // SECTIONS):
            _walk(
                packed[v, k], across, height, width, counts[v, section], True, starts[v, section], gaussian, rows, slot,
                k, slots[v * n + k],
            )  # fmt: skip


def build(px, conics, depths, radii, opacities, colors, width: int, height: int) -> Tiles:
    """From projected Gaussians (contiguous float32 arrays; colors [1 or V, N, 3]) to depth-sorted tile lists."""
    views, n = depths.shape
    across, down = -(-width // TILE_W), -(-height // TILE_H)
    order, visible = np.empty((views, n), np.int32), np.zeros(views, np.int64)
    run(_sort, views, depths, radii, order, visible)
    packed = np.empty((views, n, FEATURES), np.float32)
    counts, starts = np.zeros((2, views, SECTIONS, across * down), np.int64)
    made = np.empty((views, n), np.int32)
    arrays = (order, visible, px, conics, opacities, colors, depths, width, height, across, packed, counts, made)
    run(_count, views * SECTIONS, *arrays)
    first, slots = np.empty(views * across * down + 1, np.int64), np.empty(views * n + 1, np.int64)
    _prefix(counts, made, visible, first, starts, slots)
    entries = int(first[-1])
    gaussian, slot, rows = np.empty(entries, np.int32), np.empty(entries, np.int32), np.empty((entries, 2), np.uint8)
    run(_fill, views * SECTIONS, visible, packed, width, height, across, counts, starts, slots, gaussian, rows, slot)
    return Tiles(order, visible, packed, first, gaussian, rows, slot, slots, across, down)
