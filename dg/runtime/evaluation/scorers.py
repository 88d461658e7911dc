"""The CLIP models of an evaluation: those that its protocol names, and the one of `clip=`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dg.eval.clip import ClipScorer
from dg.eval.protocol import Protocol
from dg.runtime import device
from dg.runtime.build import locate
from dg.runtime.clip import load
from dg.runtime.logging import log


def clip_scorers(
    config: dict[str, Any], protocol: Protocol, config_dir: Path
) -> tuple[list[ClipScorer], dict[str, str]]:
    """(the models that are there, name -> why the others are not).

    A protocol names its models as the scorers name themselves; conf/clip has one file for each.
    """
    wanted = [config["clip"]] if "_target_" in config["clip"] else []
    if protocol.clip:
        shipped = [yaml.safe_load(p.read_text()) for p in sorted((config_dir / "clip").glob("*.yaml"))]
        wanted += [node for node in shipped if node and _name(node) in protocol.clip]
    place, found, absent = device.resolve(config["device"]), {}, {}
    for node in wanted:
        scorer = load(node, place)
        if isinstance(scorer, str):
            absent[_name(node)] = scorer
        else:
            found[scorer.name] = scorer
    for name, reason in absent.items():
        log.warning("no CLIP figures of %s: %s", name, reason)
    return list(found.values()), absent


def _name(node: dict[str, Any]) -> str:
    """As the scorer that the node builds will call itself; of a class of somebody's own, the class's name."""
    named = getattr(locate(node["_target_"], "clip"), "named", None)
    default = named(str(node["model"])) if named is not None else str(node["_target_"]).rpartition(".")[2]
    return str(node.get("name") or default)
