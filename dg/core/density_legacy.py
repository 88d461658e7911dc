"""The release's way of sampling the density (DreamGaussian's gs_renderer.py, as facts): whole blocks."""

from __future__ import annotations

import numpy as np

from dg.core.slabs import compiled

LEGACY_SPAN = 1.8  # the release maps the longest side of the centres' box to [-0.9, 0.9] of a lattice over [-1, 1]
LEGACY_BLOCKS = 16  # blocks per axis
LEGACY_GROWTH = 1.5  # a block sees the Gaussians whose centres lie within 1.5 of its edges (2 / 16) around it


@compiled
def sample_legacy(first_block, last_block, means, factors, opacities, origin, spacing, side, growth, values):
    """Blocks of side^3 points; a block adds all Gaussians whose centres lie strictly inside it grown by `growth`."""
    resolution = values.shape[0]
    per_axis = (resolution + side - 1) // side
    for block in range(first_block, last_block):
        corner = np.array([block // (per_axis * per_axis), block // per_axis % per_axis, block % per_axis]) * side
        end = np.minimum(corner + side, resolution)
        for g in range(len(means)):
            inside = True
            for d in range(3):
                lo = origin[d] + spacing * corner[d] - growth
                hi = origin[d] + spacing * (end[d] - 1) + growth
                inside &= (means[g, d] > lo) & (means[g, d] < hi)
            if not inside:
                continue
            for i in range(corner[0], end[0]):
                for j in range(corner[1], end[1]):
                    for k in range(corner[2], end[2]):
                        x = origin[0] + spacing * i - means[g, 0]
                        y = origin[1] + spacing * j - means[g, 1]
                        z = origin[2] + spacing * k - means[g, 2]
                        q = 0.0
                        for r in range(3):
                            q += (factors[g, r, 0] * x + factors[g, r, 1] * y + factors[g, r, 2] * z) ** 2
                        values[i, j, k] += opacities[g] * np.exp(-0.5 * q)
