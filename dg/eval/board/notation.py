"""How figures are named and numbers written, the same in every output."""

from __future__ import annotations

from dg.eval.board.statistics import Estimate
from dg.eval.catalog import Metric, metric

BLANK = "–"
STAGES = {"mesh": "mesh", "coarse": "stage 1 only", "splats": "splats", "renders": "renders"}
_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
_CAPITALS = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "iou": "IoU", "clip": "CLIP", "gpu": "GPU", "f": "F"}


def metric_of(figure: str) -> Metric:
    """The catalog's row; a plain fact for figures that the catalog no longer has, so that old records stay readable."""
    try:
        return metric(figure)
    except KeyError:
        return Metric("", "neither", 0.0, 4, 0, "no longer in the catalog")


def label(figure: str) -> str:
    """`psnr_db/back` -> "PSNR · back"."""
    base, _, part = figure.partition("/")
    unit = metric_of(figure).unit.lower()
    words = base.removesuffix(f"_{unit}") if unit else base
    name = " ".join(_CAPITALS.get(word, word) for word in words.replace("@", " @").split("_"))
    return f"{name} · {part}" if part else name


def heading(figure: str) -> str:
    """The label with unit and direction: "PSNR · back (dB) ↑"."""
    row = metric_of(figure)
    unit = f" ({row.unit})" if row.unit else ""
    arrow = _ARROWS[row.better]
    return f"{label(figure)}{unit}{' ' + arrow if arrow else ''}"


def stage_name(stage: str) -> str:
    return STAGES.get(stage, stage)


def number(figure: str, value: float | None, signed: bool = False) -> str:
    if value is None:
        return BLANK
    text = f"{value:{'+' if signed else ''}.{metric_of(figure).digits}f}"
    if float(text) == 0:
        text = ("±" if signed else "") + text.lstrip("+-")  # no "-0.00", and a tie has no sign
    return text.replace("-", "−")


def interval(figure: str, estimate: Estimate, signed: bool = False) -> str:
    """ "[low, high]"; empty where too few objects give none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(figure, estimate.low, signed)}, {number(figure, estimate.high, signed)}]"


def better(figure: str, difference: Estimate | None) -> bool | None:
    """Whether a difference to the baseline is surely for the better (True) or the worse (False); None: neither."""
    direction = metric_of(figure).better
    if difference is None or not difference.excludes_zero or direction == "neither":
        return None
    return (difference.mean > 0) == (direction == "higher")
