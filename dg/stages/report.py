"""How the stages tell their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor


def report(module: L.LightningModule, step: int, values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Hands one step's numbers to the loggers; returns the latest ones that are known, by their full names.

    Norms of gradients come along where somebody measured them (`dg.runtime.callbacks.GradientNorms`). A module with
    `readings` (`dg.stages.readings.Readings`) is told through them, so that no step waits for a GPU: then what is
    returned may be an earlier step's, and `module.logged` is set whenever something arrives.

    Not `LightningModule.log_dict`: its bookkeeping of reductions over epochs and devices, which a run of numbered steps
    does not have, cost 12 ms of a 55 ms step.
    """
    norms = {f"grad_norm/{group}": norm for group, norm in getattr(module, "grad_norms", {}).items()}
    named = {f"{prefix}/{name}": value for name, value in {**values, **norms}.items()}
    readings, loggers = getattr(module, "readings", None), module.trainer.loggers
    if readings is None or not readings.late:
        return _tell(loggers, step, {name: float(value) for name, value in named.items()})
    kind = readings.device.type
    there = {n: v.detach().float() for n, v in named.items() if isinstance(v, Tensor) and v.device.type == kind}

    def receive(numbers: list[float]) -> None:
        arrived = dict(zip(there, numbers, strict=True))
        module.logged = _tell(loggers, step, {name: float(arrived.get(name, value)) for name, value in named.items()})

    if there:
        readings.put(torch.stack([value.reshape(()) for value in there.values()]), receive)
    else:
        receive([])
    return module.logged


def _tell(loggers: list[Any], step: int, numbers: dict[str, float]) -> dict[str, float]:
    for logger in loggers:
        logger.log_metrics(numbers, step=step)
    return numbers
