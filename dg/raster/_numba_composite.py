"""Compositing of depth-sorted tile lists and its hand-written gradient, as compiled loops that vectorise.

A tile's pixels live in planes of one small workspace. Each (tile, Gaussian) entry is one loop over the tile's rows that
the footprint touches, all columns, without branches: pixels outside the footprint, or done, get alpha 0. One workspace
at constant offsets, not an array per plane: so the compiler sees that nothing overlaps and uses vector instructions.

Gradients are sums over pixels of v, v d, v d d^T (v: gradient of the exponent, d: offset from the mean), written per
entry and then added per Gaussian in a fixed order, in float64: no atomics, the same bits in every run.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from dg.core import splat
from dg.raster._numba_tiles import BLUE, DEPTH, GREEN, OPACITY, RED, TILE_H, TILE_W, XX, XY, YY, X, Y, build
from dg.raster._threads import FASTMATH, compiled, run, take

PIXELS = TILE_W * TILE_H
BLOCK = 256  # Gaussians that a thread takes at a time
SUMS = 10  # v, v dx, v dy, v dx dx, v dx dy, v dy dy, weight * (red, green, blue, depth)'s gradients

F = np.float32
ALPHA_MAX, ALPHA_MIN, T_MIN = F(splat.ALPHA_MAX), F(splat.ALPHA_MIN), F(splat.T_MIN)
ONE, ZERO, HALF, NEVER = F(1), F(0), F(0.5), F(2)
# Where the planes begin. Unsigned: else numba checks for negative indices, and the loop does not vectorise.
P1, P2, P3, P4, P5, P6, P7, P8 = (np.uint64(PIXELS * k) for k in range(1, 9))
# exp(x) for -0.75 <= x <= 0, relative error 3e-8; alpha is below ALPHA_MIN for any smaller x.
X_MIN = F(-0.75)
E0, E1, E2, E3 = F(1.0), F(0.99999964), F(0.49999225), F(0.16660710)
E4, E5, E6 = F(0.041444656), F(0.0078991186), F(0.00095038197)


@compiled(fastmath=FASTMATH)
def _composite(
    counter, items, first, gaussian, rows, packed, background, across, down, rgb, alpha, depth, t_out, last_out
):
    height, width = t_out.shape[1:]
    w = np.empty(9 * PIXELS, np.float32)  # planes: column, row, T, threshold, red, green, blue, depth, last
    for i in range(PIXELS):
        w[i] = F(i % TILE_W) + HALF
        w[PIXELS + i] = F(i // TILE_W) + HALF
    while True:
        tile = take(counter)
        if tile >= items:
            return
        v = tile // (across * down)
        y0 = tile // across % down * TILE_H
        x0 = tile % across * TILE_W
        w[2 * PIXELS : 3 * PIXELS] = ONE
        w[4 * PIXELS : 8 * PIXELS] = ZERO
        w[8 * PIXELS : 9 * PIXELS] = -ONE
        alive = 0
        for i in range(PIXELS):
            inside = x0 + i % TILE_W < width and y0 + i // TILE_W < height
            w[3 * PIXELS + i] = ALPHA_MIN if inside else NEVER
            alive += inside
        for e in range(first[tile], first[tile + 1]):
            g = packed[v, gaussian[e]]
            alive -= _add(w, g, F(x0), F(y0), int(rows[e, 0]) * TILE_W, int(rows[e, 1]) * TILE_W, F(e - first[tile]))
            if alive == 0:
                break
        for i in range(PIXELS):
            y, x = y0 + i // TILE_W, x0 + i % TILE_W
            if y < height and x < width:
                t = w[2 * PIXELS + i]
                for c in range(3):
                    rgb[v, y, x, c] = w[(4 + c) * PIXELS + i] + t * background[v, c]
                alpha[v, y, x, 0] = ONE - t
                depth[v, y, x, 0] = w[7 * PIXELS + i]
                t_out[v, y, x] = t
                last_out[v, y, x] = w[8 * PIXELS + i]


@compiled(fastmath=FASTMATH)
def _add(w, g, x0, y0, start, stop, k):
    """One Gaussian over the pixels start to stop of a tile; how many of them are done now."""
    mx, my = g[X] - x0, g[Y] - y0
    xx, xy, yy, opacity = g[XX], g[XY], g[YY], g[OPACITY]
    red, green, blue, depth = g[RED], g[GREEN], g[BLUE], g[DEPTH]
    done = ZERO
    for j in range(stop - start):
        i = np.uint64(start) + np.uint64(j)
        dx, dy = w[i] - mx, w[P1 + i] - my
        p = xx * dx * dx + xy * dx * dy + yy * dy * dy
        p = p if p > X_MIN else X_MIN
        q = E0 + p * (E1 + p * (E2 + p * (E3 + p * (E4 + p * (E5 + p * E6)))))
        q = q * q
        q = q * q
        a = opacity * (q * q)
        a = a if a < ALPHA_MAX else ALPHA_MAX
        t = w[P2 + i]
        threshold = w[P3 + i]
        touched = a >= threshold
        after = t * (ONE - a)
        counts = touched & (after > T_MIN)
        stops = touched & (after <= T_MIN)
        weight = a * t if counts else ZERO
        w[P2 + i] = after if counts else t
        w[P3 + i] = NEVER if stops else threshold
        done += ONE if stops else ZERO
        w[P4 + i] += weight * red
        w[P5 + i] += weight * green
        w[P6 + i] += weight * blue
        w[P7 + i] += weight * depth
        w[P8 + i] = k if counts else w[P8 + i]
    return int(done)


@compiled(fastmath=FASTMATH)
def _composite_backward(
    counter, items, first, gaussian, rows, slot, packed, background, across, down, t_final, last, g_rgb, g_alpha,
    g_depth, sums, g_background, absolute,
):  # fmt: skip
    height, width = t_final.shape[1:]
    w = np.empty(9 * PIXELS, np.float32)  # planes: column, row, T, what lies behind, red, green, blue, depth, last
    for i in range(PIXELS):
        w[i] = F(i % TILE_W) + HALF
        w[PIXELS + i] = F(i // TILE_W) + HALF
    while True:
        tile = take(counter)
        if tile >= items:
            return
        v = tile // (across * down)
        y0 = tile // across % down * TILE_H
        x0 = tile % across * TILE_W
        newest = -1
        g_background[tile] = ZERO
        w[2 * PIXELS : 9 * PIXELS] = ZERO
        for i in range(PIXELS):
            y, x = y0 + i // TILE_W, x0 + i % TILE_W
            w[8 * PIXELS + i] = -ONE
            if y < height and x < width:
                t = t_final[v, y, x]
                behind = -g_alpha[v, y, x, 0]
                for c in range(3):
                    gradient = g_rgb[v, y, x, c]
                    w[(4 + c) * PIXELS + i] = gradient
                    behind += background[v, c] * gradient
                    g_background[tile, c] += t * gradient
                w[2 * PIXELS + i], w[3 * PIXELS + i] = t, t * behind
                w[7 * PIXELS + i] = g_depth[v, y, x, 0]
                w[8 * PIXELS + i] = last[v, y, x]
                newest = max(newest, int(last[v, y, x]))
        for e in range(first[tile + 1] - 1, first[tile] - 1, -1):
            k = e - first[tile]
            if k > newest:
                sums[slot[e]] = ZERO
                if absolute is not None:
                    absolute[slot[e]] = ZERO
                continue
            g = packed[v, gaussian[e]]
            start, stop = int(rows[e, 0]) * TILE_W, int(rows[e, 1]) * TILE_W
            if absolute is None:
                _subtract(w, g, F(x0), F(y0), start, stop, F(k), sums[slot[e]], None)
            else:
                _subtract(w, g, F(x0), F(y0), start, stop, F(k), sums[slot[e]], absolute[slot[e]])


@compiled(fastmath=FASTMATH)
def _subtract(w, g, x0, y0, start, stop, k, out, absolute):
    """Takes one Gaussian off the pixels start to stop of a tile, back to front, and writes its sums.

    `absolute` None: that part is not compiled, so it costs nothing where nobody asks.
    """
    mx, my = g[X] - x0, g[Y] - y0
    xx, xy, yy, opacity = g[XX], g[XY], g[YY], g[OPACITY]
    red, green, blue, depth = g[RED], g[GREEN], g[BLUE], g[DEPTH]
    s0 = s_x = s_y = s_xx = s_xy = s_yy = s_red = s_green = s_blue = s_depth = ZERO
    a_x = a_y = ZERO
    twice_xx, twice_yy = xx + xx, yy + yy
    for j in range(stop - start):
        i = np.uint64(start) + np.uint64(j)
        dx, dy = w[i] - mx, w[P1 + i] - my
        p = xx * dx * dx + xy * dx * dy + yy * dy * dy
        p = p if p > X_MIN else X_MIN
        q = E0 + p * (E1 + p * (E2 + p * (E3 + p * (E4 + p * (E5 + p * E6)))))
        q = q * q
        q = q * q
        raw = opacity * (q * q)
        a = raw if raw < ALPHA_MAX else ALPHA_MAX
        counts = (a >= ALPHA_MIN) & (k <= w[P8 + i])
        a = a if counts else ZERO
        inverse = ONE / (ONE - a)
        t = w[P2 + i] * inverse
        behind = w[P3 + i]
        g_red, g_green, g_blue, g_depth = w[P4 + i], w[P5 + i], w[P6 + i], w[P7 + i]
        value = red * g_red + green * g_green + blue * g_blue + depth * g_depth
        weight = a * t
        g_a = t * value - behind * inverse
        w[P2 + i] = t
        w[P3 + i] = behind + weight * value
        s = a * g_a if raw <= ALPHA_MAX else ZERO
        sx, sy = s * dx, s * dy
        if absolute is not None:
            a_x += abs(twice_xx * sx + xy * sy)
            a_y += abs(xy * sx + twice_yy * sy)
        s0 += s
        s_x += sx
        s_y += sy
        s_xx += sx * dx
        s_xy += sx * dy
        s_yy += sy * dy
        s_red += weight * g_red
        s_green += weight * g_green
        s_blue += weight * g_blue
        s_depth += weight * g_depth
    out[0], out[1], out[2], out[3], out[4], out[5] = s0, s_x, s_y, s_xx, s_xy, s_yy
    out[6], out[7], out[8], out[9] = s_red, s_green, s_blue, s_depth
    if absolute is not None:
        absolute[0], absolute[1] = a_x, a_y


@compiled()
def _reduce(counter, items, order, visible, slots, packed, sums, g_px, g_conics, g_opacities, g_colors, g_depths):
    """Adds the sums of each Gaussian's entries, and turns them into gradients. All outputs are [V N ...]."""
    while True:
        item = take(counter)
        if item >= items:
            return
        views, n = order.shape
        for at in range(item * BLOCK, min((item + 1) * BLOCK, views * n)):
            v, k = at // n, at % n
            if k >= visible[v]:
                continue
            total = np.zeros(SUMS)
            for s in range(slots[at], slots[at + 1]):
                for c in range(SUMS):
                    total[c] += sums[s, c]
            g, o = packed[v, k], order[v, k]
            xx, xy, yy = -16 * g[XX], -8 * g[XY], -16 * g[YY]
            g_px[v, o, 0], g_px[v, o, 1] = xx * total[1] + xy * total[2], xy * total[1] + yy * total[2]
            g_conics[v, o, 0], g_conics[v, o, 1], g_conics[v, o, 2] = -total[3] / 2, -total[4], -total[5] / 2
            g_opacities[v, o] = total[0] / g[OPACITY]
            g_colors[v, o, 0], g_colors[v, o, 1], g_colors[v, o, 2] = total[6], total[7], total[8]
            g_depths[v, o] = total[9]


@compiled()
def _reduce_absolute(counter, items, order, visible, slots, absolute, g_absolute):
    """Adds the absolute sums of each Gaussian's entries, in pixels' units (the packed exponent is divided by 8)."""
    while True:
        item = take(counter)
        if item >= items:
            return
        views, n = order.shape
        for at in range(item * BLOCK, min((item + 1) * BLOCK, views * n)):
            v, k = at // n, at % n
            if k < visible[v]:
                for s in range(slots[at], slots[at + 1]):
                    for c in range(2):
                        g_absolute[v, order[v, k], c] += 8 * absolute[s, c]


class Composite(torch.autograd.Function):
    """Projected Gaussians, colors [1 or V, N, 3] and background [V 3] to rgb, alpha, depth."""

    @staticmethod
    def forward(ctx, means_px, conics, depths, radii, opacities, colors, background, width, height, absolute=None):
        projected = (means_px, conics, depths, radii, opacities, colors)
        tiles = build(*(t.detach().numpy() for t in projected), width, height)
        views = len(depths)
        rgb, alpha, depth = (torch.empty(views, height, width, c) for c in (3, 1, 1))
        t_final, last = (np.empty((views, height, width), np.float32) for _ in range(2))
        ctx.tiles, ctx.pixels, ctx.one_color = tiles, (t_final, last), len(colors) == 1
        ctx.background, ctx.absolute = background.detach().numpy(), absolute
        run(
            _composite, len(tiles.first) - 1, tiles.first, tiles.gaussian, tiles.rows, tiles.packed, ctx.background,
            tiles.across, tiles.down, rgb.numpy(), alpha.numpy(), depth.numpy(), t_final, last,
        )  # fmt: skip
        return rgb, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        tiles, (t_final, last) = ctx.tiles, ctx.pixels
        views, n = tiles.order.shape
        g_rgb, g_alpha, g_depth = (g.contiguous().numpy() for g in grads)
        sums = np.empty((len(tiles.gaussian), SUMS), np.float32)
        absolute = None if ctx.absolute is None else np.empty((len(tiles.gaussian), 2), np.float32)
        g_background = np.empty((len(tiles.first) - 1, 3), np.float32)
        run(
            _composite_backward, len(tiles.first) - 1, tiles.first, tiles.gaussian, tiles.rows, tiles.slot,
            tiles.packed, ctx.background, tiles.across, tiles.down, t_final, last, g_rgb, g_alpha,
            g_depth, sums, g_background, absolute,
        )  # fmt: skip
        if absolute is not None:
            run(
                _reduce_absolute, -(-views * n // BLOCK), tiles.order, tiles.visible, tiles.slots, absolute,
                ctx.absolute.numpy(),
            )  # fmt: skip
        px, conics, opacities, colors, depths = (torch.zeros(views, n, *c) for c in ((2,), (3,), (), (3,), ()))
        outputs = [t.numpy() for t in (px, conics, opacities, colors, depths)]
        run(_reduce, -(-views * n // BLOCK), tiles.order, tiles.visible, tiles.slots, tiles.packed, sums, *outputs)
        if ctx.one_color:
            colors = _over_views(colors)[None]
        background = torch.from_numpy(g_background.reshape(views, -1, 3).sum(1, dtype=np.float64).astype(np.float32))
        return px, conics, depths, None, _over_views(opacities), colors, background, None, None, None


def _over_views(x: torch.Tensor) -> torch.Tensor:
    """The sum over the first dimension in a fixed order."""
    total = x[0]
    for part in x[1:]:
        total = total + part
    return total
