"""GSO30 as EscherNet released it (dataset kxic/EscherNet-Dataset): 25 random views per object, cameras, meshes.

    DIR/GSO30/NAME/render_mvs_25/model/{000..024}.png   RGBA, 512 px; 000 is the input; or DIR/NAME/...
    DIR/GSO30/NAME/render_mvs_25/model/{000..024}.npy   3 x 4, world to Blender's camera, z up
    DIR/GSO30/NAME/meshes/model.obj

Facts from EscherNet's metrics/eval_2D_NVS.py, eval_3D_GSO.py and scripts/blender_script_mvs.py. It measures pictures on
views 010 to 024 at 256 px, whatever the number of input views. Each object's frame is turned so that its input view is
the front.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.eval.layouts.asking import all_there, given_folder, one_of
from dg.eval.layouts.converted import mesh_in_our_frame, picture_at_size
from dg.eval.layouts.frames import FROM_Z_UP, cameras_from_blender, spherical_of_blender
from dg.eval.layouts.syncdreamer import OBJECTS
from dg.eval.protocol import Item, TruthViews
from dg.types import Cameras

ORIGIN = "GSO30 of the dataset kxic/EscherNet-Dataset"
VIEWS, FIRST_TEST, SIZE = 25, 10, 256
LENS_MM, SENSOR_MM = 35.0, 32.0


def intrinsics(size: int = SIZE) -> Float[Tensor, "3 3"]:
    """Of Blender's lens of 35 mm on a sensor of 32 mm."""
    focal = LENS_MM / SENSOR_MM * size
    return torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def fovy_deg() -> float:
    return float(torch.rad2deg(2 * torch.atan(torch.tensor(SENSOR_MM / 2 / LENS_MM, dtype=torch.float64))))


def read_pose(path: Path) -> Float[Tensor, "3 4"]:
    """One camera.

    Raises:
        ValueError: the file is no 3 x 4 matrix (it is never unpickled).
    """
    try:
        pose = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: is no NumPy array: {error}") from None
    if pose.shape not in ((3, 4), (4, 4)) or not np.issubdtype(pose.dtype, np.floating):
        raise ValueError(f"{path}: is {pose.dtype} {pose.shape}, not a 3 x 4 camera")
    return torch.from_numpy(pose[:3].astype(np.float64))


def read(root: str | Path | None, cache: str | Path) -> list[Item]:
    """One item per object: input, the 15 test views, the mesh.

    Raises:
        FileNotFoundError: the folder or a file of the 30 objects is missing.
        ValueError: a camera cannot be read.
    """
    folder = given_folder(root, "data", "GSO30/", ORIGIN)
    base = one_of((folder / "GSO30" / OBJECTS[0], folder / OBJECTS[0]), "GSO30", ORIGIN).parent
    return [_item(name, base / name, cache) for name in OBJECTS]


def _item(name: str, folder: Path, cache: str | Path) -> Item:
    views = folder / "render_mvs_25" / "model"
    pictures = all_there((views / f"{i:03d}.png" for i in (0, *range(FIRST_TEST, VIEWS))), name, ORIGIN)
    files = all_there((p.with_suffix(".npy") for p in pictures), name, ORIGIN)
    poses = torch.stack([read_pose(p) for p in files])
    elevation, azimuth, distance = spherical_of_blender(poses[0])
    mesh = folder / "meshes" / "model.obj"
    truth = mesh_in_our_frame(mesh, cache, name, FROM_Z_UP, True, -azimuth) if mesh.is_file() else None
    small = tuple(picture_at_size(p, cache, f"eschernet-{name}", SIZE) for p in pictures[1:])
    return Item(
        name=name,
        image=pictures[0],
        elevation_deg=elevation,
        recenter=False,
        radius=distance,
        fovy_deg=fovy_deg(),
        frame_azimuth_deg=azimuth,
        truth=truth,
        truth_views=TruthViews(small, views_after_input(poses, azimuth), tuple(range(FIRST_TEST, VIEWS))),
    )


def views_after_input(poses: Float[Tensor, "V 3 4"], input_azimuth_deg: float) -> Cameras:
    """Cameras of the test views in our frame; `poses` begins with the input's."""
    return cameras_from_blender(poses[1:], intrinsics(), SIZE, input_azimuth_deg)
