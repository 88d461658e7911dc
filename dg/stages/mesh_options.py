"""What the mesh stage is asked for, and what it says about its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from dg.core.backproject import BakeOptions
from dg.core.camera import FOVY_DEG
from dg.stages.mesh_tsdf import TsdfOptions


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh is extracted (`conf/mesh/default.yaml`; `legacy.yaml` is the release's way).

    Attributes:
        resolution: lattice points per axis.
        level: iso-level of the density, or "auto": the one whose silhouettes agree best with the splats' alpha.
        culling: "exact" or "legacy", see `dg.core.density.density_grid`.
        carve: trims what the splats' silhouettes show to be empty, and fills what no view shows to be.
        carve_votes: so many views must agree on either.
        carve_alpha: the silhouettes' contour; a little below 0.5, as the views' errors add up to cutting too much.
        carve_level: factor on the level where the silhouettes do most of the work; below 1, since they only take away.
        fill: fills cavities that cannot be reached from outside.
        fill_leak: holes up to twice as many lattice points wide do not count as a way in.
        merge: merges vertices within this share of the bounding box's diagonal (legacy 0.01; the mesh may open).
        min_component_volume, min_component_diameter, min_component_faces: smaller parts go, see
            `dg.core.clean.remove_small_components`.
        smooth: pairs of Taubin steps before decimation.
        max_faces: decimation's target.
        render_size: side of the pictures that colours (and silhouettes) come from, in pixels.
        texture_size: side of the texture, in texels.
        radius, fovy_deg: the pictures' cameras.
        prefer_level: factor on the weight of the views at elevation 0: Gaussians are fitted near it.
        prefer_front: another one on the first view, where the input picture was.
        bake: how colours get into the texture.
        bake_reference: the input picture is baked first where it agrees with the mesh, if `extract` is given one.
        tsdf: fuses depth pictures instead of sampling the density; level, culling and carve_* then have no effect.
    """

    resolution: int = 128
    level: float | str = "auto"
    culling: str = "exact"
    carve: bool = True
    carve_votes: int = 2
    carve_alpha: float = 0.4
    carve_level: float = 0.5
    fill: bool = True
    fill_leak: int = 2
    merge: float = 0.0
    min_component_volume: float = 0.01
    min_component_diameter: float = 0.0
    min_component_faces: int = 0
    smooth: int = 0
    max_faces: int = 20_000
    render_size: int = 512
    texture_size: int = 1024
    radius: float = 2.0
    fovy_deg: float = FOVY_DEG
    prefer_level: float = 8.0
    prefer_front: float = 4.0
    bake: BakeOptions = field(default_factory=BakeOptions)
    bake_reference: bool = False
    tsdf: TsdfOptions | None = None

    def __post_init__(self) -> None:
        if isinstance(self.level, str) and self.level != "auto":
            raise ValueError(f"level is a number or auto, not {self.level!r}")
        if not isinstance(self.level, str) and not self.level > 0:
            raise ValueError(f"level must be positive, not {self.level}")
        if self.resolution < 16 or self.texture_size < 16 or self.render_size < 16 or self.max_faces < 4:
            raise ValueError("resolution, texture_size and render_size must be at least 16, max_faces at least 4")


@dataclass(frozen=True)
class MeshReport:
    level: float  # of the density, as it was used; of the fused distance with `tsdf`
    level_iou: float  # soft IoU of that level's silhouettes with the splats' alpha
    silhouette_iou: float  # of the finished mesh's silhouettes with the splats' alpha >= 0.5, over the baked views
    vertices: int
    faces: int
    components: int
    closed: bool
    volume: float
    texels_seen: float  # share of the surface's texels that a view coloured directly
    density: dict[str, float]  # quantiles of the density's maximum along the rays that meet the object
    seconds: dict[str, float]  # per step
