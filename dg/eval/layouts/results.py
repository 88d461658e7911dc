"""Where methods leave their results, and which of them belongs to an item. One entry of `LAYOUTS` per layout.

Nothing is guessed from contents but this: a PLY with rotations holds Gaussians, and a picture six times wider than high
is a strip of views.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dg.eval.layouts.images import slug
from dg.eval.layouts.pictures import read, stacked
from dg.eval.layouts.t3bench import folder_name
from dg.eval.protocol import Item, Protocol, Renders
from dg.io.ply import is_splats

MESHES = (".glb", ".gltf", ".obj", ".ply")
_INNER = ("mesh", "model", "mesh/mesh", "meshes/model", "textured", "coarse")
_PICTURE = re.compile(r"^(?:rgb_|render_|view_|image_)?(\d+)\.png$")

Find = Callable[[Path, Item, int], tuple[Path, ...]]


@dataclass(frozen=True)
class Layout:
    """Attributes:
    stage: what is measured: mesh | splats | renders.
    shape: how the files lie, for people.
    claims: glob patterns; a folder with a match has this layout.
    find: (folder, item, seed) -> the item's files in their order; () where it has none.
    """

    stage: str
    shape: str
    claims: tuple[str, ...]
    find: Find
    strip: bool = False


def _names(item: Item) -> list[str]:
    """What an item's files may be called: DreamGaussian's and others' endings included."""
    names = [item.name] if item.prompt is None else [item.name, folder_name(item.prompt), slug(item.prompt)]
    return [f"{name}{ending}" for name in names for ending in ("", "_rgba", "_view", "_mesh")]


def _meshes(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    for name in _names(item):
        stems = [folder / name, *(folder / name / inner for inner in _INNER)]
        for path in (Path(f"{stem}{suffix}") for stem in stems for suffix in MESHES):
            if path.is_file() and not is_splats(path):
                return (path,)
    return ()


def _splats(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    for name in _names(item):
        plain = [folder / f"{name}.ply", folder / f"{name}_model.ply", folder / name / "gaussians.ply"]
        trained = (folder / name / "point_cloud").glob("iteration_*/point_cloud.ply")
        for path in [*plain, *sorted(trained, key=lambda p: -_digits(p.parent.name))]:
            if path.is_file() and is_splats(path):
                return (path,)
    return ()


def _beginning(folder: Path, names: Sequence[str], inner: str) -> tuple[Path, ...]:
    """The last match of `inner` in a folder that is called by one of the names, or by one and what `@` or `-` adds."""
    for name in names:
        hits = [d for d in sorted(folder.iterdir()) if d.name == name or d.name.startswith((f"{name}@", f"{name}-"))]
        found = sorted(p for d in hits for p in d.glob(inner))
        if found:
            return (found[-1],)
    return ()


def _threestudio(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    return _beginning(folder, _names(item), "save/it*-export/model.obj")


def _wonder3d(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    found = sorted((folder / f"mesh-ortho-{item.name}" / "save").glob("it*.obj"))
    return tuple(found[-1:])


def _numbered(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    for name in _names(item):
        found = _pictures(folder / name)
        if found:
            return found
    return ()


def _strip(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    path = folder / item.name / "0.png"
    return (path,) if path.is_file() else ()


def _magic123(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    """*NAME*/results/images/*lambertian*, in the frames' order; `rgb` or `albedo` where nothing is called so."""
    name = re.escape(item.name)
    whole = (rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])")
    for pattern in whole:
        hits = sorted((d for d in folder.iterdir() if re.search(pattern, d.name)), key=lambda d: (len(d.name), d.name))
        for directory in hits[:1]:
            return _colours(directory / "results" / "images")
    return ()


def _colours(folder: Path) -> tuple[Path, ...]:
    pictures = sorted(folder.glob("*.png"), key=lambda p: _digits(p.name))
    pictures = [p for p in pictures if "depth" not in p.name and "normal" not in p.name]
    kinds = [tuple(p for p in pictures if kind in p.name) for kind in ("lambertian", "rgb", "albedo", "")]
    return next((chosen for chosen in kinds if chosen), ())


def _gpteval3d(folder: Path, item: Item, seed: int) -> tuple[Path, ...]:
    """PROMPT_ID/SEED/rgb_N.png; an item's id is the number that its name ends in."""
    place = folder / str(_digits(item.name)) / str(seed)
    return tuple(p for p in _pictures(place) if p.name.startswith("rgb_"))


def _pictures(folder: Path) -> tuple[Path, ...]:
    found = {int(m[1]): p for p in sorted(folder.glob("*.png")) if (m := _PICTURE.match(p.name))}
    return tuple(found[i] for i in sorted(found))


def _digits(text: str) -> int:
    found = re.findall(r"\d+", text)
    return int(found[-1]) if found else -1


# Narrow shapes first: the first that claims a folder is taken.
LAYOUTS: dict[str, Layout] = {
    "gpteval3d": Layout("renders", "PROMPT_ID/SEED/rgb_0.png ...", ("[0-9]*/[0-9]*/rgb_*.png",), _gpteval3d),
    "magic123": Layout("renders", "*NAME*/results/images/*lambertian*.png", ("*/results/images/*.png",), _magic123),
    "threestudio": Layout("mesh", "NAME@TIME/save/it*-export/model.obj", ("*/save/it*-export/*.obj",), _threestudio),
    "wonder3d": Layout("mesh", "mesh-ortho-NAME/save/it*.obj", ("mesh-ortho-*/save/it*.obj",), _wonder3d),
    "meshes": Layout(
        "mesh",
        "NAME.glb, NAME_mesh.obj, NAME/mesh.ply, NAME/model.obj, NAME/meshes/model.obj, ...",
        tuple(f"{stem}{suffix}" for suffix in MESHES for stem in ("*", *(f"*/{inner}" for inner in _INNER))),
        _meshes,
    ),
    "splats": Layout(
        "splats",
        "NAME.ply, NAME_model.ply, NAME/gaussians.ply, NAME/point_cloud/iteration_N/point_cloud.ply",
        ("*.ply", "*/gaussians.ply", "*/point_cloud/iteration_*/point_cloud.ply"),
        _splats,
    ),
    "strip": Layout("renders", "NAME/0.png, all views side by side", ("*/0.png",), _strip, strip=True),
    "numbered": Layout("renders", "NAME/000.png, NAME/001.png, ...", ("*/*[0-9].png",), _numbered),
}


def detect(folder: Path) -> Layout:
    """The layout of a folder's results.

    Raises:
        FileNotFoundError: none of the known ones.
    """
    for name, layout in LAYOUTS.items():
        hits = (path for pattern in layout.claims for path in folder.glob(pattern))
        if any(_may_be(name, path) for path in hits):
            return layout
    shapes = "; ".join(layout.shape for layout in LAYOUTS.values())
    raise FileNotFoundError(f"{folder}: no results in a known layout ({shapes})")


def _may_be(name: str, path: Path) -> bool:
    if name in ("meshes", "splats"):
        return is_splats(path) == (name == "splats")
    if name == "strip":
        from PIL import Image

        with Image.open(path) as image:
            return image.width >= 6 * image.height
    return True


def read_renders(files: Sequence[Path], item: Item, protocol: Protocol, layout: Layout) -> Renders:
    """One picture per view of the protocol, in its order.

    Pictures are told apart by the numbers of given true views where there are such, else by their place; of a longer
    turn every n-th is taken.

    Raises:
        ValueError: they are too few, or no multiple of the views.
    """
    views = item.truth_views
    cameras = protocol.views.cameras() if views is None else views.cameras
    if layout.strip:
        pictures = _cut(files[0])
        numbers = list(range(len(pictures)))
    else:
        pictures, numbers = list(files), [_digits(p.name) for p in files]
    wanted = () if views is None else views.numbers
    if wanted and set(wanted) <= set(numbers):
        chosen = [pictures[numbers.index(n)] for n in wanted]
    elif len(pictures) >= len(cameras) and len(pictures) % len(cameras) == 0:
        chosen = pictures[:: len(pictures) // len(cameras)]
    else:
        raise ValueError(
            f"{files[0].parent}: {len(pictures)} pictures for {len(cameras)} views; give as many or a multiple"
        )
    loaded = [read(p) if isinstance(p, Path) else p for p in chosen]
    rgb, alpha = stacked(loaded, (cameras.height, cameras.width), protocol.views.background)
    return Renders(rgb, alpha)


def _cut(path: Path) -> list[Float[Tensor, "H H C"]]:
    """A strip of square pictures side by side."""
    strip = read(path)
    if strip.shape[1] % strip.shape[0]:
        raise ValueError(f"{path}: {strip.shape[1]} x {strip.shape[0]} is no row of square pictures")
    return list(torch.split(strip, strip.shape[0], dim=1))
