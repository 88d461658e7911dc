"""The folder of a multirun. The same command has the same folder, so that a sweep that died goes on in it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from dg.runtime.folder import NEUTRAL

DIR = "hydra.sweep.dir"
# What decides where and how a job runs, not which jobs there are. A launcher may change in between.
_UNCOUNTED = tuple(key for key in NEUTRAL if key not in ("name", "stages"))


def folder_name(overrides: Sequence[Override]) -> str:
    """`seeds-1a2b3c4d` for sweep=seeds, `prior-ablation-seed-1a2b3c4d` for what the command line varies itself.

    The digits are a checksum of all overrides that decide what is computed.
    """
    counted = [o for o in overrides if _root(o) not in _UNCOUNTED and _root(o) != "hydra"]
    named = [str(o.value()) for o in counted if o.key_or_group == "sweep" and o.value() not in (None, "none")]
    varied = [o.key_or_group.rpartition(".")[2] for o in counted if o.is_sweep_override()]
    label = "-".join([*named, *varied])[:60] or "sweep"
    checksum = zlib.crc32("\n".join(sorted(o.input_line or "" for o in counted)).encode())
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', label)}-{checksum:08x}"


def _root(override: Override) -> str:
    return re.split(r"[./]", override.key_or_group)[0]


def settled(overrides: Sequence[Override]) -> list[str]:
    """The override that gives a sweep its folder; none where the command line has one."""
    if any(o.key_or_group == DIR for o in overrides):
        return []
    return [f"{DIR}=${{outdir}}/multirun/{folder_name(overrides)}"]
