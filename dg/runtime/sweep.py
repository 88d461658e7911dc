"""What became of the jobs of a multirun: one line of JSON each, beside the sweep."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from dg.io.files import append_line

FILE = "jobs.jsonl"


@dataclass(frozen=True)
class JobRecord:
    job: int
    name: str | None
    folder: str | None
    overrides: list[str]
    status: str  # done | failed | interrupted
    exit_code: int
    error: str | None
    seconds: float
    kept: bool = False  # an earlier start of the sweep had finished it
    objective: str | None = None  # the entry of metrics.json that a sweeper gets


def in_multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def write(record: JobRecord) -> None:
    append_line(Path(HydraConfig.get().sweep.dir) / FILE, json.dumps(asdict(record)))


def read(path: Path, start: int = 0) -> list[JobRecord]:
    """The records from the byte `start` on. A line that a crash has cut off is left out."""
    with path.open("rb") as file:
        file.seek(start)
        return [JobRecord(**json.loads(line)) for line in file if line.endswith(b"}\n")]


def params(config: DictConfig) -> list[str]:
    """What conf/sweep/NAME.yaml varies, as overrides, without what the command line gives: that wins."""
    given = {o.lstrip("+~").split("=")[0] for o in OmegaConf.to_container(config.hydra.overrides.task)}
    found = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [f"{key}={value}" for key, value in found.items() if key not in given]


class Watch(Callback):
    """Remembers, in the process that started the sweep, where its records begin. Jobs may run in other processes."""

    current: Watch | None = None

    def __init__(self) -> None:
        self.path: Path | None = None
        self.start = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.path = Path(config.hydra.sweep.dir) / FILE
        self.start = self.path.stat().st_size if self.path.exists() else 0
        Watch.current = self
        kept = {override.split("=")[0] for override in params(config)}
        found = OmegaConf.select(config, "hydra.sweeper.params") or {}
        with flag_override(config, ["readonly", "struct"], False):  # Hydra would run the others' product with them
            for key in [key for key in found if key not in kept]:
                del found[key]

    def records(self) -> list[JobRecord]:
        """What this sweep's jobs left, in the order in which they ended."""
        if self.path is None or not self.path.exists():
            return []
        return read(self.path, self.start)
