"""What is said, where: the console for people, log.txt for everything, metrics.jsonl for numbers, loggers on top."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from dg.io.files import append_line, write_text
from dg.runtime.lanes import in_lane

console = Console(stderr=True, soft_wrap=True, highlight=False)
log = logging.getLogger("dg")

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_QUIET = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "lightning_fabric",
    "pytorch_lightning",
    "wandb",
    "numba",
)
_IRRELEVANT = (  # Lightning's advice on data loading and logging, which a loader of step numbers does not need
    ".*does not have many workers.*",
    ".*has `__len__` defined.*",
    ".*The number of training batches.*",
    ".*was configured so.*",
    ".*Trying to infer the `batch_size`.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*Starting from v1.9.0, `tensorboardX` has been removed.*",
    ".*Found .* modules? in eval mode.*",
)


class Screen(logging.Handler):
    """The console, above a progress bar if one is shown; paths and keys are neither wrapped nor coloured."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console.print(record.getMessage(), style=style, markup=False, highlight=False, soft_wrap=True)


class Collector(logging.Handler):
    """Keeps the warnings of a run for its manifest."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno == logging.WARNING and text not in self.messages:
            self.messages.append(text)


class LogFile(logging.FileHandler):
    """log.txt. Where the disk is full it loses messages in silence: the next file of the run says what is wrong."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # what is still in its buffer
            super().close()


@contextmanager
def logging_to(folder: Path, quiet: bool = False) -> Iterator[Collector]:
    """While it lasts, `dg`'s messages go to the console and, with everybody else's warnings, to folder/log.txt.

    May be nested: an evaluation logs around its runs. Runs that take turns (`dg.runtime.lanes`) log beside each other,
    and what they say but for warnings reaches nobody else.

    Args:
        quiet: only warnings reach the console.
    """
    if in_lane():
        with _beside(folder) as collector:
            yield collector
        return
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING if name.startswith("lightning") else logging.ERROR)
    collector = Collector()
    file = LogFile(folder / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter(_FORMAT))
    screen = Screen(logging.WARNING if quiet else logging.INFO)
    root = logging.getLogger()
    before, level = root.handlers, root.level  # Hydra's handlers would say everything twice
    root.handlers = [file]
    root.setLevel(logging.INFO)
    outer = log.handlers
    log.handlers, log.propagate = [screen, collector, file], False
    log.setLevel(logging.INFO)
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        for pattern in _IRRELEVANT:
            warnings.filterwarnings("ignore", pattern)
        try:
            yield collector
        finally:
            logging.captureWarnings(any(isinstance(handler, LogFile) for handler in outer))
            root.handlers, log.handlers = before, outer
            root.setLevel(level)
            file.close()


_inside = threading.local()


class _Own(logging.Filter):
    """Lets through what the thread that made it says."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread == self.thread


def _of_others(record: logging.LogRecord) -> bool:
    """What the console and the log around runs beside each other let through: of these, warnings alone."""
    return not getattr(_inside, "run", False) or record.levelno >= logging.WARNING


@contextmanager
def _beside(folder: Path) -> Iterator[Collector]:
    collector, file = Collector(), LogFile(folder / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter(_FORMAT))
    for handler in (collector, file):
        handler.addFilter(_Own())
    for handler in log.handlers:
        if not any(isinstance(f, _Own) for f in handler.filters):
            handler.addFilter(_of_others)  # adding it twice does nothing
    log.addHandler(collector)
    log.addHandler(file)
    logging.getLogger().addHandler(file)
    _inside.run = True
    try:
        yield collector
    finally:
        _inside.run = False
        logging.getLogger().removeHandler(file)
        log.removeHandler(file)
        log.removeHandler(collector)
        file.close()


def to_file(level: int, text: str) -> None:
    """A message for log.txt alone; the console gets its own version of it."""
    record = log.makeRecord(log.name, level, __file__, 0, text, (), None)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def truncate_series(path: Path, stage: str, last_step: int) -> None:
    """Drops what a stage had logged after the step from which it is about to go on."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        rows = [(json.loads(line), line) for line in lines]
        kept = [line for row, line in rows if row.get("stage") != stage or (row.get("step") or 0) <= last_step]
        write_text(path, "".join(line + "\n" for line in kept))


def jsonl_logger(path: Path, stage: str) -> Any:
    """A Lightning logger that appends every step to `path` as one line: {"stage": .., "step": 12, "train/t": ..}.

    Steps count from 1, as the stage's own do.
    """
    from lightning.pytorch.loggers.logger import Logger

    class JsonlLogger(Logger):
        name, version = "jsonl", ""

        def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
            """The config is in config.yaml."""

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            values = {k: float(f"{v:.6g}") for k, v in metrics.items() if k != "epoch" and v == v}
            append_line(path, json.dumps({"stage": stage, "step": step} | values))

    return JsonlLogger()


def wandb_logger(
    save_dir: str,
    project: str,
    name: str | None = None,
    mode: str = "auto",
    group: str | None = None,
    tags: list[str] | None = None,
    entity: str | None = None,
) -> Any:
    """A W&B logger that works without an account.

    Args:
        mode: online | offline | auto: what WANDB_MODE says, else online where someone is logged in, else offline.
            Offline runs lie under save_dir/wandb and can be sent later with `wandb sync`.
    """
    if mode not in ("auto", "online", "offline"):
        raise ValueError(f"mode={mode} is not auto, online or offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    from lightning.pytorch.loggers import WandbLogger

    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    mode = {"dryrun": "offline"}.get(mode, mode)  # its old name
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    about = {"group": group, "tags": tags, "entity": entity}
    # `offline=` would set WANDB_MODE, which wandb no longer reads once it has been asked for the login
    return WandbLogger(save_dir=save_dir, project=project, name=name, mode=mode, **about)


def _logged_in() -> bool:
    """Whether W&B finds a key without asking for one."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # before `prompt` there was
        return bool(wandb.api.api_key)
    except Exception:  # a key that it refuses
        return False
