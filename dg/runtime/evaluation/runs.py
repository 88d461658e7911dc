"""A method that is a run of train.py: a name and its overrides."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from dg.core.camera import FOVY_DEG
from dg.eval.layouts.converted import mesh_in_our_frame
from dg.eval.protocol import Item, Result
from dg.io.files import shown
from dg.runtime import compose, folder, launch
from dg.runtime.errors import Interrupted
from dg.runtime.evaluation.made import Made, checksum
from dg.runtime.evaluation.options import NOT_FOR_RUNS, OWN_GROUPS, OWN_KEYS, PER_RUN
from dg.runtime.lanes import in_lane
from dg.runtime.manifest import Manifest, StageRecord
from dg.runtime.pipeline import run
from dg.runtime.shelf import PriorShelf, SharedShelf

FILES = {"mesh": "mesh.glb", "coarse": "coarse.glb", "splats": "gaussians.ply"}
# Which of a run's stages each file has cost.
COSTS = {"mesh": ("gaussians", "mesh", "texture"), "coarse": ("gaussians", "mesh"), "splats": ("gaussians",)}


def for_runs(overrides: Sequence[str]) -> list[str]:
    """The overrides of an evaluation that its runs get too."""
    skipped = {*OWN_KEYS, *OWN_GROUPS, *PER_RUN, *NOT_FOR_RUNS}
    kept = [o for o in overrides if _root(o) not in skipped]
    return kept if any(_root(o) == "preview" for o in kept) else [*kept, "preview=none"]  # the board has the pictures


def merged(general: Sequence[str], own: Sequence[str]) -> list[str]:
    """`own` wins: of the general overrides, those of a group or a key that `own` chooses anew are left out."""
    chosen = {_key(o) for o in own}
    kept = [o for o in general if not any(_key(o) == key or _key(o).startswith(f"{key}.") for key in chosen)]
    return [*kept, *own]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _root(override: str) -> str:
    return _key(override).split(".")[0].split("/")[0]


@dataclass
class RunMethod:
    """Attributes:
    overrides: as on train.py's command line, without what the item decides.
    from_truth: the prior is given the item's true mesh (oracle and its kin).
    """

    name: str
    overrides: list[str]
    config_dir: Path
    kind: str = "ours"
    from_truth: bool = False
    shelf: PriorShelf = field(default_factory=PriorShelf)
    licence: str | None = None

    def __post_init__(self) -> None:
        needed = ["prior.mesh=truth"] if self.from_truth else []
        self._base = compose.compose(self.config_dir, "train", [*self.overrides, *needed])
        launch.prepare(self._base, self.config_dir)  # mistakes show before the first run

    def identity(self) -> str:
        config = self._base.copy()
        config.input = config.prompt = None
        plain = folder.identity(compose.resolve(config))
        for key in PER_RUN:
            plain.pop(key, None)
        if self.from_truth:
            plain["prior"].pop("mesh")
        return checksum(plain)

    def stages(self, item: Item) -> tuple[str, ...]:
        return tuple(COSTS)

    def applies(self, item: Item) -> bool:
        return not self.from_truth or item.truth is not None

    def config(self, item: Item, seed: int, place: Path) -> DictConfig:
        """The composed config of one case, whose run folder is `place`."""
        config = self._base.copy()
        config.input = None if item.image is None else str(item.image)
        config.prompt = item.prompt if item.prompt is not None else config.prompt
        config.elevation, config.recenter, config.seed = item.elevation_deg, item.recenter, seed
        config.outdir, config.name, config.truth = str(place.parent), place.name, None  # the board measures
        if not item.recenter:  # the picture's framing is true, and so is its lens
            config.camera.fovy_deg = item.fovy_deg
        if self.from_truth:
            config.prior.mesh = str(_standing(item, place))
            config.camera.radius = item.radius  # the true mesh stands where the picture's camera saw it
        return config

    def make(self, item: Item, seed: int, folder: Path, again: bool) -> Made:
        config = self.config(item, seed, folder)
        config.overwrite, config.resume = again, "auto"
        plain = launch.prepare(config, self.config_dir)
        command = self.command(item, seed)
        failure = None
        try:
            run(launch.Job(plain, command, self.overrides), self._shelf_of(plain), quiet=True)
        except Interrupted:
            raise
        except Exception as error:
            if not again:
                raise
            failure = f"{type(error).__name__}: {error}"
        return self._made(item, folder, plain, command, failure)

    def _shelf_of(self, config: dict[str, Any]) -> PriorShelf:
        """VSD trains a part of the prior, which several objects cannot share."""
        alone = str(config["distill"].get("_target_")).endswith(".VSD")
        return SharedShelf(self.shelf) if in_lane() and not alone else self.shelf

    def command(self, item: Item, seed: int) -> str:
        """How to get the same by hand."""
        parts, here = [*self.overrides], Path.cwd()
        parts += [f"input={shown(item.image, here)}"] if item.image is not None else []
        parts += [f"prompt={item.prompt}"] if item.prompt is not None else []
        parts += [f"elevation={item.elevation_deg:g}"] if item.elevation_deg else []
        parts += [] if item.recenter else ["recenter=false"]
        parts += [] if item.recenter or item.fovy_deg == FOVY_DEG else [f"camera.fovy_deg={item.fovy_deg:g}"]
        if self.from_truth and item.truth is not None:
            parts += [f"prior.mesh={shown(item.truth, here)}", f"camera.radius={item.radius:g}"]
        return shlex.join(["python", "train.py", *parts, f"seed={seed}"])

    def _made(self, item: Item, place: Path, config: dict[str, Any], command: str, failure: str | None) -> Made:
        manifest = Manifest.load(place)
        stages = manifest.stages if manifest is not None else {}
        results, costs, axes = {}, {}, None
        if not item.recenter and item.radius != config["camera"]["radius"]:  # the run saw it from further or nearer
            axes = torch.eye(3) * (item.radius / config["camera"]["radius"])
        for name in COSTS:
            path = place / (f"mesh.{config['mesh_format']}" if name == "mesh" else FILES[name])
            last = stages.get(COSTS[name][-1])
            if path.is_file() and last is not None and last.status == "done":
                results[name] = Result(splats=path, axes=axes) if name == "splats" else Result(mesh=path, axes=axes)
                costs[name] = _costs([stages[s] for s in COSTS[name] if s in stages], COSTS[name])
        return Made(
            results,
            costs,
            failure,
            command,
            manifest.versions if manifest is not None else {},
            manifest.device if manifest is not None else "",
        )


def _standing(item: Item, place: Path) -> Path:
    """The true mesh as our frame has it: the data set's file, or a copy that is turned."""
    assert item.truth is not None
    if not item.truth_yaw_deg:
        return item.truth
    return mesh_in_our_frame(item.truth, place.parent, f"{place.name}-truth", yaw_deg=item.truth_yaw_deg)


def _costs(stages: list[StageRecord], names: Sequence[str]) -> dict[str, float]:
    costs = {f"seconds/{name}": stage.seconds for name, stage in zip(names, stages, strict=False)}
    costs["seconds"] = round(sum(costs.values()), 3)
    costs["peak_memory_mb"] = max(s.peak_memory_mb for s in stages)
    gpu = [s.peak_gpu_memory_mb for s in stages if s.peak_gpu_memory_mb is not None]
    return costs | ({"peak_gpu_memory_mb": max(gpu)} if gpu else {})
