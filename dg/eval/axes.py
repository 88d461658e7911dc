"""Other methods' frames into ours (y up, front at +z): `axes` of a method.yaml, by a known name or as a matrix.

The names and turns of published methods are facts from EscherNet's metrics/eval_3D_GSO.py, which brings every method
into the data set's z-up world, whose input view has an azimuth there. Ours is that world with axes renamed and the
input view turned to the front (`dg.eval.layouts.frames.from_z_up`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.eval.layouts.converted import UNIT
from dg.eval.layouts.frames import FROM_BLENDER, FROM_Z_UP, from_z_up, rotation_z
from dg.eval.placement import resized, turned
from dg.eval.protocol import Item
from dg.eval.shape import Samples, chamfer, sample_surface
from dg.eval.shape import nearest as nearest_points
from dg.io.suggest import nearest
from dg.types import Mesh

Matrix = Float[Tensor, "3 3"]
SEARCH_POINTS = 4096


@dataclass(frozen=True)
class Axes:
    """Attributes:
    says: what it stands for.
    matrix: item -> rotation into our frame.
    search: the best of the quarter turns about each axis is looked for against the truth, as published.
    """

    says: str
    matrix: Callable[[Item], Matrix]
    search: bool = False


def rotation_x(degrees: float) -> Matrix:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _fixed(rows: tuple[tuple[float, ...], ...]) -> Callable[[Item], Matrix]:
    return lambda item: torch.tensor(rows)


def _ours(item: Item) -> Matrix:
    return torch.eye(3)


def _data_set(item: Item) -> Matrix:
    return from_z_up(item.frame_azimuth_deg)


def _level(item: Item) -> Matrix:
    """A run that took a picture from above for a level one leans: its front belongs where the camera was."""
    return rotation_x(item.elevation_deg)


def _one_2_3_45(item: Item) -> Matrix:
    return torch.tensor(FROM_Z_UP) @ rotation_z(60.0)


KNOWN: Mapping[str, Axes] = {
    "ours": Axes("y up, front at +z", _ours),
    "dreamgaussian": Axes("y up, front at +z; the run knew the elevation", _ours),
    "dreamgaussian_level": Axes("DreamGaussian run with elevation 0 on a picture from above", _level),
    "blender": Axes("z up, front at -y", _fixed(FROM_BLENDER)),
    "z_up": Axes("z up, front at +x", _fixed(FROM_Z_UP)),
    "threestudio": Axes("z up, front at +x", _fixed(FROM_Z_UP)),
    "syncdreamer": Axes("z up, input seen from +x", _fixed(FROM_Z_UP)),
    "realfusion": Axes("z up, input seen from +x", _fixed(FROM_Z_UP)),
    "wonder3d": Axes("z up, input seen from +x", _fixed(FROM_Z_UP)),
    "one-2-3-45": Axes("z up, input seen from -60 degrees", _one_2_3_45),
    "eschernet": Axes("the data set's own z-up frame", _data_set),
    "data_set": Axes("the data set's own z-up frame", _data_set),
    "point-e": Axes("best quarter turn in the data set's frame, against the truth", _data_set, search=True),
    "shap-e": Axes("best quarter turn in the data set's frame, against the truth", _data_set, search=True),
}


def read_axes(value: object, where: str) -> Axes:
    """A name, or three rows of three numbers: a rotation, possibly with one factor of size.

    Raises:
        ValueError: neither; names the nearest known one.
    """
    if isinstance(value, str):
        if value not in KNOWN:
            raise ValueError(f"{where}: axes={value} is not known{nearest(value, KNOWN)}")
        return KNOWN[value]
    try:
        matrix = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        matrix = torch.empty(0)
    if matrix.shape != (3, 3) or not torch.isfinite(matrix).all():
        raise ValueError(f"{where}: axes must be a name or three rows of three numbers, not {value}")
    size = float(torch.linalg.det(matrix.double()))
    factor = abs(size) ** (1 / 3)
    if factor < 1e-6 or (matrix @ matrix.T / factor**2 - torch.eye(3)).abs().max() > 1e-3:
        raise ValueError(f"{where}: axes={value} is no rotation: its rows must be square to each other, of one length")
    return Axes("as given", lambda item: matrix)


def quarter_turns() -> list[Matrix]:
    """Turns by 0, 90, 180 and 270 degrees about each axis: ten different ones."""
    found = [torch.eye(3)]
    for axis in range(3):
        order = [(0, 1, 2), (2, 0, 1), (1, 2, 0)][axis]  # x, y, z takes the place of x
        rename = torch.eye(3)[list(order)]
        found += [(rename.T @ rotation_x(90.0 * k) @ rename).round() for k in (1, 2, 3)]
    return found


def best_quarter_turn(mesh: Mesh, truth: Mesh, base: Matrix) -> Matrix:
    """`base` after the quarter turn with the least Chamfer distance, both at longest side 1 around the origin."""
    goal = sample_surface(resized(truth, UNIT), SEARCH_POINTS)

    def distance(turn: Matrix) -> float:
        samples: Samples = sample_surface(resized(turned(mesh, base @ turn), UNIT), SEARCH_POINTS)
        return chamfer(nearest_points(samples, goal), nearest_points(goal, samples))

    turns = quarter_turns()
    return base @ turns[int(np.argmin([distance(turn) for turn in turns]))]
