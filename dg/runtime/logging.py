"""What is said, where: the console for people, log.txt for everything, metrics.jsonl for numbers, loggers on top."""

from __future__ import annotations

import json
import logging
import os
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from dg.io.files import append_line, write_text

console = Console(stderr=True, soft_wrap=True, highlight=False)
log = logging.getLogger("dg")

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


@contextmanager
def logging_to(folder: Path) -> Iterator[Collector]:
    """While it lasts, `dg`'s messages go to the console and, with everybody else's warnings, to folder/log.txt."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING if name.startswith("lightning") else logging.ERROR)
    collector = Collector()
    file = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    screen = Screen(logging.INFO)
    root = logging.getLogger()
    before, level = root.handlers, root.level  # Hydra's handlers would say everything twice
    root.handlers = [file]
    root.setLevel(logging.INFO)
    log.handlers, log.propagate = [screen, collector, file], False
    log.setLevel(logging.INFO)
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        for pattern in _IRRELEVANT:
            warnings.filterwarnings("ignore", pattern)
        try:
            yield collector
        finally:
            logging.captureWarnings(False)
            root.handlers, log.handlers = before, []
            root.setLevel(level)
            file.close()


def to_file(level: int, text: str) -> None:
    """A message for log.txt alone; the console gets its own version of it."""
    record = log.makeRecord(log.name, level, __file__, 0, text, (), None)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(record)


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
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        save_dir=save_dir, project=project, name=name, offline=mode != "online", group=group, tags=tags, entity=entity
    )
