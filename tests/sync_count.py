"""Finds where a step asks for the value of a tensor, which on a GPU would stop the host until the GPU has caught up."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
READS = {  # operations whose result, or its shape, the host has to know
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",
}


class Reads(TorchDispatchMode):
    """Collects "file:function" of the project for every such operation.

    Args:
        host: functions whose tensors are on the CPU by design (draws, angles), so that reading them waits for nobody.
    """

    def __init__(self, host: Sequence[str] = ()) -> None:
        super().__init__()
        self.host, self.found = set(host), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        masked = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if masked and name != "index":  # a single number into a mask is masked_fill, which looks at nothing
            masked = args[2].numel() != 1
        if (name in READS and not _told_the_size(name, args, kwargs)) or masked:
            frames = [f for f in traceback.extract_stack() if f.filename.startswith(f"{ROOT}/dg")]
            names = {f"{Path(f.filename).stem}:{f.name}" for f in frames}
            if not names & self.host:
                last = frames[-1] if frames else traceback.extract_stack()[-2]
                self.found.append(f"{Path(last.filename).stem}:{last.name}:{last.lineno} {name}")
        return func(*args, **(kwargs or {}))


def _told_the_size(name: str, args: tuple, kwargs: dict | None) -> bool:
    return name == "repeat_interleave" and (kwargs or {}).get("output_size") is not None
