"""The values that cross module boundaries. Frozen, with shapes; conventions are stated once, here.

Canonical camera: camera-to-world matrices, OpenCV axes (x right, y down, z forward), pixel centres at +0.5, world y up,
the object's front at +z; azimuth 0 looks at it. Elevation follows DreamGaussian's command line: negative looks down
from above. Other conventions are converted at the edge (`dg.core.camera`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """V pinhole views that share one picture size."""

    c2w: Float[Tensor, "V 4 4"]  # camera to world, OpenCV axes
    K: Float[Tensor, "V 3 3"]  # intrinsics in pixels: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    width: int
    height: int

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: slice | list[int]) -> Cameras:
        """A subset of the views; `index` keeps the leading dimension (slice or list, not a bare int)."""
        return replace(self, c2w=self.c2w[index], K=self.K[index])

    def to(self, device: torch.device | str) -> Cameras:
        return replace(self, c2w=self.c2w.to(device), K=self.K.to(device))

    def resized(self, height: int, width: int) -> Cameras:
        """The same field of view at another picture size."""
        across, down, rest = self.K.unbind(1)  # by numbers, not by a tensor of them: a GPU would be waited for
        K = torch.stack([across * (width / self.width), down * (height / self.height), rest], 1)
        return replace(self, K=K, width=width, height=height)

    @property
    def w2c(self) -> Float[Tensor, "V 4 4"]:
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        out = torch.zeros_like(self.c2w)
        out[:, :3, :3] = rotation
        out[:, :3, 3] = -(rotation @ self.c2w[:, :3, 3:])[..., 0]
        out[:, 3, 3] = 1
        return out

    @property
    def position(self) -> Float[Tensor, "V 3"]:
        return self.c2w[:, :3, 3]


@dataclass(frozen=True)
class Gaussians:
    """N activated 3D Gaussians (scales are not logarithms, opacities are not logits)."""

    means: Float[Tensor, "N 3"]  # world units
    quats: Float[Tensor, "N 4"]  # w x y z, need not be normalised
    scales: Float[Tensor, "N 3"]  # standard deviations, world units
    opacities: Float[Tensor, N]  # in [0, 1]
    sh: Float[Tensor, "N K 3"]  # spherical harmonics, K = (degree + 1)^2; K = 1 is a plain colour

    def __len__(self) -> int:
        return self.means.shape[0]

    def to(self, device: torch.device | str) -> Gaussians:
        return Gaussians(*(getattr(self, f).to(device) for f in ("means", "quats", "scales", "opacities", "sh")))


@dataclass(frozen=True)
class Render:
    """What a splat rasteriser returns for V views."""

    rgb: Float[Tensor, "V H W 3"]  # composited on the background, not clamped
    alpha: Float[Tensor, "V H W 1"]  # 1 - final transmittance
    depth: Float[Tensor, "V H W 1"]  # sum of weight * view depth, not divided by alpha
    means_px: Float[Tensor, "V N 2"]  # projected centres in pixels; keeps its gradient (.grad after backward)
    radii_px: Float[Tensor, "V N"]  # footprint's largest half-axis; 0 where nothing of the Gaussian is in the picture


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, optionally textured. Row 0 of the texture is at v = 0 (glTF's and nvdiffrast's convention)."""

    vertices: Float[Tensor, "P 3"]
    faces: Int[Tensor, "F 3"]  # int64, counter-clockwise seen from outside
    uv: Float[Tensor, "Q 2"] | None = None
    faces_uv: Int[Tensor, "F 3"] | None = None  # int64, into uv; seams split uv, never vertices
    texture: Float[Tensor, "h w 3"] | None = None  # albedo, sRGB-encoded values in [0, 1]

    def to(self, device: torch.device | str) -> Mesh:
        move = lambda x: None if x is None else x.to(device)  # noqa: E731
        return Mesh(*map(move, (self.vertices, self.faces, self.uv, self.faces_uv, self.texture)))


@dataclass(frozen=True)
class Fragments:
    """What a mesh rasteriser returns. Barycentrics are perspective-correct; the weight of vertex 2 is 1 - u - v."""

    face_id: Int[Tensor, "V H W"]  # int32, 0 where empty, else face index + 1
    bary: Float[Tensor, "V H W 2"]  # weights u, v of vertices 0 and 1
    bary_dxy: Float[Tensor, "V H W 4"]  # du/dX, du/dY, dv/dX, dv/dY per pixel


@dataclass(frozen=True)
class Reference:
    """The picture to be turned into 3D: R views with alpha, and where they were seen from."""

    rgba: Float[Tensor, "R H W 4"]  # straight (not premultiplied) alpha, sRGB values in [0, 1]
    cameras: Cameras  # R views
    source: Path | None = None


@dataclass(frozen=True)
class Condition:
    """What a prior needs to know for one batch of B pictures. Priors derive their own from it."""

    cameras: Cameras  # B views
    background: Float[Tensor, "B 3"]
    extra: Any = None


@dataclass(frozen=True)
class Prediction:
    """A prior's noise prediction; `uncond` is None for priors that run without guidance."""

    cond: Float[Tensor, "B C h w"]
    uncond: Float[Tensor, "B C h w"] | None = None
    own: Float[Tensor, "B C h w"] | None = None  # of the renders' own score, where an adapter learns it (VSD)
