"""Public checkpoints, found and checked before anything of them is used: diffusers-layout folders and single files.

Weights of a folder come from .safetensors files alone, each component by its subfolder with a stock class; nothing of a
checkpoint is executed. What is missing, cut short or foreign is named with what was found and what was expected. Single
files are read by `dg.priors.ldm_file`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dg.priors import hub
from dg.priors.mapped import mapped

Layout = Mapping[str, Sequence[str]]  # subfolder -> the files that it must hold; a config.json comes with weights


def placement(device: str, dtype: str | None) -> tuple[torch.device, torch.dtype]:
    """Where networks run. dtype null is float16 on CUDA and float32 elsewhere."""
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    where = torch.device(chosen)
    return where, getattr(torch, dtype) if dtype else torch.float16 if where.type == "cuda" else torch.float32


def find_checkpoint(checkpoint: str, revision: str | None, layout: Layout, *, half: bool = False, hint: str) -> Path:
    """The local folder or single file of a checkpoint, downloaded if it is neither here nor in the hub's cache.

    Args:
        checkpoint: a folder, a single file, or of the hub (`dg.priors.hub.parsed`) OWNER/NAME, OWNER/NAME@COMMIT or
            OWNER/NAME@COMMIT/FILE.
        revision: commit or branch of the hub's repository; null: the pinned one, or the newest.
        half: of a hub's repository take the float16 files where there are any.
        hint: what to do where there is no network, for the message.

    Raises:
        FileNotFoundError: it is not there or parts are missing; names what was found and what was expected.
    """
    if (there := at_hand(checkpoint, revision, layout, hint=hint)) is not None:
        return there
    place = hub.parsed(checkpoint, revision)
    made = hub.download(place, lambda names: choose_files(names, layout, half=half), hint)
    if place.file is None and (missing := lacking(made, layout)):
        raise FileNotFoundError(
            f"prior.checkpoint={place.name}: its repository lacks {', '.join(missing)}; expected the diffusers layout "
            f"with {', '.join(layout)}"
        )
    return made


def at_hand(checkpoint: str, revision: str | None, layout: Layout, *, hint: str) -> Path | None:
    """The local folder or file of a checkpoint, without a download; None where the hub has to be asked.

    Arguments and errors as `find_checkpoint`'s; what is not in the hub's cache is an error where the hub's client has
    been told to stay offline. Imports nothing heavy.
    """
    local = Path(checkpoint).expanduser()
    if local.is_file():
        return local
    if local.is_dir():
        if missing := lacking(local, layout):
            found = sorted(p.name + "/" * p.is_dir() for p in local.iterdir())[:12]
            raise FileNotFoundError(
                f"prior.checkpoint={checkpoint}: {', '.join(missing)} not found there; expected a diffusers-layout "
                f"folder with {', '.join(layout)}; found {', '.join(found) or 'an empty folder'}"
            )
        return local
    place = hub.parsed(checkpoint, revision)
    from huggingface_hub import constants

    cached = hub.cached(place)
    if cached is not None and (place.file is not None or not lacking(cached, layout)):
        return cached
    if constants.HF_HUB_OFFLINE:
        raise hub.not_there(place, "HF_HUB_OFFLINE is set", hint)
    return None


def told_size(about: Mapping[str, Any] | None) -> str:
    """The size of a checkpoint's download, for messages; "" where its config does not say."""
    size = (about or {}).get("download_gb")
    return f"; its download is {size:g} GB" if size else ""


def lacking(folder: Path, layout: Layout) -> list[str]:
    """What of the layout is not there."""
    missing = []
    for part, files in layout.items():
        absent = [f"{part}/{name}" for name in files if not (folder / part / name).is_file()]
        if not absent and "config.json" in files and not list((folder / part).glob("*.safetensors")):
            absent = [f"{part}/*.safetensors"]
        missing += absent
    return missing


def choose_files(names: Sequence[str], layout: Layout, *, half: bool) -> list[str]:
    """Of a repository's files those to download: small ones, and one set of weights for each part.

    Repositories hold the same weights several times: .bin and .safetensors, float32 and float16, with and without EMA.
    """
    chosen = []
    for part in layout:
        inside = [n for n in names if n.startswith(f"{part}/") and n.count("/") == 1]
        weights = [n for n in inside if n.endswith(".safetensors") and "ema" not in Path(n).name]
        small = [n for n in weights if ".fp16." in n]
        plain = [n for n in weights if ".fp16." not in n]
        chosen += [n for n in inside if n.endswith((".json", ".txt"))] + ((small if half else plain) or small or plain)
    return chosen


def load_model(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """One component by its stock class (`from_pretrained`), frozen, every tensor of it from the checkpoint.

    Where the folder has a float32 and a float16 file, the latter serves all dtypes but float32.

    Raises:
        ValueError: the weights are cut short, or other than the class and its config.json need.
    """
    config = json.loads((folder / "config.json").read_text())
    named = [config["_class_name"]] if "_class_name" in config else config.get("architectures") or [kind.__name__]
    if kind.__name__ not in named:
        raise ValueError(f"{folder / 'config.json'} describes a {', '.join(named)}; expected a {kind.__name__}")
    small = any(".fp16." in p.name for p in folder.glob("*.safetensors"))
    plain = any(".fp16." not in p.name for p in folder.glob("*.safetensors"))
    variant = "fp16" if small and (dtype != torch.float32 or not plain) else None
    files = [p for p in sorted(folder.glob("*.safetensors")) if (".fp16." in p.name) == (variant is not None)]
    for path in files:
        check_file(path)
    if (model := mapped(kind, config, files, device, dtype)) is not None:
        return frozen(model, device, dtype)
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                folder, variant=variant, use_safetensors=True, output_loading_info=True, **_how(kind, dtype)
            )
    except Exception as error:  # diffusers, transformers and safetensors have their own kinds
        raise ValueError(
            f"{folder}: its weights are not those of the {kind.__name__} in its config.json "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        ) from error
    wrong = sorted({str(k) for key in ("missing_keys", "mismatched_keys") for k in report[key]})
    if wrong:
        shown = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        extra = len(report["unexpected_keys"])
        raise ValueError(
            f"{folder}: {len(wrong)} tensors of a {kind.__name__} are missing or misshapen ({shown}), "
            f"and {extra} others were found that it has not"
        )
    return frozen(model, device, dtype)


def _how(kind: Any, dtype: torch.dtype) -> dict[str, Any]:
    """diffusers wants the dtype at once and, without the package accelerate, the plain way of loading."""
    if not kind.__module__.startswith("diffusers"):
        return {}
    return {"torch_dtype": dtype, "low_cpu_mem_usage": find_spec("accelerate") is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar, which stands on stderr even where nobody watches."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_file(path: Path) -> None:
    """Reads the header of a .safetensors file and compares the file's length with it.

    Raises:
        ValueError: it is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: damaged or cut short ({path.stat().st_size} bytes; {' '.join(str(error).split())}); "
            "copy or download it again"
        ) from error


def frozen(module: nn.Module, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """On its device, without gradients, in evaluation mode."""
    if any(p.dtype != dtype for p in module.parameters()):
        module = module.to(dtype)
    return module.to(device).requires_grad_(False).eval()
