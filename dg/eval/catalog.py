"""Every figure there is: its unit, which way is better, what a failure gets. One row here, then code, then a column.

A figure's name is `base` or `base/part`. The part says where it was measured: `front`, `back`, `visible`, `hidden`; for
shapes the alignment (`unaligned`, `yaw`, `rot24`, `icp`); for CLIP the library and model; for costs the stage.
docs/metrics.md has this table, which a test compares, and the definitions at length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALIGNMENTS = ("unaligned", "yaw", "rot24", "icp")


@dataclass(frozen=True)
class Metric:
    """Attributes:
    better: which way is better; "neither" for plain facts, which no ranking uses and no failure spoils.
    worst: what a failed case gets; no result is given less.
    version: raised when the definition changes; part of every protocol's hash, so that old scores are not compared.
    """

    unit: str
    better: Literal["higher", "lower", "neither"]
    worst: float
    digits: int
    version: int
    says: str


CATALOG: dict[str, Metric] = {
    # against true views
    "psnr_db": Metric(
        "dB", "higher", 0.0, 2, 1, "peak signal-to-noise ratio over the whole picture, peak 1, cut at 100"
    ),
    "ssim": Metric(
        "", "higher", 0.0, 4, 1, "structural similarity, Gaussian window of 11, sigma 1.5 (Wang et al. 2004)"
    ),
    "lpips_alex": Metric("", "lower", 1.0, 4, 1, "learned perceptual distance, AlexNet (Zhang et al. 2018)"),
    "lpips_vgg": Metric("", "lower", 1.0, 4, 1, "learned perceptual distance, VGG (Zhang et al. 2018)"),
    "silhouette_iou": Metric("", "higher", 0.0, 4, 1, "intersection over union of the covered pixels"),
    # against a true shape; lengths in units of the truth's longest side
    "chamfer": Metric("", "lower", 1.0, 5, 1, "half the sum of both mean distances between surfaces, not squared"),
    "f_score@0.01": Metric("", "higher", 0.0, 4, 1, "harmonic mean of precision and recall at distance 0.01"),
    "f_score@0.02": Metric("", "higher", 0.0, 4, 1, "harmonic mean of precision and recall at distance 0.02"),
    "f_score@0.05": Metric("", "higher", 0.0, 4, 1, "harmonic mean of precision and recall at distance 0.05"),
    "normal_consistency": Metric(
        "", "higher", 0.0, 4, 1, "mean absolute cosine between normals of nearest surface points"
    ),
    "volume_iou": Metric("", "higher", 0.0, 4, 1, "intersection over union of the occupied volumes"),
    # against the input picture
    "input_psnr_db": Metric("dB", "higher", 0.0, 2, 1, "PSNR of the front view against the input, on white"),
    "input_ssim": Metric("", "higher", 0.0, 4, 1, "SSIM of the front view against the input, on white"),
    "input_iou": Metric("", "higher", 0.0, 4, 1, "silhouette IoU of the front view against the input's alpha"),
    "mirrored_front": Metric("", "lower", 1.0, 4, 1, "SSIM of the level back with the mirrored front: the Janus proxy"),
    "clip_image": Metric("", "higher", 0.0, 4, 1, "mean CLIP cosine of the input and the renders"),
    "clip_text": Metric("", "higher", 0.0, 4, 1, "mean CLIP cosine of the prompt and the renders"),
    # of the mesh alone
    "watertight": Metric("", "higher", 0.0, 2, 1, "1 if every edge has exactly two faces that run along it oppositely"),
    "manifold": Metric("", "higher", 0.0, 2, 1, "1 if no edge has more than two faces and every vertex has one fan"),
    "self_intersections": Metric("", "lower", 1.0, 4, 1, "share of faces that cut another one than a neighbour"),
    "saturation_error": Metric(
        "", "lower", 1.0, 4, 1, "difference of mean HSV saturation, renders against the truth or the input"
    ),
    "saturation": Metric("", "neither", 0.0, 4, 1, "mean HSV saturation of the fully covered pixels"),
    "components": Metric("", "neither", 0.0, 0, 1, "connected parts"),
    "faces": Metric("", "neither", 0.0, 0, 1, "triangles"),
    "file_mb": Metric("MB", "neither", 0.0, 2, 1, "size of the file"),
    # what it cost
    "seconds": Metric("s", "neither", 0.0, 1, 1, "wall-clock seconds; with a part, of that stage"),
    "peak_memory_mb": Metric("MB", "neither", 0.0, 0, 1, "highest memory of the process"),
    "peak_gpu_memory_mb": Metric("MB", "neither", 0.0, 0, 1, "highest memory of the GPU"),
}


def metric(name: str) -> Metric:
    """The row of `base` or `base/part`.

    Raises:
        KeyError: the catalog has no such figure.
    """
    return CATALOG[name.partition("/")[0]]


def worst(name: str) -> float | None:
    """What a failed case gets in this figure; None where failure says nothing."""
    found = metric(name)
    return None if found.better == "neither" else found.worst
