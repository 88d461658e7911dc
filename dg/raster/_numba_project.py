"""EWA projection of N Gaussians into V views and its hand-written gradient, as compiled loops in float64.

The formulas are those of `dg.core.splat`; the tests compare both.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from dg.core.splat import ALPHA_MIN, BLUR_PX2, FOV_MARGIN, NEAR_SPLAT, QUAT_EPS
from dg.raster._threads import FASTMATH, compiled, run, take
from dg.types import Cameras

BLOCK = 256  # Gaussians that a thread takes at a time


@compiled(fastmath=FASTMATH)
def _rotation(q):
    norm = max(math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]), QUAT_EPS)
    w, x, y, z = q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )


@compiled(fastmath=FASTMATH)
def _slope(x, z, f, c, size):
    """x / z clamped a little outside the picture, and whether it was inside."""
    margin = FOV_MARGIN * 0.5 * size / f
    low, high = -c / f - margin, (size - c) / f + margin
    s = x / z
    return min(max(s, low), high), low <= s <= high


@compiled(fastmath=FASTMATH)
def _halves(w2c, rotation, scale, fx, fy, sx, sy, z):
    """The rows of J W (2 x 3 in world axes) and of J W R S (2 x 3): the covariance is the product of the latter."""
    j0, j1 = fx / z, fy / z
    a0 = j0 * w2c[0, 0] - j0 * sx * w2c[2, 0]
    a1 = j0 * w2c[0, 1] - j0 * sx * w2c[2, 1]
    a2 = j0 * w2c[0, 2] - j0 * sx * w2c[2, 2]
    b0 = j1 * w2c[1, 0] - j1 * sy * w2c[2, 0]
    b1 = j1 * w2c[1, 1] - j1 * sy * w2c[2, 1]
    b2 = j1 * w2c[1, 2] - j1 * sy * w2c[2, 2]
    r0, r1, r2 = rotation
    u0 = (a0 * r0[0] + a1 * r1[0] + a2 * r2[0]) * scale[0]
    u1 = (a0 * r0[1] + a1 * r1[1] + a2 * r2[1]) * scale[1]
    u2 = (a0 * r0[2] + a1 * r1[2] + a2 * r2[2]) * scale[2]
    v0 = (b0 * r0[0] + b1 * r1[0] + b2 * r2[0]) * scale[0]
    v1 = (b0 * r0[1] + b1 * r1[1] + b2 * r2[1]) * scale[1]
    v2 = (b0 * r0[2] + b1 * r1[2] + b2 * r2[2]) * scale[2]
    return (a0, a1, a2), (b0, b1, b2), (u0, u1, u2), (v0, v1, v2)


@compiled(fastmath=FASTMATH)
def _view_point(w2c, mean):
    x = w2c[0, 0] * mean[0] + w2c[0, 1] * mean[1] + w2c[0, 2] * mean[2] + w2c[0, 3]
    y = w2c[1, 0] * mean[0] + w2c[1, 1] * mean[1] + w2c[1, 2] * mean[2] + w2c[1, 3]
    z = w2c[2, 0] * mean[0] + w2c[2, 1] * mean[1] + w2c[2, 2] * mean[2] + w2c[2, 3]
    return x, y, z


@compiled(fastmath=FASTMATH)
def _forward(counter, items, means, quats, scales, opacities, w2cs, Ks, width, height, px, conics, depths, radii):
    while True:
        item = take(counter)
        if item >= items:
            return
        for n in range(item * BLOCK, min((item + 1) * BLOCK, len(means))):
            rotation = _rotation(quats[n])
            reach = 2 * math.log(max(opacities[n] / ALPHA_MIN, 1.0))
            for v in range(len(w2cs)):
                fx, fy, cx, cy = Ks[v]
                x, y, depth = _view_point(w2cs[v], means[n])
                z = max(depth, NEAR_SPLAT)
                sx, _ = _slope(x, z, fx, cx, width)
                sy, _ = _slope(y, z, fy, cy, height)
                _, _, a, b = _halves(w2cs[v], rotation, scales[n], fx, fy, sx, sy, z)
                xx = a[0] * a[0] + a[1] * a[1] + a[2] * a[2] + BLUR_PX2
                xy = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
                yy = b[0] * b[0] + b[1] * b[1] + b[2] * b[2] + BLUR_PX2
                det = xx * yy - xy * xy
                mx, my = fx * x / z + cx, fy * y / z + cy
                px[v, n, 0], px[v, n, 1] = mx, my
                conics[v, n, 0], conics[v, n, 1], conics[v, n, 2] = yy / det, -xy / det, xx / det
                depths[v, n] = depth
                half_x, half_y = math.sqrt(reach * xx), math.sqrt(reach * yy)
                inside = mx + half_x > 0 and mx - half_x < width and my + half_y > 0 and my - half_y < height
                radii[v, n] = 0
                if inside and depth > NEAR_SPLAT and opacities[n] >= ALPHA_MIN:
                    half = (xx - yy) / 2
                    radii[v, n] = math.sqrt(reach * ((xx + yy) / 2 + math.sqrt(half * half + xy * xy)))


@compiled(fastmath=FASTMATH)
def _backward(counter, items, means, quats, scales, w2cs, Ks, width, height, g_px, g_conics, g_depths, g_m, g_q, g_s):
    while True:
        item = take(counter)
        if item >= items:
            return
        sums = np.zeros((6, 3))  # rows of dL/d(R S)^T W^T... 0..2: dL/dM (M = R S, by column); 3: dL/d mean
        for n in range(item * BLOCK, min((item + 1) * BLOCK, len(means))):
            rotation = _rotation(quats[n])
            sums[:] = 0
            for v in range(len(w2cs)):
                _backward_view(
                    means[n], rotation, scales[n], w2cs[v], Ks[v], width, height, g_px[v, n], g_conics[v, n],
                    g_depths[v, n], sums,
                )  # fmt: skip
            g_m[n, 0], g_m[n, 1], g_m[n, 2] = sums[3, 0], sums[3, 1], sums[3, 2]
            _backward_rotation_scale(quats[n], rotation, scales[n], sums, g_q[n], g_s[n])


@compiled(fastmath=FASTMATH)
def _backward_view(mean, rotation, scale, w2c, K, width, height, g_px, g_conic, g_depth, sums):
    """Adds one view's share: sums[i, j] += dL/d(R S)[i, j] and sums[3] += dL/d mean."""
    if g_px[0] == 0 and g_px[1] == 0 and g_conic[0] == 0 and g_conic[1] == 0 and g_conic[2] == 0 and g_depth == 0:
        return
    fx, fy, cx, cy = K
    x, y, depth = _view_point(w2c, mean)
    z = max(depth, NEAR_SPLAT)
    sx, in_x = _slope(x, z, fx, cx, width)
    sy, in_y = _slope(y, z, fy, cy, height)
    ja, jb, a, b = _halves(w2c, rotation, scale, fx, fy, sx, sy, z)
    xx = a[0] * a[0] + a[1] * a[1] + a[2] * a[2] + BLUR_PX2
    xy = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    yy = b[0] * b[0] + b[1] * b[1] + b[2] * b[2] + BLUR_PX2
    det = xx * yy - xy * xy
    # d inverse: dL/dC = -Q G Q with Q the conic and G its symmetric gradient
    p, q, r = yy / det, -xy / det, xx / det
    g0, g1, g2 = float(g_conic[0]), 0.5 * g_conic[1], float(g_conic[2])
    t00, t01 = p * g0 + q * g1, p * g1 + q * g2
    t10, t11 = q * g0 + r * g1, q * g1 + r * g2
    c_xx, c_xy, c_yy = -(t00 * p + t01 * q), -(t00 * q + t01 * r), -(t10 * q + t11 * r)
    # C = [a; b] [a; b]^T
    da0, da1, da2 = 2 * (c_xx * a[0] + c_xy * b[0]), 2 * (c_xx * a[1] + c_xy * b[1]), 2 * (c_xx * a[2] + c_xy * b[2])
    db0, db1, db2 = 2 * (c_xy * a[0] + c_yy * b[0]), 2 * (c_xy * a[1] + c_yy * b[1]), 2 * (c_xy * a[2] + c_yy * b[2])
    # a_k = (sum_i ja_i R_ik) S_k
    for i in range(3):
        sums[i, 0] += ja[i] * da0 + jb[i] * db0
        sums[i, 1] += ja[i] * da1 + jb[i] * db1
        sums[i, 2] += ja[i] * da2 + jb[i] * db2
    dx = dy = dsx = dsy = dj0 = dj1 = 0.0
    for i in range(3):
        row = rotation[i]
        m0, m1, m2 = row[0] * scale[0], row[1] * scale[1], row[2] * scale[2]
        dja = da0 * m0 + da1 * m1 + da2 * m2
        djb = db0 * m0 + db1 * m1 + db2 * m2
        dj0 += dja * (w2c[0, i] - sx * w2c[2, i])
        dj1 += djb * (w2c[1, i] - sy * w2c[2, i])
        dsx -= dja * (fx / z) * w2c[2, i]
        dsy -= djb * (fy / z) * w2c[2, i]
    dz = -(dj0 * fx + dj1 * fy) / (z * z)
    if in_x:
        dx += dsx / z
        dz -= dsx * x / (z * z)
    if in_y:
        dy += dsy / z
        dz -= dsy * y / (z * z)
    dx += g_px[0] * fx / z
    dy += g_px[1] * fy / z
    dz -= (g_px[0] * fx * x + g_px[1] * fy * y) / (z * z)
    if depth <= NEAR_SPLAT:
        dz = 0.0
    dz += g_depth
    for i in range(3):
        sums[3, i] += w2c[0, i] * dx + w2c[1, i] * dy + w2c[2, i] * dz


@compiled(fastmath=FASTMATH)
def _backward_rotation_scale(quat, rotation, scale, sums, g_quat, g_scale):
    """From dL/d(R S) to the scales and the unnormalised quaternion."""
    for k in range(3):
        g_scale[k] = sums[0, k] * rotation[0][k] + sums[1, k] * rotation[1][k] + sums[2, k] * rotation[2][k]
    norm = math.sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3])
    if norm <= QUAT_EPS:
        g_quat[:] = 0
        return
    w, x, y, z = quat[0] / norm, quat[1] / norm, quat[2] / norm, quat[3] / norm
    r00, r01, r02 = sums[0, 0] * scale[0], sums[0, 1] * scale[1], sums[0, 2] * scale[2]
    r10, r11, r12 = sums[1, 0] * scale[0], sums[1, 1] * scale[1], sums[1, 2] * scale[2]
    r20, r21, r22 = sums[2, 0] * scale[0], sums[2, 1] * scale[1], sums[2, 2] * scale[2]
    dw = 2 * (x * (r21 - r12) + y * (r02 - r20) + z * (r10 - r01))
    dx = 2 * (-2 * x * (r11 + r22) + y * (r01 + r10) + z * (r02 + r20) + w * (r21 - r12))
    dy = 2 * (-2 * y * (r00 + r22) + x * (r01 + r10) + z * (r12 + r21) + w * (r02 - r20))
    dz = 2 * (-2 * z * (r00 + r11) + x * (r02 + r20) + y * (r12 + r21) + w * (r10 - r01))
    along = w * dw + x * dx + y * dy + z * dz
    g_quat[0], g_quat[1] = (dw - w * along) / norm, (dx - x * along) / norm
    g_quat[2], g_quat[3] = (dy - y * along) / norm, (dz - z * along) / norm


def camera_arrays(cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """World to camera [V 4 4] and (fx, fy, cx, cy) [V 4], float64."""
    K = cameras.K.detach().double()
    w2c = Cameras(cameras.c2w.detach().double(), K, cameras.width, cameras.height).w2c
    pinhole = torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], -1)
    return w2c.contiguous().numpy(), pinhole.contiguous().numpy()


class Project(torch.autograd.Function):
    """(means, quats, scales, opacities) -> (means_px, conics, depths, radii_px); opacities only decide on radii."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, cameras):
        n, v = len(means), len(cameras)
        ctx.shape = (*camera_arrays(cameras), float(cameras.width), float(cameras.height))
        ctx.save_for_backward(means, quats, scales)
        px, conics = torch.empty(v, n, 2), torch.empty(v, n, 3)
        depths, radii = torch.empty(v, n), torch.empty(v, n)
        inputs = [t.detach().numpy() for t in (means, quats, scales, opacities)]
        outputs = [t.numpy() for t in (px, conics, depths, radii)]
        run(_forward, -(-n // BLOCK), *inputs, *ctx.shape, *outputs)
        ctx.mark_non_differentiable(radii)
        return px, conics, depths, radii

    @staticmethod
    @once_differentiable
    def backward(ctx, g_px, g_conics, g_depths, _):
        saved = ctx.saved_tensors
        grads = [torch.empty_like(t) for t in saved]
        arrays = [t.detach().contiguous().numpy() for t in (*saved, g_px, g_conics, g_depths)]
        run(_backward, -(-len(saved[0]) // BLOCK), *arrays[:3], *ctx.shape, *arrays[3:], *(g.numpy() for g in grads))
        return *grads, None, None
