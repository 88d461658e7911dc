"""What happens around the steps of stage 1: checkpoints, progress, a clean stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dg.io.files import atomic
from dg.runtime.errors import Interrupted, RunError
from dg.runtime.logging import console, log


class StopSignal:
    """Set by the first Ctrl-C or SIGTERM; the second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        if threading.current_thread() is not threading.main_thread():
            yield self  # signals reach the main thread alone
            return
        old = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.info("stopping after this step; once more to stop at once")


class Checkpoint(L.Callback):
    """Saves the whole state every `every` steps and when asked to stop. A file is complete or absent.

    A state that holds a NaN is not saved: the last sound one stays.
    """

    def __init__(self, path: Path, every: int, iters: int, stop: StopSignal) -> None:
        self.path, self.every, self.iters, self.stop = path, every, iters, stop

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        step = pl_module.step
        if self.stop.requested and step < self.iters:
            self._save(trainer, pl_module)
            raise Interrupted(f"after step {step} of {self.iters}; the same command continues from there")
        if step % self.every == 0 and step < self.iters:
            self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, pl_module: Any) -> None:
        for name, value in pl_module.named_parameters():
            if not torch.isfinite(value).all():
                raise RunError(
                    f"stage gaussians, step {pl_module.step}: {name} is not finite; {self.path} holds the last sound "
                    "state. Lower the learning rates (optim.*) or the loss weights (loss.*)"
                )
        with atomic(self.path) as temporary:
            trainer.save_checkpoint(temporary)


class Steps(L.Callback):
    """Stage 1's progress: a bar on a terminal, a line every tenth of the way elsewhere."""

    def __init__(self, iters: int) -> None:
        self.iters = iters
        self.progress: Progress | None = None
        self.begun = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.begun, self.first = time.monotonic(), pl_module.step
        if console.is_terminal:
            columns = (
                TextColumn("gaussians"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            self.progress = Progress(*columns, console=console, transient=True)
            self.progress.start()
            self.bar = self.progress.add_task("", total=self.iters, completed=self.first, facts="")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        step, values = pl_module.step, trainer.callback_metrics
        shown = (
            ("train/loss/total", "loss {:.4g}"),
            ("train/t", "t {:.0f}"),
            ("train/num_gaussians", "{:.0f} Gaussians"),
        )
        facts = "  ".join(text.format(float(values[key])) for key, text in shown if key in values)
        if self.progress is not None:
            self.progress.update(self.bar, completed=step, facts=facts)
        elif step == self.iters or step * 10 // self.iters > (step - 1) * 10 // self.iters:
            rate = (time.monotonic() - self.begun) / max(step - self.first, 1)
            log.info("gaussians %d/%d  %s  %.2f s/step", step, self.iters, facts, rate)

    def _end(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end()


def quiet_environment() -> None:
    """Lightning's and others' advertisements have no switch but these."""
    os.environ.setdefault("PL_DISABLE_FORK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
