"""An original single-file checkpoint (.ckpt, .safetensors), opened without running anything of it.

Pickles are read by torch's restricted reader (`weights_only=True`). Of the training metadata that public files carry, a
few harmless names are known and become empty stand-ins; anything else is refused by name.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dg.priors.checkpoint import check_file
from dg.priors.ldm_names import UNET, averaged_name

ENDINGS = (".ckpt", ".pt", ".pth", ".safetensors")


class _Ignored:
    """Stands for a class of the trainer that wrote the file; nothing of it is run."""


# What Lightning and numpy leave in the public files beside the tensors.
_KNOWN_NAMES = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning_fabric.utilities.data.AttributeDict",
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their original names, mapped from the disk where the format allows.

    Averaged weights (`model_ema.*`) serve where the plain ones of the UNet are not there, else they are left out.

    Raises:
        ValueError: no checkpoint, damaged or cut short, or with something in it that is not a plain value.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: expected a checkpoint that ends in {', '.join(ENDINGS)}")
    state = _safetensors(path) if path.suffix.lower() == ".safetensors" else _pickled(path)
    averaged = {new: value for name, value in state.items() if (new := averaged_name(name)) is not None}
    state = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
    return state if any(name.startswith(UNET) for name in state) else state | averaged


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    check_file(path)
    return load_file(path)


def _pickled(path: Path) -> dict[str, Tensor]:
    scalar = np.float64(0).__reduce__()[0]  # numpy's own module for it has moved between versions
    stand_ins: list[Any] = [(_Ignored, name) for name in _KNOWN_NAMES]
    stand_ins += [np.dtype, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    stand_ins += [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except Exception as error:  # zipfile's, torch's RuntimeError and EOFError: whatever a cut file meets first
        size = path.stat().st_size
        raise ValueError(
            f"{path}: damaged or cut short ({size} bytes; {type(error).__name__}: "
            f"{' '.join(str(error).split())[:100]}); copy or download it again"
        ) from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path}: holds no state_dict; expected the original checkpoint of a diffusion model")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _refusal(path: Path, text: str) -> str:
    found = re.search(r"(?:GLOBAL|class|function|[Tt]ype) (\S+\.\S+?)[ ,']", text)
    if found is None:
        return f"{path}: not a checkpoint that can be read safely, or damaged; copy or download it again"
    return (
        f"{path}: holds a {found[1]}, which is no plain value and could run code, so it is not read; take the "
        ".safetensors file of this checkpoint, or write its state_dict to one where you trust it"
    )
