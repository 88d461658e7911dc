"""The three stages as functions of a run: which files each reads, what it calls, which files it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dg.core.rng import generator
from dg.runtime.errors import RunError, UserError
from dg.runtime.folder import CHECKPOINT, TEXTURE_CHECKPOINT
from dg.runtime.logging import log
from dg.runtime.run import Run


def read(reader: Callable[[Path], Any], path: str | Path, key: str) -> Any:
    """A file that the user may have given; what is wrong with it is theirs to mend."""
    try:
        return reader(Path(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {error}") from error


def gaussians(run: Run) -> bool:
    """Picture or prompt -> gaussians.ply."""
    given = run.config["gaussians"] or run.config["init"].get("file")
    if given is not None and not Path(given).is_file():
        raise UserError(f"init.file={given}: there is no such file; check the path")
    start = [] if given is None else [Path(given)]
    return run.do("gaussians", start, lambda: _optimise(run))


def _optimise(run: Run) -> list[Path]:
    from dg.core.gaussians import RawGaussians
    from dg.io.ply import write_ply
    from dg.runtime.fit import fit

    stage = _stage(run)
    fit(run, stage, "gaussians", run.config["iters"], run.folder / CHECKPOINT)
    path = run.folder / "gaussians.ply"
    result = RawGaussians(**{name: value.cpu() for name, value in stage.raw().as_dict().items()})
    try:
        write_ply(result, path)  # before meshing, so that a failure there loses nothing
    except ValueError as error:  # none is left
        raise RunError(f"stage gaussians: {error}") from error
    return [path]


def _stage(run: Run) -> Any:
    from dg.io.ply import read_ply
    from dg.stages.gaussians import GaussianStage

    config = run.config
    given, reference = config["gaussians"], run.reference
    if config["task"]["kind"] == "image" and reference is None:
        raise UserError("stage gaussians needs a picture: input=photo.png")
    raw = read(read_ply, given, "gaussians") if given is not None else _initial(run)
    names = ("background", "densify", "anneal", "distill", "loss", "optim", "resolution")
    return GaussianStage(
        reference=reference,
        prompt=config["prompt"],
        prior=run.prior,
        raster=run.raster,
        raw=raw,
        camera=run.camera,
        iters=config["iters"],
        seed=config["seed"],
        elevation_deg=run.elevation_deg,
        **{name: run.part(name) for name in names},
    )


def _initial(run: Run) -> Any:
    try:
        return run.part("init")(generator(run.config["seed"], "init"), run.reference)
    except (OSError, ValueError) as error:  # a file that cannot be used, a picture that shows nothing
        raise UserError(f"init: {error}") from error


def mesh(run: Run) -> bool:
    """gaussians.ply -> coarse.glb."""
    source = run.source("gaussians", "gaussians.ply", "mesh")
    return run.do("mesh", [source], lambda: _extract(run, source))


def _extract(run: Run, source: Path) -> list[Path]:
    from dg.core.gaussians import activate
    from dg.io.mesh import save_mesh
    from dg.io.ply import read_ply
    from dg.stages.mesh import extract

    splats = activate(read(read_ply, source, "gaussians")).to(run.device)
    options, say = run.part("mesh"), (lambda step: log.info("mesh: %s", step))
    try:
        made, report = extract(splats, run.raster, run.mesh_raster, options, reference=run.reference, progress=say)
    except ValueError as error:
        raise RunError(f"stage mesh: {error}") from error
    path = run.folder / "coarse.glb"
    save_mesh(made, path)
    run.results |= flat("mesh", asdict(report))
    return [path]


def flat(prefix: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """A report as entries of metrics.json: nested keys joined by slashes."""
    entries: dict[str, Any] = {}
    for key, value in report.items():
        entries |= flat(f"{prefix}/{key}", value) if isinstance(value, Mapping) else {f"{prefix}/{key}": value}
    return entries


def texture(run: Run) -> bool:
    """coarse.glb -> mesh.<format>. With refine=none that is the coarse mesh, textured by back-projection."""
    source = run.source("mesh_file", "coarse.glb", "texture")
    return run.do("texture", [source], lambda: _refine(run, source))


def _refine(run: Run, source: Path) -> list[Path]:
    from dg.io.mesh import load_mesh, save_mesh

    made = read(load_mesh, source, "mesh_file")
    if "_target_" in run.config["refine"]:
        from dg.runtime.fit import fit
        from dg.stages.texture import TextureStage

        iters = run.config["iters_refine"]
        stage = TextureStage(
            mesh=made.to(run.device),
            reference=run.reference,
            prompt=run.config["prompt"],
            prior=run.prior,
            mesh_raster=run.mesh_raster,
            camera=run.camera,
            options=run.part("refine"),
            iters=iters,
            seed=run.config["seed"],
            elevation_deg=run.elevation_deg,
        )
        fit(run, stage, "texture", iters, run.folder / TEXTURE_CHECKPOINT)
        made = stage.mesh().to("cpu")
    else:
        log.info("texture: refine=none keeps the back-projected one")
    path = run.folder / f"mesh.{run.config['mesh_format']}"
    save_mesh(made, path)
    return sorted(p for p in run.folder.glob("mesh*") if p.is_file())


def prior(run: Run) -> bool:
    """Rendered views of objects -> zero123_mini.safetensors (experiment=train_zero123_mini)."""
    if "_target_" not in run.config["pretrain"]:
        raise UserError("stages=[prior] needs a training to run: experiment=train_zero123_mini")
    return run.do("prior", [], lambda: _pretrain(run))


def _pretrain(run: Run) -> list[Path]:
    from dg.runtime.fit import fit

    stage, path = run.part("pretrain"), run.folder / "zero123_mini.safetensors"
    try:
        fit(run, stage, "prior", run.config["iters"], run.folder / CHECKPOINT)
    except (FileNotFoundError, ImportError) as error:  # the library's folder, the GPU's rasteriser
        raise UserError(f"stage prior: {error}") from error
    stage.export(path, command=run.manifest.command)
    return [path]


RUNNERS: dict[str, Callable[[Run], bool]] = {"gaussians": gaussians, "mesh": mesh, "texture": texture, "prior": prior}
