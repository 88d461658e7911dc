"""References that need no run, on every board and never ranked: what is perfect, and what knows nothing of depth.

`truth`: the true mesh itself (or the true pictures). `billboard`: a flat card in the shape of the picture's object,
with the picture on both sides. `input_copied`: every view is the input picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dg.data.image import load_reference
from dg.eval.layouts.converted import mesh_in_our_frame
from dg.eval.layouts.pictures import read_views, stacked
from dg.eval.protocol import Item, Protocol, Renders, Result
from dg.io.mesh import save_mesh
from dg.types import Cameras, Mesh, Reference

NAMES = ("truth", "billboard", "input_copied")
VERSION = 1
CELLS, PICTURE_PX = 128, 512  # of the card's mask along a side; of its texture
THICKNESS = 0.01  # of the card, as a share of the camera's distance


def applies(name: str, item: Item) -> bool:
    """Whether the item has what the reference is made of."""
    if name == "truth":
        return item.truth is not None or item.truth_views is not None
    return item.image is not None


def make(name: str, item: Item, protocol: Protocol, folder: Path) -> Result:
    """The result of a reference; files go into `folder`.

    Raises:
        ValueError: no such reference, or it does not apply.
        FileNotFoundError: the item's files are missing.
    """
    if name not in NAMES:
        raise ValueError(f"there is no reference {name}; there are {', '.join(NAMES)}")
    if not applies(name, item):
        raise ValueError(f"{item.name} has nothing to make the reference {name} of")
    if name == "truth":
        return _truth(item, protocol, folder)
    if name == "input_copied":
        return Result(renders=_copied(item, protocol))
    path = Path(folder) / "billboard.glb"
    save_mesh(billboard(_reference(item, PICTURE_PX)), path)
    return Result(mesh=path)


def _truth(item: Item, protocol: Protocol, folder: Path) -> Result:
    """Given views win over the mesh: they are what results are compared with, and they may be lit."""
    if item.truth_views is not None:
        views = item.truth_views
        return Result(renders=Renders(*read_views(views.pictures, views.cameras, protocol.views.background)))
    assert item.truth is not None
    if not item.truth_yaw_deg:
        return Result(mesh=item.truth)
    return Result(mesh=mesh_in_our_frame(item.truth, folder, item.name, yaw_deg=item.truth_yaw_deg))


def _reference(item: Item, size: int) -> Reference:
    assert item.image is not None
    return load_reference(
        item.image,
        recenter=item.recenter,
        elevation_deg=item.elevation_deg,
        radius=item.radius,
        fovy_deg=item.fovy_deg,
        size=size,
    )


def _copied(item: Item, protocol: Protocol) -> Renders:
    views = item.truth_views
    cameras = protocol.views.cameras() if views is None else views.cameras
    rgba = _reference(item, cameras.height).rgba[0]
    rgb, alpha = stacked([rgba], (cameras.height, cameras.width), protocol.views.background)
    assert alpha is not None
    count = len(cameras)
    return Renders(rgb.expand(count, -1, -1, -1).clone(), alpha.expand(count, -1, -1, -1).clone())


def billboard(reference: Reference, cells: int = CELLS, thickness: float = THICKNESS) -> Mesh:
    """A closed card through the origin, square to the camera's axis, that looks from there exactly like the picture.

    Args:
        cells: the mask is cut out of so many cells a side.
        thickness: as a share of the camera's distance; both faces lie on the same rays, half of it before and behind.

    Raises:
        ValueError: the picture's mask is empty.
    """
    alpha = reference.rgba[0, ..., 3]
    mask = torch.nn.functional.adaptive_avg_pool2d(alpha[None, None], cells)[0, 0] > 0.5
    if not mask.any():
        raise ValueError(f"{reference.source}: nothing in it is opaque, so there is no card to cut out")
    faces = _slab(mask.numpy())
    corner = (cells + 1) ** 2
    row, column = torch.meshgrid(torch.arange(cells + 1), torch.arange(cells + 1), indexing="ij")
    uv = torch.stack([column, row], -1).reshape(-1, 2).float() / cells
    distance = float(reference.cameras.position.norm(dim=-1)[0])
    points = torch.cat([_on_plane(uv, reference.cameras, distance * (1 + sign * thickness / 2)) for sign in (-1, 1)])
    used, faces = torch.unique(faces, return_inverse=True)
    return Mesh(points[used], faces, uv[used % corner], faces, reference.rgba[0, ..., :3].contiguous())


def _on_plane(uv: Float[Tensor, "P 2"], cameras: Cameras, depth: float) -> Float[Tensor, "P 3"]:
    """World points behind picture coordinates in [0, 1] at one depth."""
    size = torch.tensor([cameras.width, cameras.height])
    pixel = torch.cat([uv * size, torch.ones_like(uv[:, :1])], -1)
    local = pixel @ torch.linalg.inv(cameras.K[0]).T * depth
    return local @ cameras.c2w[0, :3, :3].T + cameras.c2w[0, :3, 3]


def _slab(mask: Bool[np.ndarray, "n n"]) -> Int[Tensor, "F 3"]:
    """Faces of a slab over the cells of a mask: front, back and rim. Corners are numbered row by row, then the back's.

    Seen from the camera (rows down, columns right) front faces are counter-clockwise.
    """
    n = len(mask)
    padded = np.pad(mask, 1)
    row, column = np.nonzero(mask)

    def corner(dr: int, dc: int, back: bool = False, only: np.ndarray | slice = slice(None)) -> np.ndarray:
        return (row[only] + dr) * (n + 1) + column[only] + dc + back * (n + 1) ** 2

    def quad(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
        return [np.stack([a, b, c], -1), np.stack([a, c, d], -1)]

    found = quad(corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1))
    found += quad(*(corner(*at, back=True) for at in ((0, 0), (0, 1), (1, 1), (1, 0))))
    # a cell's edges, each walked as its front face walks it, where there is no neighbour
    edges = [((0, 0), (1, 0), (0, -1)), ((1, 0), (1, 1), (1, 0)), ((1, 1), (0, 1), (0, 1)), ((0, 1), (0, 0), (-1, 0))]
    for start, end, (dr, dc) in edges:
        free = ~padded[row + 1 + dr, column + 1 + dc]
        ring = ((end, False), (start, False), (start, True), (end, True))
        found += quad(*(corner(*at, back=back, only=free) for at, back in ring))
    return torch.from_numpy(np.concatenate(found).astype(np.int64))
