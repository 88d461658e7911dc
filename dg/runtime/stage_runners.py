"""The three stages as functions of a run: which files each reads, what it calls, which files it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dg.core.rng import generator
from dg.io.files import atomic
from dg.runtime.errors import UserError
from dg.runtime.folder import CHECKPOINT
from dg.runtime.logging import log
from dg.runtime.run import Run


def gaussians(run: Run) -> bool:
    """Picture or prompt -> gaussians.ply."""
    start = [Path(run.config["gaussians"])] if run.config["gaussians"] is not None else []
    return run.do("gaussians", start, lambda: _optimise(run))


def _optimise(run: Run) -> list[Path]:
    from dg.io.ply import write_ply
    from dg.runtime.fit import fit

    stage = _stage(run)
    fit(run, stage, "gaussians", run.config["iters"], run.folder / CHECKPOINT)
    path = run.folder / "gaussians.ply"
    with atomic(path) as temporary:  # before meshing, so that a failure there loses nothing
        write_ply(stage.raw(), temporary)
    return [path]


def _stage(run: Run) -> Any:
    from dg.io.ply import read_ply
    from dg.stages.gaussians import GaussianStage

    config = run.config
    given = config["gaussians"]
    raw = read_ply(Path(given)) if given is not None else run.part("init")(generator(config["seed"], "init"))
    reference = run.reference
    if config["task"]["kind"] == "image" and reference is None:
        raise UserError("stage gaussians needs a picture: input=photo.png")
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
        **{name: run.part(name) for name in names},
    )


def mesh(run: Run) -> bool:
    """gaussians.ply -> coarse.glb."""
    source = run.source("gaussians", "gaussians.ply", "mesh")
    return run.do("mesh", [source], lambda: _extract(run, source))


def _extract(run: Run, source: Path) -> list[Path]:
    from dg.core.gaussians import activate
    from dg.io.mesh import save_mesh
    from dg.io.ply import read_ply
    from dg.runtime.pipeline import flat
    from dg.stages.mesh import extract

    splats = activate(read_ply(source)).to(run.device)
    made, report = extract(splats, run.raster, run.mesh_raster, run.part("mesh"))
    path = run.folder / "coarse.glb"
    save_mesh(made, path)
    run.results |= flat("mesh", report)
    return [path]


def texture(run: Run) -> bool:
    """coarse.glb -> mesh.<format>. With refine=none that is the coarse mesh, textured by back-projection."""
    source = run.source("mesh_file", "coarse.glb", "texture")
    return run.do("texture", [source], lambda: _refine(run, source))


def _refine(run: Run, source: Path) -> list[Path]:
    from dg.io.mesh import load_mesh, save_mesh

    made = load_mesh(source)
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
            elevation_deg=run.config["elevation"],
        )
        fit(run, stage, "texture", iters)
        made = stage.mesh().to("cpu")
    else:
        log.info("texture: refine=none keeps the back-projected one")
    path = run.folder / f"mesh.{run.config['mesh_format']}"
    save_mesh(made, path)
    return sorted(p for p in run.folder.glob("mesh*") if p.is_file())


RUNNERS: dict[str, Callable[[Run], bool]] = {"gaussians": gaussians, "mesh": mesh, "texture": texture}
