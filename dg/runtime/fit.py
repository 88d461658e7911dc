"""Lightning's Trainer as this project uses it: one module, one optimiser, numbered steps, no noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dg.runtime.callbacks import Checkpoint, Steps
from dg.runtime.errors import Interrupted, RunError
from dg.runtime.logging import jsonl_logger, log, truncate_series
from dg.runtime.run import Run


def fit(run: Run, module: Any, stage: str, iters: int, checkpoint: Path | None = None) -> None:
    """Runs `module` to its last step, from the checkpoint if there is one.

    Args:
        module: a LightningModule whose `step` counts the steps it has taken and whose batches are the step numbers.
        checkpoint: where its state is kept; None for a stage too short to be worth it.

    Raises:
        Interrupted: it was asked to stop; the state is in `checkpoint`.
        RunError: something became NaN, or a part refused its input; names the step.
    """
    from dg.stages.gaussians import steps

    start, series = 0, run.folder / "metrics.jsonl"
    resumed = checkpoint if checkpoint is not None and checkpoint.is_file() else None
    if resumed is not None:
        state = torch.load(resumed, map_location="cpu", weights_only=False)
        start = int(next(state[key]["step"] for key in ("gaussian_stage", "prior_stage") if key in state))
        log.info("%s: going on after step %d of %d", stage, start, iters)
    truncate_series(series, stage, start)
    trainer = run.part("trainer")(
        max_steps=iters,
        accelerator="gpu" if run.device.type == "cuda" else "cpu",
        devices=[run.device.index or 0] if run.device.type == "cuda" else 1,
        logger=[jsonl_logger(series, stage), *run.loggers],
        callbacks=[Checkpoint(stage, iters, run.stop, checkpoint, run.config["checkpoint_every"]), Steps(stage, iters)],
        default_root_dir=run.folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    try:
        trainer.fit(module, steps(iters, start), ckpt_path=resumed, weights_only=False)
    except (FloatingPointError, ValueError) as error:  # NaNs, and what the parts refuse to work with
        kept = f". The last sound state is in {checkpoint}" if checkpoint is not None and checkpoint.is_file() else ""
        text = str(error) if str(error).startswith("stage ") else f"stage {stage}, step {module.step}: {error}"
        raise RunError(text + kept) from error
    if module.step < iters:
        mend = "continues from there" if checkpoint is not None else "begins this stage again"
        raise Interrupted(f"in stage {stage} after step {module.step} of {iters}; the same command {mend}")
