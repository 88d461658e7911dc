"""Prepare pictures: background removed, object centred, saved as `<name>_rgba.png` beside the input.

    python -m dg.data.process photo.jpg
    python -m dg.data.process folder/ --size 512 --border 0.1 --out prepared/

Exit code 0: all done; 1: some pictures failed (they are listed, the rest is done); 2: bad usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, PngImagePlugin
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress

from dg.data.contact_sheet import contact_sheet
from dg.data.image import framed, straight
from dg.data.recenter import check_frame
from dg.io.files import atomic

SUFFIX = "_rgba.png"
SHEET = "contact_sheet.png"
MARK = "dg.data.process"  # key of a PNG text entry: which settings made the file


@dataclass(frozen=True)
class Settings:
    size: int = 256
    border: float = 0.2
    recenter: bool = True

    def __str__(self) -> str:
        return f"size={self.size} " + (f"border={self.border:g}" if self.recenter else "recenter=false")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by extension, without results of an earlier run and hidden files; not recursive."""
    Image.init()
    known = {e for e, f in Image.registered_extensions().items() if f in Image.OPEN} - {".pdf", ".eps", ".ps", ".mpg"}
    names = (p for p in folder.iterdir() if p.suffix.lower() in known and not p.name.startswith("."))
    return sorted(p for p in names if p.is_file() and not p.name.endswith(SUFFIX) and p.name != SHEET)


def targets(inputs: list[Path], out: Path | None) -> dict[Path, Path]:
    """Where each input's result goes. Inputs that differ only in extension get it into their result's name.

    Raises:
        ValueError: two inputs would still write the same file.
    """
    stem = lambda p: p.name.removesuffix(SUFFIX) if p.name.endswith(SUFFIX) else p.stem  # noqa: E731
    used = Counter(stem(p).casefold() for p in inputs)
    result = {}
    for p in inputs:
        name = stem(p) if used[stem(p).casefold()] == 1 else f"{stem(p)}_{p.suffix[1:].lower()}"
        result[p] = (out or p.parent) / f"{name}{SUFFIX}"
    first: dict[str, Path] = {}
    for p, target in result.items():
        other = first.setdefault(str(target).casefold(), p)
        if other is not p:
            raise ValueError(f"{other.name} and {p.name} would both become {target.name}; rename one of them")
    return result


def made_with(path: Path) -> str | None:
    """The settings that a result carries; None where the file is not one of ours."""
    try:
        with Image.open(path) as image:
            return image.info.get(MARK)
    except (OSError, ValueError, SyntaxError):
        return None


def up_to_date(source: Path, target: Path, settings: Settings) -> bool:
    """Made from this input with these settings, and not older than it.

    Raises:
        ValueError: there is a file of that name that this program did not make.
    """
    if not target.exists():
        return False
    mark = made_with(target)
    if mark is None:
        raise ValueError(
            f"{target}: exists and was not made by this program; move it away, or overwrite it with --force"
        )
    return mark == str(settings) and target.stat().st_mtime >= source.stat().st_mtime


def save_png(image: Image.Image, path: Path, mark: str) -> None:
    """Complete or absent."""
    text = PngImagePlugin.PngInfo()
    text.add_text(MARK, mark)
    with atomic(path) as temporary:
        image.save(temporary, pnginfo=text)


def process_file(source: Path, target: Path, settings: Settings, *, force: bool = False) -> bool:
    """Prepare one picture; False where the result is there already.

    Raises:
        FileNotFoundError, ValueError: one line naming the file; nothing is written then.
    """
    if not force and up_to_date(source, target, settings):
        return False
    premultiplied = framed(source, recenter=settings.recenter, size=settings.size, border=settings.border)
    rgba = np.round(straight(premultiplied) * 255).astype(np.uint8)
    rgba[rgba[..., 3] == 0] = 0
    save_png(Image.fromarray(rgba), target, str(settings))
    return True


def process_all(jobs: dict[Path, Path], settings: Settings, console: Console, *, force: bool) -> dict[Path, str]:
    """Every picture; what went wrong is in the result ("" for written, "up to date", else the error)."""
    status: dict[Path, str] = {}
    with Progress(console=console, disable=len(jobs) < 2) as progress:
        task = progress.add_task("preparing", total=len(jobs))
        for source, target in jobs.items():
            progress.update(task, description=source.name)
            try:
                status[source] = "" if process_file(source, target, settings, force=force) else "up to date"
            except (OSError, ValueError) as error:
                status[source] = str(error)
                console.print(f"failed: {error}", markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)
    return status


def write_sheet(jobs: dict[Path, Path], status: dict[Path, str], folder: Path, mark: str) -> Path | None:
    """The contact sheet of all results that are there; None where there are none or another file has its name."""
    pairs = [(p, t) for p, t in jobs.items() if status[p] in ("", "up to date")]
    path = folder / SHEET
    if not pairs or (path.exists() and made_with(path) is None):
        return None
    save_png(contact_sheet(pairs), path, mark)
    return path


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage's."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("dg.data.process", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a picture, or a folder of them (which gets a contact sheet)")
    parser.add_argument("--size", type=int, default=256, help="side of the result, pixels (256)")
    parser.add_argument("--border", type=float, default=0.2, help="share of the frame left free (0.2)")
    parser.add_argument("--no-recenter", action="store_true", help="keep the picture's framing")
    parser.add_argument("--out", type=Path, help="folder for the results (the input's own)")
    parser.add_argument("--force", action="store_true", help="redo what is up to date, overwrite files not ours")
    args = parser.parse_args(argv)
    try:
        check_frame(args.size, args.border)
        args.jobs = plan(args.path, args.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return args


def plan(path: Path, out: Path | None) -> dict[Path, Path]:
    """Inputs and their results for a file or a folder.

    Raises:
        FileNotFoundError, ValueError: nothing to do, or nowhere to put it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file, not a folder")
    inputs = pictures_in(path) if path.is_dir() else [path]
    if not inputs:
        raise ValueError(f"{path}: no pictures in this folder (*{SUFFIX} are results and are skipped)")
    jobs = targets(inputs, out)
    for source, target in jobs.items():
        if target.exists() and os.path.samefile(source, target):
            raise ValueError(f"{source}: is a result already (*{SUFFIX}); pass the original, or --out another folder")
        if not os.access(target.parent if target.parent.exists() else Path(), os.W_OK):
            raise ValueError(f"{target.parent}: cannot be written to; choose another folder with --out")
    return jobs


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_time=False, show_path=False, markup=False)
    logger = logging.getLogger("dg")
    logger.addHandler(handler)
    try:
        settings = Settings(args.size, args.border, not args.no_recenter)
        status = process_all(args.jobs, settings, console, force=args.force)
        sheet = None
        if args.path.is_dir():
            sheet = write_sheet(args.jobs, status, args.out or args.path, str(settings))
    finally:
        logger.removeHandler(handler)
    counts = Counter({"": "written", "up to date": "up to date"}.get(s, "failed") for s in status.values())
    print(", ".join(f"{counts[k]} {k}" for k in ("written", "up to date", "failed") if counts[k]))
    if sheet is not None:
        print(f"contact sheet: {sheet}")
    elif len(status) == 1 and not counts["failed"]:
        print(*args.jobs.values())
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
