"""Shipped protocols, built as `evaluate.py` builds them, with data wherever a test put them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dg.eval.protocol import Protocol
from dg.runtime.build import build

CONF = Path(__file__).resolve().parents[2] / "conf" / "protocol"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def protocol(name: str, data: Any = None, images: Any = None, outdir: Any = "outputs", **keys: Any) -> Protocol:
    root = {"data": data, "images": images, "outdir": outdir, "elevation": 0.0, "recenter": True} | keys
    root = {key: str(value) if isinstance(value, Path) else value for key, value in root.items()}
    config = OmegaConf.create(root | {"protocol": OmegaConf.load(CONF / f"{name}.yaml")})
    return build(OmegaConf.to_container(config.protocol, resolve=True), "protocol")
