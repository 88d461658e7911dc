"""What happens around the steps of a stage: checkpoints, progress, a clean stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dg.core.gaussians import activate
from dg.io.files import atomic
from dg.runtime.errors import RunError
from dg.runtime.lanes import in_lane
from dg.runtime.logging import console, log

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Set by the first Ctrl-C or SIGTERM; the second one interrupts at once.

    Signals reach the main thread alone: elsewhere (`dg.runtime.lanes`) this follows the one that listens there.
    """

    _listener: ClassVar[StopSignal | None] = None

    def __init__(self) -> None:
        self._requested, self._followed = False, None

    @property
    def requested(self) -> bool:
        return self._requested or (self._followed is not None and self._followed.requested)

    @requested.setter
    def requested(self, value: bool) -> None:
        self._requested = value

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        if threading.current_thread() is not threading.main_thread():
            self._followed = StopSignal._listener
            yield self
            return
        old = {s: signal.signal(s, self._receive) for s in SIGNALS}
        outer, StopSignal._listener = StopSignal._listener, self
        try:
            yield self
        finally:
            StopSignal._listener = outer
            for number, handler in old.items():
                signal.signal(number, handler)

    def take_back(self) -> None:
        """Undoes that Lightning, once its fit has begun, answers SIGTERM by leaving before the state is kept."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.info("stopping after this step; once more to stop at once")


class Checkpoint(L.Callback):
    """Saves the whole state every `every` steps and when asked to stop. A file is complete or absent.

    A state that holds a NaN is not saved: the last sound one stays.

    Args:
        inputs: checksums of the files that the stage started from; a state of other files is no state of this stage.
    """

    def __init__(
        self, stage: str, iters: int, stop: StopSignal, path: Path | None, every: int, inputs: Mapping[str, str]
    ) -> None:
        self.stage, self.iters, self.stop, self.path, self.every = stage, iters, stop, path, every
        self.inputs = dict(inputs)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["inputs"] = self.inputs

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.stop.take_back()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        step = pl_module.step
        if step >= self.iters:
            return
        if self.stop.requested:
            trainer.should_stop = True  # Lightning ends the step properly; `dg.runtime.fit` says why
        if self.stop.requested or step % self.every == 0:
            self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, pl_module: Any) -> None:
        tensors = dict(pl_module.named_parameters())
        if hasattr(pl_module, "raw"):
            tensors |= vars(activate(pl_module.raw()))  # a scale can overflow where its logarithm does not
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                kept = f"; {self.path} holds the last sound state" if self.path is not None else ""
                raise RunError(
                    f"stage {self.stage}, step {pl_module.step}: {name} is not finite{kept}. "
                    "Lower the learning rates (optim.*) or the loss weights (loss.*)"
                )
        if self.path is not None:
            with atomic(self.path) as temporary:
                trainer.save_checkpoint(temporary)


class GradientNorms(L.Callback):
    """The norm of each named parameter group's gradient as the optimiser is about to use it, for `report`."""

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        norms = {}
        for group in optimizer.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if "name" in group and gradients:
                each = [torch.linalg.vector_norm(g) for g in gradients]
                norms[group["name"]] = each[0] if len(each) == 1 else torch.stack(each).norm()
        pl_module.grad_norms = norms  # tensors still: `report` reads them together with the rest


class Steps(L.Callback):
    """A stage's progress: a bar on a terminal, a line every tenth of the way elsewhere."""

    def __init__(self, stage: str, iters: int) -> None:
        self.stage, self.iters = stage, iters
        self.progress: Progress | None = None
        self.begun, self.first = time.monotonic(), 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.begun, self.first = time.monotonic(), pl_module.step
        if console.is_terminal and not in_lane():  # one bar at a time
            columns = (
                TextColumn(self.stage),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            self.progress = Progress(*columns, console=console, transient=True)
            self.progress.start()
            self.bar = self.progress.add_task("", total=self.iters, completed=self.first, facts="")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        step, values = pl_module.step, {k.rpartition("/")[2]: v for k, v in pl_module.logged.items()}
        shown = {"total": "loss {:.4g}", "t": "t {:.0f}", "num_gaussians": "{:.0f} Gaussians"}
        facts = "  ".join(text.format(values[key]) for key, text in shown.items() if key in values)
        if self.progress is not None:
            self.progress.update(self.bar, completed=step, facts=facts)
        elif step == self.iters or step * 10 // self.iters > (step - 1) * 10 // self.iters:
            rate = (time.monotonic() - self.begun) / max(step - self.first, 1)
            log.info("%s %d/%d  %s  %.2f s/step", self.stage, step, self.iters, facts, rate)

    def _end(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end()
