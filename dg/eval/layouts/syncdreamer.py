"""Google Scanned Objects as SyncDreamer released them: 30 objects, 16 views each, depths and meshes.

    DIR/gso-eval/NAME/{000..015}.png          RGBA, 256 px; 000 is the input; or DIR/NAME/...
    DIR/gso-eval/NAME/{000..015}-depth.png    16 bits
    DIR/gso-eval-meshes/NAME/meshes/model.obj
    DIR/meta_info/camera-16.pkl               optional: checked against the constants below

Facts from SyncDreamer's eval_nvs.py, eval_mesh.py, blender_script.py and camera-16.pkl. Its example (the chicken)
agrees with the conversions here: the mesh's silhouettes equal the pictures' pixel by pixel, depths to half a step.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from dg.core.camera import orbit
from dg.eval.layouts.asking import all_there, given_folder, one_of
from dg.eval.layouts.converted import mesh_in_our_frame
from dg.eval.layouts.frames import FROM_Z_UP, cameras_from_opencv, elevation_from_above
from dg.eval.layouts.plain_pickle import read_numbers
from dg.eval.protocol import Item, TruthDepth, TruthViews
from dg.types import Cameras

ORIGIN = "the GSO evaluation set of SyncDreamer, linked in its repository's README as gso-eval and gso-eval-meshes"
OBJECTS = (
    *("alarm", "backpack", "bell", "blocks", "chicken", "cream", "elephant", "grandfather", "grandmother", "hat"),
    *("leather", "lion", "lunch_bag", "mario", "oil", "school_bus1", "school_bus2", "shoe", "shoe1", "shoe2"),
    *("shoe3", "soap", "sofa", "sorter", "sorting_board", "stucking_cups", "teapot", "toaster", "train", "turtle"),
)
VIEWS, SIZE, FOCAL_PX, DISTANCE, ELEVATION_ABOVE_DEG = 16, 256, 280.0, 1.5, 30.0
FOVY_DEG = math.degrees(2 * math.atan(SIZE / 2 / FOCAL_PX))  # 49.13
DEPTH_NEAR, DEPTH_FAR, DEPTH_VALID = 0.6, 2.4, (0.63, 2.37)

# By how much a mesh is turned about the vertical, against its azimuth, to stand as it was rendered.
_TURNED_DEG = {
    **dict.fromkeys(("blocks", "alarm", "backpack", "chicken", "soap", "grandfather", "grandmother"), 270.0),
    **dict.fromkeys(("lion", "lunch_bag", "mario", "oil"), 270.0),
    **dict.fromkeys(("elephant", "school_bus1"), 180.0),
    **dict.fromkeys(("school_bus2", "shoe", "train", "turtle"), 225.0),
    "sorter": 112.5,
    "sofa": -90.0,
}


def mesh_yaw_deg(name: str) -> float:
    """The turn about +y that brings an object's mesh, axes renamed, to where its pictures show it."""
    return -_TURNED_DEG.get(name, 0.0)


def our_mesh(path: Path, cache: str | Path, name: str) -> Path:
    """An object's mesh as its pictures show it, in our frame: centred, longest side 1."""
    return mesh_in_our_frame(path, cache, name, FROM_Z_UP, unit=True, yaw_deg=mesh_yaw_deg(name))


def cameras() -> Cameras:
    """The 16 cameras in our frame; the first one saw the input."""
    azimuths = [360.0 / VIEWS * i for i in range(VIEWS)]
    return orbit(elevation_from_above(ELEVATION_ABOVE_DEG), azimuths, DISTANCE, fovy_deg=FOVY_DEG, height=SIZE)


def read_nvs(root: str | Path | None, cache: str | Path) -> list[Item]:
    """Novel views: the 16 pictures of each object are the truth; its mesh, too, where it is there.

    Raises:
        FileNotFoundError: the folder or a file of the 30 objects is missing.
        ValueError: camera-16.pkl says something else than the constants.
    """
    folder, views = _pictures(root), cameras()
    _check_cameras(Path(root or ""), views)
    items = []
    for name in OBJECTS:
        pictures = all_there((folder / name / f"{i:03d}.png" for i in range(VIEWS)), name, ORIGIN)
        mesh = _mesh(root, name)
        mesh = None if mesh is None else our_mesh(mesh, cache, name)
        items.append(_item(name, pictures[0], mesh, truth_views=TruthViews(pictures, views, tuple(range(VIEWS)))))
    return items


def read_mesh(root: str | Path | None, cache: str | Path) -> list[Item]:
    """Shapes: meshes, and depth pictures, whose points are the part of the surface that the 16 views see.

    Raises:
        FileNotFoundError, ValueError: as `read_nvs`.
    """
    folder, views = _pictures(root), cameras()
    _check_cameras(Path(root or ""), views)
    items = []
    for name in OBJECTS:
        image = all_there([folder / name / "000.png"], name, ORIGIN)[0]
        depths = all_there((folder / name / f"{i:03d}-depth.png" for i in range(VIEWS)), name, ORIGIN)
        mesh = _mesh(root, name)
        if mesh is None:
            raise FileNotFoundError(f"{name}: its mesh gso-eval-meshes/{name}/meshes/model.obj is missing ({ORIGIN})")
        depth = TruthDepth(depths, views, DEPTH_NEAR, DEPTH_FAR, DEPTH_VALID)
        items.append(_item(name, image, our_mesh(mesh, cache, name), truth_depth=depth))
    return items


def _item(
    name: str,
    image: Path,
    mesh: Path | None,
    truth_views: TruthViews | None = None,
    truth_depth: TruthDepth | None = None,
) -> Item:
    return Item(
        name=name,
        image=image,
        elevation_deg=elevation_from_above(ELEVATION_ABOVE_DEG),
        recenter=False,
        radius=DISTANCE,
        fovy_deg=FOVY_DEG,
        truth=mesh,
        truth_views=truth_views,
        truth_depth=truth_depth,
    )


def _pictures(root: str | Path | None) -> Path:
    folder = given_folder(root, "data", "gso-eval/ and gso-eval-meshes/", ORIGIN)
    first = OBJECTS[0]
    return one_of((folder / "gso-eval" / first, folder / first), "gso-eval", ORIGIN).parent


def _mesh(root: str | Path | None, name: str) -> Path | None:
    base = Path(root or "").expanduser()
    places = (base / "gso-eval-meshes" / name, base / "gso-eval" / name, base / name)
    return next((p for place in places if (p := place / "meshes" / "model.obj").is_file()), None)


def _check_cameras(root: Path, expected: Cameras) -> None:
    path = root.expanduser() / "meta_info" / "camera-16.pkl"
    if not path.is_file():
        return
    found = read_cameras(path)
    if not torch.allclose(found.c2w, expected.c2w, atol=1e-4) or not torch.allclose(found.K, expected.K, atol=1e-2):
        raise ValueError(f"{path}: its cameras are not the published ones (azimuth k * 22.5, 30 from above, 1.5 away)")


def read_cameras(path: Path) -> Cameras:
    """meta_info/camera-16.pkl: (K [3 3], azimuths, elevations, distances, world to camera [16 3 4]), read as numbers.

    Raises:
        ValueError: it holds something else.
    """
    content = read_numbers(path)
    try:
        K, *_, poses = (np.asarray(x, dtype=np.float64) for x in content)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: holds no cameras") from None
    if K.shape != (3, 3) or poses.shape != (VIEWS, 3, 4):
        raise ValueError(f"{path}: K is {K.shape} and the poses are {poses.shape}, not (3, 3) and ({VIEWS}, 3, 4)")
    return cameras_from_opencv(torch.from_numpy(poses), torch.from_numpy(K), SIZE)
