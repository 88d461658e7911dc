"""A picture file of any kind to 8-bit sRGB and, where it has one, alpha. Every failure is one line naming the file."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

log = logging.getLogger("dg")

MEND = "convert it to PNG, JPEG or WebP"
# What people hand in that Pillow cannot read, by its first bytes (offset, bytes).
FOREIGN = (
    (4, b"ftypheic", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIF photo"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML (SVG?) file"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"glTF", "a GLB mesh"),
    (0, b"version https://git-lfs", "a Git LFS pointer (run `git lfs pull`)"),
)


def read_picture(path: str | Path, enough_px: int | None = None) -> UInt8[ndarray, "H W C"]:
    """The first picture of a file, upright (EXIF) and in sRGB (embedded colour profile).

    Four channels where it has alpha (straight), three where it has none or one that is opaque everywhere.

    Args:
        path: anything that Pillow reads.
        enough_px: a JPEG may be decoded at 1/2, 1/4 or 1/8, as long as both sides stay at least this long.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, empty, truncated, or not a picture.
    """
    path = Path(path)
    check_file(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Image.open(path) as image:
                picture = decode(image, path, enough_px)
        for warning in caught:
            log.debug("%s: %s", path, warning.message)
        return picture
    except UnidentifiedImageError:
        if looks_like(path) is None:
            raise ValueError(f"{path}: damaged or cut short; copy, download or export it again") from None
        raise ValueError(f"{path}: not a picture that can be read ({looks_like(path)}); {MEND}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: too large ({error}); reduce it to 8000 pixels or fewer") from None
    except MemoryError:
        raise ValueError(f"{path}: too large for this machine's memory; reduce it to 8000 pixels or fewer") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds, SyntaxError and struct.error among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: damaged or cut short ({reason}); copy, download or export it again") from None


def check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the path of a picture (PNG, JPEG, WebP, ...)")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the path of one picture in it")
    if not path.is_file():
        raise ValueError(f"{path}: is not a regular file; give the path of a picture (PNG, JPEG, WebP, ...)")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty (0 bytes); copy, download or export it again")


def looks_like(path: Path) -> str | None:
    """What a file seems to be that is not a picture; None where it begins as a PNG, JPEG, GIF or WebP does."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or head[8:12] == b"WEBP":
        return None
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for offset, magic, name in FOREIGN:
        if head[offset:].startswith(magic) or (offset == 0 and stripped.startswith(magic)):
            return f"it looks like {name}"
    return f"its first bytes are {head[:8]!r}"


def decode(image: Image.Image, path: Path, enough_px: int | None) -> UInt8[ndarray, "H W C"]:
    frames = frame_count(image)
    if frames > 1:
        log.warning("%s: has %d frames; the first is used", path, frames)
        image.seek(0)
    if enough_px is not None and image.format == "JPEG":
        image.draft(None, (enough_px, enough_px))
    image.load()
    if min(image.size) < 1:
        raise ValueError(f"size {image.size[0]}x{image.size[1]}")
    profile = image.info.get("icc_profile")
    image = upright(image, path)
    if image.mode == "RGBA" and not profile:  # the usual case, without copies: it may be large
        rgba = np.asarray(image)
        return rgba if rgba[..., 3].min() < 255 else rgba[..., :3]
    alpha = alpha_of(image)
    rgb = np.asarray(to_srgb(colours_of(image), profile, path))
    return rgb if alpha is None or alpha.min() == 255 else np.concatenate([rgb, alpha[..., None]], -1)


def frame_count(image: Image.Image) -> int:
    """Frames of an animation, pages of a TIFF; a camera's MPO holds one photo and its previews."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged tail: the first frame may still be whole
        return 1


def upright(image: Image.Image, path: Path) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image  # it copies, turned or not
    except Exception as error:
        log.warning("%s: its EXIF orientation cannot be read (%s) and is ignored", path, error)
        return image


def alpha_of(image: Image.Image) -> UInt8[ndarray, "H W"] | None:
    """The alpha channel, or the transparency of a palette's entry or of one colour; None where there is none."""
    if not image.has_transparency_data:
        return None
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return np.where(np.asarray(image) == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
    if isinstance(key, tuple) and max(key) > 255:  # a 16-bit colour, of a picture that was reduced to 8 bits
        image = image.copy()
        image.info["transparency"] = tuple(k >> 8 for k in key)
    return np.asarray(image.convert("RGBA").getchannel("A"))


def colours_of(image: Image.Image) -> Image.Image:
    """Without alpha, in a mode that colour management knows: L, RGB or CMYK."""
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.round(np.asarray(image).astype(np.float32) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(to_8_bits(np.asarray(image).astype(np.float64)))
    if image.mode in ("1", "LA", "La"):
        return image.convert("LA").convert("L") if image.mode == "La" else image.convert("L")
    if image.mode in ("RGBa", "PA", "P"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def to_8_bits(values: ndarray) -> UInt8[ndarray, "H W"]:
    """Grey values of unstated range: the smallest usual range that holds them (1, 255, 65535, or their own maximum)."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(0)
    peak = float(values.max())
    fits = [1.0] if values.dtype.kind == "f" and 0 < peak <= 1 and not (values == np.round(values)).all() else []
    top = next((limit for limit in (*fits, 255.0, 65535.0) if peak <= limit), peak)
    return np.round(values * (255 / top)).astype(np.uint8)


def to_srgb(image: Image.Image, profile: bytes | None, path: Path) -> Image.Image:
    """Apply an embedded colour profile (Adobe RGB, Display P3, CMYK inks); without one the values are taken as sRGB."""
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image.convert("RGB")
        space = source.profile.xcolor_space.strip()
        if {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space) != image.mode:
            image = image.convert("RGB")
            if space != "RGB":
                raise ImageCms.PyCMSError(f"a profile for {space}, a picture in RGB")
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s: its colour profile cannot be used (%s); its values are taken as sRGB", path, error)
        return image.convert("RGB")
