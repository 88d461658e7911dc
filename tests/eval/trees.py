"""Small trees in exactly the layouts in which others publish: written by formulas of their own, not by the readers'."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

GSO_TURNS = {"sofa": -90.0, "chicken": 270.0, "elephant": 180.0, "train": 225.0, "sorter": 112.5, "bell": 0.0}


def png(path: Path, value: int = 255, size: int = 4, mode: str = "RGBA") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(np.full((size, size), value, np.uint16)).save(path)
    else:
        Image.new(mode, (size, size), (value,) * len(mode)).save(path)


def obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in vertices]
    path.write_text("\n".join(lines + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]) + "\n")


def z_up_solid() -> tuple[np.ndarray, np.ndarray]:
    """A tetrahedron without symmetry, somewhere, at some size."""
    vertices = np.array([[0.0, 0.0, 0.0], [3.0, 0.2, 0.1], [0.3, 1.7, 0.4], [0.5, 0.4, 1.1]]) * 0.7 + (1.0, -2.0, 0.5)
    return vertices, np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])


def normalised(vertices: np.ndarray) -> np.ndarray:
    low, high = vertices.min(0), vertices.max(0)
    return (vertices - (low + high) / 2) / (high - low).max()


def turned_z(vertices: np.ndarray, degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return vertices @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T


def place(azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
    """A camera's position in a z-up world, elevation positive from above."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    return distance * np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])


def blender_pose(position: np.ndarray) -> np.ndarray:
    """World to Blender's camera (x right, y up, z backward), looking at the origin with z up: [3 4]."""
    backward = position / np.linalg.norm(position)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(backward, right), backward])
    return np.concatenate([rotation, -(rotation @ position)[:, None]], 1)


def seen_by_blender(vertices: np.ndarray, pose: np.ndarray, focal: float, size: int) -> np.ndarray:
    """Pixels (x right, y down) and depth of points: [P 3]."""
    x, y, z = (vertices @ pose[:, :3].T + pose[:, 3]).T
    return np.stack([size / 2 + focal * x / -z, size / 2 - focal * y / -z, -z], -1)


def camera_16(path: Path, module: str | None = None, shift: float = 0.0) -> None:
    """SyncDreamer's pickle: (K, azimuths, elevations, distances, world to OpenCV's camera [16 3 4])."""
    K = np.array([[280, 0, 128], [0, 280, 128], [0, 0, 1]], np.float32)
    azimuths = np.deg2rad(np.arange(16) * 22.5).astype(np.float32)
    elevations, distances = np.full(16, np.deg2rad(30), np.float32), np.full(16, 1.5)
    flip = np.diag([1.0, -1.0, -1.0])
    poses = np.stack([flip @ blender_pose(place(22.5 * k + shift, 30, 1.5)) for k in range(16)])
    content = pickle.dumps([K, azimuths, elevations, distances, poses], protocol=3)
    if module is not None:  # as another version of NumPy calls it
        for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
            content = content.replace(b"c" + name + b"\n", b"c" + module.encode() + b"\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def syncdreamer(root: Path, names: tuple[str, ...], meshes: bool = True) -> None:
    """gso-eval and gso-eval-meshes; pictures say their number in grey."""
    vertices, faces = z_up_solid()
    for name in names:
        for k in range(16):
            png(root / "gso-eval" / name / f"{k:03d}.png", 10 * k)
            png(root / "gso-eval" / name / f"{k:03d}-depth.png", 30000, mode="I;16")
        if meshes:
            obj(root / "gso-eval-meshes" / name / "meshes" / "model.obj", vertices, faces)


ESCHER_INPUT = (77.0, 31.0, 1.83)  # azimuth, elevation from above, distance


def escher_positions() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    others = rng.uniform((0, -60, 1.5), (360, 60, 2.2), (24, 3))
    return [place(*ESCHER_INPUT), *(place(*x) for x in others)]


def eschernet(root: Path, names: tuple[str, ...]) -> None:
    vertices, faces = z_up_solid()
    for name in names:
        for i, position in enumerate(escher_positions()):
            path = root / "GSO30" / name / "render_mvs_25" / "model" / f"{i:03d}.png"
            png(path, 10 * i, size=8)
            np.save(path.with_suffix(".npy"), blender_pose(position))
        obj(root / "GSO30" / name / "meshes" / "model.obj", vertices, faces)
