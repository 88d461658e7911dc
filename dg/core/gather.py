"""One view's colours onto points of a surface: which of them it sees, and how squarely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from dg.core.gather_torch import eroded, look
from dg.core.slabs import batched, compiled, in_slabs
from dg.types import Cameras

if TYPE_CHECKING:
    from dg.core.backproject import BakeOptions


def add_view(
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    camera: Cameras,
    rgb: Float[Tensor, "H W 3"],
    depth: Float[Tensor, "H W"],
    alpha: Float[Tensor, "H W"],
    options: BakeOptions,
    priority: Float[Tensor, ""],
    good: Float[Tensor, "n 4"],
    spare: Float[Tensor, "n 4"],
) -> None:
    """Adds weight * (colour, 1) to `good` where the view is sure of a point it sees, else to `spare`; in place.

    Args:
        points, normals: in double precision.
        rgb: straight colours; looked up bilinearly with alpha as their weight.
        depth: of the surface's nearest face, 0 where there is none.
        priority: factor on the weights.
    """
    if batched(points.device):
        opaque = eroded(alpha >= options.min_alpha, options.erode_px)
        rules = options.sharpness, options.min_viewcos, options.depth_slack
        look(points, normals, camera, rgb, depth, alpha, opaque, *rules, priority, good, spare)
        return
    opaque = (alpha >= options.min_alpha).numpy()
    if options.erode_px > 0:
        opaque = ndimage.binary_erosion(opaque, iterations=options.erode_px, border_value=1)
    array = lambda x: x.detach().contiguous().numpy()  # noqa: E731
    in_slabs(
        _look,
        len(points),
        array(points),
        array(normals),
        array(camera.w2c[0].double()),
        array(camera.position[0].double()),
        array(camera.K[0].double()),
        array(rgb.float()),
        array(depth),
        array(alpha.float()),
        opaque,
        options.sharpness,
        options.min_viewcos,
        options.depth_slack,
        float(priority),
        good.numpy(),
        spare.numpy(),
    )


@compiled
def _look(
    first,
    last,
    points,
    normals,
    w2c,
    eye,
    K,
    rgb,
    depth,
    alpha,
    opaque,
    sharpness,
    min_viewcos,
    slack,
    priority,
    good,
    spare,
):
    """Adds one view's weighted colours to the texels first..last - 1 that it sees; `spare` takes the doubtful ones.

    The cosine here is that between the normal and the ray (not the view axis): it tells how much the surface is
    foreshortened in this pixel.
    """
    height, width = depth.shape
    for n in range(first, last):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        rx, ry, rz = eye[0] - x, eye[1] - y, eye[2] - z
        cos = (rx * normals[n, 0] + ry * normals[n, 1] + rz * normals[n, 2]) / np.sqrt(rx * rx + ry * ry + rz * rz)
        if cos <= 0.02:
            continue
        d = w2c[2, 0] * x + w2c[2, 1] * y + w2c[2, 2] * z + w2c[2, 3]
        if d <= 1e-6:
            continue
        u = K[0, 0] * (w2c[0, 0] * x + w2c[0, 1] * y + w2c[0, 2] * z + w2c[0, 3]) / d + K[0, 2] - 0.5
        v = K[1, 1] * (w2c[1, 0] * x + w2c[1, 1] * y + w2c[1, 2] * z + w2c[1, 3]) / d + K[1, 2] - 0.5
        if u < 0 or v < 0 or u > width - 1 or v > height - 1:
            continue
        c, r = min(int(u), width - 2), min(int(v), height - 2)
        column, row = int(u + 0.5), int(v + 0.5)
        # Within a pixel the depth of a slanted surface changes by the pixel's size times the slope.
        reach = slack + d / K[0, 0] * np.sqrt(1 - min(cos * cos, 1.0)) / cos
        if depth[row, column] <= 0 or d > depth[row, column] + reach:
            continue
        fu, fv = u - c, v - r
        # Bilinear in premultiplied colours: where nothing is, straight colours mean nothing.
        w00, w01 = (1 - fu) * (1 - fv) * alpha[r, c], fu * (1 - fv) * alpha[r, c + 1]
        w10, w11 = (1 - fu) * fv * alpha[r + 1, c], fu * fv * alpha[r + 1, c + 1]
        opacity = w00 + w01 + w10 + w11
        if not opacity > 1e-3:
            continue
        certain = cos >= min_viewcos and opaque[r, c] and opaque[r, c + 1] and opaque[r + 1, c] and opaque[r + 1, c + 1]
        weight = priority * cos**sharpness
        out = good if certain else spare
        for k in range(3):
            colour = w00 * rgb[r, c, k] + w01 * rgb[r, c + 1, k] + w10 * rgb[r + 1, c, k] + w11 * rgb[r + 1, c + 1, k]
            out[n, k] += weight * colour / opacity
        out[n, 3] += weight
