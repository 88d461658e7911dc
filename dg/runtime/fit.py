"""Lightning's Trainer as this project uses it: one module, one optimiser, numbered steps, no noise."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from dg.runtime.callbacks import Checkpoint, GradientNorms, Steps
from dg.runtime.errors import Interrupted, RunError
from dg.runtime.guidance import Guidance
from dg.runtime.logging import jsonl_logger, log, truncate_series
from dg.runtime.media import Renders
from dg.runtime.run import Run

STATES = ("gaussian_stage", "texture_stage", "prior_stage")  # where a module keeps its step in a checkpoint


def fit(run: Run, module: Any, stage: str, iters: int, checkpoint: Path) -> None:
    """Runs `module` to its last step, from the checkpoint if there is one.

    Args:
        module: a LightningModule whose `step` counts the steps it has taken and whose batches are the step numbers.
        checkpoint: where its state is kept.

    Raises:
        Interrupted: it was asked to stop; the state is in `checkpoint`.
        RunError: something became NaN, or a part refused its input; names the step.
    """
    from dg.stages.gaussians import steps

    series, inputs = run.folder / "metrics.jsonl", run.manifest.stages[stage].inputs
    start = _start(checkpoint, inputs)
    resumed = checkpoint if start else None
    if resumed is not None:
        log.info("%s: going on after step %d of %d", stage, start, iters)
    truncate_series(series, stage, start)
    every = run.config["checkpoint_every"]
    callbacks = [GradientNorms(), Checkpoint(stage, iters, run.stop, checkpoint, every, inputs), Steps(stage, iters)]
    trainer = run.part("trainer")(
        max_steps=iters,
        accelerator="gpu" if run.device.type == "cuda" else "cpu",
        devices=[run.device.index or 0] if run.device.type == "cuda" else 1,
        logger=[jsonl_logger(series, stage), *run.loggers],
        callbacks=[*callbacks, *Renders.wanted(run, stage, iters), *Guidance.wanted(run, stage, iters)],
        default_root_dir=run.folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    try:
        trainer.fit(module, steps(iters, start), ckpt_path=resumed, weights_only=False)
    except (FloatingPointError, ValueError) as error:  # NaNs, and what the parts refuse to work with
        kept = f". The last sound state is in {checkpoint}" if checkpoint.is_file() else ""
        text = str(error) if str(error).startswith("stage ") else f"stage {stage}, step {module.step}: {error}"
        raise RunError(text + kept) from error
    if module.step < iters:
        raise Interrupted(
            f"in stage {stage} after step {module.step} of {iters}; the same command continues from there"
        )


def _start(checkpoint: Path, inputs: dict[str, str]) -> int:
    """The step that a checkpoint was saved after; 0 where there is none of this stage on these very files."""
    if not checkpoint.is_file():
        return 0
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=False)
        start = int(next(state[key]["step"] for key in STATES if key in state))
    except (RuntimeError, EOFError, KeyError, StopIteration, pickle.UnpicklingError) as error:
        log.warning("%s cannot be read (%s): the stage begins again", checkpoint, " ".join(str(error).split())[:100])
        return 0
    if state.get("inputs", inputs) != inputs:
        log.warning("%s belongs to another input file: the stage begins again", checkpoint)
        return 0
    return start
