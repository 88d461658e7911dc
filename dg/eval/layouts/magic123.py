"""RealFusion15 and NeRF4 as Magic123 ships them: pictures without a truth.

    DIR/data/realfusion15/NAME/rgba.png    or DIR/realfusion15/NAME/rgba.png, or DIR/NAME/rgba.png
    DIR/data/nerf4/NAME/rgba.png

Facts from Magic123's all_metrics/metric_utils.py, main.py and nerf/provider.py: one picture, CLIP (bigG-14) of it on
white with each of 100 views around (level, 800 px, field of view 40, radius 1.8); PSNR at 800 px and LPIPS at 224 px on
the reference view alone.
"""

from __future__ import annotations

from pathlib import Path

from dg.eval.layouts.asking import all_there, given_folder, one_of
from dg.eval.protocol import Item

ORIGIN = "the folder data/ of Magic123's repository"
OBJECTS = {
    "nerf4": ("chair", "drums", "ficus", "mic"),
    "realfusion15": (
        *("banana", "barbie_cake", "bird_sparrow", "blue_bird", "cactus", "cat_statue", "colorful_teapot"),
        *("fish_real_nemo", "metal_dragon_statue", "microphone", "stone_dragon_statue", "teddy_bear"),
        *("two_cherries", "two_donuts", "watercolor_horse"),
    ),
}


def read(root: str | Path | None, dataset: str) -> list[Item]:
    """The pictures of one of the two sets.

    Raises:
        ValueError: `dataset` is neither.
        FileNotFoundError: the folder or a picture is missing.
    """
    if dataset not in OBJECTS:
        raise ValueError(f"dataset={dataset} is none of {', '.join(OBJECTS)}")
    names = OBJECTS[dataset]
    folder = given_folder(root, "data", f"{dataset}/", ORIGIN)
    places = (folder / "data" / dataset, folder / dataset, folder)
    base = one_of((place / names[0] for place in places), dataset, ORIGIN).parent
    pictures = all_there((base / name / "rgba.png" for name in names), dataset, ORIGIN)
    return [Item(name=name, image=picture) for name, picture in zip(names, pictures, strict=True)]
