"""The root keys that conf/evaluate.yaml adds to conf/train.yaml's, and the checks that need more than one of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from dg.runtime.errors import UserError
from dg.runtime.options import Root

# What belongs to the evaluation alone: left out when a run of train.py is composed.
OWN_KEYS = (
    *("images", "data", "methods", "references", "method_dir", "human", "seeds", "measure"),
    *("workers", "worker", "together"),
)
OWN_GROUPS = ("protocol",)
# What an evaluation sets itself for every run.
PER_RUN = ("input", "prompt", "elevation", "recenter", "seed", "name", "outdir", "stages", "gaussians", "mesh_file")
NOT_FOR_RUNS = ("logger", "objective", "resume", "overwrite", "sweep", "hydra")


@dataclass(frozen=True)
class EvaluateRoot(Root):
    """The root keys of conf/evaluate.yaml (there they are described), with their types."""

    folder_per_job: ClassVar[bool] = False  # all jobs, workers or methods, share one board
    images: str | None
    data: str | None
    methods: Any
    references: Any
    method_dir: Any
    human: str | None
    seeds: Any
    measure: Any
    workers: int
    worker: int
    together: int | str


def as_list(value: Any, key: str) -> list[Any]:
    """`key=a` is read as `key=[a]`, null as nothing.

    Raises:
        UserError: it holds something that is neither text nor number.
    """
    found = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    for entry in found:
        if not isinstance(entry, (str, int, float)):
            raise UserError(f"{key}={value}: every entry must be text or a number")
    return found


def spread(arguments: list[str] | None = None) -> list[str]:
    """`workers=4` on a command line becomes a multirun of four workers, by joblib unless a launcher is named.

    Args:
        arguments: changed in place; the process's own by default.
    """
    arguments = sys.argv if arguments is None else arguments
    asked = next((a.partition("=")[2] for a in reversed(arguments) if a.startswith("workers=")), "1")
    if asked.isdigit() and int(asked) > 1 and not any(a.startswith("worker=") for a in arguments):
        arguments += [] if {"-m", "--multirun"} & set(arguments) else ["-m"]
        arguments += [] if any(a.startswith("hydra/launcher=") for a in arguments) else ["hydra/launcher=joblib"]
        arguments.append(f"worker=range({int(asked)})")
    return arguments
