"""Which figures a case has. One list for successes and failures, so that neither can win by leaving some out."""

from __future__ import annotations

from collections.abc import Sequence

from dg.eval import lpips
from dg.eval.catalog import worst
from dg.eval.protocol import Item, Protocol

SHAPES = ("chamfer", "f_score@0.01", "f_score@0.02", "f_score@0.05", "normal_consistency", "volume_iou")
OF_MESH = ("watertight", "manifold", "self_intersections", "components", "faces", "file_mb")
OF_RUN = ("seconds", "peak_memory_mb", "peak_gpu_memory_mb")  # whoever ran the method knows them
AGAINST_VIEWS = ("psnr_db", "ssim", "lpips_alex", "lpips_vgg", "silhouette_iou")
AGAINST_INPUT = ("input_psnr_db", "input_ssim", "input_iou")
SPLIT_SHAPES = ("chamfer", "normal_consistency")  # the others need both directions

NO_SURFACE = {"splats": "splats have no surface", "renders": "there are only pictures, no mesh"}


def figure_names(protocol: Protocol, item: Item, clip: Sequence[str] = ()) -> list[str]:
    """Every figure that `score` gives for a case, blanks included, in the catalog's order.

    Args:
        clip: names of further CLIP models besides the protocol's.
    """
    models = list(dict.fromkeys((*protocol.clip, *clip)))
    names: list[str] = []
    for base in protocol.metrics:
        names += _parts(base, protocol, item, models)
    return names


def _parts(base: str, protocol: Protocol, item: Item, models: list[str]) -> list[str]:
    views = item.truth is not None or item.truth_views is not None
    if base in AGAINST_VIEWS:
        hidden = base == "psnr_db" and item.truth is not None and item.image is not None
        parts = ["front", "back", *(("visible", "hidden") if hidden else ())]
        return [base, *(f"{base}/{part}" for part in parts)] if views else []
    if base in SHAPES:
        split = base in SPLIT_SHAPES and item.image is not None
        parts = [*protocol.alignments, *(("visible", "hidden") if split else ())]
        return [f"{base}/{part}" for part in parts] if item.truth is not None else []
    if base in AGAINST_INPUT:
        return [base] if item.image is not None else []
    if base == "clip_image":
        return [f"{base}/{model}{part}" for model in models for part in ("", "/back")] if item.image is not None else []
    if base == "clip_text":
        return [f"{base}/{model}{part}" for model in models for part in ("", "/back")] if item.prompt else []
    if base == "saturation_error":
        return [base] if views or item.image is not None else []
    return [] if base in OF_RUN else [base]


def worst_scores(
    protocol: Protocol, item: Item, stage: str = "mesh", clip: Sequence[str] = (), loaded: Sequence[str] = ()
) -> tuple[dict[str, float | None], dict[str, str]]:
    """(values, blanks) of a failed case: the catalog's worst for whatever a success would have had.

    Args:
        stage: what was to be made: mesh, coarse, splats or renders.
        clip, loaded: names of CLIP models besides the protocol's, and of those that can be had.
    """
    values: dict[str, float | None] = {}
    blanks: dict[str, str] = {}
    for name in figure_names(protocol, item, (*clip, *loaded)):
        reason = unavailable(name, stage, loaded)
        values[name] = None if reason else worst(name)
        if values[name] is None:
            blanks[name] = reason or "failed"
    return values, blanks


def unavailable(name: str, stage: str, loaded: Sequence[str]) -> str | None:
    """Why no result of this stage can have the figure on this machine; None if it can."""
    base, _, part = name.partition("/")
    if base in (*SHAPES, *OF_MESH):
        return NO_SURFACE.get(stage)
    if base.startswith("lpips_"):
        return lpips.missing(base.removeprefix("lpips_"))
    if base in ("clip_image", "clip_text"):
        model = part.removesuffix("/back")
        return None if model in loaded else f"{model} is not loaded"
    return None
