"""Lightning's Trainer as this project uses it: one module, one optimiser, numbered steps, no noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dg.runtime.callbacks import Checkpoint, Steps
from dg.runtime.logging import jsonl_logger, log, truncate_series
from dg.runtime.run import Run


def fit(run: Run, module: Any, checkpoint: Path) -> None:
    """Runs `module` to its last step, from the checkpoint if there is one.

    Args:
        module: a LightningModule whose `step` counts the steps it has taken and whose batches are the step numbers.

    Raises:
        Interrupted: it was asked to stop; the state is in `checkpoint`.
        RunError, FloatingPointError: something became NaN; names step and tensor.
    """
    from dg.stages.gaussians import steps

    iters, start = run.config["iters"], 0
    series = run.folder / "metrics.jsonl"
    if checkpoint.is_file():
        start = int(torch.load(checkpoint, map_location="cpu", weights_only=False)["gaussian_stage"]["step"])
        log.info("gaussians: going on after step %d of %d", start, iters)
    truncate_series(series, start)
    trainer = run.part("trainer")(
        accelerator="gpu" if run.device.type == "cuda" else "cpu",
        devices=[run.device.index or 0] if run.device.type == "cuda" else 1,
        logger=[jsonl_logger(series), *run.part("logger").values()],
        callbacks=[Checkpoint(checkpoint, run.config["checkpoint_every"], iters, run.stop), Steps(iters)],
        default_root_dir=run.folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, steps(iters, start), ckpt_path=checkpoint if checkpoint.is_file() else None, weights_only=False)
