"""The three stages as functions of a run: which files each reads, what it calls, which files it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dg.core.rng import generator
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
    fit(run, stage, checkpoint=run.folder / CHECKPOINT)
    path = run.folder / "gaussians.ply"
    write_ply(stage.raw(), path)  # before meshing, so that a failure there loses nothing
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
        from dg.stages.texture import refine

        made = refine(run, made)
    else:
        log.info("texture: refine=none keeps the back-projected texture")
    path = run.folder / f"mesh.{run.config['mesh_format']}"
    before = set(run.folder.iterdir())
    save_mesh(made, path)
    companions = {p for p in run.folder.iterdir() if p not in before and p.is_file() and p.stem.startswith("mesh")}
    return sorted({path, *companions})


RUNNERS: dict[str, Callable[[Run], bool]] = {"gaussians": gaussians, "mesh": mesh, "texture": texture}
