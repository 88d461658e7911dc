"""`clip=`: how much the final mesh looks like the picture, or the prompt, that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dg.core.picture import over
from dg.runtime.clip import load
from dg.runtime.logging import log
from dg.runtime.preview import Subject
from dg.runtime.run import Run

AZIMUTHS = [45.0 * i for i in range(8)]  # the front among them, as in the release's score
SIZE = 512  # of the renders, pixels; every CLIP model reduces them


def similarity(run: Run, subject: Subject) -> dict[str, Any]:
    """Entries of metrics.json: clip/image_image, or clip/text_image where there is only a prompt, and the model's name.

    Mean cosine (not times 100) of the (first) reference on white against 8 renders of the final mesh on white, azimuths
    0, 45, .. 315, at the input's elevation. Where the model is not to be had, the value is None, with the reason.
    """
    if "_target_" not in run.config["clip"] or subject.mesh is None:
        return {}
    kind = "image_image" if subject.reference is not None else "text_image"
    if kind == "text_image" and not run.config["prompt"]:
        return {}
    scorer = load(run.config["clip"], run.device)
    if isinstance(scorer, str):
        log.warning("clip/%s is left blank: %s", kind, scorer)
        return {f"clip/{kind}": None, "clip/reason": scorer}
    views = subject.surface(subject.cameras(AZIMUTHS, SIZE))[..., :3].permute(0, 3, 1, 2)
    with torch.no_grad():
        if subject.reference is not None:
            pictures = over(subject.reference.rgba[:1].cpu()).permute(0, 3, 1, 2)
            cosines = scorer.image_image(pictures, views)
        else:
            cosines = scorer.text_image([run.config["prompt"]], views)
    return {f"clip/{kind}": float(cosines.mean()), "clip/model": scorer.name}


def unmeasured(run: Run) -> bool:
    """Whether `clip=` was added to the command of a run that is done otherwise."""
    kinds = ("clip/image_image", "clip/text_image")
    return "_target_" in run.config["clip"] and all(run.results.get(kind) is None for kind in kinds)


def without_similarity(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if not key.startswith("clip/")}
