"""A closed object without any symmetry, its front view, and the ways in which tests spoil it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dg.core.camera import orbit
from dg.eval.catalog import ALIGNMENTS, CATALOG
from dg.eval.protocol import Item, Protocol, ViewSpec
from dg.io.images import write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_colours
from dg.types import Mesh

RASTER = CpuMeshRasterizer()
VIEWS = ViewSpec((0.0,) * 8, tuple(45.0 * i for i in range(8)), size=64, ssaa=2)
WITHOUT_WEIGHTS = tuple(base for base in CATALOG if not base.startswith(("lpips", "clip", "seconds", "peak")))
BUMPS = (((1, 0.2, 0.3), 0.5), ((-0.3, 1, 0.2), 0.35), ((-0.6, -0.5, 0.8), 0.45), ((0.2, 0.4, -1), 0.3))


def protocol(**changes) -> Protocol:
    rules = Protocol(
        "test", list, VIEWS, WITHOUT_WEIGHTS, ("psnr_db",), ALIGNMENTS, points=12_000, volume_resolution=32
    )
    return replace(rules, **changes)


def lump(folder: Path, subdivisions: int = 3) -> Mesh:
    """Longest side 1, centred; every corner has a colour of its own. Read from the file `folder`/truth.glb."""
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    points = np.asarray(sphere.vertices)
    radius = np.ones(len(points))
    for direction, height in BUMPS:
        axis = np.array(direction) / np.linalg.norm(direction)
        radius += height * np.exp(8 * (points @ axis - 1))
    points = points * radius[:, None]
    low, high = points.min(0), points.max(0)
    points = (points - (low + high) / 2) / (high - low).max()
    colours = 0.5 + 0.45 * np.sin(points @ np.array([[9.0, 2, -4], [3, -8, 5], [-2, 4, 7]]) + [0.3, 1.1, 2.3])
    coloured = trimesh.Trimesh(points, sphere.faces, vertex_colors=(colours * 255).astype(np.uint8), process=False)
    coloured.export(folder / "lump.ply")
    save_mesh(load_mesh(folder / "lump.ply"), folder / "truth.glb")
    return load_mesh(folder / "truth.glb")


def item(folder: Path) -> Item:
    """The lump and its front view, in files."""
    mesh = lump(folder)
    camera = orbit(0.0, 0.0, VIEWS.radius, fovy_deg=VIEWS.fovy_deg, height=VIEWS.size)
    rgb, alpha = render_colours(mesh, camera, RASTER, torch.zeros(3), ssaa=VIEWS.ssaa)
    write_png(folder / "front.png", torch.cat([rgb / alpha.clamp_min(1e-6), alpha], -1)[0])
    return Item("lump", folder / "front.png", recenter=False, truth=folder / "truth.glb")


def turned(mesh: Mesh, degrees: float) -> Mesh:
    a = torch.deg2rad(torch.tensor(float(degrees)))
    matrix = torch.tensor([[a.cos(), 0, a.sin()], [0, 1, 0], [-a.sin(), 0, a.cos()]])
    return replace(mesh, vertices=mesh.vertices @ matrix.T)


def mirrored(mesh: Mesh) -> Mesh:
    flipped = mesh.vertices * torch.tensor([-1.0, 1, 1])
    return replace(mesh, vertices=flipped, faces=mesh.faces.flip(1), faces_uv=mesh.faces_uv.flip(1))


def holed(mesh: Mesh, radius: float = 0.13) -> Mesh:
    """A round hole in the middle of the back."""
    centre = mesh.vertices[mesh.faces].mean(1)
    away = (centre[:, :2].norm(dim=1) > radius) | (centre[:, 2] > 0)
    return replace(mesh, faces=mesh.faces[away], faces_uv=mesh.faces_uv[away])


def hollow(mesh: Mesh, size: float = 0.6) -> Mesh:
    """The mesh and a smaller one within, turned inside out."""
    return replace(
        mesh,
        vertices=torch.cat([mesh.vertices, mesh.vertices * size]),
        faces=torch.cat([mesh.faces, mesh.faces.flip(1) + len(mesh.vertices)]),
        faces_uv=torch.cat([mesh.faces_uv, mesh.faces_uv.flip(1)]),
    )


def scaled(mesh: Mesh, factor: float = 0.8) -> Mesh:
    return replace(mesh, vertices=mesh.vertices * factor)


def recoloured(mesh: Mesh) -> Mesh:
    """Red and blue exchanged, which leaves the saturation."""
    return replace(mesh, texture=mesh.texture.flip(-1))


def faded(mesh: Mesh) -> Mesh:
    """Half of the saturation, towards white."""
    return replace(mesh, texture=0.5 + 0.5 * mesh.texture)
