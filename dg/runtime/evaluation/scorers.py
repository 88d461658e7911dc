"""The CLIP models of an evaluation: those that its protocol names, and the one of `clip=`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dg.eval.clip import ClipScorer, Unavailable
from dg.eval.protocol import Protocol
from dg.runtime import device
from dg.runtime.build import build
from dg.runtime.errors import UserError
from dg.runtime.logging import log


def clip_scorers(
    config: dict[str, Any], protocol: Protocol, config_dir: Path
) -> tuple[list[ClipScorer], dict[str, str]]:
    """(the models that are there, name -> why the others are not).

    A protocol names its models as the scorers name themselves; conf/clip has one file for each.
    """
    place = {"device": str(device.resolve(config["device"]))}
    wanted = [config["clip"] | place] if "_target_" in config["clip"] else []
    if protocol.clip:
        named = [yaml.safe_load(p.read_text()) for p in sorted((config_dir / "clip").glob("*.yaml"))]
        wanted += [n | place for n in named if n and _name(n) in protocol.clip]
    found, absent = [], {}
    for node in wanted:
        try:
            found.append(build(node, "clip"))
        except UserError as error:
            if not isinstance(error.__cause__, Unavailable):
                raise
            absent[_name(node)] = " ".join(str(error.__cause__).split())
    for name, reason in absent.items():
        log.warning("no CLIP figures of %s: %s", name, reason)
    return list({s.name: s for s in found}.values()), absent


def _name(node: dict[str, Any]) -> str:
    """As the scorer that the node builds will call itself."""
    library = "openclip" if str(node["_target_"]).endswith("OpenClip") else "transformers"
    return str(node.get("name") or f"{library}-{Path(str(node.get('model'))).name}")
