"""The run folder OUTDIR/NAME/: one config, one folder, one process at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from dg.io.files import sha256, write_text
from dg.io.lock import try_lock
from dg.runtime.errors import UserError
from dg.runtime.manifest import NAME, Manifest

# Keys that do not change what is computed, only where, how far or how loudly.
NEUTRAL = (
    *("paths", "logger", "trainer", "preview", "clip", "outdir", "name", "stages", "device", "threads"),
    *("resume", "overwrite", "checkpoint_every", "strict", "objective", "truth"),
)
SOURCES = ("input", "gaussians", "mesh_file")  # files: their content counts, not their place
# What a run makes, and all that `overwrite` and `resume=false` remove.
FILES = ("config.yaml", "metrics.jsonl", "metrics.json", "log.txt", "gaussians.ply", "overview.png", "turntable.mp4")
PATTERNS = (*FILES, "coarse.*", "mesh.*", "mesh_*", NAME)
FOLDERS = ("checkpoints", "views", "csv", "tensorboard", "wandb")
CHECKPOINT = Path("checkpoints") / "last.ckpt"
TEXTURE_CHECKPOINT = Path("checkpoints") / "texture.ckpt"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, quota reached, file size limited


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is computed, with checksums in place of files."""
    kept: dict[str, Any] = {k: v for k, v in config.items() if k not in NEUTRAL}
    kept["task"] = {k: v for k, v in kept.get("task", {}).items() if k != "default_input"}
    for key in SOURCES:
        given = kept.get(key)
        if isinstance(given, list):
            kept[key] = [_checksum(path) for path in given]
        elif given is not None:
            kept[key] = _checksum(given)
    # devices reach components by interpolation; facts about a checkpoint compute nothing
    return _without(_without(kept, "device"), "about")


def _checksum(path: Any) -> Any:
    return "sha256:" + sha256(Path(path)) if Path(path).is_file() else path


def _without(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        return {k: _without(v, key) for k, v in node.items() if k != key}
    return [_without(v, key) for v in node] if isinstance(node, list) else node


def config_hash(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:16]


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys in which two configs differ."""
    found: list[str] = []
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            found += differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found.append(f"{prefix}{key}")
    return found


@contextmanager
def claim(config: Mapping[str, Any]) -> Iterator[tuple[Path, Manifest]]:
    """The run's folder for as long as the block lasts, with its manifest: the old one where the run goes on.

    Raises:
        UserError: another config's results are there, another process works there, or there is nothing to resume.
    """
    folder = Path(config["outdir"]) / config["name"]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another name=")
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not held.enter_context(try_lock(folder / ".lock")):
                raise UserError(f"another process is working in {folder}; wait for it or give another name=")
            manifest = _enter(folder, config)
        except OSError as error:
            text = f"cannot write to the folder {folder}: {error.strerror}; give another outdir="
            raise (no_space(folder) if disk_full(error) else UserError(text)) from error
        yield folder, manifest


def _enter(folder: Path, config: Mapping[str, Any]) -> Manifest:
    wanted, found = config_hash(config), Manifest.load(folder)
    if found is None:
        strangers = [name for name in FILES if (folder / name).exists()]
        if strangers and not config["overwrite"]:
            raise UserError(
                f"{folder} holds {strangers[0]} but is no run's folder; give another name= or overwrite=true"
            )
    states = [path for path in (CHECKPOINT, TEXTURE_CHECKPOINT) if (folder / path).exists()]
    occupied = found is not None and (bool(states) or any(s.outputs for s in found.stages.values()))
    if occupied and found is not None and found.config_hash != wanted and not config["overwrite"]:
        raise UserError(
            f"{folder} holds the results of another config{_named(folder, config)}; give another name=, "
            "or overwrite=true to replace them"
        )
    same = found is not None and found.config_hash == wanted
    if config["resume"] is True and not (occupied and same):
        raise UserError(f"resume=true, but there is nothing to resume in {folder}; resume=auto begins where nothing is")
    goes_on = same and config["resume"] is not False and not config["overwrite"]
    if not goes_on:
        empty(folder)
    _sweep_up(folder)
    manifest = found if goes_on and found is not None else Manifest(config_hash=wanted)
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    manifest.save(folder)
    return manifest


def _named(folder: Path, config: Mapping[str, Any]) -> str:
    try:
        old = yaml.safe_load((folder / "config.yaml").read_text())
        keys = differences(identity(old), identity(config))
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        return ""
    if not keys:
        return " (the content of an input file changed)"
    return f" (it differs in {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})"


def empty(folder: Path) -> None:
    """Removes what a run makes, and nothing else."""
    for pattern in PATTERNS:
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink()
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def _sweep_up(folder: Path) -> None:
    """Removes what a killed process was writing (`dg.io.files.atomic`)."""
    for path in [*folder.glob(".tmp-*"), *folder.glob("*/.tmp-*")]:
        shutil.rmtree(path, ignore_errors=True)


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that nothing more can be written."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in FULL) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_space(folder: Path) -> UserError:
    return UserError(
        f"nothing more can be written to {folder}: the disk is full or a quota is reached; free some space and run the "
        "same command again: what is finished is kept"
    )
