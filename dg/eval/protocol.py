"""A protocol: which objects, seen how, measured how. Frozen in conf/protocol/NAME.yaml, told apart by a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dg.core.camera import FOVY_DEG, orbit
from dg.eval.catalog import ALIGNMENTS, CATALOG
from dg.io.files import sha256
from dg.types import Cameras


@dataclass(frozen=True)
class TruthViews:
    """Renders of the true object that a data set brings: PNG files with alpha, and their cameras (ours).

    Attributes:
        numbers: the data set's own numbers of the views, by which other people's pictures are called.
    """

    pictures: tuple[Path, ...]
    cameras: Cameras
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class TruthDepth:
    """Depth pictures of the true object: 16-bit PNG files and their cameras (ours).

    View depth = value / 65535 * (far - near) + near; only depths inside `valid` are surface.
    """

    pictures: tuple[Path, ...]
    cameras: Cameras
    near: float
    far: float
    valid: tuple[float, float]


@dataclass(frozen=True)
class Item:
    """One case of a protocol: what goes in, and what it is measured against.

    Attributes:
        elevation_deg: where the picture was seen from, at azimuth 0; negative looks down from above.
        recenter: false where the picture's framing is part of the truth (a true front view).
        radius, fovy_deg: the camera that saw the picture, in the truth's units; of a recentred picture the usual ones.
            A run at another radius makes the object larger by the ratio of the two.
        frame_azimuth_deg: where the picture was seen from in the data set's own frame; its truth is turned back by it.
        truth: a mesh file in our frame (y up, front at +z); readers convert what is not. `truth_yaw_deg` turns it
            about +y, applied on loading.
        truth_views: given renders; they replace renders of `truth` at the protocol's views.
        truth_depth: given depth pictures of the true surface.
        image_made: the picture was rendered by us; its bytes may differ between machines.
    """

    name: str
    image: Path | None = None
    prompt: str | None = None
    elevation_deg: float = 0.0
    recenter: bool = True
    radius: float = 2.0
    fovy_deg: float = FOVY_DEG
    frame_azimuth_deg: float = 0.0
    truth: Path | None = None
    truth_yaw_deg: float = 0.0
    truth_views: TruthViews | None = None
    truth_depth: TruthDepth | None = None
    image_made: bool = False


@dataclass(frozen=True)
class ViewSpec:
    """The cameras of a protocol. Elevations and azimuths are paired, in degrees.

    Attributes:
        size: side of the square pictures in pixels; `ssaa` samples per pixel and axis.
        background: grey value behind the object.
    """

    elevations_deg: tuple[float, ...]
    azimuths_deg: tuple[float, ...]
    radius: float = 2.0
    fovy_deg: float = FOVY_DEG
    size: int = 128
    ssaa: int = 4
    background: float = 1.0

    def __post_init__(self) -> None:
        for name in ("elevations_deg", "azimuths_deg"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
        if len(self.elevations_deg) != len(self.azimuths_deg) or not self.azimuths_deg:
            raise ValueError("views: elevations_deg and azimuths_deg must be of one length, at least 1")

    def cameras(self) -> Cameras:
        return orbit(
            list(self.elevations_deg),
            list(self.azimuths_deg),
            self.radius,
            fovy_deg=self.fovy_deg,
            height=self.size,
        )


@dataclass(frozen=True)
class Protocol:
    """How a set of objects is measured. Everything but `source`'s place counts into the hash.

    Attributes:
        source: () -> items; what a config's `_target_` with `_partial_` gives. Reading is lazy: data may be absent.
        metrics: bases of the catalog.
        alignments: which of `unaligned`, `yaw`, `rot24`, `icp` shapes are measured at.
        normalise: "none" leaves results as they stand; "extent" centres each and scales its longest side to the
            truth's.
        surface: "all", or "visible": only what the protocol's views see of either surface (`dg.eval.visible`).
        points: surface samples per mesh; `volume_resolution`: cells per axis.
        headline: figures that the board shows first; the first one ranks.
        baseline: the method that differences are paired against.
        version: raised when the meaning changes.
    """

    name: str
    source: Callable[[], Sequence[Item]]
    views: ViewSpec
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    alignments: tuple[str, ...] = ("unaligned",)
    normalise: str = "none"
    surface: str = "all"
    points: int = 20_000
    volume_resolution: int = 48
    baseline: str = "silhouette"
    clip: tuple[str, ...] = ()
    version: int = 1
    objects: tuple[str, ...] = field(default=())  # names that the source must yield; empty: whatever is there

    def __post_init__(self) -> None:
        for name in ("metrics", "headline", "alignments", "clip", "objects"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for base in self.metrics:
            if base not in CATALOG:
                raise ValueError(f"metrics: there is no {base}; there are {', '.join(CATALOG)}")
        for name in self.headline:
            if name.partition("/")[0] not in self.metrics:
                raise ValueError(f"headline: {name} is not among the metrics")
        for alignment in self.alignments:
            if alignment not in ALIGNMENTS:
                raise ValueError(f"alignments: {alignment} is none of {', '.join(ALIGNMENTS)}")
        if self.normalise not in ("none", "extent"):
            raise ValueError(f"normalise={self.normalise} is none of none, extent")
        if self.surface not in ("all", "visible"):
            raise ValueError(f"surface={self.surface} is none of all, visible")

    def content(self, items: Sequence[Item] | None = None) -> dict[str, Any]:
        """All that decides a figure, as JSON has it; nothing about where data lie.

        Args:
            items: what the source yielded; counted only where `objects` is empty, as a frozen list says it already.
        """
        content = {k: v for k, v in vars(self).items() if k not in ("source", "headline", "baseline")}
        content["views"] = asdict(self.views)
        content["metrics"] = {name: CATALOG[name].version for name in self.metrics}
        content["objects"] = list(self.objects)
        if items is not None and not self.objects:
            content["objects"] = [_facts(item) for item in items]
        return json.loads(json.dumps(content, sort_keys=True))

    def hash(self, items: Sequence[Item] | None = None) -> str:
        """16 hex digits over `content`, versions of the metrics included.

        Give the items where the set is open (`objects` empty): scores of different pictures are not comparable.
        """
        return content_hash(self.content(items))

    def items(self) -> list[Item]:
        """What the source yields, checked.

        Raises:
            ValueError: two items of one name, or others than `objects` names.
            FileNotFoundError: data are missing.
        """
        items = list(self.source())
        names = [item.name for item in items]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"protocol {self.name}: two objects are called {', '.join(twice)}")
        if self.objects and set(names) != set(self.objects):
            lost, extra = sorted(set(self.objects) - set(names)), sorted(set(names) - set(self.objects))
            told = [f"without {', '.join(lost)}"] * bool(lost) + [f"with {', '.join(extra)} besides"] * bool(extra)
            raise ValueError(f"protocol {self.name}: the data come {' and '.join(told)}")
        return items


def content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _facts(item: Item) -> dict[str, Any]:
    """What tells an item of an open set from another, by contents, not by place."""
    files = {"image": None if item.image_made else item.image, "truth": item.truth}
    digests = {key: None if path is None else sha256(path)[:16] for key, path in files.items()}
    return {
        "name": item.name,
        "prompt": item.prompt,
        "elevation_deg": float(item.elevation_deg),
        "recenter": item.recenter,
        "truth_yaw_deg": float(item.truth_yaw_deg),
        **digests,
    }


@dataclass(frozen=True)
class Renders:
    """What a method that makes pictures only has: one picture per view of the protocol, in its order."""

    rgb: Float[Tensor, "V H W 3"]  # on the protocol's background
    alpha: Float[Tensor, "V H W 1"] | None = None


@dataclass(frozen=True)
class Result:
    """What a method made of one item. At least one of mesh, splats and renders is there.

    Attributes:
        mesh: GLB, OBJ or PLY; `splats`: a 3DGS ply, `renders`: pictures, where there is no mesh.
        axes: a 3 x 3 rotation, possibly with a scale, that brings the method's frame into ours (`Method.axes`).
    """

    mesh: Path | None = None
    splats: Path | None = None
    renders: Renders | None = None
    axes: Float[Tensor, "3 3"] | None = None
