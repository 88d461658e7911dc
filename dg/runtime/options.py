"""The keys at the root of the config: their types, and the checks that need more than one of them."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

import dg
from dg.runtime import pictures
from dg.runtime.build import MISSING, check, check_value, locate, nearest
from dg.runtime.errors import UserError

STAGES = ("gaussians", "mesh", "texture")
TRAINING = "prior"  # trains the embedded prior; runs alone
REPOSITORY = Path(dg.__file__).resolve().parents[1]

# `${repo:examples}` in a config: what ships with the code is found from any working directory.
OmegaConf.register_new_resolver("repo", lambda path: str(REPOSITORY / path), replace=True)
# `${times:0.01,${prior.profile.lr_scale}}`: a number of the release, scaled by a prior's profile.
OmegaConf.register_new_resolver("times", lambda a, b: float(a) * float(b), replace=True)


def object_of(picture: Any) -> str:
    """`object:NAME` for the picture examples/NAME.png, a front view of an object of ours; MISSING for any other."""
    path = Path(picture).resolve() if isinstance(picture, str) else Path()
    ours = path.parent == REPOSITORY / "examples" and path.suffix == ".png"
    return f"object:{path.stem}" if ours else MISSING


def multirun_name() -> str | None:
    """Of the multirun that is running: its folder's."""
    running = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return Path(HydraConfig.get().sweep.dir).name if running else None


OmegaConf.register_new_resolver("object_of", object_of, replace=True)
OmegaConf.register_new_resolver("multirun_name", multirun_name, replace=True)


@dataclass(frozen=True)
class Root:
    """The root keys of conf/train.yaml (there they are described), with their types."""

    folder_per_job: typing.ClassVar[bool] = True  # each job of a multirun gets a folder named after its overrides
    input: str | None  # or a list, as the next two (`dg.runtime.pictures`)
    prompt: str | None
    negative_prompt: str | None
    elevation: float | Literal["auto"]
    azimuth: float
    recenter: bool
    truth: str | None
    name: Any  # a name may look like a number
    outdir: str
    stages: Any
    gaussians: str | None
    mesh_file: str | None
    mesh_format: Literal["glb", "obj", "ply"]
    iters: int
    iters_refine: int
    seed: int
    device: str
    threads: int | None
    resume: Literal["auto", True, False]
    overwrite: bool
    checkpoint_every: int
    strict: bool
    objective: str | None


@dataclass(frozen=True)
class Task:
    kind: Literal["image", "text"]
    default_input: str | None
    reference_size: int


@dataclass(frozen=True)
class Paths:
    run: str
    example: str


def validate(
    config: Mapping[str, Any], groups: set[str], root: type = Root, profile_keys: set[str] | None = None
) -> None:
    """A whole composed and resolved config, without building any of it.

    Args:
        config: plain containers.
        groups: the names of the config groups.
        root: a dataclass whose fields are the root keys.
        profile_keys: what a prior's profile may hold; None leaves profiles unchecked.

    Raises:
        UserError: the first mistake found.
    """
    keys = {f.name for f in fields(root)}
    hints = typing.get_type_hints(root)
    for key, value in config.items():
        if key in keys:
            if not isinstance(value, (list, Mapping)):
                check_value(value, hints[key], key)
        elif key not in groups:
            raise UserError(f"{key} is no key of the config{nearest(key, keys | groups)}")
    for key in keys - set(config):
        raise UserError(f"the config lacks the key {key}")
    check(config["task"], "task")
    if issubclass(root, Root):
        _check_root(config)
    for key, value in config.items():
        if key not in keys:
            check(value, key)
    if profile_keys is not None:
        _check_profiles(config.get("prior"), "prior", profile_keys)


def _check_profiles(node: Any, where: str, valid: set[str]) -> None:
    if isinstance(node, Mapping):
        for key in node.get("profile") or {}:
            if key not in valid:
                raise UserError(f"{where}.profile.{key} is read by nothing{nearest(key, valid)}")
        for key, value in node.items():
            _check_profiles(value, f"{where}.{key}", valid)


def _check_root(config: Mapping[str, Any]) -> None:
    stages(config)
    for key in ("iters", "iters_refine", "checkpoint_every"):
        if config[key] < 1:
            raise UserError(f"{key}={config[key]} must be at least 1")
    if config["threads"] is not None and config["threads"] < 1:
        raise UserError(f"threads={config['threads']} must be at least 1; threads=null takes all")
    pictures.pictures(config)
    for key in ("input", "gaussians", "mesh_file"):
        files = pictures.paths(config) if key == "input" else [config[key]] if config[key] is not None else []
        for path in files if key != "input" or "gaussians" in stages(config) else []:
            if not Path(path).is_file():
                raise UserError(f"{key}={path}: there is no such file{_similar_file(Path(path))}")
    truth = config["truth"]
    if truth not in (None, "auto") and not truth.startswith("object:") and not Path(truth).is_file():
        raise UserError(f"truth={truth}: there is no such file{_similar_file(Path(truth))}")
    if "gaussians" in stages(config) and config["gaussians"] is None:
        _check_source(config)


def _check_source(config: Mapping[str, Any]) -> None:
    kind, default = config["task"]["kind"], config["task"]["default_input"]
    if kind == "text" and not config["prompt"]:
        raise UserError("task=text needs a prompt: prompt='a ripe strawberry'")
    if kind == "image" and config["input"] is None:
        raise UserError("task=image needs a picture: input=photo.png (or task=text prompt='...')")
    if kind == "image" and config["prompt"] and config["input"] == default and not reads_both(config["prior"]):
        raise UserError("a prompt without a picture: add task=text to work from the prompt alone, or input=photo.png")


def reads_both(prior: Mapping[str, Any]) -> bool:
    """Whether a prompt beside the default picture makes sense: to several priors, or to one that reads both."""
    return "parts" in prior or getattr(locate(prior["_target_"], "prior"), "prompt_beside_picture", False)


def _similar_file(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [p.name for p in folder.iterdir()]).split(" (valid")[0] if folder.is_dir() else ""


def stages(config: Mapping[str, Any]) -> list[str]:
    """The stages to run, in order. `stages=mesh` is read as `stages=[mesh]`.

    Raises:
        UserError: an unknown name, a name twice, or none at all.
    """
    asked = config["stages"]
    asked = [asked] if isinstance(asked, str) else asked
    if asked == [TRAINING]:
        return asked
    if not isinstance(asked, list) or not asked:
        raise UserError(f"stages={asked} must name at least one of [{', '.join(STAGES)}]")
    for name in asked:
        if name not in STAGES:
            raise UserError(f"stages: there is no stage {name}{nearest(str(name), STAGES)}")
    if len(set(asked)) < len(asked):
        raise UserError(f"stages=[{','.join(asked)}] names a stage twice")
    return [name for name in STAGES if name in asked]


def slug(text: str, limit: int = 60) -> str:
    """A prompt as a file name."""
    return re.sub(r"[^\w.-]+", "_", text.strip()).strip("_.")[:limit].rstrip("_.") or "unnamed"


def default_name(config: Mapping[str, Any]) -> str:
    """The stem of what the run starts from; of a run folder's own gaussians.ply, the folder's name and the stage."""
    first = stages(config)[0]
    sources = {"mesh": config["gaussians"], "texture": config["mesh_file"] or config["gaussians"]}
    source = sources.get(first)
    if source is not None:
        path = Path(source).resolve()
        generic = path.stem in ("gaussians", "coarse", "mesh")
        return slug(f"{path.parent.name}-{first}" if generic else path.stem)
    if config["task"]["kind"] == "text" and config["prompt"]:
        return slug(config["prompt"])
    if config["input"] is None:
        raise UserError("name has no value and there is no input to take it from; give one with name=...")
    return slug(Path(pictures.paths(config)[0]).stem)


# Overrides that say nothing about what a job of a sweep computes, or that its base name tells already.
_UNNAMED = (
    *("input", "prompt", "name", "outdir", "stages", "device", "threads", "resume", "overwrite", "strict"),
    *("checkpoint_every", "objective", "truth", "logger", "trainer", "paths", "preview", "clip", "sweep", "debug"),
    *("hydra", "worker", "workers"),
)


def sweep_name(base: str, overrides: list[str], limit: int = 150) -> str:
    """A job's name in a multirun: `base,key=value,...`; what would be too long for a file name ends in a checksum."""
    import zlib

    parts = [o.lstrip("+") for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0] not in _UNNAMED]
    full = ",".join([base, *(re.sub(r"[^\w.,=+~@\[\]-]+", "_", p) for p in parts)])
    if len(full) <= limit:
        return full
    return f"{full[: limit - 9]}-{zlib.crc32(full.encode()):08x}"


def check_name(name: Any) -> str:
    """A run's name may have sub-folders but must stay below outdir.

    Raises:
        UserError: it is empty, absolute or climbs out.
    """
    text = str(name)
    parts = Path(text).parts
    if not parts or Path(text).is_absolute() or ".." in parts or text in (".",):
        raise UserError(f"name={text} must be a name or a relative path below outdir")
    return text
