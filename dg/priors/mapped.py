"""Weights from files that are mapped into memory, read straight to where they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


def mapped(
    kind: Any, config: Mapping[str, Any], files: Sequence[Path], device: torch.device, dtype: torch.dtype
) -> Any | None:
    """The component with its weights read from mapped files straight to `device`: no random initialisation and no copy
    in the CPU's memory, as `from_pretrained` has.

    None where the files do not hold exactly the tensors that the class has by its own names; `from_pretrained` knows
    older names and says what is wrong.
    """
    from safetensors import safe_open

    try:
        with weightless():
            of_transformers = hasattr(kind, "config_class")
            model = kind(kind.config_class.from_dict(config)) if of_transformers else kind.from_config(dict(config))
    except Exception:  # a config that the class does not know
        return None
    expected = {name: value.shape for name, value in model.state_dict().items()}
    where = f"cuda:{device.index or 0}" if device.type == "cuda" else str(device)
    state: dict[str, torch.Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt", device=where) as file:
            names = [name for name in file.keys() if not name.endswith("position_ids")]  # noqa: SIM118
            if any(expected.get(n) != torch.Size(file.get_slice(n).get_shape()) for n in names):
                return None
            state |= {name: file.get_tensor(name).to(dtype) for name in names}
    if set(state) != set(expected):
        return None
    model.load_state_dict(state, assign=True)
    return model


@contextmanager
def weightless() -> Iterator[None]:
    """Modules made inside have parameters without memory (on the device meta); their buffers are real."""
    register = nn.Module.register_parameter

    def empty(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, param if param is None else nn.Parameter(param.to("meta"), requires_grad=False))

    nn.Module.register_parameter = empty  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
