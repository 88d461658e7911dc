"""The figures of `dg.eval.agreement` for the run that has just ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dg.runtime.logging import log
from dg.runtime.preview import Subject
from dg.runtime.run import Run


def agreement(run: Run, subject: Subject) -> dict[str, Any]:
    """Entries of metrics.json. Those that ask the prior are there only if a stage of this session has loaded it.

    A GPU's memory that does not suffice costs the figures, not the run.
    """
    from dg.eval.agreement import invented_share, views_agree

    if subject.mesh is None or not len(subject.mesh.faces) or not run.part("preview").azimuths:
        return {}
    found: dict[str, Any] = {}
    if subject.reference is not None:
        cameras = subject.reference.cameras.to(subject.device)
        found["invented"] = invented_share(subject.mesh, cameras, subject.mesh_raster)
    if "prior" in vars(run):  # the cached property: nothing is loaded, let alone fetched, for a report
        try:
            found |= views_agree(
                subject.mesh,
                run.prior,
                subject.reference,
                run.config["prompt"],
                subject.mesh_raster,
                elevation_deg=subject.elevation_deg,
                radius=subject.radius,
                fovy_deg=subject.fovy_deg,
                seed=run.config["seed"],
            )
        except RuntimeError as error:
            log.warning("agreement of the prior's views is left out: %s", " ".join(str(error).split())[:200])
    return {f"agreement/{name}": value for name, value in found.items()}


def without_agreement(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if not key.startswith("agreement/")}
