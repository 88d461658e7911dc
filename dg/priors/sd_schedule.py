"""The noise schedule of a Stable Diffusion, and whether its UNet predicts noise or v (1.x, 2.x and 2.1)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from dg.core.diffusion import scaled_linear_alpha_bar


def told_prediction(path: Path, first_generation: bool) -> str:
    """What the UNet of a single file predicts, which its tensors do not show.

    1.x predicts noise; of 2.x the 512-pixel files do, and the 768-pixel ones v. Told by the configuration beside the
    file (FILE.yaml with `parameterization: v`), else by the file's name (v2-1_768-ema-pruned.ckpt).

    Raises:
        ValueError: it cannot be told.
    """
    beside = path.with_suffix(".yaml")
    if beside.is_file():
        return "v_prediction" if re.search(r"parameterization:\s*[\"']?v\b", beside.read_text()) else "epsilon"
    if first_generation or "512" in path.stem:
        return "epsilon"
    if "768" in path.stem:
        return "v_prediction"
    raise ValueError(
        f"{path}: a Stable Diffusion 2.x that predicts noise or v, which the file does not say; give "
        "prior.prediction_type=epsilon (512-pixel, 'base') or prior.prediction_type=v_prediction (768-pixel)"
    )


def read_schedule(path: Path) -> tuple[Float[Tensor, "T"], str]:
    """(alpha_bar, "epsilon" or "v_prediction") of a scheduler_config.json; which sampler it names does not matter.

    Raises:
        ValueError: a schedule that Stable Diffusion's releases do not have.
    """
    config = json.loads(path.read_text())
    kind, schedule = config.get("prediction_type", "epsilon"), config.get("beta_schedule")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"{path}: prediction_type {kind} is unknown; expected epsilon or v_prediction")
    plain = config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr")
    if schedule != "scaled_linear" or not plain:
        raise ValueError(
            f"{path}: expected beta_schedule scaled_linear without trained_betas and rescale_betas_zero_snr, "
            f"found {schedule}{'' if plain else ' with one of them'}"
        )
    betas = float(config["beta_start"]), float(config["beta_end"])
    return scaled_linear_alpha_bar(int(config.get("num_train_timesteps", 1000)), *betas), kind
