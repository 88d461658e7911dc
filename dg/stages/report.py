"""How the stages tell their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L


def report(module: L.LightningModule, step: int, values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Hands one step's numbers to the loggers; returns them by their full names.

    Norms of gradients come along where somebody measured them (`dg.runtime.callbacks.GradientNorms`).

    Not `LightningModule.log_dict`: its bookkeeping of reductions over epochs and devices, which a run of numbered steps
    does not have, cost 12 ms of a 55 ms step.
    """
    norms = {f"grad_norm/{group}": norm for group, norm in getattr(module, "grad_norms", {}).items()}
    named = {f"{prefix}/{name}": float(value) for name, value in {**values, **norms}.items()}
    for logger in module.trainer.loggers:
        logger.log_metrics(named, step=step)
    return named
