"""`python -m experiments.pictures --data DIR`: the README's pictures, made by the runs that they show."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from PIL import Image
from torch import Tensor

from dg.core.picture import over
from dg.eval.overview import Row, overview
from dg.io.images import read_png, write_png

ROOT = Path(__file__).resolve().parents[2]
FOUR = {
    "figurine": "figurine.jpg",
    "astronaut": "astronaut_rgba.png",
    "cat statue": "catstatue_rgba.png",
    "rabbit": "rabbit_chinese_rgba.png",
}
SIDES = {"front": 0, "45°": 45, "90°": 90, "back": 180, "270°": 270, "315°": 315}


def train(name: str, picture: Path, outdir: Path) -> Path:
    """The run folder of a picture at default settings; one that is finished is not made again."""
    words = [f"input={picture}", f"name={name}", f"outdir={outdir}", "preview.size=320"]
    print(f"python train.py {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, check=True)
    return outdir / name


def sides(folder: Path) -> list[Tensor]:
    """[H W 3] of the mesh on white, a picture per entry of SIDES."""
    return [over(read_png(folder / "views" / f"mesh_{azimuth:03d}.png")) for azimuth in SIDES.values()]


def shipped(name: str, outdir: Path) -> Path:
    """The overview of one of the project's own objects."""
    picture = outdir / "input" / f"{name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "dg.data.objects", name, str(picture)], cwd=ROOT, check=True)
    return train(name, picture, outdir) / "overview.png"


def keep(picture: Path, to: Path) -> None:
    """With a palette of its own: a third of the size, and no difference to be seen."""
    Image.open(picture).convert("RGB").quantize(256).save(to, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.pictures")
    parser.add_argument("--data", type=Path, required=True, help=f"holds {', '.join(FOUR.values())}")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "pictures")
    options = parser.parse_args()
    pictures = ROOT / "docs" / "pictures"
    for name in ("robot", "teddy"):
        keep(shipped(name, options.outdir), pictures / f"{name}.png")
    rows = []
    for name, file in FOUR.items():
        folder = train(name.replace(" ", "_"), (options.data / file).resolve(), options.outdir)
        rows.append(Row(name, "", sides(folder)))
    sheet = options.outdir / "four.png"
    write_png(sheet, overview("zero123_mini, default settings: the mesh from all sides", list(SIDES), rows, tile=150))
    keep(sheet, pictures / sheet.name)
    print(pictures / sheet.name)


if __name__ == "__main__":
    main()
