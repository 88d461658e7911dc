"""One run while it lasts: its folder, its parts (built when first asked for), and the bookkeeping of its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dg.io.files import sha256
from dg.runtime import device as devices
from dg.runtime import pictures
from dg.runtime.build import build, inert
from dg.runtime.callbacks import StopSignal
from dg.runtime.errors import UserError
from dg.runtime.lanes import spent
from dg.runtime.logging import log
from dg.runtime.manifest import Manifest, StageRecord, peak_memory_mb, prior_facts
from dg.runtime.shelf import PriorShelf
from dg.stages.elevation import Found


@dataclass
class Run:
    config: dict[str, Any]  # resolved and validated
    folder: Path
    manifest: Manifest
    stop: StopSignal
    results: dict[str, Any] = field(default_factory=dict)  # what metrics.json gets
    shelf: PriorShelf = field(default_factory=PriorShelf)  # of somebody else's, where the prior outlives the run

    def part(self, group: str, **given: Any) -> Any:
        """Builds the component of a config group. Values without effect become warnings, errors with strict=true."""
        component = build(self.config[group], group, **given)
        for text in inert(component, group, self.config["iters"]):
            if self.config["strict"]:
                raise UserError(f"{text} (an error because of strict=true)")
            log.warning("%s", text)
        return component

    @cached_property
    def device(self) -> torch.device:
        return devices.resolve(self.config["device"])

    @cached_property
    def raster(self) -> Any:
        return self.part("raster")

    @cached_property
    def mesh_raster(self) -> Any:
        return self.part("meshraster")

    @cached_property
    def camera(self) -> Any:
        return self.part("camera")

    @cached_property
    def prior(self) -> Any:
        def build_it() -> Any:
            prior = self.part("prior")
            return prior.to(self.device) if hasattr(prior, "to") else prior

        prior = self.shelf.get(self.config["prior"], str(self.device), build_it)
        self.manifest.prior = prior_facts(self.config["prior"], prior)
        return prior

    @cached_property
    def loggers(self) -> list[Any]:
        """What config group `logger` asks for, on top of metrics.jsonl. They know the config."""
        made = list(self.part("logger").values())
        for logger in made:
            logger.log_hyperparams(self.config)
        return made

    @cached_property
    def reference(self) -> Any:
        """The pictures as the stages see them; None where the run has none."""
        found = pictures.pictures(self.config)
        if not found or self.config["task"]["kind"] != "image" or pictures.missing(self.config):
            return None
        if len(found) > 1 and self.config["recenter"]:
            log.warning(
                "each of the %d pictures is recentred by itself, so their scales may differ; where their framing is "
                "true, give recenter=false",
                len(found),
            )
        from dg.data.image import together

        return together([self._picture(picture) for picture in found])

    def _picture(self, picture: pictures.Picture) -> Any:
        from dg.data.image import load_reference

        path, elevation = picture.path, picture.elevation_deg
        try:
            return load_reference(
                Path(path),
                recenter=self.config["recenter"],
                elevation_deg=self.elevation_deg if elevation is None else elevation,
                azimuth_deg=picture.azimuth_deg,
                radius=self.camera.radius,
                fovy_deg=self.camera.fovy_deg,
                size=self.config["task"]["reference_size"],
            )
        except (ValueError, OSError) as error:
            raise UserError(f"input={path}: {str(error).removeprefix(f'{path}: ')}") from error  # named once

    @property
    def elevation_deg(self) -> float:
        """Of the first picture, or of the views where there is none. elevation=auto is searched for once a folder."""
        found = pictures.pictures(self.config)
        if not found or found[0].elevation_deg is not None or pictures.missing(self.config):
            return pictures.elevation(self.config)
        if not self.manifest.elevation:
            self.manifest.elevation = self._searched(found[0])
            log.info("elevation=auto: %.1f degrees", self.manifest.elevation["elevation_deg"])
            self.manifest.save(self.folder)
        return float(self.manifest.elevation["elevation_deg"])

    def _searched(self, picture: pictures.Picture) -> dict[str, Any]:
        from dg.stages.elevation import denoising_error, search

        if getattr(self.prior, "relative_views", False):
            return self._searched_by_hulls(picture)
        if not getattr(self.prior, "knows_object", False):
            raise UserError(
                f"elevation=auto cannot work with {type(self.prior).__name__}: its views fit whatever elevation they "
                "are asked for; give elevation=DEGREES (-20 looks down a little)"
            )

        def error(degrees: float) -> float:
            seen = self._picture(replace(picture, elevation_deg=degrees))
            at = replace(seen, rgba=seen.rgba.to(self.device), cameras=seen.cameras.to(self.device))
            return denoising_error(self.prior, at, self.config["prompt"])

        return _recorded(search(error))

    def _searched_by_hulls(self, picture: pictures.Picture) -> dict[str, Any]:
        from dg.stages.elevation import search
        from dg.stages.elevation_hull import error_of_hulls, told

        seen = self._picture(replace(picture, elevation_deg=0.0))
        at = replace(seen, rgba=seen.rgba.to(self.device), cameras=seen.cameras.to(self.device))
        found = search(error_of_hulls(self.prior, at, self.config["seed"]))
        if not told(found.curve):
            raise UserError(
                "elevation=auto finds nothing: the views that the prior makes of the picture fit all elevations alike "
                f"(errors {min(found.curve.values()):.3f} to {max(found.curve.values()):.3f}); give elevation=DEGREES"
            )
        return _recorded(found)

    def source(self, key: str, default: str, stage: str) -> Path:
        """The file a stage starts from: what the user gave, else what the stage before left in the folder."""
        if self.config[key] is not None:
            return Path(self.config[key])
        path = self.folder / default
        if not path.is_file():
            raise UserError(
                f"stage {stage} needs {path}, which is not there; add the stage before it, or give {key}=FILE"
            )
        return path

    def is_done(self, stage: str, inputs: Mapping[str, str]) -> bool:
        """Whether an earlier session finished the stage from the same inputs and its files are as it left them."""
        record = self.manifest.stages.get(stage)
        if record is None or record.status != "done" or not record.outputs or record.inputs != dict(inputs):
            return False
        paths = {self.folder / name: checksum for name, checksum in record.outputs.items()}
        return all(path.is_file() and sha256(path) == checksum for path, checksum in paths.items())

    def do(self, stage: str, inputs: list[Path], work: Callable[[], list[Path]]) -> bool:
        """Runs a stage unless it is done already; books time, memory and files. Returns whether it ran.

        Args:
            work: does it and returns the files it made.
        """
        checksums = {path.name: sha256(path) for path in inputs}
        if self.is_done(stage, checksums):
            log.info("%s: done before, kept", stage)
            return False
        old = self.manifest.stages.get(stage)
        unfinished = old is not None and old.status != "done" and old.inputs == checksums
        record = StageRecord(inputs=checksums, seconds=old.seconds if unfinished and old is not None else 0.0)
        self.manifest.stages[stage] = record
        self.manifest.save(self.folder)
        before, start = record.seconds, spent()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        record.status = "failed"
        try:
            made = work()
            record.status = "done"
            record.outputs = {str(path.relative_to(self.folder)): sha256(path) for path in made}
        finally:
            record.seconds = round(before + spent() - start, 3)
            record.peak_memory_mb = peak_memory_mb()
            if self.device.type == "cuda":
                record.peak_gpu_memory_mb = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
            self.manifest.save(self.folder)
        log.info("%s: %.1f s", stage, record.seconds)
        return True


def _recorded(found: Found) -> dict[str, Any]:
    """What the manifest keeps of a search for the elevation."""
    curve = {f"{degrees:g}": value for degrees, value in found.curve.items()}
    return {"elevation_deg": round(found.elevation_deg, 2), "curve": curve}
