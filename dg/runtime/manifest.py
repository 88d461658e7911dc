"""manifest.json: where a run folder came from and what became of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import dg
from dg.io.files import write_json
from dg.runtime.options import REPOSITORY

NAME = "manifest.json"
CODE = ("dg", "conf", "train.py", "evaluate.py")  # what decides the outcome of a run


@dataclass
class StageRecord:
    """One stage of one run. `inputs` and `outputs` map files to checksums; a stage is done as long as they hold."""

    status: str = "running"  # running | done | failed | interrupted
    seconds: float = 0.0  # of all sessions together
    peak_memory_mb: float = 0.0
    peak_gpu_memory_mb: float | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Manifest:
    config_hash: str
    command: str = ""
    overrides: list[str] = field(default_factory=list)
    status: str = "running"  # running | done | failed | interrupted
    seed: int = 0
    device: str = ""
    threads: int = 0
    revision: str | None = None
    modified: bool | None = None  # whether the working tree differed from the revision
    versions: dict[str, str] = field(default_factory=dict)
    prior: dict[str, Any] = field(default_factory=dict)  # see `prior_facts`; empty until a stage asks for the prior
    elevation: dict[str, Any] = field(default_factory=dict)  # what elevation=auto found, and the curve it found it on
    started: str = ""
    finished: str | None = None
    sessions: int = 0
    seconds: float = 0.0
    stages: dict[str, StageRecord] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        write_json(folder / NAME, asdict(self))

    @staticmethod
    def load(folder: Path) -> Manifest | None:
        """None where there is none, or none that can be read."""
        try:
            content: dict[str, Any] = json.loads((folder / NAME).read_text())
            content["stages"] = {k: StageRecord(**v) for k, v in content["stages"].items()}
            return Manifest(**content)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    found = {"dg": dg.__version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("lightning", "hydra-core", "numpy", "numba", "gsplat", "nvdiffrast", "diffusers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def prior_facts(config: Mapping[str, Any], prior: Any) -> dict[str, Any]:
    """What a run depends on that no config hash covers: licence, gating and size of the prior's checkpoint, and the
    revision that was found; of a prior with parts, the same of each."""
    facts = {
        "prior": type(getattr(prior, "behind", prior)).__name__,
        **(config.get("about") or {}),
        **getattr(prior, "source", {}),
    }
    parts = {name: prior_facts(config["parts"][name], m.prior) for name, m in getattr(prior, "parts", {}).items()}
    return facts | ({"parts": parts} if parts else {})


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"{device} {platform.processor() or platform.machine()}"


def git_revision() -> tuple[str | None, bool | None]:
    """(commit of the code that runs, whether code or configs differ from it).

    Outside a checkout what the environment's DG_REVISION says (COMMIT, or COMMIT+ where modified), else (None, None).
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:  # records and pages that runs rewrite are no change of what runs
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        told = os.environ.get("DG_REVISION")
        return (told.removesuffix("+"), told.endswith("+")) if told else (None, None)


def peak_memory_mb() -> float:
    """Of this process since it began; memory of the machine, not of the GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
