"""Whether a run's checkpoint is there, asked before the libraries are imported that take seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dg.runtime import options
from dg.runtime.build import check, locate
from dg.runtime.errors import UserError


def look(config: Mapping[str, Any]) -> None:
    """Complains of a checkpoint that is known to be absent: files of a folder, or a hub id while offline.

    Says nothing of priors without one, of what only a download can tell, and of runs that need no prior any more: a
    folder with a manifest may hold finished stages.

    Args:
        config: resolved, not validated yet.

    Raises:
        UserError: it is not there; names what was looked for, and the mend.
    """
    prior = config.get("prior")
    if not isinstance(prior, Mapping) or "_target_" not in prior or not _needed(config):
        return
    kind = locate(prior["_target_"], "prior")
    if getattr(kind, "layout", None) is None:
        return
    check(prior, "prior")  # a mistyped key is told before a missing file
    from dg.priors.checkpoint import at_hand, told_size

    hint = kind.hint + told_size(prior.get("about"))
    try:
        at_hand(prior["checkpoint"], prior.get("revision"), kind.layout, hint=hint)
    except FileNotFoundError as error:
        raise UserError(f"prior: {error}") from error


def _needed(config: Mapping[str, Any]) -> bool:
    """Whether a new run of these stages asks its prior anything."""
    from dg.runtime.manifest import NAME

    asked = options.stages(config)
    refines = "texture" in asked and "_target_" in config["refine"]
    if "gaussians" not in asked and not refines:
        return False
    name = config["name"] if config["name"] is not None else options.default_name(config)
    return not (Path(str(config["outdir"])) / str(name) / NAME).is_file()
