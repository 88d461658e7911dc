"""Toy objects made by formula: closed, textured ground truth of our own, and the shipped example's source.

Longest side 1, centred, y up, front at +z. `python -m dg.data.objects NAME OUT.png` writes an input picture.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from skimage.measure import marching_cubes

from dg.core.camera import FOVY_DEG, orbit
from dg.core.clean import decimate, topology
from dg.core.meshes import signed_volume
from dg.core.uv import unwrap
from dg.data.sdf import Model
from dg.data.toys import TOYS
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.interpolate import interpolate
from dg.meshraster.render import render_mesh
from dg.types import Mesh

_COARSE, _FINE = 48, 96  # lattice points along the longest side: to find the object, and to mesh it
_REACH = 1.5  # models live within this distance of the origin along each axis
_FACES = 16_000
_TEXTURE_PX = 1024


def names() -> tuple[str, ...]:
    return tuple(TOYS)


@cache
def make(name: str, texture_px: int = _TEXTURE_PX) -> Mesh:
    """The object of that name: one closed surface with uv and a texture. Made once per process (a few seconds).

    Raises:
        ValueError: an unknown name.
    """
    if name not in TOYS:
        raise ValueError(f"no object '{name}'; there are {', '.join(TOYS)}")
    model = TOYS[name]()
    mesh = decimate(_surface(model), _FACES)
    mesh = replace(mesh, vertices=_project(model, mesh.vertices))
    if not topology(mesh).closed or topology(mesh).components != 1:
        raise RuntimeError(f"the surface of '{name}' is not one closed piece")
    # the whole mesh at once, which is slower: records know the truth by its file's checksum, so its layout must stay
    mesh = unwrap(mesh, resolution=texture_px, piece_faces=None, straightness=0.0)
    mesh = replace(mesh, texture=_paint(model, mesh, texture_px))
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    return replace(mesh, vertices=(mesh.vertices - (low + high) / 2) / (high - low).max())


def picture(mesh: Mesh, size: int = 512, elevation_deg: float = 0.0, azimuth_deg: float = 0.0) -> torch.Tensor:
    """RGBA [size size 4], straight alpha, from radius 2 at a field of view of 49.1 degrees; 4 x 4 samples a pixel."""
    cameras = orbit(elevation_deg, azimuth_deg, 2.0, fovy_deg=FOVY_DEG, height=size)
    black = render_mesh(mesh, cameras, CpuMeshRasterizer(), torch.zeros(3), ssaa=4)
    return torch.cat([black.rgb[0] / black.alpha[0].clamp_min(1e-6), black.alpha[0]], -1)


def _surface(model: Model) -> Mesh:
    """Marching cubes on a lattice fitted to the object."""
    axis = np.linspace(-_REACH, _REACH, _COARSE, dtype=np.float32)
    step = axis[1] - axis[0]
    near = _sample(model, (axis, axis, axis)) < step
    spans = [np.flatnonzero(near.any(tuple(j for j in range(3) if j != i))) for i in range(3)]
    low = np.array([axis[s[0]] - step for s in spans])
    high = np.array([axis[s[-1]] + step for s in spans])
    spacing = float((high - low).max()) / (_FINE - 1)
    axes = [np.arange(a, b + spacing, spacing, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    values = _sample(model, axes)
    values[np.abs(values) < 1e-6] = 1e-6  # several vertices on one lattice point would make faces without area
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(spacing,) * 3)
    mesh = Mesh(torch.from_numpy(vertices + low).float(), torch.from_numpy(faces.astype(np.int64)))
    return mesh if signed_volume(mesh.vertices, mesh.faces) > 0 else replace(mesh, faces=mesh.faces.flip(1))


def _sample(model: Model, axes) -> np.ndarray:
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    pieces = np.array_split(points, max(len(points) // 100_000, 1))  # stays in the cache
    return np.concatenate([model.distance(p) for p in pieces]).reshape([len(a) for a in axes])


def _project(model: Model, vertices: torch.Tensor, steps: int = 3, limit: float = 0.01) -> torch.Tensor:
    """Newton steps onto the surface, at most `limit` each; decimation had moved the vertices off it."""
    p, h = vertices.numpy().copy(), np.float32(1e-3)
    offsets = np.eye(3, dtype=np.float32) * h
    for _ in range(steps):
        d = model.distance(p)
        ahead, behind = (np.stack([model.distance(p + sign * e) for e in offsets], 1) for sign in (1, -1))
        gradient = (ahead - behind) / (2 * h)
        step = d[:, None] * gradient / np.maximum((gradient**2).sum(1, keepdims=True), 0.25)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        p -= step * np.minimum(1, limit / np.maximum(length, 1e-9))
    return torch.from_numpy(p)


def _paint(model: Model, mesh: Mesh, size: int) -> torch.Tensor:
    """The model's colour at the point of the surface behind each texel; the rest takes the nearest texel's."""
    clip = torch.cat([mesh.uv * 2 - 1, torch.zeros(len(mesh.uv), 1), torch.ones(len(mesh.uv), 1)], 1)
    fragments = CpuMeshRasterizer()(clip[None], mesh.faces_uv, (size, size))
    covered = (fragments.face_id[0] > 0).numpy()
    points = interpolate(mesh.vertices, fragments, mesh.faces)[0].numpy()
    texture = np.zeros((size, size, 3), np.float32)
    texture[covered] = model.colour(points[covered])
    _, (rows, columns) = ndimage.distance_transform_edt(~covered, return_indices=True)
    return torch.from_numpy(texture[rows, columns])


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description="Writes the front view of a toy object as a 512 x 512 RGBA picture.")
    parser.add_argument("name", choices=names())
    parser.add_argument("out", type=Path)
    parser.add_argument("--elevation", type=float, default=0.0, help="degrees, negative looks down from above")
    parser.add_argument("--azimuth", type=float, default=0.0, help="degrees, 90 is the object's own left, from +x")
    arguments = parser.parse_args()
    rgba = picture(make(arguments.name), 512, arguments.elevation, arguments.azimuth)
    Image.fromarray((rgba.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(arguments.out)


if __name__ == "__main__":
    main()
