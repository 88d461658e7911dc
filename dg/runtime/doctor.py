"""What this machine has of what runs use: torch against CUDA, rasterisers, the hub's cache. Nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator

import torch

import dg
from dg.runtime import compose
from dg.runtime.build import locate
from dg.runtime.options import REPOSITORY

OPTIONAL = ("gsplat", "nvdiffrast", "diffusers", "transformers", "open-clip-torch", "wandb", "tensorboard", "openvino")


def report() -> Iterator[tuple[str, str]]:
    """(what, how it stands), in the order of reading; an entry that needs a hand holds the command."""
    yield "dg", f"{dg.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield "cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"
    yield (
        "torch",
        f"{torch.__version__}, {f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'for CPUs'}",
    )
    yield "GPU", gpu()
    yield "nvcc", compiler()
    yield "raster=auto", chosen("dg.runtime.device.rasterizer")
    yield "meshraster=auto", chosen("dg.runtime.device.mesh_rasterizer")
    for name in OPTIONAL:
        yield name, version(name)
    for path in sorted((REPOSITORY / "conf" / "prior").glob("[a-z]*.yaml")):
        if (found := weights(path.stem)) is not None:
            yield f"prior={path.stem}", found


def gpu() -> str:
    """The GPUs that torch sees, or why it sees none although there may be one."""
    if torch.cuda.is_available():
        return "; ".join(
            f"{p.name}, {p.total_memory / 2**30:.0f} GiB, compute {p.major}.{p.minor}"
            for p in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        )
    if shutil.which("nvidia-smi") is None:
        return "none; runs use the processor (device=auto)"
    if torch.version.cuda is None:
        return "a driver is there, but this torch is built for CPUs: install one for CUDA (pytorch.org, get started)"
    return f"a driver is there, but torch for CUDA {torch.version.cuda} cannot use it: nvidia-smi shows the driver's"


def compiler() -> str:
    """nvcc, which gsplat and nvdiffrast are built with; it must be of torch's CUDA."""
    path = shutil.which("nvcc")
    if path is None:
        return "not found; only building gsplat or nvdiffrast from source needs it"
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    (release,) = re.findall(r"release (\d+\.\d+)", said)[:1] or ("of unknown version",)
    return release + mismatch(release, torch.version.cuda)


def mismatch(compiler: str, built: str | None) -> str:
    """What to do where extensions would be built with another CUDA than torch was; "" where they fit."""
    if built is None or compiler.partition(".")[0] == built.partition(".")[0]:
        return ""
    return f", but torch is built for {built}: extensions do not build; install CUDA {built.partition('.')[0]}'s nvcc"


def chosen(target: str) -> str:
    """The class that device=auto takes."""
    name = type(locate(target, "doctor")("auto")).__name__
    slow = {"DenseRasterizer": " (slow: gsplat does not work here)", "TorchMeshRasterizer": " (nvdiffrast is faster)"}
    return name + slow.get(name, "")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed: {_install(package)}"


def _install(package: str) -> str:
    """How the module that uses it says that it is installed."""
    at = {"gsplat": "dg.raster.gsplat", "nvdiffrast": "dg.meshraster.nvdiffrast", "openvino": "dg.priors.mini_openvino"}
    return importlib.import_module(at[package]).INSTALL if package in at else f"pip install {package}"


def weights(prior: str) -> str | None:
    """Whether a public prior's checkpoint is in the hub's cache; None for priors without one."""
    from dg.priors import hub
    from dg.priors.checkpoint import lacking

    node = compose.compose(REPOSITORY / "conf", "train", [f"prior={prior}"]).prior
    layout = getattr(locate(node["_target_"], "prior"), "layout", None)
    if layout is None or not node.get("checkpoint"):
        return None
    place = hub.parsed(node["checkpoint"], node.get("revision"))
    found = hub.cached(place)
    if found is None:
        return f"not here: the first run downloads {place}, {node['about']['download_gb']:g} GB"
    missing = lacking(found, layout) if found.is_dir() else []
    return f"{place} lacks {', '.join(missing)}: the next run downloads them" if missing else f"{place} is here"
