"""`truth=`: a run measured against the true object. Entries truth/... of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dg.data.known import object_name
from dg.eval.protocol import Item, Protocol, Result
from dg.eval.views import NOVEL16
from dg.runtime import options, pictures, sweep
from dg.runtime.errors import UserError
from dg.runtime.logging import log
from dg.runtime.run import Run

PREFIX = "truth/"
FIGURES = ("psnr_db", "silhouette_iou", "volume_iou", "saturation_error")


def source(config: Mapping[str, Any]) -> str | None:
    """What `truth` names. `auto` knows our own example pictures, and asks for them where the figures have a reader: in
    a multirun, or where `objective` is one of them."""
    given = config["truth"]
    if given != "auto":
        return given
    read = sweep.in_multirun() or str(config["objective"]).startswith(PREFIX)
    known = options.object_of(config["input"])
    return known if read and known != options.MISSING else None


def measured(run: Run, mesh: Path | None) -> dict[str, Any]:
    """Figures of the final mesh, else of the splats, by `dg.eval.scoring` over 16 views (`NOVEL16`).

    A recentred picture has lost the object's size, so a result of one is brought to the truth's centre and longest side
    first; otherwise it is measured as it stands.

    Raises:
        UserError: the truth cannot be read.
    """
    of = source(run.config)
    splats = run.folder / "gaussians.ply"
    if of is None or (mesh is None and not splats.is_file()):
        return {}
    from dg.eval.scoring import score

    item = _item(run, of)
    protocol = Protocol("run", list, NOVEL16, FIGURES, (), normalise="extent" if item.recenter else "none")
    axes = None
    if not item.recenter and run.camera.radius != item.radius:  # the run saw the picture from further away or nearer
        axes = torch.eye(3) * (item.radius / run.camera.radius)
    result = Result(mesh=mesh, axes=axes) if mesh is not None else Result(splats=splats, axes=axes)
    try:
        scores = score(result, item, protocol, run.mesh_raster, run.raster)
    except (OSError, ValueError) as error:
        raise UserError(f"truth={of}: {error}") from error
    log.info("against the truth: PSNR %.2f dB, silhouette IoU %.3f", *(scores.values[k] for k in FIGURES[:2]))
    return {f"{PREFIX}{name}": value for name, value in scores.values.items()} | {f"{PREFIX}of": of}


def _item(run: Run, of: str) -> Item:
    name, path = object_name(of), Path(of)
    if name is not None:
        from dg.eval.layouts.synthetic import read

        try:
            path = read(Path(run.config["outdir"]) / "cache", [name])[0].truth
        except ValueError as error:
            raise UserError(f"truth={of}: {error}") from error
    elif not path.is_file():
        raise UserError(f"truth={of}: there is no such file")
    found = pictures.paths(run.config)
    return Item(
        name=name or path.stem,
        image=Path(found[0]) if found and run.reference is not None else None,
        elevation_deg=run.elevation_deg,
        recenter=bool(run.config["recenter"]),
        truth=path,
    )


def unmeasured(run: Run) -> bool:
    """Whether a truth was added to the command of a run that is done otherwise, or another one."""
    of = source(run.config)
    return of is not None and run.results.get(f"{PREFIX}of") != of


def without_truth(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if not key.startswith(PREFIX)}
