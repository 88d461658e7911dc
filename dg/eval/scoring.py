"""From a result and its item to every figure of the protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.picture import over
from dg.eval import figures, lpips
from dg.eval.align import Aligned, align
from dg.eval.catalog import metric
from dg.eval.clip import ClipScorer
from dg.eval.figures import worst_scores
from dg.eval.images import facing, psnr, psnr_over, saturation, silhouette_iou, ssim
from dg.eval.protocol import Item, Protocol, Result
from dg.eval.shape import f_score, normal_consistency, one_sided
from dg.eval.subject import Subject, front_and_back, front_camera, subject_of
from dg.eval.topology import topology
from dg.eval.truth import Truth, input_of, truth_of, whole_input
from dg.eval.volume import Inside, iou, lattice
from dg.meshraster.protocol import MeshRasterizer
from dg.raster.protocol import Rasterizer

__all__ = ["Scores", "score", "worst_scores"]


@dataclass(frozen=True)
class Scores:
    """Figures (`dg.eval.catalog`), why some are blank, and the pictures they were taken from."""

    values: dict[str, float | None]
    blanks: dict[str, str]
    rgb: Float[Tensor, "V H W 3"]  # on the protocol's background
    alpha: Float[Tensor, "V H W 1"] | None
    truth_rgb: Float[Tensor, "V H W 3"] | None
    truth_alpha: Float[Tensor, "V H W 1"] | None


@dataclass
class _Sheet:
    """Collects figures while they are computed; a text in place of a number says why it is blank."""

    wanted: frozenset[str]
    values: dict[str, float | str] = field(default_factory=dict)

    def wants(self, *bases: str) -> bool:
        return any(name.partition("/")[0] in bases for name in self.wanted)

    def put(self, name: str, value: float | str | None) -> None:
        if name in self.wanted:
            self.values[name] = "no such view or surface" if value is None else value


@torch.no_grad()
def score(
    result: Result,
    item: Item,
    protocol: Protocol,
    raster: MeshRasterizer,
    splat_raster: Rasterizer | None = None,
    clip: Sequence[ClipScorer] = (),
) -> Scores:
    """All figures of `figure_names`, or the reason why one is blank.

    Mesh files are measured in full; splats and pictures only by their looks. Without truth there remain the figures
    against the input and the mesh's own. A figure worse than the catalog's worst is given as the worst, so that no
    success ranks below a failure. Truths stay in memory between calls (`dg.eval.truth.truth_of`).

    Args:
        clip: the models that could be loaded; the protocol's others are blank.
    Raises:
        ValueError, FileNotFoundError: the result is empty, damaged or absent: a failure, to be given `worst_scores`.
    """
    truth = truth_of(item, protocol, raster)
    subject = subject_of(result, truth, raster, splat_raster)
    rgb, alpha = subject.draw(truth.cameras, protocol.views.background)
    loaded = [scorer.name for scorer in clip]
    names = figures.figure_names(protocol, item, loaded)
    blank = {name: reason for name in names if (reason := figures.unavailable(name, subject.stage, loaded))}
    sheet = _Sheet(frozenset(names) - frozenset(blank))
    _against_views(sheet, truth, rgb, alpha)
    if subject.mesh is not None:
        _of_mesh(sheet, subject)
        _against_shape(sheet, subject, truth, raster)
    _against_input(sheet, subject, truth)
    _mirrored(sheet, subject, truth)
    _saturation(sheet, truth, rgb, alpha)
    _clip(sheet, clip, truth, rgb)
    found = blank | sheet.values
    values = {name: _bounded(name, found[name]) for name in names}
    reasons = {name: found[name] for name in names if isinstance(found[name], str)}
    return Scores(values, reasons, rgb, alpha, *(truth.pictures or (None, None)))


def _bounded(name: str, value: float | str) -> float | None:
    if isinstance(value, str):
        return None
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; the result holds numbers that are not finite")
    row = metric(name)
    if row.better == "neither":
        return float(value)
    return float(max(value, row.worst) if row.better == "higher" else min(value, row.worst))


def _against_views(sheet: _Sheet, truth: Truth, rgb: Tensor, alpha: Tensor | None) -> None:
    if truth.pictures is None or not sheet.wants(*figures.AGAINST_VIEWS):
        return
    true_rgb, true_alpha = truth.pictures
    pairs = {"psnr_db": psnr, "ssim": ssim}
    pairs |= {f"lpips_{net}": lambda a, b, net=net: lpips.lpips(a, b, net) for net in ("alex", "vgg")}
    for base, function in pairs.items():
        if sheet.wants(base):
            _split(sheet, base, function(rgb, true_rgb), truth)
    if sheet.wants("silhouette_iou"):
        _split(sheet, "silhouette_iou", _NO_ALPHA if alpha is None else silhouette_iou(alpha, true_alpha), truth)
    for part in ("visible", "hidden"):
        if f"psnr_db/{part}" in sheet.wanted:
            where = truth.pixels[part == "hidden"]
            sheet.put(f"psnr_db/{part}", psnr_over(rgb, true_rgb, where))


_NO_ALPHA = "the pictures have no alpha"


def _split(sheet: _Sheet, base: str, per_view: Tensor | str, truth: Truth) -> None:
    """Means over all views, over those of the front and over those of the back."""
    front, back = facing(truth.cameras)
    for name, chosen in ((base, front | ~front), (f"{base}/front", front), (f"{base}/back", back)):
        if isinstance(per_view, str):
            sheet.put(name, per_view)
        else:
            sheet.put(name, float(per_view[chosen].mean()) if chosen.any() else "no view of the protocol is there")


def _of_mesh(sheet: _Sheet, subject: Subject) -> None:
    if sheet.wants(*figures.OF_MESH):
        found = topology(subject.mesh)
        for name in ("watertight", "manifold", "self_intersections", "components", "faces"):
            sheet.put(name, float(getattr(found, name)))
        sheet.put("file_mb", subject.path.stat().st_size / 1e6)


def _against_shape(sheet: _Sheet, subject: Subject, truth: Truth, raster: MeshRasterizer) -> None:
    """Lengths in units of the truth's longest side."""
    if truth.mesh is None or not sheet.wants(*figures.SHAPES):
        return
    protocol, unit = truth.protocol, truth.box.longest
    ours = truth.sampled(subject.mesh)
    pivot = truth.box.centre.double().numpy() if protocol.normalise == "extent" else None
    poses = align(ours, truth.samples, protocol.alignments, pivot)
    inside = Inside.of(subject.mesh, raster) if sheet.wants("volume_iou") else None
    for name, pose in poses.items():
        _surface_figures(sheet, name, pose, unit)
        if inside is not None:
            sheet.put(f"volume_iou/{name}", _volume(subject, inside, truth, pose))
    if "chamfer/visible" in sheet.wanted or "normal_consistency/visible" in sheet.wanted:
        to_result = next(iter(poses.values())).to_result
        for part, where in (("visible", truth.shown_samples), ("hidden", ~truth.shown_samples)):
            found = one_sided(to_result, where)
            sheet.put(f"chamfer/{part}", found and found[0] / unit)
            sheet.put(f"normal_consistency/{part}", found and found[1])


def _surface_figures(sheet: _Sheet, name: str, pose: Aligned, unit: float) -> None:
    sheet.put(f"chamfer/{name}", pose.chamfer / unit)
    sheet.put(f"normal_consistency/{name}", normal_consistency(pose.to_truth, pose.to_result))
    for base in figures.SHAPES:
        if base.startswith("f_score@"):
            threshold = float(base.partition("@")[2]) * unit
            sheet.put(f"{base}/{name}", f_score(pose.to_truth, pose.to_result, threshold))


def _volume(subject: Subject, inside: Inside, truth: Truth, pose: Aligned) -> float:
    """The result stays where it was drawn; the lattice is moved back to it."""
    matrix = torch.from_numpy(pose.pose)
    moved = subject.mesh.vertices.double() @ matrix[:3, :3].T + matrix[:3, 3]
    both = torch.cat([moved, truth.mesh.vertices.double()])
    points = lattice(both.amin(0), both.amax(0), truth.protocol.volume_resolution)
    back = torch.linalg.inv(matrix)
    return iou(inside(points @ back[:3, :3].T + back[:3, 3]), truth.inside(points))


def _against_input(sheet: _Sheet, subject: Subject, truth: Truth) -> None:
    if not sheet.wants(*figures.AGAINST_INPUT):
        return
    try:
        rgb, alpha = subject.draw(front_camera(truth, subject.mesh), 1.0)
    except LookupError as error:
        for name in figures.AGAINST_INPUT:
            sheet.put(name, str(error))
        return
    rgba = input_of(truth.item, truth.protocol.views.size)[None]
    source = over(rgba)
    sheet.put("input_psnr_db", float(psnr(rgb, source)))
    sheet.put("input_ssim", float(ssim(rgb, source)))
    sheet.put("input_iou", _NO_ALPHA if alpha is None else float(silhouette_iou(alpha, rgba[..., 3:])))


def _mirrored(sheet: _Sheet, subject: Subject, truth: Truth) -> None:
    if not sheet.wants("mirrored_front"):
        return
    try:
        rgb, _ = subject.draw(front_and_back(truth), 1.0)
        sheet.put("mirrored_front", float(ssim(rgb[1:], rgb[:1].flip(2))))
    except LookupError as error:
        sheet.put("mirrored_front", str(error))


def _saturation(sheet: _Sheet, truth: Truth, rgb: Tensor, alpha: Tensor | None) -> None:
    if not sheet.wants("saturation", "saturation_error"):
        return
    if alpha is None:
        sheet.put("saturation", _NO_ALPHA)
        sheet.put("saturation_error", _NO_ALPHA)
        return
    ours = saturation(rgb, alpha)
    sheet.put("saturation", ours)
    if "saturation_error" in sheet.wanted:
        if truth.pictures is not None:
            theirs = saturation(*truth.pictures)
        else:
            rgba = input_of(truth.item, truth.protocol.views.size)[None]
            theirs = saturation(over(rgba), rgba[..., 3:])
        sheet.put("saturation_error", abs(ours - theirs))


def _clip(sheet: _Sheet, scorers: Sequence[ClipScorer], truth: Truth, rgb: Float[Tensor, "V H W 3"]) -> None:
    item, pictures = truth.item, rgb.movedim(-1, 1)
    back = facing(truth.cameras)[1]
    for scorer in scorers:
        rows = {}
        if f"clip_image/{scorer.name}" in sheet.wanted:
            rows["clip_image"] = scorer.image_image(whole_input(item).movedim(-1, 0)[None], pictures)[0]
        if f"clip_text/{scorer.name}" in sheet.wanted:
            rows["clip_text"] = scorer.text_image([item.prompt], pictures)[0]
        for base, cosines in rows.items():
            sheet.put(f"{base}/{scorer.name}", float(cosines.mean()))
            sheet.put(f"{base}/{scorer.name}/back", float(cosines[back].mean()) if back.any() else None)
